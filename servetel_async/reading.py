"""One reading of a query: windows walked in turn, pages asked ahead, taken in order, decoded and sifted.

``CallStream`` decides when to read and what its ends mean; this decides what is read next. Nothing here starts a task
but inside ``next_piece``, and between two awaits its state is whole: a cancelled ``next_piece`` is simply called again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.errors import (
    ConfigurationError,
    DeadlineExceededError,
    OverloadedError,
    ResumeMismatchError,
    ServetelError,
    StreamClosedError,
)
from servetel_async.page_source import PageRequest
from servetel_async.protocol.checkpoint import Checkpoint, Place
from servetel_async.protocol.pages import PageWalk, Step
from servetel_async.protocol.sieve import Sieve
from servetel_async.protocol.verdict import Unacceptable, Verdict
from servetel_async.transport.admission import Flow
from servetel_async.transport.retry import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servetel_async.page_source import PageSource, PageTask
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.pages import Edges
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window
    from servetel_async.stats import StreamStats
    from servetel_async.transport.transport import Fetched

#: Seconds for which calls may come one after the other without the loop.
BREATH = 0.0005


class Piece(NamedTuple):
    """Calls that were never handed out before, the page they came with, and where the last of them stand.

    ``place`` is None once the list is known to have moved: from then on calls in front of any place may be missing.
    """

    records: list[CallRecord]
    page: PageBody
    number: int
    place: Place | None


class _Open(NamedTuple):
    """The page in hand."""

    page: PageBody
    number: int
    slices: Iterator[Sequence[CallRecord]]


class _WindowReading:
    """A window, the walk over its pages, and the sieve for its calls."""

    def __init__(self, window: Window, walk: PageWalk, stats: StreamStats) -> None:
        self.window = window
        self.walk = walk
        self.resumed = False
        self._sieve = Sieve(window)
        self._stats = stats
        self._before = (stats.duplicates, stats.reused_ids, stats.undated, stats.count)

    def sift(self, records: Sequence[CallRecord], number: int) -> list[CallRecord]:
        sieve, stats = self._sieve, self._stats
        fresh, new_in_pass = sieve.sift(records)
        self.walk.sifted(new=len(fresh), new_in_pass=new_in_pass, number=number)
        duplicates, reused_ids, undated, _ = self._before
        stats.duplicates = duplicates + sieve.duplicates
        stats.reused_ids = reused_ids + sieve.reused_ids
        stats.undated = undated + sieve.undated
        return fresh

    def note_count(self) -> None:
        walk, counted = self.walk, self._before[3]
        total = walk.count if walk.believed or walk.count == 0 else None
        self._stats.count = None if total is None or counted is None else counted + total

    def read_again(self) -> None:
        if not self.walk.front:
            self._sieve.begin_pass()
        self._stats.rereadings += 1


class Reading:
    """See the module.

    Attributes:
        pending: page tasks under way or not yet read, by number.
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
        self._windows = list(query.window(source.zone).split())
        self._anchor = None if start is None else self._read_start(start)
        self._search = None if self._anchor is None else self._anchor.pages_to_search()
        self._current: _WindowReading | None = None
        self._open: _Open | None = None
        self._offset = 0  # of the next slice in its page
        self._planned = 0  # calls given out, and those of the page in hand
        self._unread: list[Piece] = []  # of the page in hand: whoever put them together was cancelled
        self._breathed_at = 0.0
        self._dropped = False
        self._counted: dict[int, int] = {}  # requests that are in the statistics, by the page they are asked again for

    # For the stream

    async def next_piece(self) -> Piece:
        """Go on until there are calls to give out.

        Raises:
            StopAsyncIteration: at the proved end.
            ServetelError: a page failed, or the pages do not agree.
        """
        while True:
            await self._breathe()
            piece = self._unread.pop(0) if self._unread else self._next_slice()
            if piece is not None:
                return piece
            if self.max_records is not None and self._planned >= self.max_records:
                raise StopAsyncIteration
            current = self._current if self._current is not None else self._begin_window()
            if self._search is not None:
                await self._look_for_anchor(current, self._search)
                continue
            self._top_up(current)
            if self.pending:
                number, fetched = await self._take_page()
                self._open_page(current, number, fetched)
            else:
                self._conclude(current)

    async def rest_of_page(self, piece: Piece) -> Piece:
        """Add what is left of the piece's page. Cancelled, it gives the pieces back, each with its own place."""
        self._unread.insert(0, piece)
        while (more := self._next_slice()) is not None:
            self._unread.append(more)
            await self._breathe()
        pieces, self._unread = self._unread, []
        return pieces[-1]._replace(records=[record for piece in pieces for record in piece.records])

    def begun(self, left: list[CallRecord], place: Place | None) -> Piece | None:
        """Make a piece of what is left of the page in hand; None if nothing is."""
        return Piece(left, self._open.page, self._open.number, place) if left and self._open is not None else None

    def checkpoint(self, last: CallRecord | None, place: Place | None) -> str | None:
        """Where to go on after ``last``, which stands at ``place``; None where nothing was given out."""
        if last is None or place is None or not self._ordered:
            return None if self._anchor is None else str(self._anchor)
        fingerprint = self._query.fingerprint(self._source.zone)
        return str(
            Checkpoint(fingerprint, place.window.last, self._page_size, place.size, place.rank_of(last), last.id)
        )

    def drop(self) -> list[PageTask]:
        """Let go of everything; gives the tasks that somebody has to end."""
        self._dropped = True
        tasks, self.pending = list(self.pending.values()), {}
        self._open = self._current = None
        self._unread.clear()
        return tasks

    # Slices, pages, windows

    async def _breathe(self) -> None:
        """Let others have the loop where it has been held for long: pages that are there come without any waiting."""
        now = time.perf_counter()
        if now - self._breathed_at < BREATH:
            return
        await asyncio.sleep(0)
        self._breathed_at = time.perf_counter()
        self._check_not_dropped()

    def _check_not_dropped(self) -> None:
        if self._dropped:
            raise StreamClosedError("the stream was closed while its next call was awaited")

    def _next_slice(self) -> Piece | None:
        """Decode and sift until something is left; None at the end of the page."""
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
                place = None if walk.has_moved else Place(self._current.window, walk.size, before, records)
                return Piece(fresh, page, number, place)
        return None

    def _begin_window(self) -> _WindowReading:
        if not self._windows:
            raise StopAsyncIteration
        walk = PageWalk(self._page_size, believed=self._source.count_is_total)
        self._current = _WindowReading(self._windows.pop(0), walk, self._stats)
        return self._current

    def _top_up(self, current: _WindowReading, in_hand: int = 0) -> None:
        """Ask ahead: at most a window of unread pages, and none that ``max_records`` makes needless."""
        walk, limit = current.walk, self._source.window_of_pages
        if self.max_records is not None and walk.size:
            limit = min(limit, -(-(self.max_records - self._planned - in_hand) // walk.size))
        while len(self.pending) < limit:
            number = walk.next_page(len(self.pending) + (in_hand > 0))
            if number is None:
                return
            self._ask(current, number)

    def _ask(
        self, current: _WindowReading, number: int, *, refused: Refused | None = None, proved: bool = False
    ) -> None:
        # What a stream asks ahead waits for its own stream's slots: that is no overload. Its first page may meet one.
        patient = bool(self._stats.pages or self.pending)
        self.pending[number] = self._source.start_page(
            PageRequest(
                *(self._query, current.window, number, self._page_size, self.deadline_at, patient),
                proved=proved or refused is not None,
                refused=refused,
                flow=self._flow,
            )
        )

    async def _take_page(self) -> tuple[int, Fetched[PageBody]]:
        """Wait for the head, or for any page where order does not matter; take it out only when it is there."""
        numbers = [min(self.pending)] if self._ordered else sorted(self.pending)
        while not (done := [number for number in numbers if self.pending[number].done()]):
            await self._wait_for({self.pending[number] for number in numbers})
        number = done[0]
        task, counted = self.pending.pop(number), self._counted.pop(number, 0)
        if task.cancelled():
            raise StreamClosedError("the client was closed under the stream", fix="keep it open until the stream's end")
        error = task.exception()
        if error is not None:
            if isinstance(error, ServetelError):
                self._stats.requests += error.attempts - counted
            raise self._in_its_story(error, number)
        fetched = task.result()
        self._stats.requests += fetched.requests - counted
        self._stats.size += fetched.size
        return number, fetched

    def _in_its_story(self, error: BaseException, number: int) -> BaseException:
        """A page that could not be sent before the deadline is no overload where other pages were read before it."""
        if isinstance(error, OverloadedError) and self.deadline_at is not None and self._stats.pages:
            return DeadlineExceededError(
                "the deadline passed before the stream's end",
                fix="allow more time, or go on from the checkpoint",
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
        self._breathed_at = time.perf_counter()
        self._check_not_dropped()

    def _open_page(self, current: _WindowReading, number: int, fetched: Fetched[PageBody]) -> None:
        page, walk = fetched.value, current.walk
        edges = _opened(page)
        if isinstance(edges, Verdict):
            self._counted[number] = fetched.requests
            self._ask(current, number, refused=Refused(edges, fetched.history))
            return
        step = walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        if walk.believed:
            self._source.count_is_total = True
        current.note_count()
        if step is Step.AGAIN:
            self._ask(current, number)
        elif step is Step.DELIVER:
            self._stats.pages += 1
            self._open, self._offset = _Open(page, number, page.slices(self._source.zone)), 0
            self._top_up(current, in_hand=edges[2])

    def _conclude(self, current: _WindowReading) -> None:
        if current.walk.conclude(may_reread=not current.resumed):
            self._current = None
            return
        current.read_again()

    # Going on from a checkpoint

    def _read_start(self, start: str) -> Checkpoint:
        checkpoint = Checkpoint.read(start, self._query.fingerprint(self._source.zone))
        if not self._ordered:
            raise ConfigurationError(
                "start= needs ordered=True", why="only an ordered stream has a place to go on from"
            )
        while self._windows and self._windows[0].last != checkpoint.window:
            del self._windows[0]
        if not self._windows:
            raise ResumeMismatchError("the checkpoint's window is not in this range", fix="start again without start=")
        self._page_size = checkpoint.asked
        return checkpoint

    async def _look_for_anchor(self, current: _WindowReading, search: Iterator[int]) -> None:
        """Look on one more page for the call that was given out last; where it stands, go on behind it."""
        anchor = self._anchor
        assert anchor is not None  # noqa: S101 - for the type checker: a search has an anchor
        if not self.pending:
            number = next(search, None)
            if number is None:
                raise _anchor_is_lost()
            self._ask(current, number, proved=True)
        number, fetched = await self._take_page()
        page = fetched.value
        edges = page.open()
        records = page.records(self._source.zone)
        index = next((index for index, record in enumerate(records) if record.id == anchor.id), None)
        if index is not None:
            self._search = None
            self._go_on_behind(current, anchor, number, index, page, edges, records)
        elif not records and number >= -(-anchor.rank // anchor.size):
            raise _anchor_is_lost()

    def _go_on_behind(  # noqa: PLR0917 - one step of its caller, cut off for length
        self,
        current: _WindowReading,
        anchor: Checkpoint,
        number: int,
        index: int,
        page: PageBody,
        edges: tuple[str, str, int],
        records: list[CallRecord],
    ) -> None:
        rows = len(records)
        # A page of another length is the last one, or the server gives other pages now than it did then.
        same = rows == anchor.size or (number - 1) * anchor.size + rows == page.count
        size = anchor.size if same else rows
        walk = current.walk = PageWalk(
            self._page_size,
            believed=self._source.count_is_total,
            before=(number - 1) * size + index + 1,
            first=number,
            size=size,
        )
        current.resumed = True
        walk.next_page(0)
        walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        current.note_count()
        self._stats.pages += 1
        self._open, self._offset = _Open(page, number, iter([records[index + 1 :]])), index + 1


def _opened(page: PageBody) -> Edges | Verdict:
    """Open a page, or say what is wrong with it; what was raised stays here, for its frames hold the page."""
    try:
        return page.open()
    except Unacceptable as refusal:
        return refusal.verdict


def _anchor_is_lost() -> ResumeMismatchError:
    return ResumeMismatchError(
        "the last call that was handed out is no longer there",
        why="it was removed, so nobody can tell where to go on",
        fix="start again without start=; calls that come twice have the same id",
    )
