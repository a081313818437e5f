"""The length of loop iterations under one load: a process that ``test_loop_stall.py`` runs.

It measures the CPU time of the loop's thread per iteration, which other programs on the machine change little.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

from servetel_async import ServetelClient
from tests.torture.server_process import DAY


class TimedLoop(asyncio.SelectorEventLoop):
    """Records the CPU time of every iteration."""

    def __init__(self):
        super().__init__()
        self.turns = []

    def _run_once(self):
        began = time.thread_time()
        super()._run_once()
        self.turns.append(time.thread_time() - began)


async def pages_of_1000(client, _directory, _callers):
    async for _ in client.calls(DAY, DAY, page_size=1000):
        pass


async def pages_of_5000(client, _directory, _callers):
    async for _ in client.calls(DAY, DAY, page_size=5000):
        pass


async def pull_into_lines(client, directory, _callers):
    await client.pull(directory / "calls.ndjson", from_date=DAY, to_date=DAY)


async def pull_into_a_database(client, directory, _callers):
    await client.pull(directory / "calls.db", from_date=DAY, to_date=DAY)


async def many_callers(client, _directory, callers):
    """A web app whose callers come a few at a time."""

    async def call():
        assert len(await client.calls(DAY, DAY, page_size=20, max_records=20).collect()) == 20

    tasks = []
    for number in range(callers):
        tasks.append(asyncio.create_task(call()))
        if number % 5 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)


LOADS = {
    load.__name__: load for load in (pages_of_1000, pages_of_5000, pull_into_lines, pull_into_a_database, many_callers)
}


async def work(load, base_url, token, callers):
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TimedLoop)
    with tempfile.TemporaryDirectory() as directory:
        async with ServetelClient(token, base_url=base_url, rate=None, page_size=1000, max_concurrency=8) as client:
            # Imports and compilation come before; garbage collection of modules costs time in any program.
            await client.calls(DAY, DAY, page_size=20, max_records=20).collect()
            for ending in ("ndjson", "db"):
                first_second = {"from_date": f"{DAY} 08:00:00", "to_date": f"{DAY} 08:00:00"}
                await client.pull(Path(directory) / f"first.{ending}", **first_second)
            gc.collect()
            gc.freeze()
            await asyncio.sleep(0)  # that was an iteration of ours; and so is the one that removes the directory
            loop.turns.clear()
            await load(client, Path(directory), callers)
            await asyncio.sleep(0)
            return loop.turns.copy()


if __name__ == "__main__":
    name, base_url, token, callers = sys.argv[1:]
    with asyncio.Runner(loop_factory=TimedLoop) as runner:
        turns = runner.run(work(LOADS[name], base_url, token, int(callers)))
        sys.stdout.write(json.dumps(sorted(turns)))
