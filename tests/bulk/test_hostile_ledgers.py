"""Ledgers, journals and receipts that another program changed: a bad fact causes no crash, and is never trusted."""

from __future__ import annotations

import json
import sqlite3
import zlib
from contextlib import closing

import msgspec
import pytest

from servetel_async import CallQuery, ConfigurationError, ResumeMismatchError
from servetel_async.bulk.check import check
from servetel_async.bulk.ledger import read_fact
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from tests.bulk import facts
from tests.bulk.living_server import LivingServer, every

NOW = "2024-05-10 12:00:00"
CALLS = [*every(60, "2024-05-05", NOW)]
DAYS = CallQuery(from_date="2024-05-05", to_date="2024-05-07")
DEEP = b"[" * 50_000 + b"]" * 50_000
SOUND = json.loads(msgspec.json.encode(facts.reading("2024-05-05 00:00:00", "2024-05-05 23:59:59")))


@pytest.mark.parametrize(
    "change",
    [
        {"first": "x"},
        {"last": "~"},
        {"first": "0000-00-00 00:00:00"},
        {"first": "2024-05-06 00:00:00"},
        {"clock": "never"},
        {"here": ""},
        {"asked_first": "zzz"},
        {"asked_last": "~~"},
        {"format": 3},
        {"counted": True},
    ],
)
def test_a_fact_whose_moments_are_none_is_no_fact(change):
    """Later runs compare the moments as texts, and calculate with them."""
    assert read_fact(json.dumps(SOUND).encode()) is not None
    assert read_fact(json.dumps(SOUND | change).encode()) is None


def test_a_fact_that_is_nested_deeply_is_no_fact():
    """Decoding it would exceed the recursion limit."""
    assert read_fact(json.dumps(SOUND).encode()[:-1] + b',"x":' + DEEP + b"}") is None


@pytest.mark.parametrize("statement", ["fact = NULL", "fact = x'ff00'", "rows = NULL", "rows = 'x'", "digest = 'zz'"])
async def test_a_ledger_that_was_changed_is_made_good_by_the_next_sync(tmp_path, statement):
    """A sync reads each window without a valid fact again; a damaged seal differs, but does not end the run."""
    target = tmp_path / "a.db"
    async with LivingServer(CALLS, NOW) as server, server.client() as client:
        await sync(client, target, CallQuery())
        with closing(sqlite3.connect(target)) as database, database:
            database.execute(f"UPDATE servetel_ledger SET {statement} WHERE reading = 1")
        before = str(await check(client, target))
        assert "it does not agree" in before or "not looked at: rows and counts of 1 reading" in before
        assert (await sync(client, target, CallQuery())).complete
        with closing(sqlite3.connect(target)) as database:
            assert database.execute("SELECT count(*) FROM call_records").fetchone() == (len(CALLS),)


class _StopError(Exception):
    """Kills the process here."""


def stop_at_a_window(progress):
    if progress.windows:
        raise _StopError


@pytest.mark.parametrize("damage", ["deep fact", "deep header", "header of no moment"])
async def test_a_journal_that_was_changed_is_refused_and_kept(tmp_path, damage):
    """Its checksums agree, so another program wrote it; its part is kept too."""
    target, journal = tmp_path / "a.ndjson", tmp_path / "a.ndjson.part.journal"
    async with LivingServer(CALLS, NOW) as server, server.client() as client:
        with pytest.raises(_StopError):
            await pull(client, target, DAYS, on_progress=stop_at_a_window)
        lines = [line[9:] for line in journal.read_bytes().splitlines()]
        number = 1 if damage == "deep fact" else 0
        line = json.loads(lines[number])
        damaged = json.dumps(line["body"] | {"first": "x"}, separators=(",", ":")).encode()
        body = damaged if damage == "header of no moment" else DEEP
        text = json.dumps(line | {"body": None}, separators=(",", ":")).encode()
        lines[number] = text.replace(b'"body":null', b'"body":' + body)
        journal.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines))
        before = journal.read_bytes()
        with pytest.raises(ResumeMismatchError, match="cannot be resumed"):
            await pull(client, target, DAYS)
        assert journal.read_bytes() == before


@pytest.mark.parametrize("change", [{"first": "x"}, {"last": "~"}])
async def test_a_receipt_whose_windows_are_none_is_refused(tmp_path, change):
    """It has no window that could be requested."""
    path = tmp_path / "a.ndjson.receipt.json"
    async with LivingServer(CALLS, NOW) as server, server.client() as client:
        await pull(client, tmp_path / "a.ndjson", DAYS)
        receipt = json.loads(path.read_bytes())
        path.write_text(json.dumps(receipt | {"windows": [receipt["windows"][0] | change]}))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await check(client, tmp_path / "a.ndjson")
