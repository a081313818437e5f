"""CallStream: calls as they come, page after page, many pages at once, in order, and never one silently lost.

The rules it is built by; ``docs/explanation/stream.md`` says why.

1. Making a stream does nothing; the first ``anext`` starts it.
2. Pages are asked for only inside ``anext``: a window of twice the concurrency is filled before records are handed out,
   so the network works while the consumer does. An abandoned stream starts nothing more.
3. It waits with ``asyncio.wait``, which never cancels what it waits for: an ``anext`` that is cancelled or timed out
   loses nothing, and the next one takes the same page.
4. Page tasks belong to the client and know the client, never the stream: dropping the stream frees it.
5. ``aclose`` cancels and waits, under a shield that lives within that one await. ``__del__`` only cancels.
6. No scope is open while it is suspended: a stream may stand in anybody's generator.
7. Ordered, and failing at the head: what was handed out is an exact prefix, so ``checkpoint`` is exact.
8. Finished, failed and closed early are three outcomes: the end; the same error again; ``StreamClosedError``.
9. The end is proved (``protocol/pages.py``), each call passes once and lies in the window (``protocol/sieve.py``).
10. Ranges over 31 days are walked window by window, newest first.
11. Between two awaits its state is whole: every await below may be cancelled, twice.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from servetel_async.errors import (
    ConfigurationError,
    DeadlineExceededError,
    ResumeMismatchError,
    ServetelError,
    StreamClosedError,
)
from servetel_async.protocol.checkpoint import Checkpoint
from servetel_async.protocol.pages import PageWalk, Step
from servetel_async.protocol.records import CallPage, CallRecord
from servetel_async.protocol.sieve import Sieve
from servetel_async.transport.tasks import cancel, end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo
    from types import TracebackType

    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window
    from servetel_async.transport.transport import Fetched

PageTask = asyncio.Task["Fetched[PageBody]"]


class PageSource(Protocol):
    """What a stream needs of its client."""

    count_is_total: bool

    @property
    def zone(self) -> tzinfo: ...  # noqa: D102

    @property
    def window_of_pages(self) -> int: ...  # noqa: D102

    def start_page(
        self, query: CallQuery, window: Window, number: int, page_size: int, deadline_at: float | None
    ) -> PageTask:
        """Start a page's task; the client owns it."""
        ...


@dataclass(slots=True)
class StreamStats:
    """What a stream has done so far.

    Attributes:
        records: calls handed out, duplicates: met again and dropped, reused_ids: other calls under a known id.
        pages: pages read; requests: on the wire, retries included; size: bytes of their bodies.
        count: what the API counted, summed over the windows that were begun; None where it does not count the whole.
        passes: how often a window was read again because it had moved.
        waited_for_pages: seconds that the consumer waited; waited_for_consumer: seconds that the stream did.
    """

    records: int = 0
    duplicates: int = 0
    reused_ids: int = 0
    undated: int = 0
    pages: int = 0
    requests: int = 0
    size: int = 0
    count: int | None = 0
    passes: int = 0
    waited_for_pages: float = 0.0
    waited_for_consumer: float = 0.0


class _State(enum.Enum):
    NEW = "not started"
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"


