"""``servetel demo``: a month without an account."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing


def count(target):
    with closing(sqlite3.connect(target)) as database:
        return database.execute("SELECT count(*), count(DISTINCT id) FROM call_records").fetchone()


async def test_the_demo_pulls_a_month_and_reports(servetel, tmp_path):
    """The demo ends with the receipt's first line; the database holds every call, for its owner only."""
    ended = await servetel("demo", "--calls", "300")
    assert ended.code == 0, ended.err
    report = ended.out.decode().splitlines()
    assert report[-1] == "300 of the 300 the API counted"
    for word in ("answered", "missed", "busiest", "agents", "SELECT"):
        assert any(word in line for line in report)
    assert count(tmp_path / "calls.db") == (300, 300)
    assert stat.S_IMODE((tmp_path / "calls.db").stat().st_mode) == 0o600


async def test_the_demo_runs_again_over_its_own_database(servetel, tmp_path):
    """A second run adds no second row, and a run with fewer calls leaves only its own."""
    for calls in ("300", "300", "200"):
        ended = await servetel("demo", "--calls", calls)
        assert ended.code == 0, ended.err
        assert count(tmp_path / "calls.db") == (int(calls), int(calls))
        assert ended.out.decode().splitlines()[-1] == f"{calls} of the {calls} the API counted"


async def test_the_demo_is_never_mixed_into_real_calls(servetel, emulate, dataset, tmp_path):
    """A calls.db of another account is refused and left unchanged."""
    with closing(sqlite3.connect(tmp_path / "calls.db")) as database:
        database.execute("CREATE TABLE call_records (id TEXT, accountid TEXT)")
        database.execute("INSERT INTO call_records VALUES ('1', 'AC-real')")
        database.commit()
    ended = await servetel("demo", "--calls", "10")
    assert ended.code == 2
    assert b"real account" in ended.err
    assert count(tmp_path / "calls.db") == (1, 1)


async def test_the_demo_needs_no_settings(servetel):
    """A token and an address in the environment are neither used nor shown."""
    ended = await servetel(
        "demo", "--calls", "20", SERVETEL_TOKEN="canary-token-123", SERVETEL_BASE_URL="https://x.invalid"
    )
    assert ended.code == 0, ended.err
    assert b"canary" not in ended.out + ended.err


async def test_the_demo_refuses_what_it_cannot_look_into(servetel, tmp_path):
    """A database that another process holds is refused and not changed."""
    with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE call_records (id TEXT, accountid TEXT)")
        database.execute("INSERT INTO call_records VALUES ('1', 'AC-real')")
        database.execute("BEGIN EXCLUSIVE")
        ended = await servetel("demo", "--calls", "10")
        assert ended.code == 2
        assert b"cannot be looked into" in ended.err
        database.execute("ROLLBACK")
        assert database.execute("SELECT count(*) FROM call_records").fetchone() == (1,)
