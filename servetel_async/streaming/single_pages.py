"""The single pages of one client call, all under one deadline. One empty reply is never accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.counted_range import check_still_counts, note_counted, says_nothing
from servetel_async.errors import CountDriftError, DeadlineExceededError, OverloadedError, PagingError
from servetel_async.page_source import PageRequest
from servetel_async.protocol.pages import patience_with_empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servetel_async.errors import ServetelError
    from servetel_async.page_source import PageSource
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window


class Inquiry:
    """Request single pages.

    Args:
        source: the client.
        get: gets one page from it.
        query: the query.
        deadline_at: loop time at which everything ends.
    """

    def __init__(
        self,
        source: PageSource,
        get: Callable[[PageRequest], Awaitable[PageBody]],
        query: CallQuery,
        deadline_at: float | None,
    ) -> None:
        self.source = source
        self.query = query
        self.deadline_at = deadline_at
        self._get = get
        self._has_asked = False

    async def page(self, window: Window, number: int, size: int) -> PageBody:
        """Get one page. An empty page that may be an accident is requested again before it is accepted.

        Raises:
            PagingError: if the server sent another page than the requested one.
            CountDriftError: if its count and its rows cannot both be true.
            MalformedResponseError: if it has neither calls nor a count, and neither has a range that holds calls.
            DeadlineExceededError: if the deadline passed.
            OverloadedError: if no slot became free in time, and nothing was sent.
        """
        asked = 0
        while True:
            page = await self._ask(window, number, size)
            asked += 1
            patience = patience_with_empty(number, page.count, known=self.source.count_is_total)
            if page.open()[2] or asked > patience:
                break
        check_alone(page, number)
        counted = self.source.counted_range
        if says_nothing(page) and self.source.count_is_total and counted is not None:
            check_still_counts(await self._send(counted.request(self.deadline_at)))
        note_counted(self.source, self.query, window, page)
        return page

    async def _ask(self, window: Window, number: int, size: int) -> PageBody:
        return await self._send(PageRequest(self.query, window, number, size, self.deadline_at))

    async def _send(self, request: PageRequest) -> PageBody:
        try:
            page = await self._get(request)
        except OverloadedError as error:
            overload = error
        else:
            self._has_asked = True
            return page
        raise self.judge(overload)

    def judge(self, overload: OverloadedError) -> ServetelError:
        """Make the error of an unsent request: an overload, or a passed deadline if others were sent."""
        if self.deadline_at is None or not self._has_asked:
            return overload
        return DeadlineExceededError(
            "the deadline passed before the last request could be sent",
            fix="allow more time, or ask for less",
            stopped_by="deadline",
        )


def check_alone(page: PageBody, number: int) -> int:
    """Check a page against its own number and count, and return its number of rows.

    Raises:
        PagingError: if it is another page than the requested one.
        CountDriftError: if its count and its rows cannot both be true.
    """
    rows = page.open()[2]
    if rows and page.page not in (None, number):
        raise PagingError(f"page {page.page} came instead", why="the server ignores the page number", page=number)
    if page.count is not None and ((rows and page.count == 0) or (number == 1 and page.count and not rows)):
        raise CountDriftError(
            f"the page holds {rows} calls and the API counts {page.count}",
            why="both cannot be true",
            fix="try again; if it stays, narrow the range",
            page=number,
        )
    return rows
