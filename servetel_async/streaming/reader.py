"""One reading of a query: its windows in order, pages requested ahead, taken in order, decoded and filtered.

``CallStream`` decides when to read and what the ends mean; this module decides what to read next. Tasks are started
only inside ``next_piece``. Between two awaits the state is whole: after a cancellation, call ``next_piece`` again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.aio.tasks import error_of
from servetel_async.counted_range import check_still_counts, note_counted
from servetel_async.errors import (
    ConfigurationError,
    DeadlineExceededError,
    OverloadedError,
    RequestRejectedError,
    ResumeMismatchError,
    ServetelError,
    StreamClosedError,
)
from servetel_async.page_source import PageRequest
from servetel_async.protocol.after_anchor import AfterAnchor
from servetel_async.protocol.checkpoint import Checkpoint, Position, Second
from servetel_async.protocol.pages import Paginator, Step
from servetel_async.protocol.verdict import Unacceptable, Verdict
from servetel_async.ranges import RangeLimit
from servetel_async.streaming.piece import End, Piece
from servetel_async.streaming.resume import Resumption
from servetel_async.streaming.window_reading import WindowReading
from servetel_async.transport.admission import Flow
from servetel_async.transport.retry import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servetel_async.counted_range import CountedRange
    from servetel_async.page_source import PageSource, PageTask
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.pages import PageFingerprint
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.records import CallRecord
    from servetel_async.streaming.stats import StreamStats
    from servetel_async.transport.call import Fetched

#: Seconds for which calls may follow each other without yielding to the loop.
LOOP_SHARE = 0.0005


class _Open(NamedTuple):
    """The page in hand."""

    page: PageBody
    number: int
    slices: Iterator[Sequence[CallRecord]]


class Reading:
    """One reading; see the module docstring.

    Attributes:
        pending: page tasks in flight or not yet read, by number.
        deadline_at: loop time at which everything ends.
    """

    def __init__(
        self,
        source: PageSource,
        query: CallQuery,
        *,
        page_size: int,
        max_records: int | None,
        ordered: bool,
        start: str | None,
        stats: StreamStats,
    ) -> None:
        self.pending: dict[int, PageTask] = {}
        self.deadline_at: float | None = None
        self.max_records = max_records
        self._source = source
        self._flow = Flow()
        self._query = query
        self._ordered = ordered
        self._stats = stats
        self._page_size = page_size
        self._windows = [piece for window in query.windows(source.zone) for piece in window.split()]
        self._limit = RangeLimit(source)
        self._anchor = None if start is None else self._read_start(start)
        self._second = Second() if self._anchor is None else self._anchor.second
        self._resumption = self._begin_search()
        self._current: WindowReading | None = None
        self._open: _Open | None = None
        self._offset = 0  # position of the next slice in its page
        self._planned = 0  # calls delivered, and those of the page in hand
        self._unread: list[Piece] = []  # pieces of the page in hand: the task that put them together was cancelled
        self._yielded_at = 0.0
        self._dropped = False
        self._has_come = False  # whether a page came of the current window, or of its part that is read now
        self._refusal: RequestRejectedError | None = None  # from a page that may be too deep
        self._counted: dict[int, int] = {}  # requests in the statistics, by the page they request again

    # For the stream

    async def next_piece(self) -> Piece | End:
        """Read on until there are calls to deliver, or to the proved end.

        Raises:
            ServetelError: if a page failed, or the pages do not agree.
        """
        while True:
            await self._yield_to_loop()
            piece = self._unread.pop(0) if self._unread else self._next_slice()
            if piece is not None:
                return piece
            current = self._begin_window() if self._current is None else self._current
            if current is None or (self.max_records is not None and self._planned >= self.max_records):
                return End.END
            try:
                await self._go_on(current)
            except RequestRejectedError as refusal:
                self._shorten(current, refusal)

    async def rest_of_page(self, piece: Piece) -> Piece:
        """Add the rest of the piece's page. If cancelled, give the pieces back, each with its own place."""
        self._unread.insert(0, piece)
        while (more := self._next_slice()) is not None:
            self._unread.append(more)
            await self._yield_to_loop()
        pieces, self._unread = self._unread, []
        return pieces[-1]._replace(records=[record for piece in pieces for record in piece.records])

    def begun(self, left: list[CallRecord], place: Position | None) -> Piece | None:
        """Make a piece of the rest of the page in hand; None if nothing is left."""
        return Piece(left, self._open.page, self._open.number, place) if left and self._open is not None else None

    def checkpoint(self, last: CallRecord | None, place: Position | None) -> str | None:
        """Return the checkpoint after ``last``, the last delivered call; without one, that of the stream's start."""
        if last is None or place is None or not self._ordered:
            return None if self._anchor is None else str(self._anchor)
        return str(place.checkpoint(last, self._query.fingerprint(self._source.zone)))

    def drop(self) -> list[PageTask]:
        """Release everything; return the tasks that the caller must end."""
        self._dropped = True
        tasks, self.pending = list(self.pending.values()), {}
        self._open = self._current = None
        self._unread.clear()
        return tasks

    # Slices, pages, windows

    async def _yield_to_loop(self) -> None:
        """Yield to the loop if it was held for long: pages that have arrived are read without any waiting."""
        now = time.perf_counter()
        if now - self._yielded_at < LOOP_SHARE:
            return
        await asyncio.sleep(0)
        self._yielded_at = time.perf_counter()
        self._check_not_dropped()

    def _check_not_dropped(self) -> None:
        if self._dropped:
            raise StreamClosedError("the stream was closed while its next call was awaited")

    def _next_slice(self) -> Piece | None:
        """Decode and filter until a call passes; None at the end of the page."""
        while self._open is not None and self._current is not None:
            page, number, slices = self._open
            records = next(slices, None)
            if records is None:
                self._open = None
                break
            walk = self._current.walk
            before = (number - 1) * walk.size + self._offset
            self._offset += len(records)
            fresh = self._current.sift(records, number)
            if self.max_records is not None:
                del fresh[max(0, self.max_records - self._planned) :]
            self._planned += len(fresh)
            if fresh:
                second, self._second = self._second, self._second.then(fresh)
                place = None
                if self._current.has_places:
                    place = Position(self._current.window, before, records, fresh, second)
                return Piece(fresh, page, number, place)
        return None

    def _begin_window(self) -> WindowReading | None:
        if not self._windows:
            return None
        window, left = self._windows.pop(0).newest(self._source.longest_range)
        while left is not None and self._resumption is not None and not self._resumption.checkpoint.is_in(window):
            window, left = left.newest(self._source.longest_range)
        if left is not None:
            self._windows.insert(0, left)
        walk = Paginator(self._page_size, believed=self._source.count_is_total)
        self._current, self._has_come = WindowReading(window, walk, self._stats), False
        return self._current

    def _shorten(self, current: WindowReading, refusal: RequestRejectedError) -> None:
        """Replace a window that was refused before any page of it came by shorter windows."""
        if self._has_come or self.pending:
            raise refusal
        shorter = self._limit.cut(current.window, refusal)
        if current.is_part:
            current.begin_shorter(shorter, self._page_size)
            return
        self._windows[:0] = shorter
        self._current = None
        if self._anchor is not None and self._resumption is not None:
            self._windows = self._anchor.left_of(self._windows)
            self._resumption = self._begin_search()

    async def _go_on(self, current: WindowReading) -> None:
        """Take one more page of the window, or end the window."""
        if self._resumption is not None:
            await self._look_for_anchor(current, self._resumption)
            return
        if current.walk.says_nothing and self._source.counted_range is not None:
            await self._check_still_counts(current, self._source.counted_range)
            return
        self._top_up(current)
        if self.pending:
            await self._read_next(current)
        elif self._refusal is not None:
            self._go_on_behind_refusal(current, self._refusal)
        else:
            self._conclude(current)

    def _top_up(self, current: WindowReading, in_hand: int = 0) -> None:
        """Request ahead: at most a window of unread pages, and none that ``max_records`` makes needless."""
        walk, limit = current.walk, 0 if self._refusal is not None else self._source.window_of_pages
        if self.max_records is not None and walk.size:
            limit = min(limit, -(-(self.max_records - self._planned - in_hand) // walk.size))
        while len(self.pending) < limit:
            number = walk.next_page(len(self.pending) + (in_hand > 0))
            if number is None:
                return
            self._ask(current, number)

    def _ask(
        self, current: WindowReading, number: int, *, refused: Refused | None = None, proved: bool = False
    ) -> None:
        # Pages requested ahead wait for slots of their own stream: that is no overload. Its first page may meet one.
        patient = bool(self._stats.pages or self.pending)
        # A short call with a deadline is often one page. So its first page goes before pages requested ahead by others.
        is_urgent = self.deadline_at is not None and not patient
        self.pending[number] = self._source.start_page(
            PageRequest(
                *(self._query, current.window, number, self._page_size, self.deadline_at, patient),
                proved=proved or refused is not None,
                refused=refused,
                flow=None if is_urgent else self._flow,
            )
        )

    async def _check_still_counts(self, current: WindowReading, counted: CountedRange) -> None:
        """Check that this server still counts, before a page without a count means an empty list."""
        if not self.pending:
            self.pending[0] = self._source.start_page(counted.request(self.deadline_at, self._flow))
        _, fetched = await self._take_page()
        check_still_counts(fetched.value)
        current.walk.says_nothing = False

    async def _read_next(self, current: WindowReading) -> None:
        """Take a page and open it. If it is refused as too deep, keep that error until all pages before it are read."""
        try:
            number, fetched = await self._take_page()
        except RequestRejectedError as error:
            number = error.page or 0
            earlier = [number, *(other for other in self.pending if other < number)]
            if self._refusal is None and not any(map(current.may_begin_behind, earlier)):
                raise
            if self._refusal is None or number < (self._refusal.page or 0):
                self._refusal = error
            return
        if self._refusal is None or number < (self._refusal.page or 0):
            self._open_page(current, number, fetched)

    def _go_on_behind_refusal(self, current: WindowReading, refusal: RequestRejectedError) -> None:
        self._refusal, number = None, refusal.page or 0
        if not (current.may_begin_behind(number) and current.begin_behind(number, self._page_size)):
            raise refusal
        self._has_come = False

    async def _take_page(self) -> tuple[int, Fetched[PageBody]]:
        """Wait for the head, or for any page if unordered; remove the page only when it is there."""
        numbers = [min(self.pending)] if self._ordered else sorted(self.pending)
        while not (done := [number for number in numbers if self.pending[number].done()]):
            await self._wait_for({self.pending[number] for number in numbers})
        number = done[0]
        task, counted = self.pending.pop(number), self._counted.pop(number, 0)
        error = error_of(task, closed=self._source.closed, user="stream")
        if error is not None:
            if isinstance(error, ServetelError):
                self._stats.requests += error.attempts - counted
            raise self.as_deadline_error(error, number)
        fetched = task.result()
        self._stats.requests += fetched.requests - counted
        self._stats.size += fetched.size
        return number, fetched

    def as_deadline_error(self, error: BaseException, number: int) -> BaseException:
        """Convert an overload at the deadline: if pages were read before it, the deadline is the error."""
        if isinstance(error, OverloadedError) and self.deadline_at is not None and self._stats.pages:
            return DeadlineExceededError(
                "the deadline passed before the stream's end",
                fix="allow more time, or resume from the checkpoint",
                stopped_by="deadline",
                page=number,
            )
        return error

    async def _wait_for(self, waiting: set[PageTask]) -> None:
        begun = time.perf_counter()
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)  # each ends at the deadline by itself
        finally:
            self._stats.waited_for_pages += time.perf_counter() - begun
        self._yielded_at = time.perf_counter()
        self._check_not_dropped()

    def _open_page(self, current: WindowReading, number: int, fetched: Fetched[PageBody]) -> None:
        page, walk = fetched.value, current.walk
        edges = _opened(page)
        if isinstance(edges, Verdict):
            self._counted[number] = fetched.requests
            self._ask(current, number, refused=Refused(edges, fetched.history))
            return
        step = walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        if walk.believed:
            self._source.count_is_total = True
        note_counted(self._source, self._query, current.window, page)
        current.note_count()
        self._note_arrival()
        if step is Step.AGAIN:
            self._ask(current, number)
        elif step is Step.DELIVER:
            self._stats.pages += 1
            self._open, self._offset = _Open(page, number, page.slices(self._source.zone)), 0
            self._top_up(current, in_hand=edges[2])

    def _note_arrival(self) -> None:
        """Note that a page came, so the window is not too long for the server."""
        self._has_come = True
        self._limit.came()

    def _conclude(self, current: WindowReading) -> None:
        if not current.conclude():
            current.read_again()
        elif current.begin_part(self._page_size):
            self._has_come = False
        else:
            self._current = None

    # Resuming from a checkpoint

    def _read_start(self, start: str) -> Checkpoint:
        checkpoint = Checkpoint.read(start, self._query.fingerprint(self._source.zone))
        if not self._ordered:
            raise ConfigurationError("start= needs ordered=True", why="only an ordered stream can be resumed")
        self._windows = checkpoint.left_of(self._windows)
        if not self._windows:
            raise ResumeMismatchError("the checkpoint's window is not in this range", fix="start again without start=")
        return checkpoint

    def _begin_search(self) -> Resumption | None:
        """Begin the search for the checkpoint's call; None without a checkpoint."""
        if self._anchor is None:
            return None
        return Resumption(self._anchor, self._page_size, count_is_total=self._source.count_is_total)

    async def _look_for_anchor(self, current: WindowReading, resumption: Resumption) -> None:
        """Look for the checkpoint's call on one more page. When it is found, continue from there."""
        if not self.pending:
            self._ask(current, resumption.next_page(), proved=True)
        number, fetched = await self._take_page()
        self._note_arrival()
        found = resumption.take(number, fetched)
        if resumption.count_is_total:
            self._source.count_is_total = True
        self._stats.pages += found is None or found.fetched is None  # a fetched page is counted when opened
        if found is None:
            return
        self._resumption = None
        current.after = AfterAnchor(resumption.checkpoint)
        current.walk = Paginator(
            self._page_size,
            believed=self._source.count_is_total,
            before=(found.number - 1) * found.size,
            first=found.number,
            size=found.size,
        )
        if found.fetched is not None:
            current.walk.next_page(0)
            self._open_page(current, found.number, found.fetched)


def _opened(page: PageBody) -> PageFingerprint | Verdict:
    """Open a page, or return the verdict. The exception stays here, because its frames hold the page."""
    try:
        return page.open()
    except Unacceptable as refusal:
        return refusal.verdict
