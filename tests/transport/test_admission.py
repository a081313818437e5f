"""Admission: the order in which callers get slots and turns, the errors of the others, and that nothing is lost.

The loop's clock jumps (see ``fake_clock``): seconds are exact, and no test waits.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import time
from random import Random

import pytest

from servetel_async import OverloadedError, RateLimit, Timeouts
from servetel_async.transport.admission import SINGLES_IN_A_ROW, Admission, Flow, Ticket
from servetel_async.transport.throttle import MARGIN, AccountPace
from servetel_async.transport.traffic import Traffic
from tests.bulk import fake_clock
from tests.transport.leaks import failure_of

TWO = RateLimit(per_second=2)
INTERVAL = MARGIN / 2


class Account:
    """An account, its clients, and a log of admissions: name, seconds since the beginning."""

    def __init__(self):
        self.pace = AccountPace()
        self.log: list[tuple[object, float]] = []
        self.begun = time.monotonic()
        self.tasks: list[asyncio.Task[None]] = []

    def client(self, slots=4, rate=TWO, **timeouts):
        return Admission(slots, self.pace, rate, Timeouts(**timeouts), Traffic())

    def call(self, client, name, ticket=None, *, takes=0.0):
        """Start a call that holds its slot for a while."""
        task = asyncio.ensure_future(self.hold(client, name, ticket or Ticket(), takes))
        self.tasks.append(task)
        return task

    async def hold(self, client, name, ticket=None, takes=0.0):
        await client.enter(ticket or Ticket())
        try:
            self.log.append((name, round(time.monotonic() - self.begun, 6)))
            await asyncio.sleep(takes)
        finally:
            client.leave()

    async def stream(self, client, name, pages, ahead=8):
        """Ask for pages, so many ahead, as a stream does."""
        flow = Flow()
        asked = [self.call(client, name, Ticket(flow)) for _ in range(min(ahead, pages))]
        for number in range(pages):
            await asked[number]
            if len(asked) < pages:
                asked.append(self.call(client, name, Ticket(flow)))

    async def over(self):
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def names(self):
        return [name for name, _ in self.log]


def now():
    return asyncio.get_running_loop().time()


async def ticks(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


async def busy(account, client, seconds=1.0):
    """Take every slot of a client for a while."""
    for _ in range(client.free):
        account.call(client, "busy", takes=seconds)
    await ticks()
    assert client.free == 0
    account.log.clear()


def assert_free(client, slots):
    """No slot is taken, no call is in a line, and no timer is set."""
    assert client.free == slots
    assert client.lines == {}
    assert not client._queue.waiting
    assert client._queue._timer is None


def play(scene):
    """Run an async function of an account, on the clock that jumps."""

    async def main():
        return await scene(Account())

    return fake_clock.run(main())


# The order -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, TWO], ids=["slots", "rate"])
def test_calls_go_in_the_order_of_asking(rate):
    """First come, first served, even if calls in between are cancelled."""

    async def scene(account):
        client = account.client(1, rate)
        await busy(account, client)
        calls = [account.call(client, name) for name in range(8)]
        await ticks()
        for name in (1, 4, 5):
            calls[name].cancel()
        await account.over()
        assert_free(client, 1)
        return account.names

    assert play(scene) == [0, 2, 3, 6, 7]


@pytest.mark.parametrize("rate", [None, TWO], ids=["slots", "rate"])
def test_a_single_request_goes_before_pages_that_are_asked_ahead(rate):
    """A count that comes last goes before eight waiting pages of an export."""

    async def scene(account):
        client = account.client(1, rate)
        await busy(account, client)
        flow = Flow()
        for number in range(8):
            account.call(client, number, Ticket(flow))
        await ticks()
        account.call(client, "count")
        await account.over()
        return account.names

    assert play(scene) == ["count", *range(8)]


def test_streams_take_turns_a_page_each():
    """Three streams that ask eight pages ahead get every third turn."""

    async def scene(account):
        client = account.client()
        await asyncio.gather(*(account.stream(client, name, 10) for name in "abc"))
        return account.log

    log = play(scene)
    assert [name for name, _ in log] == ["a", *("abc" * 9), "b", "c"]  # the first one went before the others came
    assert [at for _, at in log] == pytest.approx([number * INTERVAL for number in range(30)], abs=1e-5)


def test_a_new_stream_waits_for_each_other_stream_once():
    """It waits for one page of each stream, not for all the pages that they ask ahead."""

    async def scene(account):
        client = account.client()
        old = [asyncio.ensure_future(account.stream(client, name, 10)) for name in "ab"]
        await asyncio.sleep(4 * INTERVAL)
        begun = len(account.log)
        await account.stream(client, "new", 4)
        await asyncio.gather(*old)
        return account.names[begun:]

    names = play(scene)
    assert [index for index, name in enumerate(names) if name == "new"] == [2, 5, 8, 11]


def test_a_stream_that_rests_gains_and_loses_nothing():
    """A stream that returns after a rest goes before a stream that was served meanwhile, but saves up no turns."""

    async def scene(account):
        client, first, second = account.client(), Flow(), Flow()
        await account.hold(client, "first", Ticket(first))
        for _ in range(3):
            await account.hold(client, "second", Ticket(second))
        for _ in range(3):
            account.call(client, "second", Ticket(second))
        for _ in range(3):
            account.call(client, "first", Ticket(first))
        await account.over()
        return account.names[4:]

    assert play(scene) == ["first", "second"] * 3


def test_a_crowd_of_single_requests_does_not_starve_streams():
    """After a number of single requests one page goes; the streams share these turns."""

    async def scene(account):
        client = account.client()
        await account.hold(client, "begin")
        for flow, name in ((Flow(), "a"), (Flow(), "b")):
            for _ in range(2):
                account.call(client, name, Ticket(flow))
        for _ in range(3 * SINGLES_IN_A_ROW):
            account.call(client, "single")
        await account.over()
        return account.names[1:]

    row = ["single"] * SINGLES_IN_A_ROW
    assert play(scene) == [*row, "a", *row, "b", *row, "a", "b"]


def test_a_retry_keeps_the_place_of_its_call():
    """A page that was in backoff goes before the pages that were asked for after it."""

    async def scene(account):
        client, flow = account.client(1), Flow()
        await busy(account, client)
        again = Ticket(flow)
        again.number = client._queue.next_number()  # it waited before they do
        for name in "bc":
            account.call(client, name, Ticket(flow))
        account.call(client, "again", again)
        await account.over()
        return account.names

    assert play(scene) == ["again", "b", "c"]


def test_a_call_keeps_its_number():
    """Its second attempt waits with the number of its first."""

    async def scene(account):
        client = account.client(1)
        await busy(account, client)
        ticket, numbers = Ticket(), []
        for _ in range(2):
            await account.hold(client, "x", ticket)
            numbers.append(ticket.number)
            account.call(client, "other")
            await ticks()
        await account.over()
        return numbers

    first, second = play(scene)
    assert 0 < first == second


def test_the_clients_of_an_account_are_one_queue():
    """The calls of two clients go in the order of asking. A client without free slots delays no other client."""

    async def scene(account):
        clients = [account.client(), account.client()]
        full = account.client(1)
        account.call(full, "full", takes=60.0)
        await ticks()
        account.call(full, "late")
        for name in range(6):
            account.call(clients[name % 2], name)
        await account.over()
        return account.log

    log = play(scene)
    assert [name for name, _ in log] == ["full", *range(6), "late"]
    assert log[-1][1] == pytest.approx(60.0, abs=0.01)


def test_a_client_without_a_rate_does_not_wait_for_one_that_has_a_rate():
    """Each client goes by its own rate."""

    async def scene(account):
        slow, free = account.client(rate=RateLimit(per_second=0.01)), account.client(rate=None)
        for name in range(3):
            account.call(slow, "slow")
            account.call(free, name)
        await ticks()
        for task in account.tasks:
            task.cancel()
        await account.over()
        return account.names

    assert play(scene) == ["slow", 0, 1, 2]


def test_the_queue_comes_back_as_early_as_the_next_one_may_go():
    """If the waiting head is cancelled, and the next call's client allows a burst, the queue wakes up earlier."""

    async def scene(account):
        client, bursting = account.client(), account.client(rate=RateLimit(per_second=4, burst=2))
        await account.hold(client, 0)
        first = account.call(client, "first")
        account.call(bursting, "second")
        await ticks()
        first.cancel()
        await account.over()
        return account.log[1:]

    assert play(scene) == [("second", pytest.approx(INTERVAL / 2, abs=0.01))]


