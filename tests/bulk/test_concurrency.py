"""Concurrency: slots by priority, as many as the server can take, and no slot is ever lost."""

from __future__ import annotations

import asyncio
from random import Random

import anyio
import pytest

from servetel_async.bulk.fetching.concurrency import Concurrency
from tests.bulk.slots import assert_free, free_slots


class Holders:
    """Tasks that hold a slot until they are released, and record the order in which they got it."""

    def __init__(self, concurrency):
        self.concurrency = concurrency
        self.got = []
        self.holding = 0
        self.peak = 0
        self.gates = {}

    def start(self, name, priority=0.0):
        self.gates[name] = asyncio.Event()
        return asyncio.create_task(self._hold(name, priority))

    async def _hold(self, name, priority):
        async with self.concurrency.slot(priority):
            self.got.append(name)
            self.holding += 1
            self.peak = max(self.peak, self.holding)
            try:
                await self.gates[name].wait()
            finally:
                self.holding -= 1


async def turns(number=10):
    for _ in range(number):
        await asyncio.sleep(0)


# Arithmetic


def test_it_begins_with_the_most():
    """A server that can take the most requests gets them from the start."""
    assert Concurrency(8).limit == 8


@pytest.mark.parametrize(
    ("most", "shrinks", "limit"),
    [(8, 1, 4), (8, 2, 2), (8, 3, 1), (8, 9, 1), (1, 1, 1), (5, 1, 2.5), (5, 2, 1.25), (3, 2, 1)],
)
async def test_it_halves_down_to_one(most, shrinks, limit):
    """Each new slow or refused reply halves the limit, down to one request."""
    concurrency = Concurrency(most)
    for moment in range(shrinks):
        concurrency.shrink(moment + 0.5, moment + 1)
    assert concurrency.limit == limit


async def test_complaints_of_one_moment_halve_once():
    """Only a request that was sent after the last halving can halve the limit again."""
    concurrency = Concurrency(8)
    concurrency.shrink(sent_at=1, now=5)
    concurrency.shrink(sent_at=4, now=6)
    concurrency.shrink(sent_at=5, now=7)
    assert concurrency.limit == 4
    concurrency.shrink(sent_at=5.1, now=8)
    assert concurrency.limit == 2


async def test_it_grows_by_one_a_round():
    """As many good replies as there are slots add about one slot, up to the most."""
    concurrency = Concurrency(8)
    concurrency.restart()
    assert concurrency.limit == 1
    concurrency.grow()
    assert concurrency.limit == 2
    concurrency.grow()
    concurrency.grow()
    assert concurrency.limit == pytest.approx(2.9)
    for _ in range(100):
        concurrency.grow()
    assert concurrency.limit == 8


@pytest.mark.parametrize(
    ("most", "learnt", "begins"), [(8, None, 8), (8, 2.5, 2.5), (4, 6.0, 4)], ids=["nothing", "less", "more"]
)
async def test_it_begins_where_the_last_pull_of_the_account_was(most, learnt, begins):
    """The next pull begins with the learnt limit or its own upper bound, whichever is smaller."""
    assert Concurrency(most, learnt).limit == begins


async def test_what_it_has_learnt():
    """The learnt limit is the one below the upper bound. A lower upper bound does not erase a larger learnt limit."""
    concurrency = Concurrency(8)
    assert concurrency.learnt is None
    concurrency.shrink(0.5, 1)
    assert concurrency.learnt == 4
    for _ in range(100):
        concurrency.grow()
    assert concurrency.learnt is None
    assert Concurrency(4, 6.0).learnt == 6.0


# Slots


async def test_no_more_than_the_limit(loop_tasks):
    """Of ten tasks that want one of three slots, three get one."""
    holders = Holders(Concurrency(3))
    tasks = [holders.start(number) for number in range(10)]
    await turns()
    assert holders.got == [0, 1, 2]
    for number in range(10):
        holders.gates[number].set()
    await asyncio.gather(*tasks)
    assert holders.peak == 3
    assert_free(holders.concurrency)


async def test_the_smallest_priority_is_served_first(loop_tasks):
    """Waiting tasks are served by priority, and equal ones in order of arrival."""
    holders = Holders(Concurrency(1))
    tasks = [holders.start("first", 99)]
    await turns()
    tasks += [
        holders.start(name, priority)
        for name, priority in (("c", 3), ("a2", 1), ("b", 2), ("a3", 1), ("z", float("-inf")))
    ]
    await turns()
    for gate in holders.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert holders.got == ["first", "z", "a2", "a3", "b", "c"]


async def test_a_newcomer_does_not_pass_the_queue(loop_tasks):
    """A returned slot goes to a waiting task, even if a new task asks at that moment."""
    holders = Holders(Concurrency(1))
    tasks = [holders.start("first"), holders.start("second", 5)]
    await turns()
    holders.gates["first"].set()
    tasks.append(holders.start("third", 9))
    await turns()
    assert holders.got == ["first", "second"]
    for gate in holders.gates.values():
        gate.set()
    await asyncio.gather(*tasks)


