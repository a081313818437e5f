"""The plan of a pull: how its range is cut into windows.

Deep pages cost the server more and drift more, so a window is about twenty pages: a range is cut by what it counts,
never over 31 days at once, nor over what the server allows. Nothing here sends a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.windows import LONGEST, Window

if TYPE_CHECKING:
    from datetime import datetime, timedelta

#: Pages of a window: as it should be, and from where on it is cut.
PAGES, MOST_PAGES = 20, 40
#: Calls of a window, however large its pages are, and of all windows that are read at the same time: they are held in
#: memory, 2 to 3 KB each.
MOST_CALLS, MOST_CALLS_HELD = 10_000, 30_000
#: Windows that are read at the same time: what is held for one that waits behind another is memory, not speed.
MOST_WINDOWS = 12


def windows_of(window: Window, final_until: datetime, longest: timedelta = LONGEST) -> list[Window]:
    """Cut a closed range where finality ends, and into windows no longer than ``longest``, newest first."""
    if window.start is None or window.end is None or not window.start <= final_until < window.end:
        return list(window.split(longest))
    final, fresh = Window(window.start, final_until), Window(final_until + SECOND, window.end)
    return [*fresh.split(longest), *final.split(longest)]


def width_for(size: int, concurrency: int) -> int:
    """How many windows to read at the same time: one for each slot keeps all slots busy, as far as memory allows."""
    calls = min(PAGES * size, MOST_CALLS)
    return max(2, min(concurrency, MOST_WINDOWS, MOST_CALLS_HELD // calls))


def pieces_for(window: Window, count: int, size: int) -> int:
    """Into how many pieces to cut a window with this count; 1 to read it as it is.

    A count that may be capped does not say how many calls the window has; only the counts of its pieces do.
    """
    pages = max(1, min(PAGES, MOST_CALLS // size))
    most = max(pages * size, min(pages * size * MOST_PAGES // PAGES, MOST_CALLS + MOST_CALLS // 5))
    least = 2 if may_be_capped(count) else 1
    if window.seconds <= 1 or (count <= most and least == 1):
        return 1
    return max(least, -(-count // (pages * size)))
