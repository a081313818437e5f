"""How many requests of a pull are under way: as many as the server bears, and the oldest work first.

Additive increase, multiplicative decrease: every good reply adds a little, a 429 or a timeout halves. Whoever waits is
served in the order of his priority, so that windows are finished one after another, not all at once at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Concurrency:
    """Slots, of which there are more or fewer as the server takes it.

    Args:
        most: the upper bound.
        learnt: the limit to begin with; None begins with ``most``.
    """

    def __init__(self, most: int, learnt: float | None = None) -> None:
        self.limit = float(most) if learnt is None else min(float(most), learnt)
        self._above = learnt if learnt is not None and learnt > most else None
        self._most = most
        self._taken = 0
        self._shrunk_at = float("-inf")
        self._order = count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def slot(self, priority: float) -> AsyncGenerator[None]:
        """Hold one slot; the smallest priority is served first."""
        await self._take(priority)
        try:
            yield
        finally:
            self._taken -= 1
            self._wake()

    async def _take(self, priority: float) -> None:
        if not self._waiting and self._taken < int(self.limit):
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given a slot in the moment it was cancelled
                self._taken -= 1
            turn.cancel()
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and (self._taken < int(self.limit) or self._waiting[0][2].done()):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                self._taken += 1
                turn.set_result(None)

    def grow(self) -> None:
        """A good reply came."""
        self.limit = min(float(self._most), self.limit + 1.0 / self.limit)
        self._wake()

    @property
    def learnt(self) -> float | None:
        """The limit that the next pull begins with. At the upper bound, a larger limit learnt before is kept."""
        return self.limit if self.limit < self._most else self._above

    def shrink(self, sent_at: float, now: float) -> None:
        """The server was too slow, or said so. What was sent before the last time has said it already."""
        if sent_at > self._shrunk_at:
            self.limit = max(1.0, self.limit / 2)
            self._shrunk_at = now

    def restart(self) -> None:
        """Begin with one again, after an outage: nobody is to be run over who has just got up."""
        self.limit = 1.0
