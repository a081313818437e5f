"""Checkpoints of a list that moves: resuming from one loses no call that was there."""

import asyncio

import pytest

from servetel_async import CallQuery, Retry, ServerError, ServetelClient, StreamClosedError, Timeouts
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

MAY = CallQuery.month("2024-05")


@pytest.fixture
async def api():
    async with Emulator(Dataset.month("2024-05", calls=250)) as api:
        yield api


def client_of(api, **settings):
    once = Retry(attempts=1)
    return ServetelClient(
        api.token, base_url=api.base_url, **({"rate": None, "page_size": 50, "retry": once} | settings)
    )


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("stop", [110, 160, 240])
async def test_a_call_that_slipped_through_is_found_behind_the_checkpoint(api, concurrency, stop):
    """A removed call moves others up between two pages: the checkpoint stays in front of calls that may be missing."""
    async with client_of(api, max_concurrency=concurrency) as client:
        got = []
        stream = client.calls(query=MAY)
        async for call in stream:
            got.append(call.id)
            if len(got) == 40:
                api.delete(api.dataset.ids[3])
            if len(got) == stop:
                break
        checkpoint = stream.checkpoint
        await stream.aclose()
        rest = [call.id async for call in client.calls(query=MAY, start=checkpoint)]
    assert set(got) | set(rest) >= set(api.truth())


async def test_a_failure_while_a_list_is_read_again_can_be_gone_on_from(api):
    """Its checkpoint is from before the list moved, so the calls of the second reading come too."""
    async with client_of(api, max_concurrency=1) as client:
        got = []
        stream = client.calls(query=MAY)
        with pytest.raises(ServerError) as failure:
            async for call in stream:
                got.append(call.id)
                if len(got) == 40:
                    api.delete(api.dataset.ids[3])
                if len(got) == 150:
                    api.add_fault(Fault("status", status=503, page=1, times=1))  # the second reading begins there
        assert stream.stats.rereadings == 1
        assert set(api.truth()) - set(got)
        rest = [call.id async for call in client.calls(query=MAY, start=failure.value.checkpoint)]
    assert set(got) | set(rest) >= set(api.truth())


async def test_a_stream_does_not_overload_itself(api):
    """Pages requested ahead wait for the stream's own slots and the gate, however short ``acquire`` is."""
    async with client_of(api, max_concurrency=1, rate=50, page_size=25, timeouts=Timeouts(acquire=0.01)) as client:
        assert len(await client.calls(query=MAY).collect()) == 250


@pytest.mark.parametrize("cap", [20, 35])
@pytest.mark.parametrize("stop", [1, 60, 149, 215])
async def test_a_server_that_gives_smaller_pages_than_before_costs_no_call(cap, stop):
    """The place is found again, and counted in today's pages."""
    data = Dataset.month("2024-05", calls=250)
    async with Emulator(data, token="a-token-for-both") as api, client_of(api) as client:
        stream = client.calls(query=MAY)
        got = [(await anext(stream)).id for _ in range(stop)]
        checkpoint = stream.checkpoint
        await stream.aclose()
    async with Emulator(data, token="a-token-for-both", limit_cap=cap) as api, client_of(api) as client:
        rest = [call.id async for call in client.calls(query=MAY, start=checkpoint)]
    assert got + rest == data.ids


async def test_closing_the_client_ends_a_count():
    """No request outlives its client, even without a stream; the waiting task gets an error."""
    async with Emulator(Dataset.month("2024-05", calls=5), latency=30) as api:
        client = client_of(api)
        waiting = asyncio.ensure_future(client.count(query=MAY))
        while not api.connections_open:
            await asyncio.sleep(0.001)
        await client.aclose()
        with pytest.raises(StreamClosedError):
            await waiting


async def test_a_list_that_grew_is_read_again_down_to_what_is_known(api):
    """Another look at the front finds a call that came there; no second whole reading is needed."""
    async with client_of(api, max_concurrency=1, page_size=10) as client:
        got = []
        stream = client.calls(query=MAY)
        async for call in stream:
            got.append(call.id)
            if len(got) == 40:
                late = api.insert("2024-05-31 23:59:59")
        assert sorted(got) == sorted([*api.dataset.ids, late])
        assert stream.stats.rereadings == 1
        assert 26 < stream.stats.requests < 32


def of_pages(sizes):
    """A server whose n-th answer holds at most the n-th number of calls, and the last number from then on."""

    def habit(asked):
        most = min(asked.limit, sizes[min(asked.nth, len(sizes)) - 1])
        return Answer(rows=asked.found[(asked.page - 1) * most : asked.page * most])

    return habit


def without_third(asked):
    """The third page has no calls, the first few times it is requested."""
    return Answer(rows=[]) if asked.page == 3 and asked.nth < 12 else HONEST


@pytest.mark.parametrize(
    "habit",
    [of_pages([50, 50, 100]), of_pages([100, 100, 50, 100]), without_third],
    ids=["larger", "smaller for once", "empty"],
)
@pytest.mark.parametrize("stop", [300, 450])
async def test_pages_that_leave_a_gap_between_them_are_no_place_to_go_on_from(habit, stop):
    """A page larger than an earlier one begins further down: the calls in between come behind the checkpoint."""
    calls = calls_at(*[f"2024-05-{20 - index // 60:02} 09:{59 - index % 60:02}:00" for index in range(650)])
    async with SmallServer(calls, habit) as server, client_of_small(server) as client:
        stream = client.calls(query=MAY)
        got = []
        async for call in stream:
            got.append(call.id)
            if len(got) == stop:
                break
        checkpoint = stream.checkpoint
        await stream.aclose()
        assert {key for _, key in calls[:stop]} - set(got)
        rest = [call.id async for call in client.calls(query=MAY, start=checkpoint)]
    assert set(got) | set(rest) == {key for _, key in calls}


def client_of_small(server):
    return ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=100, max_concurrency=1)
