"""The pace of an account and of a client: slots, the rate gate, the pause, and what waiting costs those who give up."""

from __future__ import annotations

import asyncio
import gc
import re
import time

import pytest

from servetel_async import OverloadedError, RateLimit, Timeouts
from servetel_async.transport.pace import MARGIN, AccountPace, Admission, account_pace
from tests.transport.leaks import failure_of
from tests.transport.wire_server import ACTS, OK

# The gate alone, on a clock of our own ------------------------------------------------------------------------------------


class Walk:
    """A pace on a fake clock: whoever is told to wait does so at once."""

    def __init__(self, rate: RateLimit | None, now: float = 1000.0) -> None:
        self.pace = AccountPace()
        self.rate = rate
        self.now = now

    def take(self) -> float:
        """Take a turn and give the time at which it was had."""
        while wait := self.pace.take(self.now, self.rate):
            assert wait > 0
            self.now += wait
        return self.now - 1000.0


@pytest.mark.parametrize(
    ("rate", "turns"),
    [
        (RateLimit(per_second=2), [0, 0.5, 1.0, 1.5, 2.0]),
        (RateLimit(per_second=4, burst=3), [0, 0, 0, 0.25, 0.5]),
        (RateLimit(per_second=0.5), [0, 2, 4, 6, 8]),
        (None, [0, 0, 0, 0, 0]),
    ],
    ids=["two a second", "a burst of three", "one in two seconds", "no limit"],
)
def test_turns_come_as_the_rate_allows(rate, turns):
    """A rate is a distance between turns, a little more than it allows, after a burst at the start."""
    walk = Walk(rate)

    assert [walk.take() for _ in turns] == pytest.approx([MARGIN * turn for turn in turns])


def test_of_fast_turns_one_that_is_late_does_not_move_the_next_ones():
    """At 200 a second a loop that is a millisecond late each time would lose a fifth of the rate."""
    walk = Walk(RateLimit(per_second=200))
    turns = []
    for _ in range(1000):
        turns.append(walk.take())
        walk.now += 0.001

    assert turns[-1] == pytest.approx(999 * MARGIN / 200, rel=0.002)


@pytest.mark.parametrize("rest", [0.021, 3600])
def test_who_rested_has_nothing_to_make_up_for(rest):
    """After a rest the distance counts from the turn that ends it: no two go at once."""
    walk = Walk(RateLimit(per_second=50))
    walk.take()
    walk.now += MARGIN / 50 + rest
    begun = walk.now - 1000.0

    assert [walk.take() - begun for _ in range(3)] == pytest.approx([0, MARGIN / 50, 2 * MARGIN / 50], abs=1e-6)


def test_slow_turns_keep_their_distance_whoever_is_late():
    """At 3 a second a late turn moves the next one: a server that counts strictly must see no two too close."""
    walk = Walk(RateLimit(per_second=3))
    first = walk.take()
    walk.now += 0.35
    second = walk.take()

    assert (second - first, walk.take() - second) == pytest.approx((0.35, MARGIN / 3))


def test_a_burst_is_saved_up_again_by_a_rest_and_never_more():
    """After a long rest a full burst is there, and not the whole rest's worth of turns."""
    walk = Walk(RateLimit(per_second=10, burst=3))
    [walk.take() for _ in range(3)]
    walk.now += 3600
    begun = walk.now - 1000.0

    assert [walk.take() - begun for _ in range(5)] == pytest.approx([0, 0, 0, 0.1 * MARGIN, 0.2 * MARGIN], abs=1e-6)


def test_over_any_length_of_time_no_more_than_the_rate_and_its_burst():
    """In every span of the walk there are at most burst + rate x span turns."""
    rate = RateLimit(per_second=7, burst=4)
    walk = Walk(rate)
    turns = []
    for number in range(200):
        turns.append(walk.take())
        walk.now += (number * 37 % 11) / 40
    for first in range(200):
        for last in range(first, 200):
            assert last - first + 1 <= rate.burst + rate.per_second * (turns[last] - turns[first]) + 1e-6


def test_slow_turns_keep_their_distance_on_the_wire():
    """Whoever had to connect first went out late: the next request, over an open connection, must not be too close."""
    walk = Walk(RateLimit(per_second=2))
    walk.take()
    walk.pace.sent(0.3, walk.rate)

    assert walk.take() == pytest.approx(0.3 + MARGIN / 2)


def test_requests_that_all_have_to_connect_keep_the_rate():
    """Where no connection is kept alive each goes out late by as much: they are no closer than their turns."""
    walk = Walk(RateLimit(per_second=2))
    turns = []
    for _ in range(10):
        turns.append(walk.take())
        walk.pace.sent(0.3, walk.rate)

    assert turns[-1] == pytest.approx(0.3 + 9 * MARGIN / 2)


