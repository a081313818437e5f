"""How many calls a query has: one request where the server counts the whole, a short search where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from servetel_async.errors import CountDriftError, PagingError
from servetel_async.page_source import PageRequest
from servetel_async.protocol.pages import find_last_page
from servetel_async.ranges import KnowsRanges, RangeWalk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window

    #: Fetches one page: number, page size.
    Fetch = Callable[[int, int], Awaitable[PageBody]]

#: More pages than any account has: a search that comes here is led by the nose.
FAR = 2**32


class KnowsCounts(KnowsRanges, Protocol):
    """What the client remembers of its server: whether ``count`` is the total, and how long a range it allows."""

    count_is_total: bool


def check_alone(page: PageBody, number: int) -> int:
    """Check what one page says of itself; gives its rows.

    Raises:
        PagingError: it is another page than was asked for.
        CountDriftError: its count and its rows cannot both be true.
    """
    rows = page.open()[2]
    if rows and page.page not in (None, number):
        raise PagingError(f"page {page.page} came instead", why="the server does not heed the page number", page=number)
    if page.count is not None and ((rows and page.count == 0) or (number == 1 and page.count and not rows)):
        raise CountDriftError(
            f"the page holds {rows} calls and the API counts {page.count}",
            why="both cannot be true",
            fix="try again; if it stays, narrow the range",
            page=number,
        )
    return rows


async def count_range(
    get: Callable[[PageRequest], Awaitable[PageBody]],
    memory: KnowsCounts,
    query: CallQuery,
    page_size: int,
    deadline_at: float | None,
) -> int:
    """Count the calls of a range, window by window.

    Raises:
        PagingError: the server does not heed page numbers, so there is no end to find.
        RequestRejectedError: the server refuses the query, and not for the length of the range.
    """

    def count_window(window: Window) -> Awaitable[int]:
        def fetch(number: int, size: int) -> Awaitable[PageBody]:
            return get(PageRequest(query, window, number, size, deadline_at))

        return count_calls(fetch, memory, page_size)

    walk, total = RangeWalk(memory, query.window(memory.zone), count_window), 0
    while (counted := await walk.next()) is not None:
        total += counted[1]
    return total


async def count_calls(fetch: Fetch, memory: KnowsCounts, page_size: int) -> int:
    """Count by asking for a single call.

    The reference's text calls ``count`` the number of records on the page. Where a page of one says "1", it could mean
    either, so the next one is asked for; if that holds a call too, the count cannot be used and the end is searched.

    Raises:
        PagingError: the server does not heed page numbers, so there is no end to find.
    """
    page = await fetch(1, 1)
    rows = check_alone(page, 1)
    if page.count is not None and page.count > rows:
        memory.count_is_total = True
    if page.count is not None and (memory.count_is_total or page.count == 0):
        return page.count
    if rows == 0 or check_alone(await fetch(2, 1), 2) == 0:
        return rows
    return await _search(fetch, page_size)


async def _search(fetch: Fetch, page_size: int) -> int:
    first = await fetch(1, page_size)
    edges, full = first.open(), check_alone(first, 1)
    search = find_last_page()
    number = next(search)
    while True:
        page = await fetch(number, page_size)
        rows = check_alone(page, number)
        if number > FAR or (rows and page.open() == edges):
            raise PagingError("the same calls came again", why="the server does not heed the page number", page=number)
        try:
            number = search.send(rows)
        except StopIteration as found:
            last, rows = cast("tuple[int, int]", found.value)
            return (last - 1) * full + (full if rows < 0 else rows)