def test_waiting_for_the_gate_holds_no_slot():
    """While a call waits for its turn, the only slot of its client stays free for a call that needs no turn."""

    async def scene(account):
        client = account.client(1)
        await account.hold(client, 0)
        account.call(client, 1)
        await ticks()
        waiting = client.free
        await account.over()
        return waiting

    assert play(scene) == 1


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("rate", [2, 20])
def test_no_wait_is_longer_than_the_streams_and_one_interval(streams, rate):
    """Beside exports and steady single requests, each request and page gets its turn in time."""

    async def scene(account):
        client = account.client(rate=RateLimit(per_second=rate))
        exports = [asyncio.ensure_future(account.stream(client, name, 30)) for name in range(streams)]
        waits = []
        for _ in range(8):
            await asyncio.sleep((streams + 1) * MARGIN / rate)
            begun = now()
            await account.hold(client, "single")
            waits.append((now() - begun) / (MARGIN / rate))
        await asyncio.gather(*exports)
        for name in range(streams):
            mine = [at for who, at in account.log if who == name]
            waits += [(later - earlier) / (MARGIN / rate) for earlier, later in itertools.pairwise(mine)]
        return waits

    assert max(play(scene)) <= streams + 1 + 0.01


# Time limits ---------------------------------------------------------------------------------------------------------------


