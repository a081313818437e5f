"""A reply without calls and without a count says nothing. It is requested again before it is accepted."""

from __future__ import annotations

import contextlib

import pytest

from servetel_async import CountDriftError, ServetelClient
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
    """The first page of the second window comes empty; a server that is not known yet shows its totals in the first."""
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
    """The page has a count but no calls: the next reply shows what is true."""

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
