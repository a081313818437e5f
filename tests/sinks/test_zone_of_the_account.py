"""The account's zone reaches every kind of output: one call in May, on a London clock."""

from __future__ import annotations

import csv
import gzip
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from servetel_async import ServetelClient
from tests.bulk.small_server import SmallServer, calls_at
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

STARTED = datetime(2024, 5, 6, 8, 30, tzinfo=UTC)


async def pull(destination):
    """Pull the call from an account whose clock shows London time, one hour ahead of UTC then."""
    async with (
        SmallServer(calls_at("2024-05-06 09:30:00")) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, zone=ZoneInfo("Europe/London")) as client,
    ):
        receipt = await client.pull(destination, from_date="2024-05-06", to_date="2024-05-06")
        assert receipt.complete


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
async def test_a_csv_file(tmp_path, name):
    """The offset is that of the call's day."""
    await pull(tmp_path / name)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "rt", encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["started_at"] == "2024-05-06T09:30:00+01:00"


async def test_a_sqlite_database(tmp_path):
    """The offset is the same as in a CSV file."""
    await pull(tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        assert database.execute("SELECT started_at FROM call_records").fetchall() == [("2024-05-06T09:30:00+01:00",)]


async def test_a_duckdb_database(tmp_path):
    """The column holds a moment, whatever zone it is shown in."""
    duckdb = pytest.importorskip("duckdb")
    await pull(tmp_path / "a.duckdb")
    with closing(duckdb.connect(str(tmp_path / "a.duckdb"))) as database:
        assert database.execute("SELECT epoch(started_at) FROM call_records").fetchall() == [(STARTED.timestamp(),)]


@pytest.mark.parametrize("name", ["a.parquet", "days/"])
async def test_parquet(tmp_path, name):
    """The column holds moments, and the zone to show them in."""
    parquet = pytest.importorskip("pyarrow.parquet")
    await pull(f"{tmp_path}/{name}")
    (file,) = tmp_path.rglob("*.parquet")
    column = parquet.ParquetFile(file).read()["started_at"]
    assert column.to_pylist() == [STARTED]
    assert column.type.tz == "Europe/London"


async def test_a_postgresql_database(postgres_server):  # noqa: F811
    """The column holds a moment, whatever zone it is shown in."""
    asyncpg = pytest.importorskip("asyncpg")
    connection = await asyncpg.connect(postgres_server.address())
    try:
        await connection.execute("DROP DATABASE IF EXISTS zones WITH (FORCE)")
        await connection.execute("CREATE DATABASE zones")
        await pull(postgres_server.address("zones"))
        found = await asyncpg.connect(postgres_server.address("zones"))
        try:
            assert await found.fetchval("SELECT started_at FROM call_records") == STARTED
        finally:
            await found.close()
    finally:
        await connection.execute("DROP DATABASE IF EXISTS zones WITH (FORCE)")
        await connection.close()