@pytest.mark.parametrize(
    "rate", [None, RateLimit(per_second=50), RateLimit(per_second=2, burst=4)], ids=["no limit", "fast", "a burst"]
)
def test_when_others_went_out_does_not_matter(rate):
    """A server that allows many a second, or a burst, allows two that are close."""
    late, on_time = Walk(rate), Walk(rate)
    for walk in (late, on_time):
        walk.take()
    late.pace.sent(0.3, rate)

    assert [late.take() for _ in range(9)] == [on_time.take() for _ in range(9)]


@pytest.mark.parametrize("rate", [None, RateLimit(per_second=100)], ids=["no limit", "a rate"])
def test_a_pause_holds_everybody_back(rate):
    """During a pause there is no turn, with a rate or without one; after it they go on."""
    walk = Walk(rate)
    walk.pace.pause(walk.now, 5.0)

    assert walk.take() == pytest.approx(5.0)


def test_pauses_of_one_moment_are_one_pause():
    """The longest one holds: pauses do not add up, and a shorter one takes nothing away."""
    walk = Walk(None)
    for seconds in (3.0, 5.0, 1.0):
        walk.pace.pause(walk.now, seconds)

    assert walk.take() == pytest.approx(5.0)


def test_waiting_takes_nothing():
    """Who is told to wait has taken no turn: asking again does not move the next one away."""
    pace = AccountPace()
    rate = RateLimit(per_second=1)
    assert pace.take(0.0, rate) == 0

    assert [pace.take(0.25, rate) for _ in range(100)] == [MARGIN - 0.25] * 100
    assert pace.take(MARGIN, rate) == 0


def test_the_budget_is_arithmetic():
    """Spending fails where too little is left, and then takes nothing; earning stops at the size."""
    pace = AccountPace(30)

    assert [pace.spend(14), pace.spend(14), pace.spend(14)] == [True, True, False]
    assert pace.spend(2)
    pace.earn(1000)
    assert [pace.spend(30), pace.spend(1)] == [True, False]


def test_one_account_has_one_pace_as_long_as_somebody_uses_it():
    """The pace is found by its account, and forgotten with its last user."""
    first = account_pace(("u", "a"), 500)

    assert account_pace(("u", "a"), 500) is first
    assert account_pace(("u", "b"), 500) is not first
    first.pause(0.0, 10**9)
    del first
    gc.collect()
    assert account_pace(("u", "a"), 500).paused_until == 0.0


# Admission -----------------------------------------------------------------------------------------------------------------


def free_slots(admission: Admission) -> int:
    return admission._slots._value


async def enter(
    admission: Admission, log: list[int], name: int, leave: asyncio.Event, give_up: float | None = None
) -> None:
    async with admission.slot(give_up):
        log.append(name)
        await leave.wait()


async def ticks(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_slots_are_given_in_the_order_of_asking():
    """First come, first served, also when those in between give up."""
    admission = Admission(1, AccountPace(), None, Timeouts())
    log: list[int] = []
    leave = asyncio.Event()
    leave.set()
    async with admission.slot(None):
        tasks = [asyncio.ensure_future(enter(admission, log, n, leave)) for n in range(8)]
        await ticks()
        for n in (1, 4, 5):
            tasks[n].cancel()
        await ticks()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert log == [0, 2, 3, 6, 7]
    assert free_slots(admission) == 1


async def test_turns_are_given_in_the_order_of_asking():
    """The gate is a queue as well: nobody who waited is overtaken by who just came."""
    pace = AccountPace()
    admission = Admission(10, pace, RateLimit(per_second=500), Timeouts())
    log: list[int] = []
    leave = asyncio.Event()
    leave.set()
    tasks = []
    for n in range(10):
        tasks.append(asyncio.ensure_future(enter(admission, log, n, leave)))
        await ticks(n % 3)
    await asyncio.gather(*tasks)

    assert log == list(range(10))


@pytest.mark.parametrize("give_up", [None, 3600.0], ids=["no deadline", "a deadline"])
@pytest.mark.parametrize("rate", [None, RateLimit(per_second=50)], ids=["slot", "gate"])
async def test_cancelling_at_any_tick_gives_everything_back(rate, give_up):
    """Whoever is cancelled at whatever moment of waiting, entering or leaving holds no slot, no turn and no lock afterwards."""
    for tick in range(30):
        pace = AccountPace()
        admission = Admission(2, pace, rate, Timeouts())
        if rate is not None:
            assert pace.take(asyncio.get_running_loop().time() - 1, None) == 0
            pace.pause(0.0, 0.001)
        deadline = None if give_up is None else asyncio.get_running_loop().time() + give_up
        leave = asyncio.Event()
        log: list[int] = []
        tasks = [asyncio.ensure_future(enter(admission, log, n, leave, deadline)) for n in range(5)]
        for _ in range(tick):
            if tick > 15:
                leave.set()
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert free_slots(admission) == 2, f"after {tick} ticks"
        assert not admission._turn.locked(), f"after {tick} ticks"
        leave.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*(enter(admission, log, n, leave) for n in (8, 9)))
        assert log[-2:] == [8, 9]


