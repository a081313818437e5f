"""``collect`` gives all calls of a stream, or says that some were read before."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async import CallQuery, ConfigurationError, RequestRejectedError, ServetelClient, StreamClosedError
from servetel_async.emulator import Dataset, Emulator
from tests.bulk.small_server import Answer, SmallServer, calls_at

MAY = CallQuery.month("2024-05")


@pytest.fixture
async def api():
    async with Emulator(Dataset.month("2024-05", calls=60)) as api:
        yield api


@pytest.fixture
async def client(api):
    async with ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=10) as client:
        yield client


@pytest.mark.parametrize("limit", [None, 5])
async def test_a_finished_stream_is_not_collected_again(limit, api, client):
    """The second list would be empty, and look complete."""
    stream = client.calls(query=MAY)
    assert len(await stream.collect()) == 60
    asked = len(api.requests)
    with pytest.raises(
        ConfigurationError, match=r"read to its end before collect\(\).*60 calls were delivered.*calls\(\)"
    ):
        await stream.collect(limit)
    assert len(api.requests) == asked


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("way", ["calls", "pages"])
async def test_a_stream_that_was_read_in_part_is_not_collected(way, limit, api, client):
    """The rest is not all of the calls. The stream stays open and can be read to its end."""
    stream = client.calls(query=MAY)
    read = (await anext(stream.pages())).records if way == "pages" else [await anext(stream) for _ in range(15)]
    asked = len(api.requests)
    with pytest.raises(ConfigurationError, match=rf"in part before collect\(\).*{len(read)} calls were delivered"):
        await stream.collect(limit)
    assert len(api.requests) == asked
    assert [call.id for call in read] + [call.id async for call in stream] == api.dataset.ids


async def test_an_empty_stream_is_collected_once(api, client):
    """A second ``collect`` fails also if there were no calls."""
    stream = client.calls("2023-01-01", "2023-01-02")
    assert await stream.collect() == []
    with pytest.raises(ConfigurationError, match="0 calls were delivered"):
        await stream.collect()


@pytest.mark.parametrize("limit", [None, 25])
async def test_a_stream_of_which_nothing_was_read_is_collected_whole(limit, api, client):
    """A step that was cancelled before it returned a call has taken no call."""
    stream = client.calls(query=MAY)
    step = asyncio.ensure_future(anext(stream))
    while not client._tasks:
        await asyncio.sleep(0)
    step.cancel()
    await asyncio.wait({step})
    assert [call.id for call in await stream.collect(limit)] == api.dataset.ids[:limit]


async def test_a_closed_stream_is_not_collected(api, client):
    """It does not matter whether its owner or a ``collect`` with a limit closed it."""
    closed, limited = client.calls(query=MAY), client.calls(query=MAY)
    await closed.aclose()
    assert len(await limited.collect(limit=5)) == 5
    asked = len(api.requests)
    for stream in (closed, limited):
        with pytest.raises((StreamClosedError, ConfigurationError)):
            await stream.collect()
    assert len(api.requests) == asked


async def test_a_failed_stream_fails_again():
    """``collect`` raises the error that the stream failed with."""

    def habit(_asked):
        return Answer(status=400, body=b'{"success": false, "message": "no"}')

    async with (
        SmallServer(calls_at("2024-05-06 09:00:00"), habit) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None) as client,
    ):
        stream = client.calls(query=MAY)
        errors, sent = [], []
        for _ in range(2):
            with pytest.raises(RequestRejectedError) as failure:
                await stream.collect()
            errors.append(failure.value)
            sent.append(len(server.asked))
        assert errors[0] is errors[1]
        assert sent[0] == sent[1]
