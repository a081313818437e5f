"""The walk: reads the pages of a window one after another, to an empty one, if no count says how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.errors import PagingError

if TYPE_CHECKING:
    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.protocol.evidence import Evidence, Key
    from servetel_async.protocol.windows import Window

#: Pages in a row without a new call: calls of one second may come in another order for each page.
STALE_PAGES = 30
#: Most pages without a count: a list that grows as fast as it is read has no end.
MOST_PAGES = 100_000


async def walk(
    fetcher: Fetcher, window: Window, cost: Cost, evidence: Evidence, asked: int, *, until_total: bool = False
) -> bool:
    """Read to an empty page, or until twice the cost limit is spent; return whether there was an empty page.

    Args:
        fetcher: the source of pages.
        window: the seconds.
        cost: the cost to add to.
        evidence: the evidence to add the pages to.
        asked: calls per page.
        until_total: end as soon as a count is known to be a total, because no walk is needed then.

    Raises:
        PageTooSlowError, PageLostError: see ``Fetcher.page``.
        PagingError: if the same calls keep coming.
    """
    number, stale, counted = 1, 0, None
    seen: set[Key] = set()
    while True:
        if number > MOST_PAGES:
            cost.limit = 0
        if cost.is_spent(2):
            return False
        for _ in range(2):  # an empty page ends the list if it stays empty
            page = await fetcher.page(window, number, cost, size=asked)
            if until_total and fetcher.source.count_is_total:
                return False
            if page.open()[2]:
                break
        else:
            return True
        rows = await fetcher.rows(page)
        before = len(seen)
        seen.update((row.id, row.start) for row in rows)
        # A list that grows at its front brings the same calls again, and then continues.
        stale, counted = 0 if len(seen) > before or page.count != counted else stale + 1, page.count
        if stale == STALE_PAGES:
            raise PagingError("the same calls came again", why="the server ignores the page number", page=number)
        evidence.add(number, rows, None)
        number += 1