def refusal(scene):
    """The error of a scene, and the seconds until it came."""

    async def timed(account):
        begun = now()
        error = await failure_of(scene(account))
        return error, now() - begun

    error, seconds = play(timed)
    assert type(error) is OverloadedError
    assert error.stopped_by == "deadline"
    assert "nothing was sent" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    return error, seconds


def test_no_slot_in_time():
    """A call without a slot waits to its limit, and the error says that slots were missing."""

    async def scene(account):
        client = account.client(2, None, acquire=0.5)
        await busy(account, client, 3600.0)
        try:
            await client.enter(Ticket())
        finally:
            [task.cancel() for task in account.tasks]
            await account.over()
            assert_free(client, 2)

    error, seconds = refusal(scene)
    assert (error.waited_for, error.retry_after) == ("slots", None)
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert "all slots" in error.why
    assert "2" in error.why
    assert "max_concurrency" in error.fix


@pytest.mark.parametrize("limit", ["acquire", "deadline"])
def test_no_turn_in_time_is_said_at_once(limit):
    """Behind ten single requests at two a second, a call with a limit of three seconds is refused at once."""

    async def scene(account):
        client = account.client(acquire=3.0 if limit == "acquire" else None)
        for name in range(11):
            account.call(client, name, Ticket(patient=True))
        await ticks()
        try:
            await client.enter(Ticket(deadline_at=now() + 3.0 if limit == "deadline" else None))
        finally:
            waiting = client._traffic.waiting
            await account.over()
            assert (waiting, len(account.log)) == (10, 11)

    error, seconds = refusal(scene)
    assert (error.waited_for, seconds) == ("rate", pytest.approx(10 * INTERVAL, abs=0.01))  # the others were waited for
    assert error.retry_after == pytest.approx(11 * INTERVAL, abs=0.01)
    assert "at 2 requests a second its turn would come in about 5.5 s" in error.why
    assert "rate" in error.fix


def test_a_refusal_takes_no_time():
    """A call that cannot have its turn in time is refused at once."""

    async def scene(account):
        client = account.client()
        await account.hold(client, 0)
        await client.enter(Ticket(deadline_at=now() + 0.1))

    error, seconds = refusal(scene)
    assert (error.waited_for, seconds) == ("rate", 0.0)
    assert error.retry_after == pytest.approx(INTERVAL, abs=1e-6)


@pytest.mark.parametrize("single", [True, False])
def test_a_pause_of_the_server_is_told_from_an_overload(single):
    """A call with a deadline of a minute does not wait for the end of an hour's pause."""

    async def scene(account):
        client = account.client(rate=None)
        account.pace.pause(time.monotonic(), 3600.0)
        await client.enter(Ticket(None if single else Flow(), now() + 60.0))

    error, seconds = refusal(scene)
    assert (error.waited_for, error.retry_after, seconds) == ("pause", 3600.0, 0.0)
    assert "429" in error.why
    assert "after the pause" in error.fix


