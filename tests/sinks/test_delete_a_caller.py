"""The privacy page's statement for a caller who asks to be deleted: it deletes their calls, and no others."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to" / "privacy.md"
DAY = Span("2024-05-01 00:00:00", "2024-05-01 23:59:59")
NUMBER = "+919876543210"
#: The fields of a call that may hold a caller's number.
PLACES = {
    "client_number": NUMBER,
    "caller_id_num": NUMBER[1:],
    "agent_number": "09876543210",
    "agent_number_with_prefix": NUMBER,
    "call_flow": [{"name": "a", "num": NUMBER}],
    "contact_details": {"phone": NUMBER},
    "notes": f"call {NUMBER} back",
    "description": f"from {NUMBER} to sales",
    "detailed_description": f"from {NUMBER}",
    "a_new_key": NUMBER,
}


@pytest.fixture
def target(request, tmp_path):
    """A destination of one kind, and a function that runs a statement in it."""
    if request.param == "postgres":
        asyncpg = pytest.importorskip("asyncpg")
        address = request.getfixturevalue("postgres_server").address("postgres")

        async def ask(statement):
            connection = await asyncpg.connect(address)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        def run(statement):
            with asyncio.Runner() as runner:
                return runner.run(ask(statement))

        yield address, run
        run("DROP TABLE IF EXISTS call_records, servetel_pulls, servetel_ledger")
        return
    path = tmp_path / request.param
    connect = sqlite3.connect if path.suffix == ".db" else pytest.importorskip("duckdb").connect

    def run_file(statement):
        with closing(connect(str(path))) as database:
            rows = database.execute(statement).fetchall()
            database.commit()
            return rows

    yield path, run_file


@pytest.mark.parametrize("target", ["a.db", "a.duckdb", "postgres"], indirect=True)
def test_a_caller_is_deleted_wherever_the_number_is(target, batch_of):
    """The page's own statement runs unchanged in each database."""
    path, run = target
    calls = [{"id": name, name: value} for name, value in PLACES.items()]
    calls.append({"id": "other", "client_number": "+919876543219", "notes": "98765 43210"})
    sink = sink_for(path)
    open_for(sink, PullIdentity("pull", "scope", "account"))
    sink.begin(b"{}")
    sink.commit(batch_of(*(json.dumps(call).encode() for call in calls)), DAY, b"{}")
    finished(sink)
    sink.abandon()
    (statement,) = re.findall(r"```sql\n(DELETE FROM call_records\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

    run(statement)

    assert run("SELECT id FROM call_records") == [("other",)]
