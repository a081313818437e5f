"""A fetcher of a small server, on a clock that jumps."""

from __future__ import annotations

import contextlib

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.protocol.windows import Window
from tests.bulk import fake_clock
from tests.bulk.slots import assert_free
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

DAY = Window.of("2024-05-06 00:00:00", "2024-05-06 23:59:59")
CALLS = calls_at(*(f"2024-05-06 09:{minute:02}:00" for minute in range(60)))
SICK = Answer(status=500)


@contextlib.asynccontextmanager
async def fetching(habit=None, *, page_size=20, concurrency=4, patience=1800.0, attempts=2, warm=True):
    """A server with this habit, and a fetcher that has had one good reply."""
    async with (
        SmallServer(CALLS) as server,
        ServetelClient(
            "token-123456",
            base_url=server.base_url,
            rate=None,
            retry=Retry(attempts=attempts),
            max_concurrency=concurrency,
        ) as client,
    ):
        fetcher = Fetcher(client, CallQuery(), page_size=page_size, concurrency=concurrency, patience=patience)
        if warm:
            await fetcher.page(DAY, 1, Cost())
            server.asked.clear()
        server.habit = habit or server.habit
        yield server, fetcher
        assert_free(fetcher._concurrency)
        assert not client._tasks


def on_clock(work):
    """Run a test on the fake clock."""
    return fake_clock.run(work())


def first(times, answer):
    """Give this answer so many times, then honest ones."""
    return lambda asked: answer if asked.nth <= times else HONEST
