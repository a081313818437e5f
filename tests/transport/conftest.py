"""Servers, clients and the check behind every test here: no task is left, and the loop has logged nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING

import pytest

from servetel_async import Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator
from tests.transport.leaks import TOKEN
from tests.transport.wire_server import WireServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

QUICK = Retry(attempts=4, base=0.001, cap=0.002, throttled_base=0.001, throttled_cap=0.002)


def settled(dataset: Dataset) -> Dataset:
    """Freeze the long-lived objects, so that the garbage collection of each test does not walk over them."""
    gc.collect()
    gc.freeze()
    return dataset


@pytest.fixture(scope="session")
def small() -> Dataset:
    """300 calls of one month."""
    return settled(Dataset.month("2024-05", calls=300))


@pytest.fixture(scope="session")
def month() -> Dataset:
    """3,000 calls of one month."""
    return settled(Dataset.month("2024-05", calls=3_000))


@pytest.fixture(autouse=True, scope="session")
def _modules_out_of_sight():
    gc.collect()
    gc.freeze()


@pytest.fixture
async def loop_log() -> AsyncIterator[list[str]]:
    """The loop's log; the test fails if it is not empty at the end, or if a task is left."""
    loop, log = asyncio.get_running_loop(), []
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _loop, context: log.append(f"{context['message']}: {context.get('exception')!r}"))
    yield log
    gc.collect()
    if others := asyncio.all_tasks() - before - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=2)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    assert log == [], log


@pytest.fixture
async def stack(loop_log) -> AsyncIterator[contextlib.AsyncExitStack]:
    """An exit stack that is closed at the end of the test."""
    async with contextlib.AsyncExitStack() as exits:
        yield exits


@pytest.fixture
def serve(stack) -> Callable[..., Awaitable[WireServer]]:
    """Start a wire server."""
    return lambda *args, **options: stack.enter_async_context(WireServer(*args, **options))


@pytest.fixture
def emulate(stack) -> Callable[..., Awaitable[Emulator]]:
    """Start an emulator that accepts the tests' token."""
    return lambda dataset, **knobs: stack.enter_async_context(Emulator(dataset, **{"token": TOKEN, **knobs}))


@pytest.fixture
def connect(stack) -> Callable[..., ServetelClient]:
    """Make clients of a server: quick retries, no rate gate; closed at the end of the test."""

    def make(server: WireServer | Emulator | str, token: object = TOKEN, **options) -> ServetelClient:
        url = server if isinstance(server, str) else server.url if isinstance(server, WireServer) else server.base_url
        given = None if "email" in options else token
        client = ServetelClient(given, **{"base_url": url, "rate": None, "retry": QUICK, **options})
        stack.push_async_callback(client.aclose)
        return client

    return make
