"""One heavy step in each loop iteration: pages that arrive together are read one after the other, not at once."""

from __future__ import annotations

import asyncio

#: A body of this many bytes is heavy.
HEAVY = 256 * 1024


class LoopFairness:
    """The heavy steps of one loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)

    async def take(self) -> None:
        """Wait for a loop iteration in which no other task does a heavy step."""
        await self._free.acquire()
        asyncio.get_running_loop().call_soon(self._free.release)
