"""Clients for these tests, ways to read a stream, and checks for leftovers.

A stream may leave nothing behind: no page task, no connection in use, no request on the server, no line in the loop's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from typing import TYPE_CHECKING

import anyio

from servetel_async import Retry, ServetelClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.stream.page_server import PageServer

TOKEN = "token-1234567890"
SIZE = 5
"""Calls on a page."""
WINDOW = 4
"""Pages that may be read ahead: twice the concurrency of ``client_of``."""


def client_of(server: PageServer, **options) -> ServetelClient:
    """A client without retries and without a rate gate; two requests at a time, hence a window of four pages."""
    options = {"rate": None, "max_concurrency": WINDOW // 2, "page_size": SIZE, "retry": Retry(attempts=1), **options}
    return ServetelClient(TOKEN, base_url=server.url, **options)


# Reading -----------------------------------------------------------------------------------------------------------------


async def take(stream: AsyncIterator[object], number: int) -> list[str]:
    """The ids of the next calls of a stream."""
    return [(await anext(stream)).id for _ in range(number)]


async def rest(stream: AsyncIterator[object]) -> list[str]:
    """The ids of all remaining calls of a stream."""
    return [call.id async for call in stream]


async def _asyncio_timeout(seconds: float, work: Callable[[], Awaitable[object]]) -> object:
    async with asyncio.timeout(seconds):
        return await work()


async def _wait_for(seconds: float, work: Callable[[], Awaitable[object]]) -> object:
    return await asyncio.wait_for(work(), seconds)


async def _move_on_after(seconds: float, work: Callable[[], Awaitable[object]]) -> object:
    with anyio.move_on_after(seconds):
        return await work()
    raise TimeoutError


async def _fail_after(seconds: float, work: Callable[[], Awaitable[object]]) -> object:
    with anyio.fail_after(seconds):
        return await work()


CLOCKS = {
    "asyncio.timeout": _asyncio_timeout,
    "asyncio.wait_for": _wait_for,
    "anyio.move_on_after": _move_on_after,
    "anyio.fail_after": _fail_after,
}
"""Every way to give up waiting: ``await clock(seconds, work)`` returns what the work returns or raises ``TimeoutError``."""


async def give_up_when(
    clock: str, reached: Callable[[], Awaitable[object]], work: Callable[[], Awaitable[object]]
) -> object:
    """Work under a timeout that ends when something is reached, not by this computer's time."""

    async def run_out(scope: asyncio.Timeout | anyio.CancelScope) -> None:
        await reached()
        if isinstance(scope, asyncio.Timeout):
            scope.reschedule(asyncio.get_running_loop().time())
        else:
            scope.deadline = anyio.current_time()

    async with contextlib.AsyncExitStack() as after:
        if clock == "asyncio.timeout":
            scope = await after.enter_async_context(asyncio.timeout(None))
        else:
            scope = after.enter_context(getattr(anyio, clock.removeprefix("anyio."))(math.inf))
        watching = asyncio.ensure_future(run_out(scope))
        try:
            return await work()
        finally:
            watching.cancel()
    raise TimeoutError


# Looking for leftovers ---------------------------------------------------------------------------------------------------


def page_tasks(client: ServetelClient) -> set[asyncio.Task[object]]:
    """The client's running page tasks; one that just ended may wait for its last callback."""
    return {task for task in client._tasks if not task.done()}


def connections_in_use(client: ServetelClient) -> int:
    """How many connections of the client's pool serve a request now."""
    connector = client._transport.connector
    return 0 if connector is None else len(connector._acquired)


async def settled(client: ServetelClient) -> None:
    """Wait until the page tasks of the client have ended, by themselves or cancelled."""
    if tasks := page_tasks(client):
        await asyncio.wait(tasks, timeout=5)
    assert not page_tasks(client), f"page tasks alive: {page_tasks(client)}"
    assert not connections_in_use(client), f"{connections_in_use(client)} connections in use"


async def abandoned(client: ServetelClient, server: PageServer) -> None:
    """Wait until nothing is left of a dropped stream. If the server holds its pages, only a disconnect can end them."""
    await asyncio.sleep(0)  # for one more iteration the loop knows an anyio scope that timed out, and its frames
    gc.collect()
    await settled(client)
    await server.until(lambda: server.in_flight == 0)


@contextlib.asynccontextmanager
async def clean_loop() -> AsyncIterator[list[str]]:
    """Record the calls of the loop's exception handler; afterwards there must be no record and no task."""
    loop, log = asyncio.get_running_loop(), []
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _loop, context: log.append(f"{context['message']}: {context.get('exception')!r}"))
    yield log
    gc.collect()
    if others := asyncio.all_tasks() - before - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=2)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left: {left}"
    await asyncio.sleep(0)
    gc.collect()
    assert log == [], log
