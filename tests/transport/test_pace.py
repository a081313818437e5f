"""The pace of an account: the turns of its gate and its pause, on a fake clock and on the wire."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async import OverloadedError, RateLimit
from servetel_async.transport.throttle import MARGIN, AccountPace
from tests.transport.leaks import failure_of
from tests.transport.wire_server import ACTS, OK

# The gate alone, on a clock of our own ------------------------------------------------------------------------------------


class Walk:
    """A pace on a fake clock: a wait moves the clock."""

    def __init__(self, rate: RateLimit | None, now: float = 1000.0) -> None:
        self.pace = AccountPace()
        self.rate = rate
        self.now = now

    def sent(self, delay: float) -> None:
        """Send a request some seconds after its turn."""
        self.pace.sent(self.now + delay, delay, self.rate)

    def take(self) -> float:
        """Take a turn; returns its time."""
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
    """After a burst at the start, the distance between turns is a little longer than the rate's interval."""
    walk = Walk(rate)

    assert [walk.take() for _ in turns] == pytest.approx([MARGIN * turn for turn in turns])


def test_of_fast_turns_one_that_is_late_does_not_move_the_next_ones():
    """A late turn does not delay the next ones at a high rate, so a loop that is always late loses nothing."""
    walk = Walk(RateLimit(per_second=200))
    turns = []
    for _ in range(1000):
        turns.append(walk.take())
        walk.now += 0.001

    assert turns[-1] == pytest.approx(999 * MARGIN / 200, rel=0.002)


@pytest.mark.parametrize("rest", [0.021, 3600])
def test_who_rested_has_nothing_to_make_up_for(rest):
    """After a rest the distance counts from the first turn, so no two turns come at once."""
    walk = Walk(RateLimit(per_second=50))
    walk.take()
    walk.now += MARGIN / 50 + rest
    begun = walk.now - 1000.0

    assert [walk.take() - begun for _ in range(3)] == pytest.approx([0, MARGIN / 50, 2 * MARGIN / 50], abs=1e-6)


def test_slow_turns_keep_their_distance_whoever_is_late():
    """A late turn moves the next one at a low rate, so a strict server sees no two too close."""
    walk = Walk(RateLimit(per_second=3))
    first = walk.take()
    walk.now += 0.35
    second = walk.take()

    assert (second - first, walk.take() - second) == pytest.approx((0.35, MARGIN / 3))


def test_a_burst_is_saved_up_again_by_a_rest_and_never_more():
    """A long rest refills the burst, and no more."""
    walk = Walk(RateLimit(per_second=10, burst=3))
    [walk.take() for _ in range(3)]
    walk.now += 3600
    begun = walk.now - 1000.0

    assert [walk.take() - begun for _ in range(5)] == pytest.approx([0, 0, 0, 0.1 * MARGIN, 0.2 * MARGIN], abs=1e-6)


def test_over_any_length_of_time_no_more_than_the_rate_and_its_burst():
    """In any interval there are at most burst + rate x seconds turns."""
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
    """A request that connects first is late; the next one, over an open connection, still keeps the distance."""
    walk = Walk(RateLimit(per_second=2))
    walk.take()
    walk.sent(0.3)

    assert walk.take() == pytest.approx(0.3 + MARGIN / 2)


def test_requests_that_all_have_to_connect_keep_the_rate():
    """Requests without kept-alive connections are all late by as much, so they keep the distance of their turns."""
    walk = Walk(RateLimit(per_second=2))
    turns = []
    for _ in range(10):
        turns.append(walk.take())
        walk.sent(0.3)

    assert turns[-1] == pytest.approx(0.3 + 9 * MARGIN / 2)


@pytest.mark.parametrize(
    "rate", [None, RateLimit(per_second=50), RateLimit(per_second=2, burst=4)], ids=["no limit", "fast", "a burst"]
)
def test_when_others_went_out_does_not_matter(rate):
    """At a high rate, or with a burst, a late request does not move the next one."""
    late, on_time = Walk(rate), Walk(rate)
    for walk in (late, on_time):
        walk.take()
    late.sent(0.3)

    assert [late.take() for _ in range(9)] == [on_time.take() for _ in range(9)]


