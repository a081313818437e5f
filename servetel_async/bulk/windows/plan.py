"""The plan of a pull: how its range is cut into windows.

Deep pages cost the server more and drift more, so a window has about twenty pages. A range is cut by its count, into
windows of at most 31 days, and no longer than the server allows. Nothing here sends a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.windows import LONGEST, Window

if TYPE_CHECKING:
    from datetime import datetime, timedelta

#: Pages of a window: the usual number, and the number above which it is cut.
PAGES, MOST_PAGES = 20, 40
#: Most calls of a window, however large its pages are, and of all windows read at the same time: memory holds them, at
#: 2 to 3 KB each.
MOST_CALLS, MOST_CALLS_HELD = 10_000, 30_000
#: Most windows read at the same time: one that waits behind another costs memory and saves no time.
MOST_WINDOWS = 12


def windows_of(window: Window, final_until: datetime, longest: timedelta = LONGEST) -> list[Window]:
    """Cut a closed range at the watermark, and into windows no longer than ``longest``, newest first."""
    if window.start is None or window.end is None or not window.start <= final_until < window.end:
        return list(window.split(longest))
    final, fresh = Window(window.start, final_until), Window(final_until + SECOND, window.end)
    return [*fresh.split(longest), *final.split(longest)]


def width_for(size: int, concurrency: int) -> int:
    """Return how many windows to read at the same time: one per slot keeps all slots busy, as far as memory allows."""
    calls = min(PAGES * size, MOST_CALLS)
    return max(2, min(concurrency, MOST_WINDOWS, MOST_CALLS_HELD // calls))


def pieces_for(window: Window, count: int, size: int) -> int:
    """Return how many pieces a window with this count is cut into; 1 to read it as it is.

    A count that may be capped does not say how many calls the window has; only the counts of its pieces do.
    """
    pages = max(1, min(PAGES, MOST_CALLS // size))
    most = max(pages * size, min(pages * size * MOST_PAGES // PAGES, MOST_CALLS + MOST_CALLS // 5))
    least = 2 if may_be_capped(count) else 1
    if window.seconds <= 1 or (count <= most and least == 1):
        return 1
    return max(least, -(-count // (pages * size)))