async def test_who_is_cancelled_at_the_gate_has_taken_no_turn():
    """A turn belongs to whoever goes through: ten who gave up do not delay the next one by ten intervals."""
    pace = AccountPace()
    rate = RateLimit(per_second=1)
    admission = Admission(20, pace, rate, Timeouts())
    leave = asyncio.Event()
    leave.set()
    log: list[int] = []
    await enter(admission, log, 0, leave)
    tasks = [asyncio.ensure_future(enter(admission, log, n, leave)) for n in range(1, 11)]
    await ticks()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert log == [0]
    assert 0 < pace.take(time.monotonic(), rate) <= MARGIN


async def test_who_cannot_be_let_through_in_time_is_told_at_once():
    """Behind a pause of an hour nobody with a deadline of a minute waits for it."""
    pace = AccountPace()
    admission = Admission(2, pace, None, Timeouts())
    loop = asyncio.get_running_loop()
    pace.pause(loop.time(), 3600.0)
    leave = asyncio.Event()

    async with asyncio.timeout(5):
        error = await failure_of(enter(admission, [], 1, leave, loop.time() + 60.0))

    assert type(error) is OverloadedError
    assert re.fullmatch(r"No request .* nothing was sent\. The account's rate.*\. Allow more time.*\.", str(error))
    assert error.stopped_by == "deadline"
    assert free_slots(admission) == 2
    assert not admission._turn.locked()


async def test_who_waits_behind_somebody_patient_is_told_in_time():
    """Whoever stands behind another in the gate's queue gives up at his own deadline, and the other one goes on."""
    pace = AccountPace()
    admission = Admission(4, pace, RateLimit(per_second=1), Timeouts())
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    leave.set()
    log: list[int] = []
    pace.pause(loop.time(), 3600.0)
    patient = asyncio.ensure_future(enter(admission, log, 1, leave))
    await ticks()

    error = await failure_of(enter(admission, log, 2, leave, loop.time() + 0.02))

    assert type(error) is OverloadedError
    assert not patient.done()
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)
    assert (log, free_slots(admission)) == ([], 4)


async def test_the_earlier_of_deadline_and_acquire_counts():
    """``Timeouts(acquire=)`` bounds the wait for a slot even where the deadline is far."""
    admission = Admission(1, AccountPace(), None, Timeouts(acquire=0.02))
    leave = asyncio.Event()
    async with admission.slot(None):
        error = await failure_of(enter(admission, [], 1, leave, asyncio.get_running_loop().time() + 3600))
        assert type(error) is OverloadedError
        error = await failure_of(enter(admission, [], 1, leave, None))
        assert type(error) is OverloadedError

    assert free_slots(admission) == 1


# On the wire ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_no_more_are_in_flight_than_there_are_slots(limit, serve, connect):
    """Under two hundred concurrent calls the server never sees more than ``max_concurrency``, and all are answered."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=limit)
    calls = [asyncio.ensure_future(client.fetch_page()) for _ in range(200)]
    await server.until(lambda: server.unanswered == limit)
    server.script = OK
    server.release()
    pages = await asyncio.gather(*calls)

    assert len(pages) == 200 == server.asked
    assert server.peak <= limit
    assert server.connections <= limit


async def test_calls_are_sent_in_the_order_they_were_made(serve, connect):
    """A queue of calls is a queue, not a crowd."""
    server = await serve()
    client = connect(server, max_concurrency=1)

    await asyncio.gather(*(client.fetch_page(page=n) for n in range(1, 41)), return_exceptions=True)

    asked = [int(dict(request.query)["page"]) for request in server.requests]
    firsts = list(dict.fromkeys(asked))
    assert firsts == list(range(1, 41))


async def test_clients_of_one_token_share_the_rate_and_others_do_not(serve, connect):
    """Two clients of one account go through one gate; a client of another account has its own."""
    server = await serve()
    slow = RateLimit(per_second=0.5)
    first, second = connect(server, rate=slow), connect(server, rate=slow)
    other = connect(server, "another-token-987", rate=slow)
    await first.fetch_page()

    error = await failure_of(second.fetch_page(deadline=0.1))
    assert type(error) is OverloadedError
    assert len((await other.fetch_page(deadline=1.9)).records) == 1
    assert server.asked == 2


async def test_a_bearer_prefix_makes_no_other_account(serve, connect):
    """The same token, pasted in two ways, is one account."""
    server = await serve()
    slow = RateLimit(per_second=0.5)
    await connect(server, "abcdefgh12345678", rate=slow).fetch_page()

    error = await failure_of(connect(server.url + "/", "Bearer abcdefgh12345678", rate=slow).fetch_page(deadline=0.1))

    assert type(error) is OverloadedError


async def test_calls_cancelled_in_flight_give_their_slots_back(serve, connect):
    """After any number of cancelled calls, at whatever tick, the client still has all its slots and no connection in use."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=2)
    for tick in range(40):
        calls = [asyncio.ensure_future(client.fetch_page()) for _ in range(3)]
        await ticks(tick)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert client._transport.in_flight == 0
    server.release()

    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*(client.fetch_page() for _ in range(4)))) == 4
    assert not client._transport.connector._acquired
