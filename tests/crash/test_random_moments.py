"""Kills of long pulls at random moments, some of them again after the resume, by ``kill -9`` from outside.

The moments come from the run's seed. The ordinary suite uses a few of a short pull; the whole size is 100 pulls of
1,000 pages, 25 into each of four kinds of output, with other moments in each run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest

from tests.crash.laboratory import IN_FLIGHT, Laboratory, check, chosen, each, is_concluded, material
from tests.torture.report import SEED, TORTURE, measured

NAMES = ("calls.ndjson", "calls.db", "calls.parquet", "calls.duckdb")
CALLS = 10_000 if TORTURE else 500
ROUNDS = 25 if TORTURE else 3
#: Requests that one window may need: the pages of the largest one, its first page again, and boundary seconds.
MOST_REQUESTS = 60

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


async def kill_at(laboratory: Laboratory, destination, request: int, delay: float) -> bool:
    """Kill it a little after that many requests; returns whether it was still running."""
    laboratory.api.requests.clear()
    process = await laboratory.begin(destination)
    running = asyncio.create_task(laboratory.go())
    while len(laboratory.api.requests) < request and not running.done():
        await asyncio.sleep(0.001)
    await asyncio.sleep(delay)
    if not running.done():
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return (await running).killed


@pytest.mark.parametrize("name", chosen(NAMES, "calls.db"))
async def test_a_pull_may_be_killed_at_random_moments(build, name):
    """After one to three kills the output is that of an undisturbed run, and few requests are repeated."""
    laboratories = await build(material("2024-01-01", "2024-08-31", CALLS), name)
    first = laboratories[0]
    first.api.requests.clear()
    await first.learn()
    usual = len(first.api.requests)
    for other in laboratories[1:]:
        other.whole, other.windows = first.whole, first.windows

    async def kill(laboratory: Laboratory, seed: int) -> bool:
        chance = random.Random(f"{name} {seed}")
        destination = laboratory.place()
        asked = kills = 0
        for _ in range(chance.choice((1, 1, 2, 3))):
            # The end gets more than its share, because the output is finished there.
            moment = usual if chance.random() < 0.15 else chance.randrange(usual)
            kills += await kill_at(laboratory, destination, max(1, moment - asked), chance.random() * 0.1)
            asked += len(laboratory.api.requests)
            laboratory.check_name(destination)
            if destination.exists():
                break
        over = is_concluded(destination)  # then the same command begins another pull of all of it
        await laboratory.resume(destination, set())
        asked += 0 if over else laboratory.last_asked
        most = usual + kills * IN_FLIGHT * MOST_REQUESTS
        check(asked <= most, f"{asked} requests, {kills} kills, usually {usual}")
        return kills > 0

    killed = await each(range(SEED * ROUNDS, (SEED + 1) * ROUNDS), laboratories, kill)
    measured("P2", f"{name}: {killed} of {ROUNDS} pulls of {usual} requests killed", seeds=str(SEED))
