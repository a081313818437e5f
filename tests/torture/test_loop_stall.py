"""How long one turn of the loop keeps all others waiting, while calls are streamed, pulled and asked for by many.

It is measured as CPU time of the loop's own thread, turn by turn: so another program on the machine changes nothing.
"""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from servetel_async import ServetelClient
from tests.torture.report import TORTURE, measured
from tests.torture.server_process import DAY, server_of

CALLS = 100_000 if TORTURE else 10_000
CALLERS = 1_000 if TORTURE else 200
#: Seconds, of all turns but one in a hundred, and of the longest.
USUAL, LONGEST = 0.005, 0.025
FEW = 500

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


class TimedLoop(asyncio.SelectorEventLoop):
    """Notes the CPU time of every turn."""

    def __init__(self):
        super().__init__()
        self.turns = []

    def _run_once(self):
        began = time.thread_time()
        super()._run_once()
        self.turns.append(time.thread_time() - began)


async def pages_of_1000(client, _directory):
    async for _ in client.calls(DAY, DAY, page_size=1000):
        pass


async def pages_of_5000(client, _directory):
    async for _ in client.calls(DAY, DAY, page_size=5000):
        pass


async def pull_into_lines(client, directory):
    await client.pull(directory / "calls.ndjson", from_date=DAY, to_date=DAY)


async def pull_into_a_database(client, directory):
    await client.pull(directory / "calls.db", from_date=DAY, to_date=DAY)


async def many_callers(client, _directory):
    """A web app whose callers come a few at a time."""

    async def call():
        assert len(await client.calls(DAY, DAY, page_size=20, max_records=20).collect()) == 20

    tasks = []
    for number in range(CALLERS):
        tasks.append(asyncio.create_task(call()))
        if number % 5 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)


LOADS = (pages_of_1000, pages_of_5000, pull_into_lines, pull_into_a_database, many_callers)


@pytest.fixture(scope="module")
def address():
    with server_of(CALLS) as address:
        yield address


def turns_of(load, address, directory):
    """The CPU time of every turn of a loop under this load."""

    async def work():
        async with ServetelClient(
            address.token, base_url=address.base_url, rate=None, page_size=1000, max_concurrency=8
        ) as client:
            await client.calls(DAY, DAY, page_size=20, max_records=20).collect()  # what is imported and compiled once
            loop.turns.clear()
            await load(client, directory)

    gc.collect()
    gc.freeze()  # what pytest has made until now is none of the collector's work in a user's process
    try:
        with asyncio.Runner(loop_factory=TimedLoop) as runner:
            loop = runner.get_loop()
            runner.run(work())
            return sorted(loop.turns)
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.__name__)
def test_no_turn_is_long(address, tmp_path, load):
    """Whoever shares the loop waits 5 ms at most, and up to 25 ms once in a hundred turns.

    The best of three counts: a machine that others share takes time from a turn, and never gives any back.
    """
    best = (1.0, 1.0, 0)
    for number in range(3):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        turns = turns_of(load, address, directory)
        # Of so few turns one in a hundred is the longest.
        usual = turns[int(0.99 * len(turns))] if len(turns) >= FEW else turns[int(0.95 * len(turns))]
        best = min(best, (usual, turns[-1], len(turns)))
        if usual <= USUAL and turns[-1] <= LONGEST:
            break
    usual, longest, number = best
    measured("P6", f"{load.__name__}: p99 {usual * 1e3:.1f} ms, longest {longest * 1e3:.1f} ms of {number:,} turns")
    assert usual <= USUAL
    assert longest <= LONGEST
