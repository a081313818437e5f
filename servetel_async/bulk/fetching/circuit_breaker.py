"""The circuit breaker for outages: all requests wait, and one probe at a time looks whether the outage is over.

1. Closed: requests are sent, and each retries on its own.
2. Open, after ``THRESHOLD`` failures in a row: all requests wait except the probe. Each probe waits a little longer.
3. The first good reply closes it.
4. A pull waits up to ``patience`` seconds from the last good reply on, however many requests that is.
5. It never opens before the first good reply: until then, the address is probably wrong.
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
#: Longest wait between two probes, in seconds.
PROBE_CAP = 30.0


class CircuitBreaker:
    """The state of an outage; see the module.

    Attributes:
        waited: seconds that probes have waited.
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
        """Whether the outage has lasted longer than the pull's patience."""
        return self.is_open() and self.waits_too_long

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Hold the right to send one request; in an outage, wait to become the probe."""
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
        """Note a good reply; return whether it ended an outage."""
        ended = self.is_open()
        self._failures = self._probes = 0
        self._good_at = self._now()
        return ended

    def failed(self) -> None:
        """Note a failure that may be part of an outage."""
        self._failures += 1

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
