"""Servers, clients and the check after every test here: whatever a test did to its streams, they leave nothing.

The order of the teardown is the specification: first the client has no page task and no connection in use *while it is open*, then it closes
and its connections are gone, then no task at all is left, and at last the loop has logged nothing, even after a garbage collection.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.stream.helpers import abandoned, clean_loop, client_of, connections_in_use, page_tasks
from tests.stream.page_server import PageServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from servetel_async import ServetelClient


@pytest.fixture
async def loop_log() -> AsyncIterator[list[str]]:
    """The log of the loop so far; the test fails if it is not empty at the end."""
    async with clean_loop() as log:
        yield log


@pytest.fixture
async def serve(loop_log: list[str]) -> AsyncIterator[Callable[..., Awaitable[PageServer]]]:
    """Start page servers with that many calls, closed at the end of the test: 200 calls are 40 pages of 5."""
    async with contextlib.AsyncExitStack() as servers:
        yield lambda count, **options: servers.enter_async_context(PageServer(count, **options))


@pytest.fixture
async def connect(serve) -> AsyncIterator[Callable[..., ServetelClient]]:
    """Make clients of a server. At the end of the test their streams may leave nothing; then they are closed."""
    clients: list[tuple[ServetelClient, PageServer]] = []

    def make(server: PageServer, **options) -> ServetelClient:
        clients.append((client_of(server, **options), server))
        return clients[-1][0]

    yield make
    try:
        for client, server in clients:
            await abandoned(client, server)
    finally:
        for client, server in clients:
            await client.aclose()
            assert not page_tasks(client)
            assert not connections_in_use(client)
            await server.until(lambda server=server: not server.connections)
