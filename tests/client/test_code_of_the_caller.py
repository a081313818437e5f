"""Code of the caller runs inside each request. No exception of it can end a stream or cancel a task."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from servetel_async import CallQuery, ServetelClient, ServetelError, StreamClosedError
from servetel_async.emulator import Dataset, Emulator

MAY = CallQuery.month("2024-05")
GOOD = 3
"""Requests that are let through before the code raises."""


async def iterator_at_its_end():
    return await anext(_nothing())


async def _nothing():
    for never in ():
        yield never


async def cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_its_task():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def generator_exit():
    raise GeneratorExit


async def stop_iteration():
    return next(iter(()))


RAISING = [iterator_at_its_end, cancelled, cancels_its_task, generator_exit, stop_iteration]


def as_provider(raising):
    """A token provider; for each request a used-up token is requested again."""
    given = 0

    async def provider():
        nonlocal given
        given += 1
        if given > 1:
            await raising()
        return "token-number-one"

    return {"token": provider}


def as_trace_hook(raising):
    seen = 0

    async def on_request_start(_session, _context, _params):
        nonlocal seen
        seen += 1
        if seen > GOOD:
            await raising()

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_request_start)
    return {"token": "token-number-one", "trace_configs": [trace]}


@pytest.fixture
async def api():
    async with Emulator(Dataset.month("2024-05", calls=200), token="token-number-one") as api:
        yield api


async def outcome_of(work):
    """How it ended, seen from its own task: a cancelled one is no error."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=20)
    assert task.done()
    assert not task.cancelled(), "the consumer was cancelled"
    return task.exception() or task.result()


def client_of(api, options):
    return ServetelClient(base_url=api.base_url, rate=None, page_size=10, **options)


async def read(stream, got):
    async for call in stream:
        got.append(call.id)
    return "finished"


@pytest.mark.parametrize("raising", RAISING)
async def test_what_a_trace_hook_raises_ends_no_stream(raising, api):
    """The calls before it are delivered; then the stream raises an error, and the same error again."""
    async with client_of(api, as_trace_hook(raising)) as client:
        got, stream = [], client.calls(query=MAY)
        ended = await outcome_of(read(stream, got))
        assert isinstance(ended, ServetelError | RuntimeError), ended
        assert not isinstance(ended, StreamClosedError)
        assert await outcome_of(read(stream, got)) is ended
    assert got == api.dataset.ids[: len(got)]
    assert 0 < len(got) < 200


@pytest.mark.parametrize("raising", RAISING)
async def test_what_a_provider_raises_ends_no_stream(raising):
    """The server refuses its first token after some pages; the second never comes."""
    dataset = Dataset.month("2024-05", calls=200)
    async with (
        Emulator(dataset, token="token-number-one", token_requests=GOOD) as api,
        client_of(api, as_provider(raising)) as client,
    ):
        got, stream = [], client.calls(query=MAY)
        ended = await outcome_of(read(stream, got))
        assert isinstance(ended, ServetelError | RuntimeError), ended
        assert not isinstance(ended, StreamClosedError)
    assert got == dataset.ids[: len(got)]
    assert 0 < len(got) < 200


@pytest.mark.parametrize("method", ["count", "get_call", "fetch_page"])
@pytest.mark.parametrize("raising", RAISING)
async def test_what_a_hook_raises_is_an_error_of_every_method(raising, method, api):
    """The methods that request single pages raise it as well."""
    options = as_trace_hook(raising)
    async with client_of(api, options) as client:
        for _ in range(GOOD):
            await client.fetch_page()
        work = {"count": client.count, "get_call": lambda: client.get_call("1.1"), "fetch_page": client.fetch_page}[
            method
        ]
        ended = await outcome_of(work())
    assert isinstance(ended, ServetelError | RuntimeError), ended
    assert not isinstance(ended, StreamClosedError)


@pytest.mark.parametrize("raising", RAISING)
async def test_what_a_hook_raises_is_an_error_of_a_pull(raising, api, tmp_path):
    """The pull is neither cancelled nor complete."""
    async with client_of(api, as_trace_hook(raising)) as client:
        ended = await outcome_of(client.pull(tmp_path / "may.ndjson", query=MAY))
    assert isinstance(ended, ServetelError | RuntimeError), ended
    assert not isinstance(ended, StreamClosedError)
    assert not (tmp_path / "may.ndjson").exists()


async def test_a_client_that_is_closed_says_so(api):
    """If the client was closed under a stream, the error says that instead."""
    async with client_of(api, {"token": "token-number-one"}) as client:
        assert not client.closed
        stream = client.calls(query=MAY)
        await anext(stream)
        step = asyncio.ensure_future(read(stream, []))
        await asyncio.sleep(0)
        await client.aclose()
        assert client.closed
        with pytest.raises(StreamClosedError, match="client was closed under the stream"):
            await step


async def test_a_lack_of_memory_is_raised_as_it_is_and_raised_again(api):
    """It is no failure of the provider, so it is raised unchanged; the stream has failed, and not ended."""

    async def no_memory():
        raise MemoryError

    async with client_of(api, as_trace_hook(no_memory)) as client:
        stream, got = client.calls(query=MAY), []
        for _ in range(2):
            with pytest.raises(MemoryError):
                await read(stream, got)
        assert 0 < len(got) < 200
