"""How many calls a query has: one request where the server counts the whole, a short search where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from servetel_async.protocol.pages import find_last_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servetel_async.protocol.decoding import PageBody

    #: Fetches one page: number, page size.
    Fetch = Callable[[int, int], Awaitable[PageBody]]


class KnowsCounts(Protocol):
    """Who remembers whether this server's ``count`` is the total."""

    count_is_total: bool


async def count_calls(fetch: Fetch, memory: KnowsCounts, page_size: int) -> int:
    """Count by asking for a single call.

    The reference's text calls ``count`` the number of records on the page. Where a page of one says "1", it could mean
    either, so the next one is asked for; if that holds a call too, the count cannot be used and the end is searched.
    """
    page = await fetch(1, 1)
    rows = page.open()[2]
    if page.count is not None and (page.count > rows or page.count == 0):
        memory.count_is_total = True
    if page.count is not None and memory.count_is_total:
        return page.count
    if rows == 0 or (await fetch(2, 1)).open()[2] == 0:
        return rows
    first = (await fetch(1, page_size)).open()[2]
    search = find_last_page()
    number = next(search)
    while True:
        try:
            number = search.send((await fetch(number, page_size)).open()[2])
        except StopIteration as found:
            last, rows = cast("tuple[int, int]", found.value)
            return (last - 1) * first + (first if rows < 0 else rows)
