"""The number of calls of a query: one request if the server sends a total, else a short search."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from servetel_async.errors import PagingError, RequestRejectedError
from servetel_async.protocol.capping import cannot_narrow, may_be_capped
from servetel_async.protocol.clock import SECOND, is_wall_stamp
from servetel_async.protocol.pages import find_last_page
from servetel_async.protocol.windows import Window
from servetel_async.ranges import RangeWalk

if TYPE_CHECKING:
    from servetel_async.streaming.single_pages import Inquiry

#: More pages than any account has: if a search comes here, the server ignores page numbers.
FAR = 2**32


async def count_range(inquiry: Inquiry, page_size: int) -> int:
    """Count the calls of a query, window by window.

    Raises:
        CountDriftError: if a count may be capped, and its window has no parts.
        PagingError: if the server ignores page numbers, so there is no end to find.
        RequestRejectedError: if the server refuses the query for another reason than the length of the range.
    """
    windows = inquiry.query.windows(inquiry.source.zone)
    return sum([await _count_all(inquiry, window, page_size) for window in windows])


async def _count_all(inquiry: Inquiry, whole: Window, page_size: int) -> int:
    """Count a range that may be longer than this server allows."""
    walk = RangeWalk(inquiry.source, whole, lambda window: count_calls(inquiry, window, page_size))
    total = 0
    while (counted := await walk.next()) is not None:
        total += counted[1]
    return total


async def count_calls(inquiry: Inquiry, window: Window, page_size: int) -> int:
    """Count the calls of a window. A round count may be capped, so it is proved by the counts of parts.

    Raises:
        CountDriftError: if the count may be capped, and the window has no parts.
        PagingError: if the server ignores page numbers, so there is no end to find.
    """
    newer = most = 0
    while True:
        counted = await _count_once(inquiry, window, page_size)
        most = max(most, newer + counted)  # a server that leaves out the bounds of a range counts fewer in the parts
        if not may_be_capped(counted):
            return most
        former, window = await _parts(inquiry, window, counted)
        newer += await _count_all(inquiry, former, page_size)  # the part of an open range is closed, may be too long


async def _parts(inquiry: Inquiry, window: Window, counted: int) -> tuple[Window, Window]:
    """Cut a window in two, the newer part first. An open one has no middle: cut it at the deepest readable call."""
    if window.seconds > 1:
        newer, older = window.cut(2)
        return newer, older
    start = await _start_of(inquiry, window, counted) if window.seconds == 0 else ""
    if not (is_wall_stamp(start) and window.first <= start < window.last):
        raise cannot_narrow(window)
    oldest = Window.of(start, start).end
    assert oldest is not None  # noqa: S101 - for the type checker: the call has a readable start
    return Window(oldest + SECOND, window.end), Window(window.start, oldest)


async def _start_of(inquiry: Inquiry, window: Window, number: int) -> str:
    """Return the start of the call at this position; of a less deep call if the server refuses that page."""
    while True:
        refusal: RequestRejectedError | None = None
        try:
            records = (await inquiry.page(window, number, 1)).records()
        except RequestRejectedError as error:
            refusal = error
        else:
            return f"{records[0].date} {records[0].time}" if records else ""
        if number == 1:
            raise refusal
        number //= 2


async def _count_once(inquiry: Inquiry, window: Window, page_size: int) -> int:
    """Count by asking for a single call.

    The reference's text calls ``count`` the number of records on the page. On a page of one call "1" could mean either,
    so the next page is requested; if that holds a call too, the count is useless and the end is searched.
    """
    page = await inquiry.page(window, 1, 1)
    rows = page.open()[2]
    if page.count is not None and page.count > rows:
        inquiry.source.count_is_total = True
    if page.count is not None and (inquiry.source.count_is_total or page.count == 0):
        return page.count
    if rows == 0 or (await inquiry.page(window, 2, 1)).open()[2] == 0:
        return rows
    return await _search(inquiry, window, page_size)


async def _search(inquiry: Inquiry, window: Window, page_size: int) -> int:
    first = await inquiry.page(window, 1, page_size)
    edges = first.open()
    full = edges[2]
    search = find_last_page()
    number = next(search)
    while True:
        page = await inquiry.page(window, number, page_size)
        rows = page.open()[2]
        if number > FAR or (rows and page.open() == edges):
            raise PagingError("the same calls came again", why="the server ignores the page number", page=number)
        try:
            number = search.send(rows)
        except StopIteration as found:
            last, rows = cast("tuple[int, int]", found.value)
            return (last - 1) * full + (full if rows < 0 else rows)
