"""A small month of calls, and clients of emulators that stop with the test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MAY = CallQuery.month("2024-05")


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset.month("2024-05", calls=250)


@pytest.fixture(scope="session")
def rough() -> Dataset:
    return Dataset.month("2024-05", calls=400, php_quirks=True)


@pytest.fixture
def query() -> CallQuery:
    return MAY


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[tuple[Emulator, ServetelClient]]]]:
    """Start an emulator with these settings, and a client of it that never waits."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(dataset: Dataset, *, page_size: int = 50, attempts: int = 2, **knobs: Any):
            api = await stack.enter_async_context(Emulator(dataset, **knobs))
            client = ServetelClient(
                api.token,
                base_url=api.base_url,
                rate=None,
                page_size=page_size,
                retry=Retry(attempts=attempts, base=0.001),
            )
            return api, await stack.enter_async_context(client)

        yield start
