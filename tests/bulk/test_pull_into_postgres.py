"""A pull from the emulator into a real PostgreSQL server, interrupted and resumed."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async import CallQuery
from servetel_async.bulk.check import check
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from tests.bulk.living_server import LivingServer, every
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

asyncpg = pytest.importorskip("asyncpg")


class StopError(Exception):
    """Raised by an application to end a pull."""


@pytest.fixture
async def ask(postgres_server):  # noqa: F811
    """Query an empty database of the server."""
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
    """Every call of the month is there once, and committed calls were not requested again."""
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


DAYS = CallQuery(from_date="2024-05-05", to_date="2024-05-07")
NOW = "2024-05-10 12:00:00"


@pytest.mark.parametrize(
    ("statement", "agrees"),
    [
        (None, True),
        ("DELETE FROM call_records WHERE id = (SELECT max(id) FROM call_records)", False),
        ("UPDATE call_records SET status = 'x' WHERE id = (SELECT max(id) FROM call_records)", False),
        ("DELETE FROM call_records", False),
        ("INSERT INTO call_records (account, id, reading) SELECT account, 'new', 0 FROM call_records LIMIT 1", False),
    ],
    ids=["nothing", "a row deleted", "a field changed", "all rows deleted", "a row added"],
)
async def test_what_another_program_did_shows_in_a_check(statement, agrees, postgres_server, ask):  # noqa: F811
    """The rows are compared with the ledger, reading by reading."""
    address = postgres_server.address("pulled")
    async with LivingServer([*every(30, "2024-05-01", NOW)], NOW) as server, server.client() as client:
        await pull(client, address, DAYS)
        if statement is not None:
            await ask(statement)
        report = await check(client, address)
        assert (report.agrees, bool(report.differences)) == (agrees, not agrees)
        server.calls.append(("2024-05-06 11:11:11", "late"))
        report = await check(client, address)
    assert [window.counted_now - window.counted_then for window in report.changed] == [1]


async def test_a_check_beside_syncs_raises_no_alarm(postgres_server, ask):  # noqa: F811
    """Each check sees rows and ledger at one moment, whatever a sync commits meanwhile."""
    address = postgres_server.address("pulled")
    async with LivingServer([*every(30, "2024-05-01", NOW)], NOW) as server, server.client() as client:
        await sync(client, address, CallQuery())
        checks = [await check(client, address)]
        syncing = asyncio.ensure_future(sync(client, address, CallQuery()))
        while not syncing.done():
            checks.append(await check(client, address))
        assert (await syncing).complete
    assert len(checks) > 1
    assert [str(each) for each in checks if not each.agrees] == []
