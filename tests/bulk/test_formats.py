"""One month, every destination: the same calls, field by field as the server sent them, private to their owner."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import os
import sqlite3
import stat
import sys
from contextlib import closing

import pytest

from servetel_async import ConfigurationError, OutputError
from servetel_async.emulator import Dataset
from tests.torture.report import TORTURE

#: The month; every format keeps each of its quirks.
CALLS = 6_000 if TORTURE else 300
FILES = ["a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.csv", "a.csv.gz", "a.csv.zst", "a.parquet", "a/"]
DATABASES = ["a.db", "a.sqlite", "a.duckdb"]
#: Texts that every record has under the same name, and that no destination may change.
TEXTS = ("call_id", "date", "time", "end_stamp", "status", "direction", "client_number", "did_number", "hangup_cause")


def unzstd(data):
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    return importlib.import_module(module).decompress(data)


def plain(path):
    data = path.read_bytes()
    return {".gz": gzip.decompress, ".zst": unzstd}.get(path.suffix, bytes)(data).decode()


def rows(target):
    """Every call of an output, as a dictionary."""
    name = target.name
    if target.is_dir() or name.endswith(".parquet"):
        dataset = importlib.import_module("pyarrow.dataset")
        return dataset.dataset(target, partitioning="hive" if target.is_dir() else None).to_table().to_pylist()
    if name.endswith(".duckdb"):
        with importlib.import_module("duckdb").connect(str(target), read_only=True) as database:
            found = database.execute(f"SELECT id, {', '.join(TEXTS)}, call_duration FROM call_records")
            names = [each[0] for each in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    if name.endswith((".db", ".sqlite")):
        with closing(sqlite3.connect(target)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM call_records")]
    text = plain(target)
    if ".csv" in name:
        return list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    return [json.loads(line) for line in text.split("\n")[:-1]]


def text_of(value):
    """A value as text: what was sent as a number is text in a typed table, and a CSV has no null."""
    return "" if value is None else str(value)


@pytest.fixture(scope="module")
def month():
    return Dataset.month("2024-05", calls=CALLS, php_quirks=True)


@pytest.mark.parametrize("name", [*FILES, *DATABASES])
async def test_every_format_holds_what_the_server_sent(connect, month, query, tmp_path, name):
    """Ids and texts are those of the server; outputs and receipts are private under any umask."""
    _, client = await connect(month, page_size=10)
    target = tmp_path / name
    before = os.umask(0)
    try:
        receipt = await client.pull(f"{target}/" if name.endswith("/") else target, query=query)
    finally:
        os.umask(before)
    assert receipt.complete
    assert receipt.records == receipt.counted == CALLS
    found = {str(row["id"]): row for row in rows(target)}
    assert found.keys() == set(month.ids)
    for sent in month.records():
        row = found[str(sent["id"])]
        for key in TEXTS:
            assert text_of(row.get(key)) == text_of(sent.get(key)), key
        if str(sent.get("call_duration", "")).isdigit():
            assert int(row["call_duration"]) == int(sent["call_duration"])
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([target.name, f"{target.name}.receipt.json"])


@pytest.mark.parametrize("name", FILES)
async def test_a_finished_file_is_not_overwritten_unasked(connect, month, query, tmp_path, name):
    """A second pull fails before any request and changes nothing; with overwrite it replaces the first."""
    api, client = await connect(month, page_size=100)
    target = f"{tmp_path / name.rstrip('/')}{'/' if name.endswith('/') else ''}"
    await client.pull(target, query=query)
    asked = len(api.requests)
    with pytest.raises(OutputError, match="exists"):
        await client.pull(target, query=query)
    assert len(api.requests) == asked
    late = api.insert_late("2024-05-20 12:00:00")
    receipt = await client.pull(target, query=query, overwrite=True)
    assert receipt.records == CALLS + 1
    assert late in {str(row["id"]) for row in rows(tmp_path / name)}


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.csv", "a.parquet"])
async def test_two_pulls_of_the_same_calls_are_the_same_bytes(connect, month, query, tmp_path, name):
    """The order of calls within one second and the number of parallel requests change nothing."""
    digests = set()
    for number, knobs in enumerate(({}, {"shuffle_ties": True}, {"limit_cap": 7})):
        _, client = await connect(month, page_size=20, **knobs)
        receipt = await client.pull(tmp_path / f"{number}-{name}", query=query)
        digests.add(receipt.sha256)
    assert len(digests) == 1


async def test_columns_choose_what_a_table_has(connect, month, query, tmp_path):
    """A table has them in the chosen order; NDJSON and databases refuse a choice."""
    _, client = await connect(month, page_size=100)
    await client.pull(tmp_path / "a.csv", query=query, columns=["started_at", "id"])
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "started_at,id"
    for name in ("a.ndjson", "a.db"):
        with pytest.raises(ConfigurationError, match="no choice of columns"):
            await client.pull(tmp_path / name, query=query, columns=["id"])


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a.db"])
async def test_a_masked_pull_holds_no_number(connect, month, query, tmp_path, name):
    """No file has a client's number, not even the journal; the ids are there."""
    _, client = await connect(month, page_size=100)
    await client.pull(tmp_path / name, query=query, mask=True)
    numbers = {str(sent["client_number"])[-10:] for sent in month.records() if sent.get("client_number")}
    for path in tmp_path.iterdir():
        data = path.read_bytes().decode("utf-8", "replace")
        assert not any(number in data for number in numbers), path
    assert {str(row["id"]) for row in rows(tmp_path / name)} == set(month.ids)
