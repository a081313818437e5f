"""Adaptive concurrency of a pull: as many requests at once as the server bears.

Additive increase, multiplicative decrease: each good reply raises the limit a little, a 429 or a timeout halves it.
Waiting requests are served by priority, so that windows finish one after another, not all at the end.
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
    """Slots for requests; their number follows what the server bears.

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
            if turn.done() and not turn.cancelled():  # it got a slot just before it was cancelled
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
        """Raise the limit a little, after a good reply."""
        self.limit = min(float(self._most), self.limit + 1.0 / self.limit)
        self._wake()

    @property
    def learnt(self) -> float | None:
        """The first limit of the next pull. At the upper bound, a larger limit learnt before is kept."""
        return self.limit if self.limit < self._most else self._above

    def shrink(self, sent_at: float, now: float) -> None:
        """Halve the limit, after a 429 or a timeout. Requests sent before the last halving do not count again."""
        if sent_at > self._shrunk_at:
            self.limit = max(1.0, self.limit / 2)
            self._shrunk_at = now

    def restart(self) -> None:
        """Start again with one request at a time: right after an outage, more could overload the server."""
        self.limit = 1.0