@pytest.mark.parametrize("rate", [None, TWO], ids=["slots", "rate"])
def test_a_pause_that_begins_later_refuses_those_who_wait(rate):
    """When a 429 comes, calls whose limit is before the end of the pause are refused at once; the others wait."""

    async def scene(account):
        client = account.client(1, rate)
        await busy(account, client, 2.0)
        ends = []

        async def hasty():
            ends.append((await failure_of(client.enter(Ticket(deadline_at=now() + 60.0))), now()))

        waiting = [asyncio.ensure_future(hasty()) for _ in range(3)]
        account.call(client, "patient")
        await ticks()
        account.pace.pause(time.monotonic(), 3600.0)
        await asyncio.gather(*waiting)
        await account.over()
        assert_free(client, 1)
        return [(error.waited_for, at - fake_clock.BEGIN) for error, at in ends], account.log

    ends, log = play(scene)
    assert ends == [("pause", pytest.approx(2.0, abs=0.01))] * 3
    assert log == [("patient", pytest.approx(3600.0, abs=0.01))]


def test_a_pause_that_begins_in_the_moment_of_a_turn_holds():
    """A call that has a slot and a turn waits for the end of the pause if a 429 comes before it sends."""

    async def scene(account):
        client = account.client(1, None)
        await client.enter(Ticket())
        account.call(client, "next")
        await ticks()
        client.leave()  # the turn is given here
        account.pace.pause(time.monotonic(), 30.0)
        await account.over()
        assert_free(client, 1)
        return account.log

    assert play(scene) == [("next", pytest.approx(30.0, abs=0.01))]


def test_a_call_that_can_be_served_is_not_refused():
    """Calls ahead that give up before their turn do not count."""

    async def scene(account):
        client = account.client()
        await account.hold(client, 0)
        for _ in range(10):
            account.call(client, "hasty", Ticket(deadline_at=now() + 6.0))
        await ticks()
        account.pace.pause(time.monotonic(), 6.2)
        await account.hold(client, "in time", Ticket(deadline_at=now() + 6.5))
        await account.over()
        return account.log[-1]

    assert play(scene) == ("in time", pytest.approx(6.2, abs=0.01))


def test_pages_are_not_refused_for_those_ahead_of_them():
    """A page that is asked ahead waits to its limit, because the pages before it may not be needed."""

    async def scene(account):
        client, flow = account.client(), Flow()
        for _ in range(11):
            account.call(client, "ahead", Ticket(flow))
        await ticks()
        await client.enter(Ticket(flow, now() + 3.0))

    error, seconds = refusal(scene)
    assert (error.waited_for, seconds) == ("rate", pytest.approx(3.0, abs=0.01))


def test_the_earlier_of_deadline_and_acquire_counts():
    """``Timeouts(acquire=)`` holds for a call with a later deadline too, but not for a patient page."""

    async def scene(account):
        client = account.client(1, None, acquire=0.5)
        await busy(account, client, 2.0)
        error = await failure_of(client.enter(Ticket(deadline_at=now() + 3600)))
        refused_at = now() - fake_clock.BEGIN
        await account.hold(client, "patient", Ticket(deadline_at=now() + 3600, patient=True))
        return error.waited_for, refused_at, account.log

    assert play(scene) == (
        "slots",
        pytest.approx(0.5, abs=0.01),
        [("patient", pytest.approx(2.0, abs=0.01))],
    )


def test_a_deadline_around_the_call_leaves_the_reason_behind():
    """If a deadline around the call ends it at its limit, its ticket says what it waited for."""

    async def scene(account):
        client = account.client(1, None)
        await busy(account, client, 2.0)
        ticket = Ticket(deadline_at=now() + 0.5)
        task = asyncio.ensure_future(client.enter(ticket))
        asyncio.get_running_loop().call_at(now() + 0.5, task.cancel)
        await asyncio.wait([task])
        await account.over()
        assert_free(client, 1)
        return ticket.overload

    assert play(scene).waited_for == "slots"


def test_cancelled_in_the_moment_of_its_refusal():
    """A call that is cancelled after it was refused, and before it ran, is cancelled."""

    async def scene(account):
        client = account.client(1, None)
        await busy(account, client)
        limit = now() + 0.5
        call = account.call(client, "refused", ticket := Ticket(deadline_at=limit))
        await ticks()
        asyncio.get_running_loop().call_at(limit, call.cancel)  # its own timer is before this one
        await account.over()
        assert_free(client, 1)
        return call.cancelled(), ticket.overload.waited_for, account.names

    assert play(scene) == (True, "slots", [])


def test_cancelled_at_its_limit_when_the_queue_has_passed_it_over():
    """The queue drops a cancelled call before its task has run; the call still says what it waited for."""

    async def scene(account):
        client = account.client()
        await account.hold(client, 0)
        limit = now() + INTERVAL
        call = account.call(client, "late", ticket := Ticket(deadline_at=limit))
        asyncio.get_running_loop().call_at(limit, call.cancel)  # its own timers are behind this one
        await account.over()
        assert_free(client, 4)
        return call.cancelled(), ticket.overload.waited_for

    assert play(scene) == (True, "rate")


