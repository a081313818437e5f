"""When a call is tried again, how long it waits, and what ends it.

Tests of arithmetic drive ``Attempts`` alone; tests of the account or the wire count at a server.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from servetel_async import (
    ConnectionFailedError,
    DeadlineExceededError,
    MalformedResponseError,
    OverloadedError,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    ServerError,
    ServetelError,
    Timeouts,
)
from servetel_async.emulator import Fault
from servetel_async.protocol.verdict import Action, Unacceptable, Verdict
from servetel_async.transport import retry as retry_module
from servetel_async.transport.retry import Attempts, History
from servetel_async.transport.retry_budget import RetryBudget
from servetel_async.transport.throttle import AccountPace
from tests.transport.conftest import QUICK
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import ACTS, OK, PAGE, Act, Send, http, reply

TOO_MANY = b'{"success": "false", "message": "Too many requests."}'


def throttled(after: str | None = None, **options) -> Act:
    return reply(TOO_MANY, 429, *(() if after is None else (("Retry-After", after),)), **options)


# One call, alone -----------------------------------------------------------------------------------------------------------


class Played:
    """Attempts over scripted verdicts; their waits are recorded, not waited."""

    def __init__(
        self,
        *verdicts: Verdict | str,
        policy: Retry,
        budget: RetryBudget | None = None,
        deadline: float | None = None,
        refused: Verdict | None = None,
        history: History | None = None,
        slow_attempts: int | None = None,
    ) -> None:
        self.verdicts = list(verdicts)
        self.sent = self.renewals = 0
        self.waits: list[float] = []
        self.noticed: list[tuple[str, float]] = []
        self.pace = AccountPace()
        self.budget = budget if budget is not None else RetryBudget(500, self.pace)
        self.policy = policy
        self.deadline = deadline
        self.refused = refused
        self.slow_attempts = slow_attempts
        self.history = History() if history is None else history
        self.attempts: Attempts[str]

    async def run(self) -> str:
        deadline_at = None if self.deadline is None else asyncio.get_running_loop().time() + self.deadline
        self.attempts = Attempts(
            *(self._send, self._renew, self.policy, self.pace, self.budget, deadline_at, self._notice, self.history),
            slow_attempts=self.slow_attempts,
        )
        return await self.attempts.run(self.refused)

    async def _send(self) -> str:
        self.sent += 1
        verdict = self.verdicts.pop(0) if self.verdicts else "good"
        if isinstance(verdict, str):
            return verdict
        raise Unacceptable(verdict)

    async def _renew(self) -> bool:
        self.renewals += 1
        return True

    def _notice(self, error: ServetelError | None, seconds: float) -> None:
        self.noticed.append((type(error).__name__, seconds))


@pytest.fixture
def no_waiting(monkeypatch) -> list[float]:
    """The recorded waits of the retry module; each takes one loop iteration."""
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    class Asyncio:
        def __getattr__(self, name: str) -> object:
            return getattr(asyncio, name)

    patched = Asyncio()
    patched.sleep = sleep
    monkeypatch.setattr(retry_module, "asyncio", patched)
    return waits


def failing(**options) -> Verdict:
    return Verdict(Action.RETRY, ServerError("it failed"), **options)


def slow() -> Verdict:
    return Verdict(Action.RETRY, RequestTimeoutError("no whole reply in time"))


def limiting(wait: float | None = None) -> Verdict:
    return Verdict(Action.RETRY, RateLimitError("too many"), wait=wait, throttled=True)


@pytest.mark.parametrize(
    ("verdicts", "slow_attempts", "attempts", "sent"),
    [
        ([slow] * 9, 2, 5, 2),
        ([slow] * 9, None, 5, 5),
        ([slow] * 9, 9, 5, 5),
        ([failing] * 9, 2, 5, 5),
        ([failing, slow, slow], 2, 5, 2),
        ([slow, failing, failing, slow], 2, 5, 4),
    ],
)
async def test_replies_that_take_too_long_have_their_own_number_of_attempts(
    no_waiting, verdicts, slow_attempts, attempts, sent
):
    """A caller that can ask for less stops sooner on slow replies; other failures are retried as often as before."""
    played = Played(*[verdict() for verdict in verdicts], policy=Retry(attempts=attempts), slow_attempts=slow_attempts)
    with pytest.raises(Unacceptable):
        await played.run()

    assert (played.sent, played.attempts.stopped_by) == (sent, "attempts")
    assert len(no_waiting) == sent - 1


async def test_the_wait_is_anything_up_to_a_doubling_bound(no_waiting):
    """Full jitter: waits fill the range between 0 and base times 2 to the n, capped."""
    policy = Retry(attempts=8, base=1.0, cap=10.0)
    bounds = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    rounds = 300
    for _ in range(rounds):
        assert await Played(*[failing()] * 7, policy=policy).run() == "good"

    columns = list(zip(*[iter(no_waiting)] * 7, strict=True))
    for bound, waits in zip(bounds, zip(*columns, strict=True), strict=True):
        assert all(0 <= wait <= bound for wait in waits)
        assert min(waits) < 0.1 * bound
        assert max(waits) > 0.9 * bound
        assert 0.4 * bound < sum(waits) / rounds < 0.6 * bound


async def test_the_bound_after_a_nameless_429_is_another_one(no_waiting):
    """A 429 without a time has its own base and cap."""
    policy = Retry(attempts=6, base=1000.0, cap=1000.0, throttled_base=0.5, throttled_cap=1.0)
    for _ in range(50):
        await Played(*[limiting()] * 5, policy=policy).run()

    assert 0 < max(no_waiting) <= 1.0


async def test_what_the_server_asks_for_is_the_least(no_waiting):
    """No wait is shorter than the time that a 429 or a 503 names."""
    policy = Retry(attempts=4, base=0.1, cap=0.1, throttled_base=0.1)
    await Played(failing(wait=7.0), limiting(3.0), failing(), policy=policy).run()

    assert no_waiting[0] == 7.0
    assert no_waiting[1] == 3.0
    assert no_waiting[2] <= 0.1


async def test_every_wait_is_told_before_it_begins(no_waiting):
    """The listener gets the kind of the failure and the seconds, once for each wait and before it begins."""
    played = Played(failing(), limiting(2.0), policy=QUICK)
    await played.run()

    assert [kind for kind, _ in played.noticed] == ["ServerError", "RateLimitError"]
    assert [seconds for _, seconds in played.noticed] == no_waiting


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts_are_counted_with_the_first(attempts, no_waiting):
    """``attempts=1`` is no retry at all."""
    played = Played(*[failing()] * 9, policy=Retry(attempts=attempts))
    with pytest.raises(Unacceptable):
        await played.run()

    assert (played.sent, played.attempts.stopped_by) == (attempts, "attempts")


async def test_a_verdict_may_allow_fewer_retries_than_the_policy(no_waiting):
    """A verdict that allows one retry gets one, whatever the policy would allow."""
    played = Played(*[failing(retries=1)] * 9, policy=Retry(attempts=9))
    with pytest.raises(Unacceptable):
        await played.run()

    assert (played.sent, played.attempts.stopped_by) == (2, "attempts")


async def test_each_kind_of_verdict_has_its_own_retries(no_waiting):
    """A kind that may be retried once is retried once, even after failures of another kind."""
    cut, page = failing(retries=3), Verdict(Action.RETRY, ServerError("a web page"), retries=1)
    played = Played(cut, cut, page, policy=Retry(attempts=9))

    assert await played.run() == "good"


async def test_what_is_found_out_late_is_one_failure_more(no_waiting):
    """A good reply that turns out bad counts as one failure, with a wait like any other."""
    late = Verdict(Action.RETRY, ServerError("no page"), retries=1, wait=7.0)
    played = Played(*[failing()] * 4, policy=Retry(attempts=6, base=0.1), refused=late, history=History(sent=1))

    assert await played.run() == "good"
    assert (no_waiting[0], played.noticed[0]) == (7.0, ("ServerError", 7.0))
    assert played.sent == 5


async def test_what_is_found_out_late_goes_on_with_its_history(no_waiting):
    """A late failure keeps the attempts and the retries of its kind that were already used."""
    late = Verdict(Action.RETRY, ServerError("no page"), retries=2)
    before = Played(late, failing(), late, policy=Retry(attempts=9))
    assert await before.run() == "good"
    after = Played(failing(), policy=Retry(attempts=9), refused=late, history=before.history)
    with pytest.raises(Unacceptable):
        await after.run()
    assert (after.sent, after.attempts.stopped_by) == (0, "attempts")

    tired = Played(*[failing()] * 9, policy=Retry(attempts=4), refused=late, history=History(counted=2))
    with pytest.raises(Unacceptable):
        await tired.run()
    assert (tired.sent, tired.attempts.stopped_by) == (1, "attempts")


async def test_a_final_verdict_ends_the_attempts_at_any_time(no_waiting):
    """A final verdict is not retried, at the first attempt or at a later one."""
    final = Verdict(Action.FAIL, ServerError("never"))
    for verdicts, sent in (([final], 1), ([failing(), failing(), final], 3)):
        played = Played(*verdicts, policy=Retry(attempts=9))
        with pytest.raises(Unacceptable):
            await played.run()
        assert (played.sent, played.attempts.stopped_by) == (sent, "final")


async def test_free_retries_and_renewals_are_not_counted(no_waiting):
    """A stale connection (once) and a new token use no attempt and do not wait."""
    free = Verdict(Action.FREE, ConnectionFailedError("stale"))
    renew = Verdict(Action.RENEW, ServerError("expired"))
    played = Played(free, renew, failing(), renew, failing(), policy=Retry(attempts=3, base=5.0))

    assert await played.run() == "good"
    assert (played.sent, played.renewals) == (6, 2)
    assert len(no_waiting) == 2


async def test_only_the_first_stale_connection_is_free(no_waiting):
    """A second stale connection in a call counts like any lost connection."""
    free = Verdict(Action.FREE, ConnectionFailedError("stale"))
    played = Played(*[free] * 9, policy=Retry(attempts=3))
    with pytest.raises(Unacceptable):
        await played.run()

    assert (played.sent, played.attempts.stopped_by) == (4, "attempts")


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(no_waiting):
    """If the wait is longer than the time left, the call ends at once."""
    played = Played(failing(wait=5.0), policy=QUICK, deadline=4.0)
    with pytest.raises(Unacceptable):
        await played.run()

    assert (played.sent, no_waiting) == (1, [])
    assert played.attempts.stopped_by == "retry_after"


@pytest.mark.parametrize("error", [KeyError("x"), ServerError("raised"), ValueError("y")])
async def test_what_is_no_verdict_is_not_tried_again(error, no_waiting):
    """Only verdicts are retried: any other exception passes at once."""

    class Raising(Played):
        async def _send(self) -> str:
            await super()._send()
            raise error

    played = Raising(policy=QUICK)
    with pytest.raises(type(error)):
        await played.run()

    assert played.sent == 1


async def test_the_budget_pays_for_retries_of_calls_with_a_deadline_only(no_waiting):
    """A budget of 500 pays for 35 retries at 14 each; then a failure is final. Calls without a deadline use none of it."""
    budget = RetryBudget(500, AccountPace())
    policy = Retry(attempts=2)
    sent = []
    for _ in range(100):
        played = Played(*[failing()] * 9, policy=policy, budget=budget, deadline=1000.0)
        with pytest.raises(Unacceptable):
            await played.run()
        sent.append(played.sent)

    assert sent == [2] * 35 + [1] * 65
    assert played.attempts.stopped_by == "budget"

    bulk = Played(*[failing()] * 9, policy=policy, budget=budget)
    with pytest.raises(Unacceptable):
        await bulk.run()
    assert bulk.sent == 2


async def test_successes_refill_the_budget(no_waiting):
    """A retry that succeeds gives back its cost, and each plain success adds one."""
    budget = RetryBudget(28, AccountPace())
    for _ in range(50):
        assert await Played(failing(), policy=QUICK, budget=budget, deadline=1000.0).run() == "good"
    for _ in range(2):
        with pytest.raises(Unacceptable):
            await Played(*[failing()] * 2, policy=Retry(attempts=2), budget=budget, deadline=1000.0).run()
    assert not budget.spend(14)
    for _ in range(14):
        assert await Played(policy=QUICK, budget=budget, deadline=1000.0).run() == "good"
    assert budget.spend(14)
    assert not budget.spend(1)


async def test_a_call_that_comes_in_the_end_has_cost_nothing(no_waiting):
    """A call that succeeds at its third try gives back the cost of both retries, so such calls never use up the budget."""
    budget = RetryBudget(28, AccountPace())
    for _ in range(50):
        assert await Played(failing(), failing(), policy=QUICK, budget=budget, deadline=1000.0).run() == "good"

    assert budget.spend(28)


async def test_each_client_has_its_own_bound(no_waiting):
    """The retries of one account count together; a success of a client refills no more than its own size."""
    pace = AccountPace()
    none, small, large = RetryBudget(0, pace), RetryBudget(28, pace), RetryBudget(1000, pace)
    assert [none.spend(14), small.spend(14), small.spend(14), small.spend(14)] == [False, True, True, False]
    assert all(large.spend(14) for _ in range(60))
    assert not small.spend(14)

    for _ in range(14):
        small.earn(1)

    assert small.spend(14)


async def test_the_budget_never_exceeds_its_size(no_waiting):
    """Many successes do not raise the budget above its size."""
    budget = RetryBudget(20, AccountPace())
    for _ in range(100):
        await Played(policy=QUICK, budget=budget).run()

    assert budget.spend(20)
    assert not budget.spend(1)


# Many calls, one account ---------------------------------------------------------------------------------------------------


async def test_retry_after_holds_for_the_whole_account(serve, connect):
    """After a 429 no client of that token sends a request before the time; other tokens continue."""
    arrivals: list[tuple[float, str]] = []
    refused_at: list[float] = []

    def script(request):
        arrivals.append((time.monotonic(), request.header("Authorization")))
        if len(arrivals) == 1:
            refused_at.append(time.monotonic())
            return throttled("1")
        return OK

    server = await serve(script)
    first, second = connect(server), connect(server)
    other = connect(server, "another-token-987")
    leader = asyncio.ensure_future(first.fetch_page())
    await server.until(lambda: server.asked == 1)
    while not first._transport.pace.paused_until:
        await asyncio.sleep(0)

    others = [asyncio.ensure_future(client.fetch_page(page_size=n)) for client in (first, second) for n in range(1, 7)]
    await other.fetch_page()
    assert server.asked == 2, "only the other account may ask during the pause"
    await asyncio.gather(leader, *others)

    mine = [at for at, header in arrivals[1:] if header != arrivals[1][1]]
    assert len(mine) == 13
    assert min(mine) >= refused_at[0] + 1.0


async def test_a_retry_after_beyond_the_longest_wait_is_raised_at_once(serve, connect):
    """A server that asks for an hour is not waited for: the error says how long, and the caller decides."""
    server = await serve(throttled("3600"))

    error = await failure_of(connect(server).fetch_page())

    assert type(error) is RateLimitError
    assert (error.retry_after, error.stopped_by, error.attempts) == (3600.0, "retry_after", 1)
    assert server.asked == 1
    assert_clean(error)


async def test_a_server_that_asks_for_a_thousand_years_does_not_stop_the_account(serve, connect):
    """Neither the call that got an absurd wait nor the next one waits for it."""
    server = await serve([throttled("999999999"), OK])
    client = connect(server)
    await failure_of(client.fetch_page())

    async with asyncio.timeout(5):
        assert len((await client.fetch_page()).records) == 1


@pytest.mark.parametrize("value", ["-1", "NaN", "1e309", "soon", "", "1, 2", "Wed, 99 Foo 2024 99:99:99 GMT"])
async def test_a_retry_after_that_is_no_time_is_passed_over(value, serve, connect):
    """An invalid ``Retry-After`` means our own backoff."""
    server = await serve([throttled(value), OK])

    assert len((await connect(server).fetch_page()).records) == 1
    assert server.asked == 2


async def test_a_date_is_read_by_the_servers_own_clock(serve, connect):
    """An HTTP date is counted from the reply's ``Date``, so a wrong local clock does not matter."""
    headers = (("Date", "Wed, 01 May 2019 10:00:00 GMT"), ("Retry-After", "Wed, 01 May 2019 11:00:00 GMT"))
    server = await serve(reply(TOO_MANY, 429, *headers))

    error = await failure_of(connect(server).fetch_page())

    assert error.retry_after == 3600.0


