"""Fetches the pages of a pull: as many at once as the server bears, as patiently as an outage needs.

1. A page that fails is retried. If it still fails while other pages come, the fault is in this page: its window is read
   in another way.
2. A page is too slow if it times out, or if a gateway answers 504. The page size is halved if one page is too slow
   twice in a row, or if two rounds of pages are too slow and no page comes in between. This applies from the first page
   on. A slow page counts as a failure of the server only if no smaller page size is left.
3. If no page comes at all, it is an outage (``circuit_breaker.py``). If the smallest pages were too slow as well, the
   size was not the cause: after the outage the page size is the one that worked last.
4. Before the first good reply only the client's own retries apply: waiting does not help if the address is wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING

import msgspec

from servetel_async.aio.fairness import LoopFairness
from servetel_async.aio.tasks import end, error_of
from servetel_async.bulk.fetching.circuit_breaker import CircuitBreaker
from servetel_async.bulk.fetching.concurrency import Concurrency
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.counted_range import check_still_counts, says_nothing
from servetel_async.errors import (
    MalformedResponseError,
    PagingError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    ServetelError,
)
from servetel_async.page_source import PageRequest
from servetel_async.protocol.capping import crosses_limit
from servetel_async.protocol.conventions import Conventions, sides_beyond
from servetel_async.protocol.pages import EMPTY_RETRIES
from servetel_async.protocol.rows import rows_of
from servetel_async.protocol.verdict import is_slow, is_too_large
from servetel_async.protocol.windows import Window
from servetel_async.ranges import RangeWalk
from servetel_async.transport.admission import Flow

if TYPE_CHECKING:
    from collections.abc import Callable

    from servetel_async.page_source import PageSource
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.rows import RawRecord

#: Tries of one page while others come.
TRIES = 8
#: Slow replies in a row, of one page or of all pages, that halve the page size: one alone may be an accident.
SLOW = 2
SMALLEST_PAGE = 10
#: Pages that must agree before they disprove a bound.
LOOKS = 2
#: Records handled in one loop iteration: less than a millisecond.
ROWS_IN_A_TURN = 100
_OK = 200
_LONG_AGO = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock, as the windows are


class PageTooSlowError(Exception):
    """A page size that is too slow or too large; the reader begins again with smaller pages. Users never see it."""


class PageLostError(Exception):
    """A page that does not come while others do. Users never see it.

    Attributes:
        error: the last error of the page.
    """

    def __init__(self, error: ServetelError) -> None:
        super().__init__()
        self.error = error


class Fetcher:
    """Fetches the pages of one pull; see the module.

    Args:
        source: the client.
        query: the calls to fetch.
        page_size: calls per page.
        concurrency: most requests at the same time.
        patience: seconds without any good reply after which the pull gives up.

    Attributes:
        page_size: the page size that is requested now.
        total: the cost of all requests.
        on_page: callback after each page.
        met: the last call of the latest page; None before the first.
    """

    def __init__(
        self, source: PageSource, query: CallQuery, *, page_size: int, concurrency: int, patience: float
    ) -> None:
        self.source = source
        self.page_size = min(page_size, source.page_cap or page_size)
        self.total = Cost()
        self.met: RawRecord | None = None
        self._backoffs = 0.0
        self.on_page: Callable[[], None] | None = None
        self._query = query
        self._retry = source.retry
        self._concurrency = Concurrency(concurrency, source.pace.concurrency)
        self._flow = Flow()
        self._outage = CircuitBreaker(source.retry, patience)
        self._has_succeeded = False
        self._good_size = self.page_size  # the size of the latest page that came
        self._bad_size = inf  # pages of this size or larger were too slow or too large
        self._slow_rounds = 0  # rounds of slow pages since a page came; pages that were sent together are one round
        self._slow_at = -inf  # when the last round was noted
        self._good = Window(None, None)  # the latest window whose first page came
        self._counted: Window | None = None  # a window in which the server counted calls
        self._turns = LoopFairness()

    @property
    def waited(self) -> float:
        """Seconds that all requests together spent in backoffs and in the pauses of outages."""
        return self._backoffs + self._outage.waited

    async def page(
        self, window: Window, number: int, cost: Cost, *, size: int | None = None, exact: bool = False
    ) -> PageBody:
        """Fetch one page. If it is empty without a count, and this server is known to count, request it again.

        Args:
            window: the seconds; the server is asked for a wider range if it leaves out a bound.
            number: the page number.
            cost: the cost to add to.
            size: calls per page.
            exact: whether to ask for exactly this range.

        Raises:
            PageTooSlowError: if pages of this size are too slow or too large; later pages are smaller.
            PageLostError: if this page cannot be fetched, though others can.
            MalformedResponseError: if it is empty without a count, and so is a page of a range that holds calls.
            ServetelError: if no page comes any more, or the failure is final.
        """
        page = await self._fetch(window, number, cost, size, exact=exact)
        for _ in range(EMPTY_RETRIES):
            if not (says_nothing(page) and self.source.count_is_total):
                return page
            page = await self._fetch(window, number, cost, size, exact=exact)
        if says_nothing(page) and number == 1:
            if self._counted is not None:
                check_still_counts(await self._fetch(self._counted, 1, cost, 1))
            page.count = 0  # requested often enough: this server leaves out a count of 0
        return page

    async def _fetch(
        self, window: Window, number: int, cost: Cost, size: int | None, *, exact: bool = False
    ) -> PageBody:
        """Fetch one page, and retry it when it fails."""
        asked = self.page_size if size is None else size
        failures = slow = 0
        refused = False
        while True:
            if asked >= self._bad_size:
                raise PageTooSlowError
            # After many failures in an outage, the page itself may be the cause. So probe with a page that came before.
            looks = failures >= TRIES and self._outage.is_open()
            try:
                where = (self._good, 1, cost, 1) if looks else (window, number, cost, asked)
                page = await self._try(*where, exact=exact)
            except ServetelError as error:
                passes = error.retryable or isinstance(error, MalformedResponseError | PagingError)
                if not (passes or is_too_large(error) or (_refuses(error) and not refused)):
                    if isinstance(error, RequestRejectedError) and crosses_limit(number, asked):
                        raise PageLostError(
                            error
                        ) from None  # perhaps only for its depth: a shorter window is not so deep
                    raise
                refused = refused or _refuses(error)
                if not looks:
                    failures += 1
                    slow = slow + 1 if is_slow(error) else 0
                await self._give_up_or_wait(error, failures, slow, asked)
                cost.retries += 1
                self.total.retries += 1
            else:
                if not looks:
                    return page
                failures = TRIES - 1

    async def rows(self, page: PageBody) -> list[RawRecord]:
        """Return the records of a page as rows. For a large page, yield to the loop in between."""
        rows = len(page.rows())
        filed_by, zone = (self.source.conventions or Conventions()).filed_by, self.source.zone
        found: list[RawRecord] = []
        for first in range(0, rows, ROWS_IN_A_TURN):
            if rows > ROWS_IN_A_TURN:
                await self._turns.take()
            found += rows_of(page, first, first + ROWS_IN_A_TURN, filed_by=filed_by, zone=zone)
        if found:
            self.met = msgspec.structs.replace(found[-1], line=b"")  # its text may be 15 MB
        return found

    async def careful_page(
        self, window: Window, number: int, cost: Cost, *, size: int | None = None, exact: bool = False
    ) -> PageBody:
        """Fetch a single page. One empty reply without a count is never accepted, from any server.

        Raises:
            PageTooSlowError, PageLostError, ServetelError: see ``page``.
        """
        page = await self.page(window, number, cost, size=size, exact=exact)
        if says_nothing(page) and not self.source.count_is_total:
            page = await self.page(window, number, cost, size=size, exact=exact)
        return page

    async def sure_page(self, window: Window, number: int, cost: Cost, *, size: int | None = None) -> PageBody:
        """Fetch a single page of any size; see ``careful_page``.

        Raises:
            ServetelError: if the page does not come.
        """
        while True:
            try:
                return await self.careful_page(window, number, cost, size=size)
            except PageTooSlowError:
                continue
            except PageLostError as lost:
                error = lost.error
            raise error

    async def first_look(self, asked: Window, cost: Cost) -> tuple[Window, PageBody]:
        """Fetch the first page of the newest window of a range; return both. This shows how long a range may be.

        Raises:
            ServetelError: if the page does not come.
        """
        newest = await RangeWalk(self.source, asked, lambda window: self.sure_page(window, 1, cost)).next()
        assert newest is not None  # noqa: S101 - for the type checker: a range has a window
        return newest

    async def count(self, window: Window, cost: Cost) -> int | None:
        """Ask how many calls a window has, in parts if it is too long; None if the server sends no count.

        Raises:
            ServetelError: if a page does not come.
        """
        total = 0
        walk = RangeWalk(self.source, window, lambda part: self.sure_page(part, 1, cost, size=1))
        while (answer := await walk.next()) is not None:
            page = answer[1]
            if page.count is None and page.open()[2]:
                return None
            total += page.count or 0  # an empty page without a count was requested twice: it holds no call
        return total

    async def _try(self, window: Window, number: int, cost: Cost, size: int, *, exact: bool) -> PageBody:
        """Send one request when a slot is free, and learn from its result."""
        async with self._concurrency.slot(-_last_second(window)), self._outage.turn():
            sent_at = self._now()
            try:
                page = await (self._send if exact else self._send_widened)(window, number, size, cost)
            except ServetelError as error:
                if isinstance(error, RateLimitError | RequestTimeoutError) or is_slow(error):
                    self._concurrency.shrink(sent_at, self._now())
                    self.source.pace.concurrency = self._concurrency.learnt
                self._note_slowness(error, size, sent_at)
                if (error.retryable or isinstance(error, MalformedResponseError)) and not _may_be_smaller(error, size):
                    self._outage.failed()
                raise
            if self._outage.succeeded():
                self._concurrency.restart()
                self.page_size, self._bad_size = self._good_size, inf
            elif size == self.page_size:
                self._good_size = size
            if size > SMALLEST_PAGE:
                self._slow_rounds = 0
            self._concurrency.grow()
            self.source.pace.concurrency = self._concurrency.learnt
            self._has_succeeded = True
            if number == 1:
                self._good = window
                self._counted = window if page.count and page.open()[2] else self._counted
            return page

    def _note_slowness(self, error: ServetelError, size: int, sent_at: float) -> None:
        """Count the rounds in a row in which all failures were slow pages."""
        if size <= SMALLEST_PAGE:
            return
        if not is_slow(error):
            self._slow_rounds = 0
        elif sent_at >= self._slow_at:
            self._slow_rounds, self._slow_at = self._slow_rounds + 1, self._now()

    async def _give_up_or_wait(self, error: ServetelError, failures: int, slow: int, asked: int) -> None:
        if self._outage.over_patience or error.stopped_by == "retry_after":
            raise self._explained(error)
        # Before the first good reply the client has retried already. Without patience, there is no other try.
        is_sure = max(slow, self._slow_rounds) >= SLOW or not self._has_succeeded or self._outage.waits_too_long
        if _may_be_smaller(error, asked) and (is_too_large(error) or (slow and is_sure)):
            self._bad_size = min(self._bad_size, asked)
            self._slow_rounds, self._slow_at = 0, self._now()
            if asked <= self.page_size:
                self.page_size = max(SMALLEST_PAGE, asked // 2)
            raise PageTooSlowError
        if is_too_large(error) or not self._has_succeeded:
            raise self._explained(error)
        if self._outage.is_open():
            return  # the circuit breaker makes it wait
        if failures >= TRIES:
            raise PageLostError(self._explained(error))
        bound = min(self._retry.cap, self._retry.base * 2.0 ** min(failures - 1, 30))
        seconds = random.uniform(0.0, bound)  # noqa: S311 - jitter, not a secret
        self._backoffs += seconds
        await asyncio.sleep(seconds)

    def _explained(self, error: ServetelError) -> ServetelError:
        """Say that smaller pages were tried: the advice "lower page_size" would not help."""
        if is_slow(error) and self._bad_size < inf:
            error.why = f"pages of {SMALLEST_PAGE} calls were too slow as well"
            error.fix = "try again later, or raise Timeouts(read=, total=)"
        return error

    async def _send_widened(self, window: Window, number: int, size: int, cost: Cost) -> PageBody:
        """Send with the bounds that this server needs. Two pages that disprove a bound correct it."""
        disproved: Counter[str] = Counter()
        while True:
            conventions = self.source.conventions or Conventions()
            asked = conventions.bounds.widen(window)
            page = await self._send(asked, number, size, cost)
            if asked == window:
                return page
            sides = sides_beyond(window, asked, [row.moment for row in await self.rows(page)])
            if not sides:
                return page
            disproved.update(sides)
            sure = [side for side in sides if disproved[side] >= LOOKS]
            if sure and self.source.conventions == conventions:
                bounds = conventions.bounds._replace(**dict.fromkeys(sure, 0))
                self.source.conventions = conventions._replace(bounds=bounds)

    async def _send(self, window: Window, number: int, size: int, cost: Cost) -> PageBody:
        attempts = 1 if self._has_succeeded else None
        slow_attempts = SLOW if size > SMALLEST_PAGE else None
        task = self.source.start_page(
            PageRequest(
                *(self._query, window, number, size, None),
                patient=True,
                attempts=attempts,
                slow_attempts=slow_attempts,
                flow=self._flow,
            )
        )
        try:
            await asyncio.wait({task})
        finally:
            await end({task})
        error = error_of(task, closed=self.source.closed, user="pull")
        if error is not None:
            self._count(cost, requests=int(getattr(error, "attempts", 0)))
            raise error
        fetched = task.result()
        self._count(cost, requests=fetched.requests, received=fetched.size)
        if fetched.value.open()[2] and fetched.value.page not in (None, number):
            raise PagingError(
                f"page {fetched.value.page} came instead",
                why="the server ignores the page number",
                page=number,
            )
        rows, count = fetched.value.open()[2], fetched.value.count
        if count is not None and count > rows:
            self.source.count_is_total = True  # it cannot be the count of the page
        self._count(cost, pages=1, rows=rows)
        if self.on_page is not None:
            self.on_page()
        return fetched.value

    def _count(self, cost: Cost, *, pages: int = 0, requests: int = 0, received: int = 0, rows: int = 0) -> None:
        spent = Cost(pages, requests, max(0, requests - 1), received, rows)
        cost.add(spent)
        self.total.add(spent)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _may_be_smaller(error: ServetelError, size: int) -> bool:
    """Whether to ask for a smaller page before this counts as a failure of the server."""
    return size > SMALLEST_PAGE and (is_slow(error) or is_too_large(error))


def _refuses(error: ServetelError) -> bool:
    """Whether a reply with status 200 refuses the request: often an accident of the server, so it is sent again."""
    return isinstance(error, RequestRejectedError) and error.status == _OK


def _last_second(window: Window) -> float:
    """Return a window's last second as a number; an open window is the newest."""
    return float("inf") if window.end is None else (window.end - _LONG_AGO).total_seconds()
