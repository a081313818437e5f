"""Equal calls in flight share one: the first caller starts the work, the others wait for its result.

1. Each caller has its own deadline and may be cancelled alone. The work is cancelled when its last caller has left.
2. The work runs under the deadline of the caller that started it. If that deadline ends it, a caller with more time
   starts it again.
3. Each caller gets its own copy of an error, so callers cannot change each other's.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, TypeVar

from servetel_async.aio.tasks import end, error_of
from servetel_async.errors import DeadlineExceededError, OverloadedError, ServetelError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

T = TypeVar("T")

#: Seconds. If a caller has only this much more time than the first, another request is not worthwhile.
LITTLE = 0.05


class _Flight:
    """One piece of work in flight."""

    __slots__ = ("begun", "callers", "deadline_at", "task")

    def __init__(self, task: asyncio.Task[Any], begun: float, deadline_at: float | None) -> None:
        self.task = task
        self.begun = begun
        self.deadline_at = deadline_at
        self.callers = 0

    def failed_early(self, error: BaseException, called_at: float, deadline_at: float | None) -> bool:
        """Whether the work failed for lack of time, and a caller with these limits has more time."""
        if not isinstance(error, ServetelError) or error.stopped_by not in ("deadline", "budget", "retry_after"):
            return False
        if self.deadline_at is not None and (deadline_at is None or deadline_at > self.deadline_at + LITTLE):
            return True
        return isinstance(error, OverloadedError) and called_at > self.begun + LITTLE


class SingleFlight:
    """The calls of one client in flight.

    Args:
        spawn: starts a task that the client owns.
        is_closed: says whether the client, and every task with it, is closed.

    Attributes:
        shared: calls that joined one in flight.
    """

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]], is_closed: Callable[[], bool]
    ) -> None:
        self.shared = 0
        self._is_closed = is_closed
        self._spawn = spawn
        self._flights: dict[Hashable, _Flight] = {}

    async def fly(
        self, key: Hashable, work: Callable[[float | None], Coroutine[Any, Any, T]], deadline_at: float | None
    ) -> T:
        """Return the result of the work in flight for this key, or start it.

        Args:
            key: equal for calls whose results are equal.
            work: starts the work, with a deadline as loop time. It ends by itself at that deadline.
            deadline_at: loop time until which this caller waits.

        Raises:
            DeadlineExceededError: if the deadline of this caller has passed.
            StreamClosedError: if the client was closed meanwhile.
            Exception: if the work raised; the same error.
        """
        loop = asyncio.get_running_loop()
        called_at = loop.time()
        key = loop, key  # another thread may use the client by mistake
        while True:
            flight = self._flights.get(key)
            starts = flight is None or flight.task.done()
            if flight is None or starts:
                task = self._spawn(work(deadline_at))
                flight = self._flights[key] = _Flight(task, loop.time(), deadline_at)
            else:
                self.shared += 1
            if not await self._wait(key, flight, None if starts else deadline_at):
                raise DeadlineExceededError(
                    "the deadline passed before there was a good reply",
                    why="an equal call was under way, and this one waited for its reply",
                    fix="allow more time, or ask for less",
                    stopped_by="deadline",
                )
            error = error_of(flight.task, closed=self._is_closed(), user="call")
            if error is None:
                return flight.task.result()  # type: ignore[no-any-return]
            if starts or not flight.failed_early(error, called_at, deadline_at):
                raise copy.copy(error) if isinstance(error, ServetelError) else error

    async def _wait(self, key: Hashable, flight: _Flight, deadline_at: float | None) -> bool:
        """Wait for the work to end, until the deadline at most. Return whether it has ended."""
        timeout = None if deadline_at is None else max(0.0, deadline_at - asyncio.get_running_loop().time())
        flight.callers += 1
        try:
            done, _ = await asyncio.wait({flight.task}, timeout=timeout)
            return bool(done)
        finally:
            flight.callers -= 1
            if not flight.callers:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                await end({flight.task})