async def test_a_429_for_ever_ends_with_the_attempts(serve, connect):
    """An endless 429 becomes a ``RateLimitError`` when the attempts are used up."""
    server = await serve(throttled())

    error = await failure_of(connect(server).fetch_page())

    assert type(error) is RateLimitError
    assert (server.asked, error.attempts, error.stopped_by, error.status) == (4, 4, "attempts", 429)


async def test_a_503_with_retry_after_delays_only_its_own_call(serve, connect):
    """A 503 with ``Retry-After`` delays no other call; only a 429 pauses the account."""
    server = await serve([reply(b"", 503, ("Retry-After", "30")), OK])
    client = connect(server)
    waiting = asyncio.ensure_future(client.fetch_page())
    await server.until(lambda: server.asked == 1)

    await client.fetch_page(page_size=50)

    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


# Deadlines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head hangs", "body hangs"])
async def test_a_reply_that_hangs_is_ended_by_the_deadline(name, serve, connect):
    """The deadline ends an attempt that is under way, and says that something had been sent."""
    server = await serve(ACTS[name])
    client = connect(server, timeouts=Timeouts(connect=None, read=None, total=None))

    error = await failure_of(client.fetch_page(deadline=0.1))

    assert type(error) is DeadlineExceededError
    assert (error.attempts, error.stopped_by, error.page) == (1, "deadline", 1)
    assert error.retryable
    assert_clean(error)
    await server.until(lambda: not server.open)


