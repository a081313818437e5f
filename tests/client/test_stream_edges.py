"""Rare cases of a stream: its deadline, a token provider that fails, a checkpoint whose call is far away."""

import asyncio

import pytest

from servetel_async import (
    CallbackError,
    CallQuery,
    DeadlineExceededError,
    RateLimit,
    ServetelClient,
)
from servetel_async.emulator import Dataset, Emulator

MAY = CallQuery.month("2024-05")


@pytest.fixture
async def api():
    async with Emulator(Dataset.month("2024-05", calls=60), latency=0.001) as api:
        yield api


def client_of(api, **settings):
    return ServetelClient(api.token, base_url=api.base_url, **({"rate": None, "page_size": 10} | settings))


async def test_a_page_that_its_rate_keeps_beyond_the_deadline_is_no_overload(api):
    """Pages were read before, so the stream ran out of time; its checkpoint says where to resume."""
    async with client_of(api, rate=RateLimit(per_second=5)) as client:
        got = []
        with pytest.raises(DeadlineExceededError) as failure:
            async for call in client.calls(query=MAY, deadline=0.5):
                got.append(call.id)
        assert got == api.dataset.ids[: len(got)] != []
        async with client_of(api) as again:
            rest = await again.calls(query=MAY, start=failure.value.checkpoint).collect()
    assert got + [call.id for call in rest] == api.dataset.ids


async def test_the_error_of_a_failed_provider_is_raised_and_raised_again(api):
    """The stream has failed, and raises that error at each ``anext``."""

    class VaultError(Exception):
        pass

    async def provider():
        raise VaultError

    async with ServetelClient(provider, base_url=api.base_url, rate=None) as client:
        stream = client.calls(query=MAY)
        for _ in range(2):
            with pytest.raises(CallbackError, match="token provider raised VaultError"):
                await anext(stream)
    assert not api.requests


async def test_a_search_for_the_checkpoint_can_be_cancelled_and_goes_on(api):
    """The next ``anext`` takes the requested page and does not request it again."""
    async with client_of(api) as client:
        stream = client.calls(query=MAY)
        first = [(await anext(stream)).id for _ in range(25)]
        checkpoint = stream.checkpoint
        await stream.aclose()
        asked = len(api.requests)
        resumed = client.calls(query=MAY, start=checkpoint)
        step = asyncio.ensure_future(anext(resumed))
        while not client._tasks:
            await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert resumed.checkpoint == checkpoint
        rest = [call.id async for call in resumed]
    assert first + rest == api.dataset.ids
    assert [request.page for request in api.requests[asked:]] == [1, 3, 4, 5, 6, 7]


async def test_a_checkpoint_whose_call_is_far_away_is_found(api):
    """A thousand pages away: the starts of the calls show where, so some twenty requests are enough."""
    async with client_of(api, page_size=1) as client:
        stream = client.calls(query=MAY)
        first = await anext(stream)
        checkpoint = stream.checkpoint
        await stream.aclose()
        for _ in range(1010):
            api.insert(start="2024-05-31 23:59:59")
        asked = len(api.requests)
        rest = client.calls(query=MAY, start=checkpoint, page_size=1)
        assert (await anext(rest)).id == api.dataset.ids[1]
        assert len(api.requests) - asked < 40
        await rest.aclose()
        assert [first.id] + [call.id async for call in client.calls(query=MAY, start=checkpoint)] == api.dataset.ids
