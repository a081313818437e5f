"""A small shared dataset, and a client that sends requests as any program would."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from servetel_async.emulator import Dataset, Emulator

RECORDS = "/v1/call/records"


class Caller:
    """Sends requests to an emulator and returns the replies, decoded but not judged."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def __call__(self, api: Emulator, query: Any = (), *, token: str | None = None, **params: Any):
        pairs = [*(query.items() if isinstance(query, dict) else query), *((k, str(v)) for k, v in params.items())]
        headers = {"Authorization": f"Bearer {token or api.token}"}
        async with self.session.get(api.base_url + RECORDS, params=pairs, headers=headers) as reply:
            return reply.status, await reply.json()

    async def page(self, api: Emulator, query: Any = (), **params: Any) -> dict[str, Any]:
        status, body = await self(api, query, **params)
        assert status == 200, body
        return body

    async def ids(self, api: Emulator, query: Any = (), **params: Any) -> list[str]:
        return [str(record["id"]) for record in (await self.page(api, query, **params))["results"]]

    async def post(self, api: Emulator, path: str, json: Any = None, token: str | None = None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(api.base_url + path, json=json, headers=headers) as reply:
            return reply.status, await reply.json()


@pytest.fixture
async def ask() -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(session)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset.range("2024-05-06", "2024-05-07", calls=400)


@pytest.fixture(scope="session")
def rough() -> Dataset:
    return Dataset.range("2024-05-06", "2024-05-07", calls=400, php_quirks=True)


@pytest.fixture
async def emulate() -> AsyncIterator[Callable[..., Any]]:
    """Start emulators that are stopped with the test."""
    started: list[Emulator] = []

    async def start(*args: Any, **knobs: Any) -> Emulator:
        api = Emulator(*args, **knobs)
        await api.start()
        started.append(api)
        return api

    yield start
    for api in started:
        await api.stop()