class CallStream(AsyncGenerator[CallRecord, None]):
    """The calls of one query; made by ``ServetelClient.calls``. One consumer at a time.

    Use it as ``async for call in stream``; as ``async with client.calls(...) as stream`` where all must be over on the
    next line; by pages with ``stream.pages()``; or whole with ``await stream.collect()``.

    Raises from iteration:
        ServetelError: a page failed; calls before it were handed out, ``error.checkpoint`` says where to go on.
        StreamClosedError: it was closed before its end, and then read.
        RuntimeError: two tasks read it at once.
    """

    def __init__(
        self,
        source: PageSource,
        query: CallQuery,
        *,
        page_size: int,
        max_records: int | None = None,
        ordered: bool = True,
        deadline: float | None = None,
        start: str | None = None,
    ) -> None:
        self._source = source
        self._query = query
        self._fingerprint = query.fingerprint(source.zone)
        self._ordered = ordered
        self._deadline = deadline
        self._deadline_at: float | None = None
        self._max_records = max_records
        self._page_size = page_size
        self._windows = iter(list(query.window(source.zone).split()))

        self._state = _State.NEW
        self._failure: Exception | None = None
        self._failure_traceback: TracebackType | None = None
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: Iterator[CallRecord] = iter(())
        self._pending: dict[int, PageTask] = {}
        self._ending: set[PageTask] = set()

        self._window: Window | None = None
        self._base = (0, 0, 0)  # duplicates, reused ids and undated calls of the windows before this one
        self._counted: int | None = 0  # what the API counted in them
        self._walk: PageWalk | None = None
        self._sieve: Sieve | None = None
        self._page: PageBody | None = None
        self._number = 0
        self._slices: Iterator[Sequence[CallRecord]] | None = None
        self._offset = 0  # of the next slice in its page
        self._planned = 0  # calls handed out, and those of the page in hand
        self._resumed = False
        self._anchor: Checkpoint | None = None
        self._search: Iterator[int] | None = None

        self._last: CallRecord | None = None
        self._place: tuple[Window, int, int, int, Sequence[CallRecord]] | None = None
        self._settled: str | None = None  # the checkpoint at the end of a window's first reading
        self._handed_out_at: float | None = None
        self.stats = StreamStats()
        if start is not None:
            self._anchor = self._read_start(start)

    # For its users

    @property
    def checkpoint(self) -> str | None:
        """Where it stands, after the last call handed out; give it to ``calls(..., start=)``. None before the first
        call, and with ``ordered=False``, which has no prefix to go on from."""  # noqa: D205, D209
        if not self._ordered or self._last is None or self._place is None:
            return None if self._anchor is None else str(self._anchor)
        window, size, number, offset, records = self._place
        index = next((index for index, record in enumerate(records) if record is self._last), None)
        if index is None:
            return self._settled
        rank = (number - 1) * size + offset + index + 1
        return str(Checkpoint(self._fingerprint, window.last, self._page_size, size, rank, self._last.id))

    @property
    def closed(self) -> bool:
        """Whether nothing more will come: finished, failed or closed."""
        return self._state not in (_State.NEW, _State.OPEN)

    def pages(self) -> PageStream:
        """Read by pages: the same stream, a ``CallPage`` at a time."""
        return PageStream(self)

    async def collect(self, limit: int | None = None) -> list[CallRecord]:
        """Read to the end, or up to ``limit`` calls, and close."""
        if limit is not None:
            check_whole("limit", limit)
            if self._state is _State.NEW:
                self._max_records = limit if self._max_records is None else min(limit, self._max_records)
        calls: list[CallRecord] = []
        async with self:
            async for call in self:
                calls.append(call)
                if len(calls) == limit:
                    break
        return calls

    async def aclose(self) -> None:
        """Cancel what is under way and wait until it is over. Closing again does nothing."""
        if not self.closed:
            self._state = _State.CLOSED
        await self._wind_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CallRecord:
        """Give the next call."""
        for call in self._ready:
            self._last = call
            self.stats.records += 1
            return call
        await self._advance()
        return await self.__anext__()

    async def asend(self, value: None) -> CallRecord:
        """Give the next call; a stream takes nothing in."""
        if value is not None:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("a CallStream takes no values")
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None, /) -> CallRecord:
        """Close, then raise what was thrown in."""
        await self.aclose()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb) if tb is not None else error

    def __del__(self) -> None:
        """Cancel, from whatever thread the collector runs in; never wait, never start anything."""
        tasks = list(getattr(self, "_pending", {}).values())
        loop = getattr(self, "_loop", None)
        if not tasks or loop is None or loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            cancel(tasks)
        else:
            loop.call_soon_threadsafe(cancel, tasks)

    def __repr__(self) -> str:
        return f"<CallStream {self._state.value}, {self.stats.records} calls, {self._query!r}>"

    # How it goes on

    async def _advance(self) -> None:
        """Fill ``_ready`` with at least one call, or end as the state says."""
        records, *_place = await self._next_piece()
        self._ready = iter(records)

    async def _next_piece(self, *, whole_page: bool = False) -> tuple[list[CallRecord], PageBody, int]:
        """Give the next calls that were never handed out, their page and its number."""
        if self._busy:
            raise RuntimeError("two tasks read one CallStream at once; give each its own, or share through a queue")
        self._check_open()
        self._busy = True
        if self._handed_out_at is not None:
            self.stats.waited_for_consumer += time.perf_counter() - self._handed_out_at
        try:
            begun = self._begun_page() if whole_page else None
            piece = begun if begun is not None else await self._walk_on()
            if whole_page:
                piece = self._rest_of_page(piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is final and must be raised again
            failure = error
        else:
            self._handed_out_at = time.perf_counter()
            return piece
        finally:
            self._busy = False
        self._fail(failure)
        await self._wind_up()
        raise failure

    def _fail(self, failure: Exception) -> None:
        """Remember how it ended; a stream that was closed meanwhile stays closed."""
        if self._state is not _State.OPEN:
            return
        if isinstance(failure, StopAsyncIteration):
            self._state = _State.FINISHED
            return
        if isinstance(failure, ServetelError) and failure.checkpoint is None:
            failure.checkpoint = self.checkpoint
        self._state, self._failure, self._failure_traceback = _State.FAILED, failure, failure.__traceback__

    def _check_open(self) -> None:
        if self._state is _State.NEW:
            self._state = _State.OPEN
            self._loop = asyncio.get_running_loop()
            if self._deadline is not None:
                self._deadline_at = self._loop.time() + self._deadline
        elif self._state is _State.FINISHED:
            raise StopAsyncIteration
        elif self._failure is not None:
            raise self._failure.with_traceback(self._failure_traceback)
        elif self._state is _State.CLOSED:
            raise self._closed_error()

    def _closed_error(self) -> StreamClosedError:
        return StreamClosedError(
            "the stream was closed before its end",
            why=f"{self.stats.records} calls had been handed out",
            fix="go on in a new stream with start=stream.checkpoint",
            checkpoint=self.checkpoint,
        )

    async def _walk_on(self) -> tuple[list[CallRecord], PageBody, int]:
        """Go on until there are calls to hand out. Raises StopAsyncIteration at the proved end."""
        while True:
            piece = self._next_slice()
            if piece is not None:
                return piece
            if self._max_records is not None and self._planned >= self._max_records:
                raise StopAsyncIteration
            walk = self._walk if self._walk is not None else self._begin_window()
            if self._search is not None:
                await self._find_checkpoint()
                continue
            self._top_up(walk)
            if not self._pending:
                self._conclude(walk)
                continue
            number, fetched = await self._take_page()
            self._open_page(walk, number, fetched)

    def _next_slice(self) -> tuple[list[CallRecord], PageBody, int] | None:
        """Decode and sift until something is left; None at the end of the page."""
        page, walk, sieve = self._page, self._walk, self._sieve
        while self._slices is not None:
            records = next(self._slices, None)
            if records is None:
                self._slices = self._page = None
                break
            assert page is not None  # noqa: S101 - for the type checker: slices have a page, a walk and a sieve
            assert walk is not None  # noqa: S101
            assert sieve is not None  # noqa: S101
            offset, self._offset = self._offset, self._offset + len(records)
            fresh, new_in_pass = sieve.sift(records)
            walk.sifted(new=len(fresh), new_in_pass=new_in_pass, number=self._number)
            self._count_sieve(sieve)
            if self._max_records is not None and self._planned + len(fresh) > self._max_records:
                del fresh[self._max_records - self._planned :]
            self._planned += len(fresh)
            if fresh:
                if walk.passes == 1 and self._window is not None:
                    self._place = (self._window, walk.size, self._number, offset, records)
                return fresh, page, self._number
        return None

    def _begun_page(self) -> tuple[list[CallRecord], PageBody, int] | None:
        """Give what is left of the page that was begun call by call."""
        left, self._ready = list(self._ready), iter(())
        return (left, self._page, self._number) if left and self._page is not None else None

    def _rest_of_page(
        self, piece: tuple[list[CallRecord], PageBody, int]
    ) -> tuple[list[CallRecord], PageBody, int]:
        records, page, number = piece
        while (more := self._next_slice()) is not None:
            records = [*records, *more[0]]
        return records, page, number

    def _begin_window(self) -> PageWalk:
        window = next(self._windows, None)
        if window is None:
            raise StopAsyncIteration
        self._window = window
        self._sieve = Sieve(window)
        self._base = (self.stats.duplicates, self.stats.reused_ids, self.stats.undated)
        self._counted = self.stats.count
        believed = self._source.count_is_total
        self._resumed = False
        if self._anchor is not None and self._last is None and self._search is None:
            self._search = self._anchor.pages_to_search()
        self._walk = PageWalk(self._page_size, believed=believed)
        return self._walk

    def _top_up(self, walk: PageWalk) -> None:
        """Ask ahead: at most a window of pages that nobody has read, and none that ``max_records`` makes needless."""
        assert self._window is not None  # noqa: S101 - for the type checker
        limit = self._source.window_of_pages
        if self._max_records is not None and walk.size:
            limit = min(limit, -(-(self._max_records - self._planned) // walk.size))
        while len(self._pending) < limit:
            number = walk.next_page(len(self._pending))
            if number is None:
                return
            self._pending[number] = self._start(number)

    def _start(self, number: int) -> PageTask:
        assert self._window is not None  # noqa: S101 - for the type checker
        return self._source.start_page(self._query, self._window, number, self._page_size, self._deadline_at)

    async def _take_page(self) -> tuple[int, Fetched[PageBody]]:
        """Wait for the head, or for any page where order does not matter; take it out only when it is there."""
        waiting = {self._pending[min(self._pending)]} if self._ordered else set(self._pending.values())
        if not any(task.done() for task in waiting):
            begun = time.perf_counter()
            timeout = None if self._deadline_at is None else max(0.0, self._deadline_at - _now())
            try:
                done, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.stats.waited_for_pages += time.perf_counter() - begun
            if self._state is not _State.OPEN:
                raise self._closed_error()
            if not done:
                raise DeadlineExceededError(
                    "the deadline passed before the stream's end", fix="allow more time, or go on from the checkpoint"
                )
        number = next(number for number, task in sorted(self._pending.items()) if task in waiting and task.done())
        task = self._pending.pop(number)
        if task.cancelled():
            raise StreamClosedError("the client was closed under the stream", fix="keep it open until the stream's end")
        error = task.exception()
        if error is not None:
            self.stats.requests += getattr(error, "attempts", 0)
            raise error
        fetched = task.result()
        self.stats.requests += fetched.requests
        self.stats.size += fetched.size
        return number, fetched

    def _open_page(self, walk: PageWalk, number: int, fetched: Fetched[PageBody]) -> None:
        page = fetched.value
        edges = page.open()
        step = walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        if walk.believed:
            self._source.count_is_total = True
        self._count(walk)
        if step is Step.AGAIN:
            self._pending[number] = self._start(number)
        elif step is Step.DELIVER:
            self.stats.pages += 1
            self._page, self._number, self._offset = page, number, 0
            self._slices = page.slices(self._source.zone)
            self._planned += edges[2]  # so that no page is asked for that max_records makes needless
            self._top_up(walk)
            self._planned -= edges[2]

    def _conclude(self, walk: PageWalk) -> None:
        assert self._sieve is not None  # noqa: S101 - for the type checker
        if walk.conclude(may_reread=not self._resumed):
            self._walk = self._sieve = None
        else:
            self._settled = self.checkpoint
            self._sieve.begin_pass()
            self.stats.passes += 1

    def _count(self, walk: PageWalk) -> None:
        total = walk.count if walk.believed or walk.count == 0 else None
        self.stats.count = None if total is None or self._counted is None else self._counted + total

    def _count_sieve(self, sieve: Sieve) -> None:
        duplicates, reused, undated = self._base
        self.stats.duplicates = duplicates + sieve.duplicates
        self.stats.reused_ids = reused + sieve.reused_ids
        self.stats.undated = undated + sieve.undated

    # How it starts from a checkpoint

    def _read_start(self, start: str) -> Checkpoint:
        checkpoint = Checkpoint.read(start, self._fingerprint)
        if not self._ordered:
            raise ConfigurationError("start= needs ordered=True", why="only an ordered stream has a place to go on from")
        windows = [*self._windows]
        while windows and windows[0].last != checkpoint.window:
            del windows[0]
        if not windows:
            raise ResumeMismatchError("the checkpoint's window is not in this range", fix="start again without start=")
        self._windows = iter(windows)
        self._page_size = checkpoint.asked
        return checkpoint

    async def _find_checkpoint(self) -> None:
        """Look on one more page for the call that was handed out last; where it is found, go on behind it."""
        assert self._search is not None  # noqa: S101 - for the type checker
        anchor = self._anchor
        assert anchor is not None  # noqa: S101
        if not self._pending:
            number = next(self._search, 0)
            if not number:
                raise _lost_anchor()
            self._pending[number] = self._start(number)
        number, fetched = await self._take_page()
        page = fetched.value
        edges = page.open()
        records = [record for piece in page.slices(self._source.zone) for record in piece]
        index = next((index for index, record in enumerate(records) if record.id == anchor.id), None)
        if index is None:
            if not records and number >= -(-anchor.rank // anchor.size):
                raise _lost_anchor()
            return
        self._search = None
        self._resumed = True
        before = (number - 1) * anchor.size + index + 1
        self._walk = walk = PageWalk(
            self._page_size, believed=self._source.count_is_total, before=before, first=number, size=anchor.size
        )
        walk.next_page(0)
        walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        self._count(walk)
        self.stats.pages += 1
        self._page, self._number, self._offset = page, number, index + 1
        self._slices = iter([records[index + 1 :]])

    # How it ends

    async def _wind_up(self) -> None:
        """Let go of everything and wait until it is over; whoever comes meanwhile waits along."""
        self._ending |= {task for task in self._pending.values() if not task.done()}
        self._pending = {}
        self._ready, self._slices, self._page, self._sieve = iter(()), None, None, None
        await end(self._ending)
        self._ending.clear()


class PageStream(AsyncIterator[CallPage]):
    """The pages of a ``CallStream``; pages that hold nothing new are left out."""

    def __init__(self, stream: CallStream) -> None:
        self._stream = stream

    async def __anext__(self) -> CallPage:
        """Give the next page."""
        stream = self._stream
        records, page, number = await stream._next_piece(whole_page=True)  # noqa: SLF001 - two views of one thing
        stream.stats.records += len(records)
        stream._last = records[-1]  # noqa: SLF001
        return CallPage(records=tuple(records), number=number, count=page.count, limit=page.limit, raw=page.body)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


def _lost_anchor() -> ResumeMismatchError:
    return ResumeMismatchError(
        "the last call that was handed out is no longer there",
        why="it was removed, so nobody can tell where to go on",
        fix="start again without start=; calls that come twice have the same id",
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def check_whole(name: str, value: object) -> None:
    """Check a number that a caller gave.

    Raises:
        ConfigurationError: not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1", fix=f"for example {name}=100")