async def test_a_deadline_that_passes_in_the_queue_is_overloaded(serve, connect):
    """A call that was never sent is an overload, not a timeout of the server."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=1)
    busy = asyncio.ensure_future(client.fetch_page())
    await server.until(lambda: server.asked == 1)

    error = await failure_of(client.fetch_page(page_size=50, deadline=0.05))

    assert type(error) is OverloadedError
    assert (error.waited_for, error.retry_after) == ("slots", None)
    assert (error.attempts, server.asked) == (0, 1)
    assert_clean(error)
    server.release()
    await busy


async def test_a_deadline_shorter_than_the_rate_allows_sends_nothing(serve, connect):
    """A call that the rate gate cannot admit in time is refused at once, and does not affect the next one."""
    server = await serve()
    client = connect(server, rate=RateLimit(per_second=5))
    await client.fetch_page()

    error = await failure_of(client.fetch_page(deadline=0.01))

    assert type(error) is OverloadedError
    assert server.asked == 1
    await client.fetch_page()
    assert server.asked == 2


async def test_retries_stop_at_the_deadline(serve, connect):
    """Retries continue while the next wait ends in time; the last error is raised, not the deadline."""
    server = await serve(reply(b"", 503))
    patient = Retry(attempts=10**6, base=0.01, cap=0.02, budget=10**9)

    error = await failure_of(connect(server, retry=patient).fetch_page(deadline=0.3))

    assert type(error) is ServerError or type(error) is DeadlineExceededError
    assert error.stopped_by == "deadline"
    assert (
        3 < server.asked <= error.attempts <= server.asked + 1
    )  # the last one may have been ended before its first byte
    assert_clean(error)


async def test_a_deadline_covers_waiting_for_a_new_token(serve, connect):
    """A token provider that hangs does not hold the call beyond its deadline."""
    server = await serve(reply(b'{"success": false, "message": "Token has expired"}', 401))
    given = iter(["first-token-1234"])
    hanging = asyncio.Event()

    async def provider() -> str:
        for token in given:
            return token
        await hanging.wait()
        return "second-token-1234"

    client = connect(server, provider)
    async with asyncio.timeout(5):
        error = await failure_of(client.fetch_page(deadline=0.1))

    assert type(error) is DeadlineExceededError
    hanging.set()


# An outage -----------------------------------------------------------------------------------------------------------------

CALLS = 1_000


@pytest.mark.parametrize(
    "act", [reply(b"", 503), ACTS["reset before head"], ACTS["fin before head"]], ids=lambda act: act.name
)
async def test_an_outage_is_not_made_worse(act, serve, connect):
    """A thousand calls with a deadline into a total outage cost at most a tenth more requests."""
    server = await serve(act)
    client = connect(server, retry=Retry(attempts=5, base=0.001, cap=0.002), max_concurrency=32)

    errors = await asyncio.gather(*(failure_of(client.fetch_page(page_size=1 + n, deadline=60)) for n in range(CALLS)))

    assert server.asked <= 1.1 * CALLS + 10
    assert server.asked == sum(error.attempts for error in errors)
    assert {type(error) for error in errors} <= {ServerError, ConnectionFailedError}
    assert {error.stopped_by for error in errors} <= {"budget", "attempts"}


async def test_an_outage_that_ends_is_forgotten(serve, connect):
    """Once the server is back, calls succeed at once and refill the budget."""
    server = await serve(reply(b"", 503))
    client = connect(server, retry=Retry(attempts=2, base=0.001, budget=28))
    for _ in range(10):
        await failure_of(client.fetch_page(deadline=60))
    server.script = OK
    for _ in range(28):
        await client.fetch_page(deadline=60)
    asked = server.asked
    server.script = lambda request: reply(b"", 503) if request.number == asked + 1 else OK

    assert len((await client.fetch_page(deadline=60)).records) == 1


async def test_pages_that_come_at_the_third_try_never_end_a_stream(emulate, connect, month):
    """Each page of a stream with a deadline fails twice with 503: all 3,000 calls come."""
    api = await emulate(month, faults=[Fault("status", page=number, times=2) for number in range(1, 62)])

    calls = await connect(api, page_size=50).calls("2024-05-01", "2024-05-31", deadline=600).collect()

    assert [call.id for call in calls] == api.truth()


async def test_no_slot_is_held_while_waiting_for_a_retry(serve, connect):
    """With a single slot, a call that waits for its retry does not block others."""
    server = await serve([reply(b"", 503, ("Retry-After", "30")), OK])
    client = connect(server, max_concurrency=1)
    waiting = asyncio.ensure_future(client.fetch_page())
    await server.until(lambda: server.asked == 1)

    async with asyncio.timeout(5):
        await client.fetch_page(page_size=50)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_wait_may_be_cancelled(serve, connect):
    """A call that is cancelled during its wait ends at once and is not retried."""
    server = await serve(reply(b"", 503, ("Retry-After", "300")))
    client = connect(server)
    waiting = asyncio.ensure_future(client.fetch_page())
    await server.until(lambda: server.asked == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert server.asked == 1


async def test_each_call_counts_its_own_attempts(serve, connect):
    """Calls that fail side by side do not mix up their attempts."""
    server = await serve(lambda request: OK if request.query[0][1] == "1" else reply(b"", 503))
    client = connect(server, max_concurrency=8)

    results = await asyncio.gather(*(client.fetch_page(page=1 + n % 2) for n in range(40)), return_exceptions=True)

    errors = [error for error in results if isinstance(error, ServetelError)]
    assert len(errors) == 20
    assert {error.attempts for error in errors} == {4}
    assert len({id(error) for error in errors}) == 20


async def test_events_tell_every_attempt_and_every_wait(serve, connect):
    """``on_event`` gets each request and each wait, with the page, the status and the error's name."""
    seen = []
    server = await serve([ACTS["reset before head"], reply(b"", 503), OK])

    await connect(server, on_event=seen.append).fetch_page()

    assert [(event.kind, event.page, event.status, event.error) for event in seen] == [
        ("request", 1, None, "RESET"),
        ("wait", 1, None, "ConnectionFailedError"),
        ("request", 1, 503, None),
        ("wait", 1, 503, "ServerError"),
        ("request", 1, 200, None),
    ]
    assert seen[-1].size == len(PAGE)