async def test_less_slots_bite_as_they_come_back(loop_tasks):
    """Running requests finish; new ones begin only below the new limit."""
    holders = Holders(Concurrency(4))
    tasks = [holders.start(number) for number in range(8)]
    await turns()
    holders.concurrency.shrink(1, 2)
    for number in range(3):
        holders.gates[number].set()
        await turns()
        assert holders.holding == max(3 - number, 2)
    assert holders.got == [0, 1, 2, 3, 4]
    for gate in holders.gates.values():
        gate.set()
    await asyncio.gather(*tasks)
    assert_free(holders.concurrency)


async def test_growth_wakes_who_waits(loop_tasks):
    """A new slot is used at once, before any other comes back."""
    concurrency = Concurrency(2)
    concurrency.restart()
    holders = Holders(concurrency)
    tasks = [holders.start(number) for number in range(3)]
    await turns()
    assert holders.got == [0]
    concurrency.grow()
    await turns()
    assert holders.got == [0, 1]
    for gate in holders.gates.values():
        gate.set()
    await asyncio.gather(*tasks)


async def test_an_error_gives_the_slot_back():
    """A slot comes back however its request ends."""
    concurrency = Concurrency(1)
    with pytest.raises(KeyError):
        async with concurrency.slot(0):
            raise KeyError
    assert_free(concurrency)


# Cancellation


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_waiter_leaves_the_queue(loop_tasks, times):
    """Cancelled once or twice, it takes no slot, and the next task is served."""
    holders = Holders(Concurrency(1))
    tasks = [holders.start("first"), holders.start("second"), holders.start("third")]
    await turns()
    for _ in range(times):
        tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    holders.gates["first"].set()
    holders.gates["third"].set()
    await asyncio.gather(tasks[0], tasks[2])
    assert holders.got == ["first", "third"]
    assert_free(holders.concurrency)


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_in_the_moment_it_was_given_the_slot(loop_tasks, times):
    """The slot goes to the next task."""
    holders = Holders(Concurrency(1))
    tasks = [holders.start("first"), holders.start("second"), holders.start("third")]
    await turns()
    holders.gates["first"].set()
    while holders.holding:  # returned, and given to the second task, which has not run yet
        await asyncio.sleep(0)
    assert holders.got == ["first"]
    assert free_slots(holders.concurrency) == 0
    for _ in range(times):
        tasks[1].cancel()
    holders.gates["third"].set()
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert holders.got == ["first", "third"]
    assert_free(holders.concurrency)


async def test_a_cancel_scope_around_a_waiter(loop_tasks):
    """An anyio cancel scope has the same effect."""
    holders = Holders(Concurrency(1))
    task = holders.start("first")
    await turns()
    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        async with holders.concurrency.slot(0):
            raise AssertionError("no slot was free")
    assert scope.cancelled_caught
    holders.gates["first"].set()
    await task
    assert_free(holders.concurrency)


async def test_a_cancelled_holder_gives_it_back(loop_tasks):
    """A task returns its slot even if it is cancelled twice."""
    holders = Holders(Concurrency(1))
    task, next_one = holders.start("first"), holders.start("second")
    await turns()
    task.cancel()
    task.cancel()
    await turns()
    assert holders.got == ["first", "second"]
    holders.gates["second"].set()
    await next_one
    assert_free(holders.concurrency)


async def test_cancelled_waiters_in_the_middle_of_the_queue(loop_tasks):
    """Cancelled tasks are skipped anywhere in the queue."""
    holders = Holders(Concurrency(1))
    tasks = [holders.start(number, number) for number in range(6)]
    await turns()
    for number in (1, 3, 4):
        tasks[number].cancel()
    await turns()
    for gate in holders.gates.values():
        gate.set()
    await asyncio.wait(tasks)
    assert holders.got == [0, 2, 5]
    assert_free(holders.concurrency)


@pytest.mark.parametrize("seed", range(20))
async def test_no_slot_is_lost_whatever_happens(loop_tasks, seed):
    """After random arrivals, ends, cancellations, growth and shrinking all slots are free; the most was kept."""
    random = Random(seed)
    most = random.randint(1, 4)
    holders = Holders(Concurrency(most))
    tasks = {}
    for step in range(200):
        choice = random.random()
        if choice < 0.4:
            tasks[step] = holders.start(step, random.randint(0, 3))
        elif choice < 0.6 and tasks:
            tasks[random.choice(list(tasks))].cancel()
        elif choice < 0.85 and tasks:
            holders.gates[random.choice(list(tasks))].set()
        elif choice < 0.9:
            holders.concurrency.shrink(step, step)
        elif choice < 0.92:
            holders.concurrency.restart()
        else:
            holders.concurrency.grow()
        if random.random() < 0.6:
            await asyncio.sleep(0)
        assert holders.holding + free_slots(holders.concurrency) <= most
    for gate in holders.gates.values():
        gate.set()
    await asyncio.wait(tasks.values())
    assert_free(holders.concurrency)


@pytest.fixture
async def loop_tasks():
    """Check that no task is left at the end."""
    before = asyncio.all_tasks()
    yield
    await turns(3)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
