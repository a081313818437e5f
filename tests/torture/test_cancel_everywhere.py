"""A pull of ten pages is cancelled after every loop iteration: nothing is left of it, and the next one works.

The loop counts its iterations and cancels between two of them, so every await of every task is cancelled once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import tempfile
from pathlib import Path

import anyio
import pytest

from servetel_async import Retry, ServetelClient
from tests.torture.report import TORTURE, measured
from tests.torture.server_process import DAY, server_of

CALLS, SIZE = 100, 10
#: Iterations between two cancellations: one, or a few.
STEP = 1 if TORTURE else 5

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


class CountingLoop(asyncio.SelectorEventLoop):
    """Calls ``act`` after this many iterations."""

    turns = 0
    at: int | None = None

    @staticmethod
    def act() -> None:
        """The action at that moment."""

    def _run_once(self) -> None:
        super()._run_once()
        self.turns += 1
        if self.at is not None and self.turns >= self.at:
            self.at = None
            self.act()


async def into_a_file(client, directory):
    """A pull; if a cancelled one has already named the output, that output is whole."""
    target = directory / "calls.ndjson"
    if not target.exists():
        await client.pull(target, from_date=DAY, to_date=DAY)
    return target.read_bytes().count(b"\n")


async def into_a_database(client, directory):
    receipt = await client.pull(directory / "calls.db", from_date=DAY, to_date=DAY)
    return receipt.records


async def streamed(client, _directory):
    async with client.calls(DAY, DAY) as stream:
        return len([call.id async for call in stream])


async def collected(client, _directory):
    return len(await client.calls(DAY, DAY, ordered=False).collect(limit=CALLS))


async def by_asyncio(loop, work):
    """Cancel the task."""
    task = asyncio.ensure_future(work)
    loop.act = task.cancel
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def by_asyncio_twice(loop, work):
    """Cancel the task, and again in the next iteration, while it cleans up."""
    task = asyncio.ensure_future(work)

    def cancel_twice():
        task.cancel()
        loop.call_soon(task.cancel)

    loop.act = cancel_twice
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


async def by_anyio(loop, work):
    """Cancel the scope around it."""
    with anyio.CancelScope() as scope:
        loop.act = scope.cancel
        await work
    return scope.cancelled_caught


WORKS = {each.__name__: each for each in (into_a_file, into_a_database, streamed, collected)}
WAYS = {each.__name__: each for each in (by_asyncio, by_asyncio_twice, by_anyio)}


async def left_over(client, before):
    """Things that cancelled work must not leave behind."""
    others = asyncio.all_tasks() - before - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=5)
    found = [f"task {task.get_coro()}" for task in others if not task.done()]
    connector = client._transport.connector
    if connector is not None and connector._acquired:
        found.append(f"{len(connector._acquired)} connections")
    found += [f"page task {task}" for task in client._tasks if not task.done()]
    return found


async def work_through(address, way, work):
    """Cancel at one iteration after the other until the work ends before; returns the number of cancellations."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    log = []
    loop.set_exception_handler(lambda _loop, context: log.append(f"{context['message']} {context.get('exception')!r}"))
    points = 0
    retry = Retry(attempts=1)
    async with ServetelClient(
        address.token, base_url=address.base_url, rate=None, page_size=SIZE, max_concurrency=3, retry=retry
    ) as client:
        await client.calls(DAY, DAY).collect(limit=CALLS)
        before = asyncio.all_tasks()
        turn, cancelled = 1, True
        while cancelled:
            with tempfile.TemporaryDirectory() as name:
                directory = Path(name)
                loop.at = loop.turns + turn
                cancelled = await way(loop, work(client, directory))
                loop.at = None
                assert await left_over(client, before) == [], turn
                locks = [path.name for path in directory.iterdir() if path.name.endswith(".lock")]
                assert locks == [], turn
                if cancelled:
                    assert await work(client, directory) == CALLS, turn
                points += cancelled
                turn += STEP
        assert await work(client, Path(tempfile.mkdtemp(dir=os.environ["HOME"]))) == CALLS
    await asyncio.sleep(0)
    gc.collect()
    assert log == []
    return points


def descriptors():
    listing = Path("/proc/self/fd")
    return sum(1 for _ in listing.iterdir()) if listing.exists() else 0


@pytest.fixture(scope="module")
def address():
    with server_of(CALLS) as address:
        yield address


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("way", WAYS)
def test_cancelled_at_any_turn_of_the_loop(address, way, work):
    """No task, connection, slot, lock or descriptor is left, and the same client can repeat the work at once."""
    gc.collect()
    before = descriptors()
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        points = runner.run(work_through(address, WAYS[way], WORKS[work]))
    gc.collect()
    assert descriptors() <= before
    assert points >= 15 / STEP
    measured("P12", f"{work} {way}: cancelled at {points} turns, nothing left")