@pytest.mark.parametrize("rate", [None, RateLimit(per_second=100)], ids=["no limit", "a rate"])
def test_a_pause_holds_everybody_back(rate):
    """During a pause there is no turn, with or without a rate; after it turns continue."""
    walk = Walk(rate)
    walk.pace.pause(walk.now, 5.0)

    assert walk.take() == pytest.approx(5.0)


def test_pauses_of_one_moment_are_one_pause():
    """The longest pause holds: pauses do not add up, and a shorter one shortens nothing."""
    walk = Walk(None)
    for seconds in (3.0, 5.0, 1.0):
        walk.pace.pause(walk.now, seconds)

    assert walk.take() == pytest.approx(5.0)


def test_waiting_takes_nothing():
    """A call that must wait has taken no turn, so asking again does not delay the next turn."""
    pace = AccountPace()
    rate = RateLimit(per_second=1)
    assert pace.take(0.0, rate) == 0

    assert [pace.take(0.25, rate) for _ in range(100)] == [MARGIN - 0.25] * 100
    assert pace.take(MARGIN, rate) == 0


def test_a_slow_connection_costs_one_interval_at_most():
    """After a connect of six seconds the next turn is at most one interval later."""
    walk = Walk(RateLimit(per_second=2))
    turns = [walk.take() for _ in range(13)]
    walk.pace.sent(1000.0 + 6.1, 6.1, walk.rate)

    assert turns[-1] == pytest.approx(12 * MARGIN / 2)
    assert walk.take() == pytest.approx(6.1 + MARGIN / 2)


@pytest.mark.parametrize(
    ("rate", "ahead", "seconds"),
    [
        (None, 5, 0.0),
        (RateLimit(per_second=2), 0, MARGIN / 2),
        (RateLimit(per_second=2), 3, 4 * MARGIN / 2),
        (RateLimit(per_second=2, burst=3), 1, 0.0),
        (RateLimit(per_second=2, burst=3), 3, 2 * MARGIN / 2),
    ],
)
def test_the_wait_behind_others_is_known_beforehand(rate, ahead, seconds):
    """The wait behind a number of others can be read; reading takes no turn."""
    walk = Walk(rate)
    walk.take()

    assert [walk.pace.wait(walk.now, rate, ahead) for _ in range(3)] == pytest.approx([seconds] * 3)


def test_the_wait_behind_others_begins_after_a_pause():
    """The wait behind others includes the pause."""
    walk = Walk(RateLimit(per_second=2))
    walk.pace.pause(walk.now, 10.0)

    assert walk.pace.wait(walk.now, walk.rate, 2) == pytest.approx(10 + 2 * MARGIN / 2)


# On the wire ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_no_more_are_in_flight_than_there_are_slots(limit, serve, connect):
    """Under two hundred concurrent calls the server never sees more than ``max_concurrency``, and all are answered."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=limit)
    calls = [asyncio.ensure_future(client.fetch_page(page_size=1 + n)) for n in range(200)]
    await server.until(lambda: server.unanswered == limit)
    server.script = OK
    server.release()
    pages = await asyncio.gather(*calls)

    assert len(pages) == 200 == server.asked
    assert server.peak <= limit
    assert server.connections <= limit


async def test_calls_are_sent_in_the_order_they_were_made(serve, connect):
    """Calls are sent in the order in which they were made."""
    server = await serve()
    client = connect(server, max_concurrency=1)

    await asyncio.gather(*(client.fetch_page(page=n) for n in range(1, 41)), return_exceptions=True)

    asked = [int(dict(request.query)["page"]) for request in server.requests]
    firsts = list(dict.fromkeys(asked))
    assert firsts == list(range(1, 41))


async def test_clients_of_one_token_share_the_rate_and_others_do_not(serve, connect):
    """Two clients of one account share a gate; a client of another account has its own."""
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
    """After calls were cancelled at any tick, the client has all its slots and no connection in use."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=2)
    for tick in range(40):
        calls = [asyncio.ensure_future(client.fetch_page(page_size=1 + n)) for n in range(3)]
        for _ in range(tick):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert client.stats().in_flight == 0
    server.release()

    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(4)))) == 4
    assert not client._transport.connector._acquired
