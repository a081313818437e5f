"""Equal calls in flight share one piece of work: its result, its error, its deadline, and when it ends."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async import DeadlineExceededError, OverloadedError, RateLimitError, ServerError, StreamClosedError
from servetel_async.aio.tasks import OwnedTasks
from servetel_async.transport.single_flight import SingleFlight
from tests.bulk import fake_clock
from tests.transport.leaks import failure_of


class Work:
    """Work that takes a while, ends at its deadline, and records how it ended."""

    def __init__(self, seconds=1.0, error=None):
        self.tasks = OwnedTasks()
        self.closed = False
        self.flights = SingleFlight(self.tasks.start, lambda: self.closed)
        self.seconds = seconds
        self.error = error
        self.begun: list[float | None] = []
        self.cancelled = 0

    async def work(self, deadline_at):
        self.begun.append(deadline_at)
        try:
            async with asyncio.timeout_at(deadline_at):
                await asyncio.sleep(self.seconds)
        except TimeoutError:
            raise DeadlineExceededError("too late", stopped_by="deadline") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return [len(self.begun)]

    def call(self, seconds=None, key="key"):
        """Start a caller that has so many seconds."""
        deadline_at = None if seconds is None else now() + seconds
        return asyncio.ensure_future(self.flights.fly(key, self.work, deadline_at))


def now():
    return asyncio.get_running_loop().time()


def play(scene, *args):
    """Run a scene on the fake clock; afterwards nothing is under way."""

    async def main():
        work = Work(*args)
        result = await scene(work)
        assert not work.tasks
        assert not work.flights._flights
        return result

    return fake_clock.run(main())


def test_equal_calls_share_and_others_do_not():
    """Three callers of one key share one piece of work; another key has its own."""

    async def scene(work):
        calls = [work.call(), work.call(), work.call(), work.call(key="another")]
        await asyncio.gather(*calls)
        return len(work.begun), work.flights.shared

    assert play(scene) == (2, 2)


def test_what_has_ended_is_not_shared():
    """A call after the reply starts new work, even in the moment in which the work has just ended."""

    async def scene(work):
        first = work.call()
        await asyncio.sleep(0)
        late = []
        (task,) = work.tasks
        task.add_done_callback(lambda _: late.append(work.call()))
        results = [await first]
        results += await asyncio.gather(*late)
        return results, work.flights.shared

    assert play(scene) == ([[1], [2]], 0)


def test_a_caller_may_be_cancelled_alone():
    """If the first and the second caller are cancelled, the work continues for the third."""

    async def scene(work):
        first, second, third = work.call(), work.call(), work.call()
        await asyncio.sleep(0.5)
        first.cancel()
        second.cancel()
        result = await third
        return result, first.cancelled(), second.cancelled(), len(work.begun), work.cancelled

    assert play(scene) == ([1], True, True, 1, 0)


def test_the_work_ends_with_its_last_caller():
    """When all callers have left, the work is cancelled, and it ends before the last caller does."""

    async def scene(work):
        calls = [work.call(), work.call()]
        await asyncio.sleep(0.5)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return work.cancelled, len(work.tasks)

    assert play(scene) == (1, 0)


def test_each_caller_has_its_own_deadline():
    """A caller with less time than the first ends alone, in time, with an error that says what it waited for."""

    async def scene(work):
        first, hasty = work.call(), work.call(0.5)
        error = await failure_of(hasty)
        left_at = now() - fake_clock.BEGIN
        return error, left_at, await first

    error, left_at, result = play(scene)
    assert type(error) is DeadlineExceededError
    assert (error.stopped_by, left_at, result) == ("deadline", pytest.approx(0.5, abs=0.01), [1])
    assert "an equal call was under way" in error.why


def test_the_last_caller_leaves_at_its_deadline():
    """If the first caller was cancelled, the other's deadline ends the work, and the error names the deadline."""

    async def scene(work):
        first, hasty = work.call(), work.call(0.5)
        await asyncio.sleep(0.1)
        first.cancel()
        return type(await failure_of(hasty)), work.cancelled

    assert play(scene) == (DeadlineExceededError, 1)


@pytest.mark.parametrize("more", [None, 5.0], ids=["no deadline", "a later one"])
def test_a_caller_with_more_time_than_the_first_starts_anew(more):
    """If the first caller's deadline ends the work, two callers with more time share a second one."""

    async def scene(work):
        first, *others = work.call(0.5), work.call(more), work.call(more)
        error = await failure_of(first)
        return type(error), await asyncio.gather(*others), len(work.begun)

    assert play(scene) == (DeadlineExceededError, [[2], [2]], 2)


def test_a_caller_with_no_more_time_than_the_first_fails_with_it():
    """A hundredth of a second more is not worth another request."""

    async def scene(work):
        calls = [work.call(0.5), work.call(0.5), work.call(0.51)]
        errors = [await failure_of(call) for call in calls]
        return {type(error) for error in errors}, len(work.begun), len({id(error) for error in errors})

    assert play(scene) == ({DeadlineExceededError}, 1, 3)


@pytest.mark.parametrize("stopped_by", ["budget", "retry_after", "deadline"])
def test_retries_that_a_deadline_cut_short_are_made_for_a_caller_with_time(stopped_by):
    """If the first caller's deadline left no retries, a caller without a deadline makes its own."""

    async def scene(work):
        first, patient = work.call(60.0), work.call()
        errors = [await failure_of(first), await failure_of(patient)]
        return {type(error) for error in errors}, work.begun[1:]

    assert play(scene, 1.0, RateLimitError("slow down", stopped_by=stopped_by)) == ({RateLimitError}, [None])


@pytest.mark.parametrize(
    "error",
    [ServerError("down", stopped_by="attempts"), RateLimitError("slow down", stopped_by="retry_after"), KeyError("x")],
    ids=["attempts", "retry_after", "foreign"],
)
def test_an_error_that_no_deadline_caused_is_shared(error):
    """If the work failed for another reason, it is not repeated."""

    async def scene(work):
        calls = [work.call(), work.call()]
        results = await asyncio.gather(*calls, return_exceptions=True)
        return {(type(result), str(result)) for result in results}, len(work.begun)

    assert play(scene, 1.0, error) == ({(type(error), str(error))}, 1)


def test_errors_are_copies():
    """Each caller gets its own copy of the error."""

    async def scene(work):
        calls = [work.call(), work.call()]
        one, other = [await failure_of(call) for call in calls]
        one.page = 7
        return other.page, str(other)

    assert play(scene, 1.0, ServerError("down")) == (None, "Down.")


def test_an_overload_is_not_passed_on_to_a_later_caller():
    """The first caller's overload also ends callers that came with it, but not a later one."""

    async def scene(work):
        first, second = work.call(), work.call()
        await asyncio.sleep(0.9)
        later = work.call()
        errors = [await failure_of(call) for call in (first, second)]
        told_at = now() - fake_clock.BEGIN
        return {type(error) for error in errors}, told_at, type(await failure_of(later)), len(work.begun)

    overload = OverloadedError("no slot", stopped_by="deadline")
    assert play(scene, 1.0, overload) == ({OverloadedError}, pytest.approx(1.0, abs=0.01), OverloadedError, 2)


def test_closing_the_owner_ends_every_caller():
    """When the client is closed, each caller gets an error that says so."""

    async def scene(work):
        calls = [work.call(), work.call()]
        await asyncio.sleep(0.5)
        work.closed = True
        await work.tasks.end()
        return {type(await failure_of(call)) for call in calls}

    assert play(scene) == {StreamClosedError}
