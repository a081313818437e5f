"""The writer's thread: it runs one call after another, and is never abandoned."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from servetel_async.bulk.run import writing
from servetel_async.bulk.sink_thread import SinkThread
from servetel_async.sinks.destination import sink_for


@pytest.fixture
def writer():
    writer = SinkThread()
    yield writer
    writer.close()


async def test_a_result_and_an_error_come_back(writer):
    """The caller gets the work's result or its error."""
    assert await writer.run(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        await writer.run(divmod, 1, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_waits_for_the_work(writer, fails):
    """However often it is cancelled, the work has ended when the cancellation arrives."""
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go.wait()
        ended.set()
        if fails:
            raise OSError

    task = asyncio.create_task(writer.run(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancel_scope_waits_too(writer):
    """A cancelled scope ends after the work, without spinning."""
    go = threading.Event()
    done = []

    def work():
        go.wait()
        done.append(True)

    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.02, go.set)
        await writer.run(work)
    assert done == [True]


async def test_the_thread_ends_with_the_run(tmp_path):
    """A program that pulls every hour does not accumulate threads."""
    async with writing(sink_for(tmp_path / "a.ndjson")) as writer:
        thread = await writer.run(threading.current_thread)
        assert thread.is_alive()
    assert not thread.is_alive()
