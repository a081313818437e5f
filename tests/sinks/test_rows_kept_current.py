"""A row of a database has the values of its last commit in every column: changed, new, or no longer sent."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from servetel_async.protocol.records import CallRecord
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

FIELDS = [name for name in CallRecord.__struct_fields__ if name not in ("id", "extra", "zone")]
COLUMNS = ["id", *FIELDS, "started_at", "ended_at", "extra"]
NUMBERS = ("call_duration", "answered_seconds", "minutes_consumed", "charges")
SWITCHES = ("support_api_call", "is_incoming_from_broadcast", "voicemail_recording")


def call(number):
    """A call with a value in each column, different for each number."""
    values = dict.fromkeys(FIELDS, f"text {number}")
    values |= dict.fromkeys(NUMBERS, number) | dict.fromkeys(SWITCHES, number % 2)
    values |= {
        "date": f"2024-05-{number:02}",
        "time": f"10:00:{number:02}",
        "end_stamp": f"2024-05-{number:02} 10:01:{number:02}",
        "missed_agents": [number],
        "transfer_missed_agent": [number],
        "call_flow": [{"name": f"step {number}"}],
        "circle": {"operator": f"text {number}"},
        "unknown": number,
    }
    return json.dumps({"id": "1", **values}).encode()


class Database:
    """A destination, and a way to query it."""

    def __init__(self, destination, ask):
        self._destination = destination
        self._ask = ask

    def write(self, *windows):
        """Commit these windows, each a list of calls, in one pull."""
        sink = sink_for(self._destination)
        try:
            open_for(sink, PullIdentity("pull", "scope", "account"))
            sink.begin(b"{}")
            for day, batch in enumerate(windows, 1):
                sink.commit(batch, Span(f"2024-05-{day:02} 00:00:00", f"2024-05-{day:02} 23:59:59"), b"{}")
            finished(sink)
        finally:
            sink.abandon()

    def row(self):
        """The one row, by column name."""
        (row,) = self._ask(f"SELECT {', '.join(COLUMNS)} FROM call_records")
        return dict(zip(COLUMNS, row, strict=True))


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def database(request, tmp_path):
    """An empty database of each kind."""
    if request.param != "postgres":
        place = tmp_path / ("a.db" if request.param == "sqlite" else "a.duckdb")
        library = sqlite3 if request.param == "sqlite" else pytest.importorskip("duckdb")

        def ask(statement):
            with closing(library.connect(str(place))) as connection:
                return connection.execute(statement).fetchall()

        yield Database(place, ask)
        return
    asyncpg = pytest.importorskip("asyncpg")
    server = request.getfixturevalue("postgres_server")

    def fetch(name, statement):
        async def go():
            connection = await asyncpg.connect(server.address(name))
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        with asyncio.Runner() as runner:
            return runner.run(go())

    fetch("postgres", "DROP DATABASE IF EXISTS current_rows WITH (FORCE)")
    fetch("postgres", "CREATE DATABASE current_rows")
    yield Database(server.address("current_rows"), lambda statement: fetch("current_rows", statement))
    fetch("postgres", "DROP DATABASE current_rows WITH (FORCE)")


def test_a_call_that_two_windows_bring_has_the_values_of_the_second(database, batch_of):
    """No value of the first window is left."""
    database.write(batch_of(call(1)), batch_of(call(2)))
    assert database.row()["agent_name"] == "text 2"


def test_every_column_takes_its_new_value(database, batch_of):
    """A call with new values keeps none of the old ones."""
    database.write(batch_of(call(1)))
    before = database.row()
    database.write(batch_of(call(2)))
    after = database.row()
    assert [name for name in COLUMNS if before[name] is None or after[name] is None] == []
    assert [name for name in COLUMNS if after[name] == before[name]] == ["id"]


def test_a_value_that_is_no_longer_sent_is_null(database, batch_of):
    """A call without its values keeps none of the old ones."""
    database.write(batch_of(call(1)))
    database.write(batch_of(b'{"id":"1"}'))
    assert {name: value for name, value in database.row().items() if value is not None} == {"id": "1"}
