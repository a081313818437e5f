"""A pull into PostgreSQL, from the emulator to a real server's table, interrupted and resumed."""

from __future__ import annotations

import pytest

from servetel_async.bulk.check import check
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

asyncpg = pytest.importorskip("asyncpg")


class StopError(Exception):
    """What an application raises to end a pull."""


@pytest.fixture
async def ask(postgres_server):  # noqa: F811
    """Ask an empty database of the server."""
    postgres = await asyncpg.connect(postgres_server.address())
    await postgres.execute("DROP DATABASE IF EXISTS pulled WITH (FORCE)")
    await postgres.execute("CREATE DATABASE pulled")
    connection = await asyncpg.connect(postgres_server.address("pulled"))
    yield connection.fetch
    await connection.close()
    await postgres.execute("DROP DATABASE pulled WITH (FORCE)")
    await postgres.close()


def stop_after(windows):
    def on_progress(progress):
        if progress.windows >= windows:
            raise StopError

    return on_progress


async def test_interrupted_twice_and_gone_on_from(connect, rough, query, postgres_server, ask):  # noqa: F811
    """Every call of the month is there once, as if nothing had happened, and what was committed was not asked again."""
    _, client = await connect(rough, page_size=2)
    address = postgres_server.address("pulled")
    there = []
    for windows in (2, 4):
        with pytest.raises(StopError):
            await client.pull(address, query=query, on_progress=stop_after(windows))
        there.append((await ask("SELECT count(*) FROM servetel_ledger"))[0][0])
    receipt = await client.pull(address, query=query)
    assert 0 < there[0] < there[1] < len(receipt.windows)
    assert receipt.complete
    assert receipt.records == len(rough.ids)
    report = await check(client, address)
    assert (report.agrees, len(report.windows)) == (True, len(receipt.windows))
    assert [row[0] for row in await ask('SELECT id FROM call_records ORDER BY id COLLATE "C"')] == sorted(rough.ids)
