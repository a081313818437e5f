"""CallStream: calls as they come, page after page, many pages at once, in order, and none lost silently.

The rules; ``docs/explanation/stream.md`` gives the reasons.

1. Making a stream does nothing; the first ``anext`` starts it.
2. Pages are requested only inside ``anext``: a window of twice the concurrency is filled before records are delivered,
   so the network works while the consumer does. An abandoned stream starts no more requests.
3. It waits with ``asyncio.wait``, which never cancels the tasks it waits for: an ``anext`` that is cancelled or timed
   out loses nothing, and the next one takes the same page.
4. Page tasks belong to the client and know the client, never the stream: dropping the stream frees it.
5. ``aclose`` cancels and waits, under a shield that lives within that one await. ``__del__`` only cancels.
6. No scope is open while it is suspended: a stream may be used inside any generator.
7. An ordered stream fails at the head: the calls delivered are an exact prefix, so ``checkpoint`` is exact.
8. There are three outcomes: finished (the end), failed (the same error again), closed early (``StreamClosedError``).
9. The end is proved (``protocol/pages.py``). Each call passes once and is in the window (``window_filter.py``).
10. A range over 31 days is read window by window, newest first (``reader.py``).
11. The state is whole between two awaits: every await may be cancelled, twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import operator
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Self

from servetel_async.aio.tasks import cancel, end, own_error
from servetel_async.errors import ConfigurationError, ServetelError, StreamClosedError
from servetel_async.protocol.records import CallPage, CallRecord
from servetel_async.streaming.piece import End, Piece
from servetel_async.streaming.reader import Reading
from servetel_async.streaming.stats import StreamStats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from servetel_async.page_source import PageSource, PageTask
    from servetel_async.protocol.checkpoint import Position
    from servetel_async.protocol.query import CallQuery


class _State(enum.Enum):
    NEW = "not started"
    OPEN = "open"
    FINISHED = "finished"
    FAILED = "failed"
    CLOSED = "closed"


class CallStream(AsyncGenerator[CallRecord, None]):
    """The calls of one query; made by ``ServetelClient.calls``. One consumer at a time.

    Use it as ``async for call in stream``; as ``async with client.calls(...) as stream`` if it must be over on the next
    line; by pages with ``stream.pages()``; or whole with ``await stream.collect()``.

    Iterating raises the ``ServetelError`` of a failed page after all calls before it were delivered (resume from
    ``error.checkpoint``); ``StreamClosedError`` after an early close; ``RuntimeError`` if two tasks read it at once.
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
        self._stats = StreamStats()
        self._taken = 0  # calls that were read; those in _ready are not delivered yet
        self._source = source
        self._query = query
        self._terms = page_size, ordered, start
        self._deadline = deadline
        self._state = _State.NEW
        self._failure: BaseException | None = None
        self._failure_traceback: TracebackType | None = None
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: Iterator[CallRecord] = iter(())
        self._last: CallRecord | None = None
        self._place: Position | None = None
        self._settled: str | None = None  # the last checkpoint before the list moved
        self._ending: set[PageTask] = set()
        self._handed_out_at: float | None = None
        self._reading = Reading(
            source,
            query,
            page_size=page_size,
            max_records=max_records,
            ordered=ordered,
            start=start,
            stats=self._stats,
        )

    @property
    def checkpoint(self) -> str | None:
        """The position after the last delivered call; give it to ``calls(..., start=)`` of the same query.

        None before the first call, and with ``ordered=False``, which has no prefix to resume from. Once the list has
        moved, the checkpoint no longer advances: calls in front of any later place may still be missing.
        """
        return (
            self._settled
            if self._place is None and self._settled
            else self._reading.checkpoint(self._last, self._place)
        )

    @property
    def stats(self) -> StreamStats:
        """The figures of this stream so far."""
        self._stats.records = self._taken - operator.length_hint(self._ready)
        return self._stats

    @property
    def closed(self) -> bool:
        """Whether the stream is over: finished, failed or closed."""
        return self._state not in (_State.NEW, _State.OPEN)

    def pages(self) -> PageStream:
        """Read by pages: the same stream, a ``CallPage`` at a time."""
        return PageStream(self)

    async def collect(self, limit: int | None = None) -> list[CallRecord]:
        """Read to the end, or up to ``limit`` calls, and close. The stream must be new.

        Equal calls of ``collect(limit)`` in flight share their requests.

        Raises:
            ConfigurationError: if calls were read from this stream before, so the list would not be complete.
            StreamClosedError: if the stream was closed before its end.
            ServetelError: if a page failed, now or before.
        """
        self._check_unread()
        if limit is not None:
            check_whole("limit", limit)
            if self._state is _State.NEW:
                return await self._collect_shared(limit)
        return await self._collect(limit)

    async def _collect(self, limit: int | None) -> list[CallRecord]:
        calls: list[CallRecord] = []
        async with self:
            async for call in self:
                calls.append(call)
                if len(calls) == limit:
                    break
        return calls

    async def _collect_shared(self, limit: int) -> list[CallRecord]:
        """Let one stream read for all equal calls, and adopt its result."""
        most = self._reading.max_records
        most = limit if most is None else min(limit, most)
        page_size, ordered, start = self._terms

        async def collect(until: float | None) -> tuple[CallStream, list[CallRecord]]:
            reader = CallStream(
                self._source, self._query, page_size=page_size, max_records=most, ordered=ordered, start=start
            )
            reader._reading.deadline_at = until
            return reader, await reader._collect(most)

        self._check_open()
        self._busy = True
        try:
            key = ("collect", self._query, most, *self._terms)
            reader, calls = await self._source.flights.fly(key, collect, self._reading.deadline_at)
        except Exception as error:  # noqa: BLE001 - it is final, and raised again by the next read
            failure = error
        else:
            vars(self).update(vars(reader), _stats=dataclasses.replace(reader.stats))
            return list(calls)
        finally:
            self._busy = False
            self._state = _State.CLOSED if self._state is _State.OPEN else self._state
        self._state, self._failure, self._failure_traceback = _State.FAILED, failure, failure.__traceback__
        self._settled = getattr(failure, "checkpoint", None)
        raise failure

    async def aclose(self) -> None:
        """Cancel everything in flight and wait until it ends. Closing again does nothing."""
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
        """Return the next call."""
        for call in self._ready:
            self._last = call
            return call
        if self._place is not None and self._last is not None:
            self._place = self._place.at(self._last)  # frees the slice before the next one is made, while in the cache
        piece = await self._next_piece()
        self._set_place(piece.place)
        self._ready = iter(piece.records)
        self._taken += len(piece.records)
        self._last = next(self._ready)
        return self._last

    async def next_page(self) -> CallPage:
        """Return the rest of the page in hand, or the next page. ``pages()`` is its iterator."""
        records, page, number, place = await self._next_piece(whole_page=True)
        self._set_place(place)
        self._taken += len(records)
        self._last = records[-1]
        return CallPage(records=tuple(records), number=number, count=page.count, limit=page.limit, raw=page.body)

    async def asend(self, value: None) -> CallRecord:
        """Return the next call; a stream accepts no value."""
        if value is not None:  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("a CallStream takes no values")
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None, /) -> CallRecord:
        """Close, then raise the given exception."""
        await self.aclose()
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        raise error.with_traceback(tb) if tb is not None else error

    def __del__(self) -> None:
        """Cancel, in any thread of the garbage collector; never wait, never start anything."""
        reading, loop = getattr(self, "_reading", None), getattr(self, "_loop", None)
        if reading is None or not reading.pending or loop is None or loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        tasks = reading.drop()
        if here is loop:
            cancel(tasks)
        else:
            loop.call_soon_threadsafe(cancel, tasks)

    def __repr__(self) -> str:
        return f"<CallStream {self._state.value}, {self.stats.records} calls, {self._query!r}>"

    async def _next_piece(self, *, whole_page: bool = False) -> Piece:
        """Read on, one consumer at a time, and remember how the stream ended.

        Raises:
            StopAsyncIteration: at the proved end, and at each read after it.
        """
        if self._busy:
            raise RuntimeError("two tasks read one CallStream at once; give each its own, or share through a queue")
        self._check_open()
        self._busy = True
        if self._handed_out_at is not None:
            self._stats.waited_for_consumer += time.perf_counter() - self._handed_out_at
        failure: BaseException | None = None
        try:
            piece = await self._read_page() if whole_page else await self._reading.next_piece()
        except Exception as error:  # noqa: BLE001 - any exception is final and must be raised again
            failure = own_error(error)
        else:
            if piece is not End.END:
                self._handed_out_at = time.perf_counter()
                return piece
        finally:
            self._busy = False
        self._note_end(failure)
        await self._wind_up()
        raise StopAsyncIteration if failure is None else failure

    def _set_place(self, place: Position | None) -> None:
        """Set the place of the calls to be delivered; keep the place before them if they have none."""
        if place is None and self._place is not None:
            self._settled = self.checkpoint
        elif place is not None:
            self._settled = None
        self._place = place

    async def _read_page(self) -> Piece | End:
        left, self._ready = list(self._ready), iter(())
        self._taken -= len(left)
        begun = self._reading.begun(left, self._place)
        piece = await self._reading.next_piece() if begun is None else begun
        return piece if piece is End.END else await self._reading.rest_of_page(piece)

    def _check_unread(self) -> None:
        if self._state is _State.FINISHED or (self._state is _State.OPEN and self.stats.records):
            ended = "to its end" if self._state is _State.FINISHED else "in part"
            raise ConfigurationError(
                f"the stream was read {ended} before collect()",
                why=f"{self.stats.records:,} calls were delivered before, and collect() would leave them out",
                fix="make a new stream with calls(); [call async for call in stream] reads what is left",
            )

    def _check_open(self) -> None:
        if self._state is _State.NEW:
            self._state = _State.OPEN
            self._loop = asyncio.get_running_loop()
            if self._deadline is not None:
                self._reading.deadline_at = self._loop.time() + self._deadline
        elif self._state is _State.FINISHED:
            raise StopAsyncIteration
        elif self._failure is not None:
            raise self._failure.with_traceback(self._failure_traceback)
        elif self._state is _State.CLOSED:
            raise StreamClosedError(
                "the stream was closed before its end",
                why=f"{self.stats.records} calls had been handed out",
                fix="continue in a new stream with start=stream.checkpoint",
                checkpoint=self.checkpoint,
            )
        elif self._loop is not asyncio.get_running_loop() and self._loop is not None:
            ended = self._loop.is_closed()
            raise ConfigurationError(
                f"this stream {'was begun' if ended else 'is read'} in another event loop",
                why="its pages arrive in the loop that began to read it"
                + (", and that loop is closed" if ended else ""),
                fix="continue in a new stream with start=stream.checkpoint, or read all of it in one asyncio.run()"
                if ended
                else "read it there, or make a client and a stream for each loop",
                checkpoint=self.checkpoint,
            )

    def _note_end(self, failure: BaseException | None) -> None:
        """Remember how the stream ended; a stream closed meanwhile stays closed."""
        if self._state is not _State.OPEN:
            return
        if failure is None:
            self._state = _State.FINISHED
            return
        if isinstance(failure, ServetelError):
            failure.checkpoint = self.checkpoint
        self._state, self._failure, self._failure_traceback = _State.FAILED, failure, failure.__traceback__

    async def _wind_up(self) -> None:
        """Release everything and wait until it is over; concurrent callers wait too."""
        self._taken -= operator.length_hint(self._ready)
        self._ready = iter(())
        self._ending |= {task for task in self._reading.drop() if not task.done()}
        await end(self._ending)
        self._ending.clear()


class PageStream(AsyncIterator[CallPage]):
    """The pages of a ``CallStream``; pages without new calls are left out."""

    def __init__(self, stream: CallStream) -> None:
        self._stream = stream

    async def __anext__(self) -> CallPage:
        """Return the next page."""
        return await self._stream.next_page()

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


def check_whole(name: str, value: object) -> None:
    """Check a number that a caller gave.

    Raises:
        ConfigurationError: if it is not a whole number of at least 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1", fix=f"for example {name}=100")
