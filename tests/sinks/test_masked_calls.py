"""Masked calls in every destination: a hidden value breaks no column, and every call has its row and its key."""

from __future__ import annotations

import asyncio
import csv
import importlib
import json
import sqlite3
from contextlib import closing
from datetime import datetime

import pytest

from servetel_async.protocol.clock import IST
from servetel_async.protocol.mask import Mask
from servetel_async.protocol.rescue import rescue
from servetel_async.protocol.rows import records_of
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import Batch, PullIdentity, Span
from servetel_async.sinks.table.columns import flat_records
from tests.sinks.life import finished, open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

MASKS = [Mask.hidden(), Mask.keyed(b"a key of 24 random bytes")]
FILES = ["a.ndjson", "a.csv", "a.parquet", "a/", "a.db", "a.duckdb"]
#: Values that are hidden in columns of every type.
ODD = [
    b'{"id":"odd-1","call_duration":9753186420,"charges":97531.8642,"agent_ring_time":"9753186420","minutes_consumed":1e400}',
    b'{"id":"odd-2","support_api_call":"97531","voicemail_recording":[1],"circle":"Delhi","call_flow":"9753186420"}',
    b'{"id":"odd-3","date":"97-53-1864","time":"10:98:76","end_stamp":"9753186420","missed_agents":{"a":"Ravi"}}',
    b'{"id":"odd-4","call_flow":[{"time":9753186420,"id":9753186420,"9753186420":1},"Ravi"],"score":%s}'
    % (b"9" * 5000),
    b'{"date":"2024-05-02","time":"10:00:00","client_number":"+919753186420","agent_name":"Ravi"}',
    b'{"id":"odd 9753186420","agent_name":"Ravi"}',
]
DAY = Span("2024-05-01 00:00:00", "2024-05-31 23:59:59")
COLUMNS = ("id", "call_duration", "charges", "support_api_call", "started_at", "client_number", "agent_name", "extra")


def write(batch, target):
    sink = sink_for(str(target))
    try:
        open_for(sink, PullIdentity("pull", "scope", "account"))
        sink.begin(b"{}")
        sink.commit(batch, DAY, b"{}")
        finished(sink)
    finally:
        sink.abandon()


def read(path, name):
    """Each row's ``COLUMNS``, in the destination's own types."""
    if name.endswith((".parquet", "/")):
        dataset = importlib.import_module("pyarrow.dataset")
        table = dataset.dataset(path, partitioning="hive" if name.endswith("/") else None).to_table()
        return table.select(COLUMNS).to_pylist()
    if name.endswith(".csv"):
        return list(csv.DictReader(path.read_text("utf-8").splitlines(keepends=True), strict=True))
    statement = f"SELECT {', '.join(COLUMNS)} FROM call_records"
    if name.endswith(".duckdb"):
        with importlib.import_module("duckdb").connect(str(path), read_only=True) as database:
            return [dict(zip(COLUMNS, row, strict=True)) for row in database.execute(statement).fetchall()]
    with closing(sqlite3.connect(path)) as database:
        return [dict(zip(COLUMNS, row, strict=True)) for row in database.execute(statement)]


@pytest.fixture(params=MASKS, ids=lambda mask: mask.name)
def masked(request, realistic, hostile):
    """Calls in every odd form, harmful texts and odd values, masked."""
    lines = {rescue(line).id: line for line in [*realistic.lines, *hostile.lines, *ODD]}  # two share an id
    return Batch(list(map(request.param.line, lines.values())), IST)


def plain(value):
    """A value as a text that is the same for all destinations."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool) or value in ("true", "false"):
        return str(int(value in (True, "true")))
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return f"{float(value) + 0.0:g}"  # SQLite drops the minus of a zero
    except (TypeError, ValueError):
        return value if isinstance(value, str) else json.dumps(value)


def check(rows, masked):
    """Compare the rows with the decoded lines; JSON and moments are compared separately."""
    expected = {record.id: record for record in flat_records(masked)}
    assert len(expected) == len(masked.lines)
    assert {row["id"].removeprefix("'") for row in rows} == {each.removeprefix("'") for each in expected}
    for row in rows:
        record = expected.get(row["id"]) or expected[row["id"].removeprefix("'")]
        for name in ("call_duration", "charges", "support_api_call"):
            assert plain(row[name]) == plain(getattr(record, name)), (name, row["id"])
        for name in ("client_number", "agent_name"):
            assert (row[name] or "").removeprefix("'") == (getattr(record, name) or "")
        started = row["started_at"]
        if isinstance(started, str) and started:
            started = datetime.fromisoformat(started)
        assert (started or None) == record.started_at


@pytest.mark.parametrize("name", FILES)
def test_every_masked_call_has_its_row(masked, tmp_path, name):
    """No call is lost, and visible values have the same types as in an unmasked output."""
    write(masked, f"{tmp_path}/{name}")
    path = tmp_path / name
    if name == "a.ndjson":
        assert path.read_bytes().split(b"\n") == [*masked.lines, b""]
        return
    check(read(path, name), masked)


def test_in_postgresql_too(masked, postgres_server):  # noqa: F811
    """PostgreSQL accepts hidden values of every type, and tokens."""
    asyncpg = pytest.importorskip("asyncpg")

    async def ask(statement, database="postgres"):
        connection = await asyncpg.connect(postgres_server.address(database))
        try:
            return [dict(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    asyncio.run(ask("DROP DATABASE IF EXISTS masked WITH (FORCE)"))
    asyncio.run(ask("CREATE DATABASE masked"))
    try:
        write(masked, postgres_server.address("masked"))
        check(asyncio.run(ask(f"SELECT {', '.join(COLUMNS)} FROM call_records", "masked")), masked)
    finally:
        asyncio.run(ask("DROP DATABASE masked WITH (FORCE)"))


def test_what_is_hidden_in_a_typed_column_goes_to_extra(masked):
    """The column is empty, but extra still shows that there was a value."""
    record = next(each for each in records_of(masked.lines) if each.id == "odd-1")
    assert (record.call_duration, record.charges, record.minutes_consumed) == (None, None, None)
    assert record.extra == dict.fromkeys(("call_duration", "charges", "minutes_consumed"), "***")
    assert record.agent_ring_time == "***"


def test_no_number_and_no_name_is_in_a_table(masked):
    """Neither columns nor JSON values hold one."""
    text = b"\n".join(masked.lines).decode()
    assert "97531" not in text
    assert "Ravi" not in text
