"""Detects counts that do not follow the dates: the same for each range, or those of the whole history.

A window is cut by its count. If its parts count as much as the window, cutting never ends. So before a cut the newest
half is counted, and the other half too unless the newest half counts far less than the whole. If both together count
far more than the whole, the last page of one half, by its count, must hold calls.
If that page is empty twice, the count lies: the window is walked page by page, and reported as not proved.

A server that never counts beyond a limit counts more in the halves too, but the page at its limit holds calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.bulk.fetching.fetcher import PageLostError, PageTooSlowError
from servetel_async.errors import RequestRejectedError
from servetel_async.protocol.clock import SECOND, shift
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.fetching.fetcher import Fetcher

#: By how many calls the halves may exceed the whole, because a list grows: so many, and one in so many.
MORE, ONE_IN = 3, 10
_LOOKS = 2


async def find_lie(fetcher: Fetcher, window: Window, counted: int, cost: Cost) -> str | None:
    """Return why the count of a window cannot be true; None if it may be true.

    Args:
        fetcher: the source of pages.
        window: the seconds.
        counted: the server's count of the window.
        cost: the cost to add to.

    Raises:
        ServetelError: if a page does not come.
    """
    where = "its two halves"
    if window.seconds == 1:  # it has no halves, so its neighbours are counted with it
        where = "the two halves of the three seconds around it"
        window = _with_neighbours(window)
        counted = await fetcher.count(window, cost) or 0
    halves = window.cut(2)
    counts = [await fetcher.count(halves[0], cost) or 0]
    if counts[0] < counted - MORE - counted // ONE_IN:  # it follows the dates
        return None
    counts.append(await fetcher.count(halves[1], cost) or 0)
    together, most = sum(counts), max(counts)
    if together - counted <= MORE + counted // ONE_IN:
        return None
    for _ in range(_LOOKS):
        if await _has_last_page(fetcher, halves[counts.index(most)], most, cost):
            return None
    return f"the API counts {counted:,}, and {together:,} in {where}: its counts do not follow the dates"


def _with_neighbours(second: Window) -> Window:
    assert second.start is not None  # noqa: S101 - for the type checker: it is closed
    assert second.end is not None  # noqa: S101
    return Window(shift(second.start, -SECOND), shift(second.end, SECOND))


async def _has_last_page(fetcher: Fetcher, window: Window, counted: int, cost: Cost) -> bool:
    """Whether the last page by the count holds calls, or is refused, perhaps because it is too deep."""
    while True:
        size = fetcher.page_size
        try:
            page = await fetcher.careful_page(window, -(-counted // size), cost, size=size)
        except PageTooSlowError:
            continue
        except (PageLostError, RequestRejectedError):
            return True
        return bool(page.open()[2])
