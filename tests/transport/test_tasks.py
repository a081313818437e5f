"""run_together and end: when they return or raise, no task is left, even if their caller is cancelled."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from servetel_async import ServetelError, StreamClosedError
from servetel_async.aio.tasks import end, error_of, run_together, start


class Works:
    """Pieces of work that wait for a release, and record how they ended."""

    def __init__(self):
        self.go = asyncio.Event()
        self.begun = self.ended = 0
        self.slow = asyncio.Event()
        self.slow.set()

    async def work(self, value):
        self.begun += 1
        try:
            await self.go.wait()
            return value
        finally:
            await self.slow.wait()
            self.ended += 1

    async def all_begun(self, number):
        while self.begun < number:
            await asyncio.sleep(0)


async def fail(error, after=0):
    for _ in range(after):
        await asyncio.sleep(0)
    raise error


async def test_nothing_to_do():
    """Without work it returns at once."""
    assert await run_together([]) == []


async def test_results_come_in_order():
    """Results come in the order of the work, even if the last one ends first."""

    async def give(value, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        return value

    assert await run_together(give(number, 5 - number) for number in range(5)) == [0, 1, 2, 3, 4]


async def test_they_run_at_the_same_time(loop_log):
    """All have begun before any ends."""
    works = Works()
    task = asyncio.create_task(run_together([works.work(number) for number in range(3)]))
    await works.all_begun(3)
    assert works.ended == 0
    works.go.set()
    assert await task == [0, 1, 2]


async def test_the_first_error_ends_the_others(loop_log):
    """The first error is raised bare, after the others were cancelled and have ended."""
    works = Works()
    with pytest.raises(KeyError, match="mine"):
        await run_together([works.work(1), fail(KeyError("mine"), 2), works.work(2)])
    assert works.begun == works.ended == 2


async def test_an_error_waits_for_slow_endings(loop_log):
    """The error waits for tasks that end slowly."""
    works = Works()
    works.slow.clear()
    task = asyncio.create_task(run_together([works.work(1), fail(KeyError("mine"), 2)]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    works.slow.set()
    with pytest.raises(KeyError):
        await task
    assert works.ended == 1


async def test_of_several_errors_one_is_raised_and_none_is_logged(loop_log):
    """The first error in order is raised; the others log nothing."""
    with pytest.raises(KeyError, match="first"):
        await run_together([fail(KeyError("first")), fail(ValueError("second")), fail(OSError("third"))])


async def test_an_error_while_ending_is_not_lost(loop_log):
    """Work that fails in its own clean-up fails the whole."""

    async def clean_badly():
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("clean-up")

    with pytest.raises((KeyError, OSError)):
        await run_together([clean_badly(), fail(KeyError("mine"), 2)])


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancelled_caller_leaves_nothing(loop_log, times):
    """Cancelled once or often, all work has ended when the cancellation is raised."""
    works = Works()
    works.slow.clear()
    task = asyncio.create_task(run_together([works.work(number) for number in range(3)]))
    await works.all_begun(3)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    works.slow.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert works.ended == 3


async def test_cancelled_before_it_began(loop_log):
    """Work that never ran is closed without a warning."""
    works = Works()

    async def main():
        asyncio.current_task().cancel()
        await run_together([works.work(number) for number in range(3)])

    task = asyncio.create_task(main())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert works.begun == works.ended


async def test_errors_of_a_cancelled_caller_log_nothing(loop_log):
    """If work fails while its caller is cancelled, the cancellation is raised and nothing is logged."""
    works = Works()

    async def clean_badly():
        try:
            await works.work(1)
        finally:
            raise OSError("clean-up")

    task = asyncio.create_task(run_together([clean_badly(), clean_badly()]))
    await works.all_begun(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancel_scope_leaves_nothing(loop_log):
    """An anyio cancel scope waits until all tasks have ended."""
    works = Works()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run_together([works.work(number) for number in range(3)])
    assert scope.cancelled_caught
    assert works.ended == works.begun


async def test_end_of_nothing():
    """Without running tasks it returns at once."""
    done = asyncio.create_task(asyncio.sleep(0))
    await done
    await end([])
    await end([done])


async def test_end_waits_until_they_are_over(loop_log):
    """A task that swallows its first cancellation is still waited for."""
    go = asyncio.Event()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end([task]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ending.done()
    go.set()
    await ending
    assert task.done()


async def test_work_that_was_cancelled_from_outside_is_told(loop_log):
    """Work that other code cancelled has no result, and that is an error."""
    works = Works()
    inner = asyncio.create_task(works.work(1))

    async def wrapped():
        return await inner

    task = asyncio.create_task(run_together([wrapped()]))
    await works.all_begun(1)
    inner.cancel()
    with pytest.raises(ServetelError, match="cancelled a request"):
        await task


def test_no_loop_and_nothing_is_left_unawaited():
    """Outside asyncio the error says that no task can be started, and the work is closed."""

    async def work():
        raise AssertionError

    piece = work()
    with pytest.raises(RuntimeError, match="no running event loop"):
        start(piece)
    assert piece.cr_frame is None


async def cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("raised", [StopAsyncIteration, GeneratorExit])
async def test_what_would_end_a_loop_is_an_error(raised):
    """An exception that would end the loop becomes an error, in one of several coroutines and in a single task."""
    with pytest.raises(ServetelError, match=f"raised {raised.__name__}"):
        await run_together([fail(raised()), asyncio.sleep(3600)])
    task = start(fail(raised()))
    await asyncio.wait({task})
    assert isinstance(error_of(task), ServetelError)


async def test_a_work_that_is_cancelled_cancels_nobody_else():
    """The others run to their end; then the missing result is an error."""
    works = Works()
    works.go.set()
    with pytest.raises(ServetelError, match="cancelled a request"):
        await run_together([cancelled(), works.work(1)])
    assert works.ended == 1


async def test_the_error_of_a_cancelled_task_says_who_may_have_done_it():
    """The error names the closed client, or else other code."""
    task = start(cancelled())
    await asyncio.wait({task})
    closed = error_of(task, closed=True, user="stream")
    assert isinstance(closed, StreamClosedError)
    assert "closed under the stream" in str(closed)
    other = error_of(task)
    assert isinstance(other, ServetelError)
    assert not isinstance(other, StreamClosedError)


async def test_a_result_and_an_ordinary_error_are_what_they_are():
    """A result has no error, and an ordinary error is unchanged."""
    mine = KeyError("mine")
    good, bad = start(asyncio.sleep(0, 1)), start(fail(mine))
    await asyncio.wait({good, bad})
    assert error_of(good) is None
    assert error_of(bad) is mine
