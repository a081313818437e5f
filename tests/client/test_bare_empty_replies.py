"""A reply without calls and without a count says nothing. It is requested again before it is accepted."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from servetel_async import CountDriftError, MalformedResponseError, ServetelClient
from tests.bulk.small_server import HONEST, Answer, SmallServer, bare, calls_at

APRIL_TO_MAY = ("2024-04-15", "2024-05-31")
LATE = [f"2024-05-{day:02} 10:00:00" for day in range(8, 28)]
EARLY = [f"2024-04-{day:02} 10:00:00" for day in range(16, 26)]
CALLS = calls_at(*LATE, *EARLY)


@contextlib.asynccontextmanager
async def api(habit=None, *, known=True, calls=CALLS, **options):
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient(
            "token-123456", base_url=server.base_url, **({"rate": None, "page_size": 7} | options)
        ) as client,
    ):
        client.count_is_total = known
        yield server, client


def in_april(asked):
    return asked.first < "2024-05"


@pytest.mark.parametrize(("known", "times"), [(True, 1), (True, 2), (False, 1)])
async def test_a_later_window_does_not_end_by_it(known, times):
    """The first page of the second window comes empty. A new server shows its totals in the first window."""
    async with api(bare(times=times, when=in_april), known=known) as (_, client):
        stream = client.calls(*APRIL_TO_MAY)
        assert [call.id async for call in stream] == [key for _, key in CALLS]
        assert stream.stats.count == len(CALLS)


@pytest.mark.parametrize(("known", "times"), [(True, 1), (True, 2), (False, 1)])
@pytest.mark.parametrize("nth", [1, 2])
async def test_it_does_not_count_as_none(nth, known, times):
    """An empty reply in the first window or a later one does not count as 0."""
    async with api(bare(times=times, when=lambda asked: asked.nth >= nth), known=known) as (_, client):
        assert await client.count(*APRIL_TO_MAY) == len(CALLS)


async def test_a_first_page_that_is_promised_calls_is_asked_for_again():
    """The page has a count but no calls, so it is requested again."""

    def once(asked):
        return Answer(rows=[]) if asked.nth == 1 else HONEST

    async with api(once) as (_, client):
        assert await client.count(*APRIL_TO_MAY) == len(CALLS)
    async with api(lambda _asked: Answer(rows=[])) as (server, client):
        with pytest.raises(CountDriftError):
            await client.count(*APRIL_TO_MAY)
        assert len(server.asked) == 3


@pytest.mark.parametrize(("known", "asked"), [(True, 6), (False, 4)])
async def test_a_server_that_leaves_out_a_count_of_none_is_believed_in_the_end(known, asked):
    """Each window is requested three times if the server is known to count, otherwise twice."""
    async with api(bare(times=99, when=lambda _asked: True), known=known) as (server, client):
        assert await client.count(*APRIL_TO_MAY) == 0
        assert len(server.asked) == asked
        stream = client.calls(*APRIL_TO_MAY)
        assert [call async for call in stream] == []
        assert len(server.asked) == 2 * asked
        assert await client.get_call("1.1", from_date="2024-04-15", to_date="2024-05-31") is None
        assert len(server.asked) == 3 * asked


async def test_an_honest_empty_page_is_asked_for_once():
    """A count of 0 is an answer."""
    async with api(calls=[]) as (server, client):
        assert await client.count(*APRIL_TO_MAY) == 0
        assert await client.get_call("1.1") is None
        assert len(server.asked) == 3


# A range that holds calls is requested again, to see if the server still counts -----------------------------------------------


def counts_only_calls(asked):
    """A server that sends no count for an empty list."""
    return HONEST if asked.found else Answer(rows=[], no_count=True)


def silent(_asked):
    """A server that sends the same empty list for everything."""
    return Answer(rows=[], no_count=True)


async def test_a_server_that_falls_silent_ends_no_stream():
    """Its second window does not count as empty; the stream can be resumed there."""
    async with api() as (server, client):
        stream = client.calls(*APRIL_TO_MAY)
        came = [(await anext(stream)).id for _ in range(len(LATE))]
        server.habit = silent
        with pytest.raises(MalformedResponseError, match="does not mean 'no calls'"):
            await anext(stream)
        server.habit = lambda _asked: HONEST
        came += [call.id async for call in client.calls(*APRIL_TO_MAY, start=stream.checkpoint)]
        assert came == [key for _, key in CALLS]


async def test_a_server_that_falls_silent_counts_nothing_as_none():
    """Neither ``count`` nor ``get_call`` accepts such a reply as an answer."""
    async with api() as (server, client):
        assert await client.count(*APRIL_TO_MAY) == len(CALLS)
        server.habit = silent
        with pytest.raises(MalformedResponseError):
            await client.count(*APRIL_TO_MAY)
        with pytest.raises(MalformedResponseError):
            await client.get_call("1.1")


async def test_an_empty_window_is_one_where_the_server_still_counts():
    """The server leaves out the count of an empty window but counts a range that holds calls: so the window is empty."""
    may_alone = calls_at(*LATE)
    async with api(counts_only_calls, calls=may_alone) as (server, client):
        stream = client.calls(*APRIL_TO_MAY)
        assert [call.id async for call in stream] == [key for _, key in may_alone]
        assert server.asked[-1].window == ("2024-05-01 00:00:00", "2024-05-31 23:59:59")
        assert server.asked[-1].limit == 1
        assert await client.count(*APRIL_TO_MAY) == len(may_alone)
        assert await client.get_call("1.1", from_date="2024-01-01", to_date="2024-01-31") is None


async def test_the_look_at_a_counted_range_can_be_cancelled():
    """After a step is cancelled during the check, the next step repeats no request."""
    may_alone = calls_at(*LATE)

    def slow_look(asked):
        return Answer(after=0.2) if asked.limit == 1 else counts_only_calls(asked)

    async with api(slow_look, calls=may_alone) as (server, client):
        stream = client.calls(*APRIL_TO_MAY)
        came = [(await anext(stream)).id for _ in range(len(LATE))]
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(anext(stream), 0.05)
        assert [call async for call in stream] == []
        assert came == [key for _, key in may_alone]
        assert sum(asked.limit == 1 for asked in server.asked) == 1
