"""One heavy step in each turn of the loop: pages that come together are read one after the other, not at once."""

from __future__ import annotations

import asyncio

#: Bytes from which on a body is heavy.
HEAVY = 256 * 1024


class LoopFairness:
    """The turns of one loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)

    async def take(self) -> None:
        """Go on in a turn that nobody else does a heavy step in."""
        await self._free.acquire()
        asyncio.get_running_loop().call_soon(self._free.release)
