"""The accounts of a process: the state of an account outlives its clients, its loops and its threads."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time

import pytest

from servetel_async import OverloadedError, RateLimit, RateLimitError, Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault
from servetel_async.transport import accounts, process_lock
from servetel_async.transport.accounts import account_pace
from servetel_async.transport.throttle import MARGIN
from tests.transport.leaks import TOKEN, failure_of

FIFTY = RateLimit(per_second=50)
#: Eight requests at fifty a second have their turns in seven intervals. On a busy machine the first one may arrive late.
#: With a gate for each thread or client there would be three intervals at most.
FIVE_INTERVALS = 5 / 50


def test_an_account_has_one_pace_also_after_its_last_user():
    """The pace is found by its account; a pause outlives the client that met it."""
    first = account_pace(("u", "a"))
    assert account_pace(("u", "a")) is first
    assert account_pace(("u", "b")) is not first

    first.pause(0.0, 1e9)
    del first
    gc.collect()

    assert account_pace(("u", "a")).paused_until == 1e9


def test_no_more_accounts_are_kept_than_the_bound(monkeypatch):
    """The least recently used account is forgotten first."""
    monkeypatch.setattr(accounts, "KEPT", 3)
    for name in "abc":
        account_pace(name).concurrency = 1.0
    account_pace("a")
    account_pace("d")
    gc.collect()

    assert account_pace("a").concurrency == 1.0
    assert account_pace("b").concurrency is None


def test_an_account_that_is_paused_is_forgotten_last(monkeypatch):
    """A paused account is kept, however long ago it was used."""
    monkeypatch.setattr(accounts, "KEPT", 2)
    account_pace("paused").pause(time.monotonic(), 3600.0)
    for name in "abc":
        account_pace(name)
    gc.collect()

    assert account_pace("paused").paused_until > time.monotonic()


def test_when_all_are_paused_the_oldest_is_forgotten(monkeypatch):
    """The bound holds even if every account is paused."""
    monkeypatch.setattr(accounts, "KEPT", 2)
    for name in "abcd":
        account_pace(name).pause(time.monotonic(), 3600.0)
    gc.collect()

    assert [account_pace(name).paused_until > 0 for name in "dc"] == [True, True]
    assert account_pace("a").paused_until == 0.0


def test_an_account_in_use_is_never_forgotten(monkeypatch):
    """Two clients of one account share its pace, whatever else the process does between them."""
    monkeypatch.setattr(accounts, "KEPT", 1)
    mine = account_pace("mine")
    for name in "abc":
        account_pace(name)

    assert account_pace("mine") is mine


async def one_call(api, **options):
    async with ServetelClient(api.token, **{"base_url": api.base_url, "rate": FIFTY, **options}) as client:
        return await client.count("2024-05-01", "2024-05-31")


def arrivals(api):
    """Seconds from the first request to the last."""
    return api.requests[-1].at - api.requests[0].at


@pytest.fixture(scope="module")
def data():
    return Dataset.month("2024-05", calls=5)


@pytest.fixture
def served(data):
    """An emulator in a thread of its own, so that a test may start loops and threads."""
    ready, done = threading.Event(), threading.Event()
    box = []

    async def main():
        async with Emulator(data, token=TOKEN) as api:
            box.append(api)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    yield box[0]
    done.set()
    thread.join()


def test_clients_one_after_another_keep_the_rate(served):
    """A client for each call, each in an ``asyncio.run`` of its own: eight requests take seven intervals."""
    for _ in range(8):
        assert asyncio.run(one_call(served)) == 5

    assert arrivals(served) >= FIVE_INTERVALS


def test_clients_in_two_threads_share_the_gate(served):
    """Two loops in two threads, one account: together they keep its rate."""

    async def four():
        for _ in range(4):
            assert await one_call(served) == 5

    threads = [threading.Thread(target=lambda: asyncio.run(four())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(served.requests) == 8
    assert arrivals(served) >= FIVE_INTERVALS


async def test_a_pause_holds_for_the_next_client(data):
    """A client got a 429 with ``Retry-After: 60`` and was closed: the next client learns of the pause at once."""
    async with Emulator(data, token=TOKEN, faults=[Fault("retry_after", times=1, retry_after=60)]) as api:
        error = await failure_of(one_call(api, retry=Retry(attempts=1)))
        assert type(error) is RateLimitError

        async with ServetelClient(TOKEN, base_url=api.base_url) as client:
            error = await failure_of(client.count("2024-05-01", "2024-05-31", deadline=30))

        assert type(error) is OverloadedError
        assert error.waited_for == "pause"
        assert 55 < error.retry_after <= 60
        assert len(api.requests) == 1


async def test_a_clients_budget_does_not_bound_another_client(data):
    """A client with a budget of 0 does not limit another client: the setting belongs to one client."""
    none, some = Retry(budget=0), Retry(attempts=3, budget=500, base=0.001, cap=0.001)
    async with (
        Emulator(data, token=TOKEN, faults=[Fault("status", status=503)]) as api,
        ServetelClient(TOKEN, base_url=api.base_url, rate=None, retry=none) as first,
        ServetelClient(TOKEN, base_url=api.base_url, rate=None, retry=some) as second,
    ):
        errors = [await failure_of(client.count("2024-05-01", deadline=60)) for client in (first, second)]

    assert [(error.attempts, error.stopped_by) for error in errors] == [(1, "budget"), (3, "attempts")]


def test_a_forked_child_is_not_held_up_by_a_lock_of_its_parent():
    """If a thread of the parent holds the lock at the fork, the child does not wait for it."""
    held, release = threading.Event(), threading.Event()

    def hold():
        with process_lock.process_lock():
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if process_lock.process_lock().acquire(timeout=5) else 1)
    release.set()
    thread.join()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_without_fork_needs_nothing():
    """On Windows nothing is registered, because it has no fork; elsewhere the child gets another lock."""
    process_lock._no_fork(after_in_child=lambda: None)
    before = process_lock.process_lock()
    process_lock._renew()

    assert process_lock.process_lock() is not before


def test_slow_turns_are_shared_under_the_lock():
    """Four threads that take a hundred turns at once get a hundred different turns."""
    pace, rate = account_pace("threads"), RateLimit(per_second=1000)
    taken = []

    def take():
        for _ in range(25):
            while wait := pace.take(time.monotonic(), rate):
                time.sleep(wait)
            taken.append(time.monotonic())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 100
    assert max(taken) - min(taken) >= 99 * MARGIN / 1000 * 0.5
