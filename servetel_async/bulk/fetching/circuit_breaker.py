"""An outage: the server gives no good reply to anybody. Everybody waits, and one request at a time looks if it is over.

The state is that of a circuit breaker. Closed: requests go, and each retries by itself. Open, after ``THRESHOLD``
failures in a row with no good reply between them: all wait but one, who probes, each time a little later. The first
good reply closes it. A pull is patient for ``patience`` seconds from the last good reply on, however many requests that
is; before the first good reply there is no outage: then it is the address that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servetel_async.settings import Retry

THRESHOLD = 5
#: Seconds between two probes, at most.
PROBE_CAP = 30.0


class CircuitBreaker:
    """See the module.

    Attributes:
        waited: seconds that probes were put off.
    """

    def __init__(self, retry: Retry, patience: float) -> None:
        self.waited = 0.0
        self._retry = retry
        self._patience = patience
        self._failures = 0
        self._probes = 0
        self._good_at: float | None = None
        self._probing = asyncio.Lock()

    def is_open(self) -> bool:
        """Whether there is an outage."""
        return self._good_at is not None and self._failures >= THRESHOLD

    @property
    def waits_too_long(self) -> bool:
        """Whether the last good reply is longer ago than the pull's patience."""
        return self._good_at is not None and self._now() - self._good_at >= self._patience

    @property
    def over_patience(self) -> bool:
        """Whether it has lasted too long."""
        return self.is_open() and self.waits_too_long

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Hold the right to send one request: at once, or as the one who probes."""
        if not self.is_open():
            yield
            return
        async with self._probing:
            if self.is_open():
                await self._wait()
                yield
                return
        yield

    async def _wait(self) -> None:
        longest = min(PROBE_CAP, self._retry.base * 2.0 ** min(self._probes, 30))
        left = self._patience - (self._now() - (self._good_at or 0.0))
        seconds = max(0.0, min(left, random.uniform(longest / 2, longest)))  # noqa: S311 - jitter, not a secret
        self._probes += 1
        self.waited += seconds
        await asyncio.sleep(seconds)

    def succeeded(self) -> bool:
        """Note a good reply; gives whether it ended an outage."""
        ended = self.is_open()
        self._failures = self._probes = 0
        self._good_at = self._now()
        return ended

    def failed(self) -> None:
        """Note a failure that might be one of everybody's."""
        self._failures += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