async def test_an_onlooker_that_raises_breaks_nothing(serve, connect, caplog):
    """An exception in ``on_event`` is logged by the name of its class, and the request continues."""
    server = await serve([reply(b"", 503), OK])

    def broken(event: object) -> None:
        raise KeyError("canary")

    assert len((await connect(server, on_event=broken).fetch_page()).records) == 1
    assert "KeyError" in caplog.text
    assert "canary" not in caplog.text


async def test_a_page_that_stays_malformed_is_tried_three_times_more(serve, connect):
    """A malformed body may be a cut one, so it is retried, but less often than an outage."""
    server = await serve(Act("cut", (Send(http(PAGE[:-9])),)))

    error = await failure_of(connect(server, retry=Retry(attempts=9, base=0.001, cap=0.002)).fetch_page())

    assert type(error) is MalformedResponseError
    assert server.asked == 4


async def test_the_emulators_faults_are_survived_by_a_stream(emulate, connect, small):
    """A stream over a server that fails four requests in ten, in six ways, delivers the truth."""
    kinds = ("status", "reset", "close", "cut_body", "truncated_json", "retry_after")
    faults = [Fault(kind, probability=0.08, retry_after=0) for kind in kinds]
    api = await emulate(small, faults=faults)
    client = connect(api, page_size=3, retry=Retry(attempts=30, base=0.001, cap=0.002, throttled_base=0.001))

    calls = await client.calls("2024-05-01", "2024-05-31").collect()

    assert [call.id for call in calls] == api.truth()
    assert len(api.fired) == 6


async def test_a_deadline_that_passes_before_a_retry_could_be_sent_is_no_overload(serve, connect):
    """If something had been sent before the deadline, the error is not an overload."""
    server = await serve(reply(b"", 503))
    client = connect(server, rate=RateLimit(per_second=0.5), retry=Retry(attempts=3, base=0.001, cap=0.002))

    error = await failure_of(client.fetch_page(deadline=0.5))

    assert type(error) is DeadlineExceededError
    assert (error.attempts, server.asked) == (1, 1)