# Nothing is lost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give_up", [None, 3600.0], ids=["no limit", "a limit"])
@pytest.mark.parametrize("rate", [None, RateLimit(per_second=50)], ids=["slots", "rate"])
@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_at_any_tick_gives_everything_back(rate, give_up, times):
    """After cancellations at every moment of waiting, entering and leaving, all slots are free and others go."""

    async def scene(account):
        for tick in range(30):
            client = account.client(2, rate)
            account.pace.pause(time.monotonic(), 0.001)
            deadline = None if give_up is None else now() + give_up
            calls = [account.call(client, n, Ticket(None, deadline), takes=tick % 3 / 100) for n in range(5)]
            for _ in range(tick):
                await asyncio.sleep(0.005 if tick % 2 else 0)
            for call in calls * times:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert_free(client, 2)
            await asyncio.gather(account.hold(client, "a"), account.hold(client, "b"))
            assert account.names[-2:] == ["a", "b"]

    play(scene)


@pytest.mark.parametrize("rate", [None, TWO], ids=["slots", "rate"])
def test_cancelled_in_the_moment_of_its_turn(rate):
    """A call that is cancelled after it was admitted, and before it ran, gives its slot to the next one."""

    async def scene(account):
        client = account.client(1, rate)
        await client.enter(Ticket())
        first, second = account.call(client, "first"), account.call(client, "second")
        await asyncio.sleep(INTERVAL * 2)
        asyncio.get_running_loop().call_soon(first.cancel)
        asyncio.get_running_loop().call_soon(first.cancel)
        client.leave()
        await asyncio.gather(first, second, return_exceptions=True)
        assert_free(client, 1)
        return account.names

    assert play(scene) == ["second"]


def test_a_call_cancelled_at_the_gate_has_taken_no_turn():
    """Ten cancelled calls do not delay the next one by ten intervals."""

    async def scene(account):
        client = account.client(20)
        await account.hold(client, 0)
        calls = [account.call(client, name) for name in range(1, 11)]
        await ticks()
        [call.cancel() for call in calls]
        await account.hold(client, "next")
        return account.log

    assert play(scene) == [(0, 0.0), ("next", pytest.approx(INTERVAL, abs=0.01))]


def test_a_cancelled_head_is_passed_over_before_its_task_runs():
    """A slot that becomes free in the same moment goes to the next call, and the cancelled one takes no turn."""

    async def scene(account):
        client = account.client(1)
        await client.enter(Ticket())
        head, _ = account.call(client, "head"), account.call(client, "next")
        await asyncio.sleep(INTERVAL)
        head.cancel()
        client.leave()
        await account.over()
        return account.log

    assert play(scene) == [("next", pytest.approx(INTERVAL, abs=0.01))]


@pytest.mark.parametrize("seed", range(10))
def test_no_slot_is_lost_and_no_rate_exceeded_whatever_happens(seed):
    """After random clients, streams, requests, limits, cancellations and pauses, all calls end and all slots are free."""

    async def scene(account):
        dice = Random(seed)
        rate = dice.choice([None, RateLimit(per_second=20)])
        clients = [account.client(dice.randint(1, 3), rate, acquire=dice.choice([None, 0.3])) for _ in range(3)]
        slots = [client.free for client in clients]
        flows = [Flow() for _ in range(3)]
        for name in range(200):
            flow = dice.choice([None, *flows])
            limit = dice.choice([None, now() + dice.random()])
            ticket = Ticket(flow, limit, patient=dice.random() < 0.5)
            account.call(dice.choice(clients), name, ticket, takes=dice.choice([0.0, 0.01, 0.2]))
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() / 20)
            if dice.random() < 0.2:
                dice.choice(account.tasks).cancel()
            if dice.random() < 0.02:
                account.pace.pause(time.monotonic(), dice.random())
        await account.over()
        for client, number in zip(clients, slots, strict=True):
            assert_free(client, number)
            assert client._traffic.waiting == 0
        failures = {type(task.exception()) for task in account.tasks if not task.cancelled()}
        assert failures <= {type(None), OverloadedError}
        if rate is not None:
            assert all(b - a >= 0.9 / 20 for (_, a), (_, b) in itertools.pairwise(account.log))

    play(scene)
