"""A server that refuses ranges of a month: streams and counts learn the allowed length, and lose no call."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt

import pytest

from servetel_async import ConfigurationError, RequestRejectedError, Retry, ServetelClient
from tests.bulk.short_ranges import CALLS, DAY, SAYS, allows, dates, elapsed, exactly, length, refusal, refused
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, capped, hiding, shallow

MAY = ("2024-05-01", "2024-05-31")
TWO_MONTHS = ("2024-05-01", "2024-06-30")


@contextlib.asynccontextmanager
async def serving(habit, calls=CALLS, **options):
    """A server with this habit, and a client without delays."""
    options = {"rate": None, "page_size": 20, "retry": Retry(attempts=2, base=0.001)} | options
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient("token-123456", base_url=server.base_url, **options) as client,
    ):
        yield server, client


def ids_of(calls):
    return [call.id for call in calls]


def truth(first, last):
    return [key for start, key in CALLS if first <= start[:10] <= last]


HABITS = {
    "7 days, said": (allows(7), 1),
    "1 day, said": (allows(1, "The range cannot be more than 24 hours"), 1),
    "1 month, said": (allows(29, "maximum 1 month"), 1),
    "7 days, not said": (allows(7, "Bad request", 400), 2),
    "1 day, not said": (allows(1, "Bad request", 400), 4),
    "1 day, no message": (allows(1, "", 400), 4),
    "7 days, at 200": (allows(7, "No.", 200), 4),
    "7 dates": (allows(7, counts=dates), 1),
    "less than 7 days": (allows(7, counts=exactly), 2),
    "less than 7 days, not said": (allows(7, "Bad request", counts=exactly), 3),
}


@pytest.mark.parametrize("name", HABITS)
async def test_a_stream_learns_how_long_a_range_may_be(name):
    """Every call comes once, in order, and only the first requests are refused; the client remembers it."""
    habit, most = HABITS[name]
    async with serving(habit) as (server, client):
        stream = client.calls(*TWO_MONTHS)
        assert ids_of(await stream.collect()) == truth(*TWO_MONTHS)
        assert stream.stats.count == len(CALLS)
        assert stream.stats.requests == len(server.asked)
        assert refused(server.asked, habit) == most
        server.asked.clear()
        assert ids_of(await client.calls(*MAY).collect()) == truth(*MAY)
        assert refused(server.asked, habit) == 0


@pytest.mark.parametrize("name", HABITS)
async def test_a_count_learns_it_too(name):
    """Each call is counted once."""
    habit, most = HABITS[name]
    async with serving(habit) as (server, client):
        assert await client.count(*TWO_MONTHS) == len(CALLS)
        assert refused(server.asked, habit) == most


async def test_the_dates_of_a_window_that_starts_at_noon():
    """Seven days from noon to noon touch eight dates, so a shorter window is requested."""
    habit = allows(7, counts=dates)
    async with serving(habit) as (server, client):
        calls = await client.calls("2024-05-01 12:00:00", "2024-06-15 11:59:59").collect()
        assert [call.id for call in calls] == [
            key for start, key in CALLS if "2024-05-01 12:00:00" <= start <= "2024-06-15 11:59:59"
        ]
        assert refused(server.asked, habit) == 2


@pytest.mark.parametrize("ordered", [True, False])
async def test_streams_that_learn_at_the_same_time(ordered):
    """Two streams refused together halve the range once, and both are complete."""
    habit = allows(7, "Bad request")
    async with serving(habit) as (server, client):
        streams = [client.calls(*TWO_MONTHS, ordered=ordered) for _ in range(2)]
        for calls in await asyncio.gather(*(stream.collect() for stream in streams)):
            assert sorted(ids_of(calls)) == sorted(truth(*TWO_MONTHS))
        assert refused(server.asked, habit) <= 4


@pytest.mark.parametrize(("status", "requests"), [(400, 5), (422, 5), (200, 10), (409, 1), (413, 1)])
@pytest.mark.parametrize("work", ["stream", "count"])
async def test_a_refusal_for_another_reason(status, requests, work):
    """After a few requests the first error is raised, and no limit is learnt."""
    async with serving(lambda asked: refusal(f"no, said the {asked.nth}. time", status)) as (server, client):
        with pytest.raises(RequestRejectedError) as caught:
            await (client.calls(*MAY).collect() if work == "stream" else client.count(*MAY))
        assert f"said the {2 if status == 200 else 1}. time" in str(caught.value)
        assert len(server.asked) == requests
        server.habit = lambda _: HONEST
        server.asked.clear()
        assert await client.count(*MAY) == len(truth(*MAY))
        assert len(server.asked) == 1


async def test_a_refusal_of_a_day_is_raised_at_once():
    """No shorter range is tried."""
    async with serving(lambda _: refusal("no")) as (server, client):
        with pytest.raises(RequestRejectedError):
            await client.count("2024-05-06", "2024-05-06")
        assert len(server.asked) == 1


async def test_a_limit_of_hours_is_believed_below_a_day():
    """A limit that a server names is used, however short."""
    habit = allows(0.25, "Date range must not exceed 6 hours")
    async with serving(habit) as (server, client):
        assert await client.count("2024-05-06", "2024-05-07") == 4
        assert refused(server.asked, habit) == 1
        assert len(server.windows) == 1 + 8


async def test_a_refusal_in_the_middle_of_a_window_is_an_error():
    """Pages of the window came, so its length is allowed."""

    def habit(asked):
        return refusal("Date range must not exceed 7 days") if asked.page == 2 else HONEST

    async with serving(habit) as (server, client):
        stream = client.calls(*MAY)
        with pytest.raises(RequestRejectedError):
            await stream.collect()
        assert {asked.window for asked in server.asked} == {("2024-05-01 00:00:00", "2024-05-31 23:59:59")}


async def test_old_calls_that_are_not_kept_any_more():
    """The server refuses all ranges before a date: the calls that came are delivered, then the refusal is raised."""

    def habit(asked):
        return allows(7)(asked) if asked.first >= "2024-06-10" or elapsed(asked, 7) else refusal("older than 90 days")

    async with serving(habit) as (server, client):
        stream = client.calls(*TWO_MONTHS)
        got = []
        with pytest.raises(RequestRejectedError, match="older than 90 days"):
            async for call in stream:
                got.append(call.id)
        assert got == truth("2024-06-10", "2024-06-30")[: len(got)]
        assert len(got) >= 30
        assert refused(server.asked, habit) <= 8
        assert client.longest_range == 7 * DAY
        with pytest.raises(RequestRejectedError, match="older than 90 days"):
            await client.count(*TWO_MONTHS)


async def test_a_count_of_calls_that_are_not_kept_any_more():
    """The learnt limit stays. The raised refusal is the one that was not about the length."""

    def habit(asked):
        return allows(7)(asked) if asked.first >= "2024-06-10" or elapsed(asked, 7) else refusal("older than 90 days")

    async with serving(habit) as (_, client):
        with pytest.raises(RequestRejectedError, match="older than 90 days"):
            await client.count(*TWO_MONTHS)
        assert client.longest_range == 7 * DAY


async def test_an_open_end_is_closed_at_this_moment():
    """A stream from a date on brings all calls until now, although the server refuses open ranges."""
    now = dt.datetime.now(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    recent = [
        ((now - dt.timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S"), f"r{hours:03}") for hours in range(1, 400, 7)
    ]
    habit = allows(7)
    async with serving(habit, recent) as (server, client):
        since = now - dt.timedelta(days=17)
        assert ids_of(await client.calls(since).collect()) == [key for _, key in recent]
        assert await client.count(since) == len(recent)
        assert refused(server.asked, lambda asked: refusal("") if length(asked) is None else HONEST) == 2


async def test_an_open_start_is_refused():
    """The beginning of the range is unknown, so it cannot be cut."""
    async with serving(allows(7)) as (server, client):
        for dates_ in ((), (None, "2024-05-31")):
            with pytest.raises(RequestRejectedError):
                await client.calls(*dates_).collect()
        assert len(server.asked) == 2


@pytest.mark.parametrize("taken", [1, 13, 14, 15, 40, 70])
async def test_a_checkpoint_outlives_the_client_that_learnt(taken):
    """A new client, without a learnt limit, resumes behind the call, although its windows differ at first."""
    async with serving(allows(7)) as (_, client), client.calls(*TWO_MONTHS) as stream:
        got = [(await anext(stream)).id for _ in range(taken)]
        checkpoint = stream.checkpoint
    async with serving(allows(7)) as (_, client):
        rest = await client.calls(*TWO_MONTHS, start=checkpoint).collect()
    assert got + ids_of(rest) == truth(*TWO_MONTHS)


async def test_a_checkpoint_is_resumed_by_a_client_with_shorter_ranges():
    """Its window was a month; the call is searched for in its week, and later weeks are left out."""
    async with serving(None) as (server, client):
        stream = client.calls(*MAY)
        ids = truth(*MAY)
        came = [(await anext(stream)).id for _ in range(len(ids) * 3 // 4)]
        checkpoint = stream.checkpoint
        await stream.aclose()
        server.asked.clear()
        async with ServetelClient(
            "token-123456", base_url=server.base_url, rate=None, page_size=20, max_range=dt.timedelta(days=7)
        ) as other:
            came += ids_of(await other.calls(*MAY, start=checkpoint).collect())
        assert came == ids
        assert all(asked.first < "2024-05-18" for asked in server.asked)


async def test_a_deadline_covers_the_learning():
    """A refusal costs time like any other reply."""
    async with serving(lambda asked: Answer(after=3600) if asked.nth > 1 else allows(7)(asked)) as (_, client):
        with pytest.raises(Exception, match="deadline"):
            await client.count(*MAY, deadline=0.2)


async def test_max_range_is_never_exceeded():
    """With ``max_range`` no longer range is requested, so nothing is refused."""
    habit = allows(7)
    async with serving(habit, max_range=7 * DAY) as (server, client):
        assert ids_of(await client.calls(*TWO_MONTHS).collect()) == truth(*TWO_MONTHS)
        assert await client.count(*TWO_MONTHS) == len(CALLS)
        assert refused(server.asked, habit) == 0
        assert not any(elapsed(asked, 7) for asked in server.asked)


@pytest.mark.parametrize(
    "value",
    [7, "7d", dt.timedelta(0), dt.timedelta(minutes=59), dt.timedelta(days=32), dt.timedelta(hours=2, microseconds=1)],
)
def test_a_max_range_that_cannot_be(value):
    """It is refused before a request is sent."""
    with pytest.raises(ConfigurationError, match="max_range must be a length of time"):
        ServetelClient("token-123456", max_range=value)


async def test_the_message_says_what_was_asked_for():
    """Of two lengths in a message, the limit is the shorter one."""
    habit = allows(7, "The period of 31 days exceeds " + SAYS)
    async with serving(habit) as (server, client):
        assert await client.count(*MAY) == len(truth(*MAY))
        assert refused(server.asked, habit) == 1


def elapsed_if_closed(asked, days):
    """Whether the range is too long; an open range never is."""
    return length(asked) is not None and elapsed(asked, days)


@pytest.mark.parametrize("says", [SAYS, "Bad request"])
@pytest.mark.parametrize("limit", [capped(1_000), shallow(1_000), hiding(1_000)], ids=["capped", "refuses", "no count"])
@pytest.mark.parametrize("asked", [("2024-05-01", None), (None, "2024-06-30")], ids=["open end", "open start"])
async def test_what_is_behind_a_limit_may_be_a_range_that_is_too_long(asked, limit, says):
    """An open range is allowed, but a closed part of it is refused: shorter ranges are requested."""
    start = dt.datetime(2024, 6, 30, 12)  # noqa: DTZ001 - the account's wall clock
    calls = calls_at(*[str(start - dt.timedelta(minutes=30 * number)) for number in range(2_502)])
    habit = allows(7, says, counts=elapsed_if_closed, also=limit)
    async with serving(habit, calls, page_size=100) as (_, client):
        stream, got = client.calls(*asked), []
        async for call in stream:
            got.append(call.id)
            if len(got) == 1_801:
                break
        checkpoint = stream.checkpoint
        await stream.aclose()
        whole = ids_of(await client.calls(*asked).collect())
        rest = ids_of(await client.calls(*asked, start=checkpoint).collect())
    assert whole == got + rest == [key for _, key in calls]

    async with serving(habit, calls, page_size=100) as (_, client):
        assert await client.count(*asked) == len(calls)


async def test_a_part_that_is_refused_for_another_reason_raises_the_first_refusal():
    """A day of it is refused too, so the length was not the reason."""
    calls = calls_at(*[f"2024-05-{20 - number // 60:02} 09:{59 - number % 60:02}:00" for number in range(1_020)])

    def habit(asked):
        return refusal("Bad request") if length(asked) is not None else capped(1_000)(asked)

    async with serving(habit, calls, page_size=100) as (_, client):
        longest, got = client.longest_range, []
        with pytest.raises(RequestRejectedError, match="Bad request"):
            async for call in client.calls("2024-05-01", None):
                got.append(call.id)
        assert client.longest_range == longest
    assert got == [key for _, key in calls[:1_000]]
