"""``servetel sync`` and ``servetel check``: bring a database up to date, and verify it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from servetel_async import IST
from servetel_async.emulator import Dataset, Fault
from tests.cli.conftest import MONTH

QUICK = ("--rate", "0")


@pytest.fixture(scope="module")
def recent():
    """Calls of the ten days up to now."""
    now = datetime.now(IST)
    return Dataset.range(f"{now - timedelta(days=10):%Y-%m-%d}", f"{now:%Y-%m-%d %H:%M:%S}", calls=300)


def rows(target):
    with closing(sqlite3.connect(target)) as database:
        return {name for (name,) in database.execute("SELECT id FROM call_records")}


async def test_a_database_is_brought_up_to_date(inside, emulate, recent, tmp_path):
    """The first run reads the look-back, the next one the calls since then."""
    api = await emulate(recent)
    first = await inside("sync", "a.db", "--lookback", "9d", *QUICK, api=api)
    assert first.code == 0, first.err
    before = rows(tmp_path / "a.db")
    assert before
    new = api.insert_late(f"{datetime.now(IST) - timedelta(days=3):%Y-%m-%d} 10:00:00")
    second = await inside("sync", "a.db", "--lookback", "9d", *QUICK, api=api)
    assert (second.code, rows(tmp_path / "a.db") - before) == (0, {new})
    assert "; complete" in second.lines[-1]


async def test_filters_and_events(inside, emulate, recent, tmp_path):
    """Filters are the same as for pull; with --json standard output has the receipt."""
    api = await emulate(recent)
    ended = await inside("sync", "a.db", "--direction", "inbound", "--json", *QUICK, api=api)
    assert (ended.code, ended.err) == (0, b"")
    last = json.loads(ended.out.splitlines()[-1])
    assert (last["event"], last["complete"], last["query"]) == ("receipt", True, "direction=inbound")
    wanted = api.truth(direction="inbound", from_date=last["from_date"], to_date=last["to_date"])
    assert wanted
    assert rows(tmp_path / "a.db") == set(wanted)


async def said(running, text):
    """Wait until standard error has this text; returns all lines up to there."""
    lines = []
    while not lines or text not in lines[-1]:
        lines.append((await asyncio.wait_for(running.process.stderr.readline(), 30)).decode())
        assert lines[-1], lines
    return lines


async def test_again_and_again_until_a_signal(launch, emulate, recent, tmp_path):
    """Each run is one line; a signal ends the command with its code, and the message says how to resume."""
    running = await launch("sync", "a.db", "--every", "1s", *QUICK, api=await emulate(recent))
    first = await said(running, "complete")
    second = await said(running, "complete")
    assert len(first) == 1
    assert len(second) == 2
    running.signal(signal.SIGTERM)
    ended = await running.end()
    assert ended.code == 143
    assert ended.lines[-1].endswith("what is committed stays; resume with: servetel sync a.db --every 1s --rate 0")


async def test_a_run_that_fails_for_now_is_followed_by_the_next(launch, emulate, recent):
    """A temporary failure of one run is reported, and the next run works as usual."""
    api = await emulate(recent)
    running = await launch("sync", "a.db", "--every", "1s", "--patience", "0s", *QUICK, api=api)
    await said(running, "complete")
    api.add_fault(Fault("status", status=501, times=1))
    lines = await said(running, "Error: the server cannot do this (HTTP 501)")
    assert not any("Traceback" in line for line in lines)
    await said(running, "complete")


async def test_a_run_that_fails_for_good_is_the_last(launch, emulate, recent):
    """A permanent failure, such as a refused token, ends ``sync --every``."""
    api = await emulate(recent)
    running = await launch("sync", "a.db", "--every", "1s", *QUICK, api=api)
    await said(running, "complete")
    api.add_fault(Fault("status", status=401, body=b'{"success":false,"message":"Unauthenticated."}'))
    ended = await running.end()
    assert ended.code == 4
    assert any("does not accept the token" in line for line in ended.lines)


async def test_two_syncs_at_once(launch, inside, emulate, recent):
    """The second sync is refused; with --every it reports that and tries again later."""
    api = await emulate(recent, faults=[Fault("stall", seconds=60, times=1)])
    first = await launch("sync", "a.db", *QUICK, api=api)
    while not api.fired["stall"]:
        await asyncio.sleep(0.01)
    second = await inside("sync", "a.db", *QUICK, api=api)
    assert second.code == 5
    assert "another run is writing a.db" in second.lines[0]
    third = await launch("sync", "a.db", "--every", "1s", *QUICK, api=api)
    await said(third, "another run is writing a.db")
    first.signal(signal.SIGINT)
    assert (await first.end()).code == 130
    await said(third, "complete")


@pytest.mark.parametrize("name", ["may.ndjson", "may.db"])
async def test_check_agrees(inside, emulate, dataset, name):
    """Without changes ``check`` ends with 0."""
    api = await emulate(dataset)
    await inside("pull", name, *MONTH, api=api)
    ended = await inside("check", name, *QUICK, api=api)
    assert ended.code == 0, ended.err
    assert b"\n250 calls now, 250 when it was pulled" in ended.out


@pytest.mark.parametrize("name", ["may.ndjson", "may.db"])
async def test_check_finds_a_late_call(inside, emulate, dataset, name):
    """``check`` names the window whose count has changed, and ends with 6."""
    api = await emulate(dataset)
    await inside("pull", name, *MONTH, api=api)
    api.insert_late("2024-05-06 12:00:00")
    ended = await inside("check", name, *QUICK, api=api)
    assert ended.code == 6
    assert b"251 now, 250 then" in ended.out


async def test_check_finds_a_changed_file(inside, emulate, dataset, tmp_path):
    """A changed file ends with 6, although the API counts the same."""
    api = await emulate(dataset)
    await inside("pull", "may.ndjson", *MONTH, api=api)
    with (tmp_path / "may.ndjson").open("ab") as file:
        file.write(b"{}\n")
    ended = await inside("check", "may.ndjson", *QUICK, api=api)
    assert ended.code == 6
    assert b"may.ndjson: it is not the file that the receipt describes" in ended.out


async def test_check_wants_the_same_filters(inside, emulate, dataset):
    """The values of filters are not kept: without them ``check`` ends with 2, with them 0."""
    api = await emulate(dataset)
    await inside("pull", "may.db", *MONTH, "--direction", "inbound", api=api)
    refused = await inside("check", "may.db", *QUICK, api=api)
    assert refused.code == 2
    assert "other filters" in refused.lines[0]
    assert "--direction inbound" in refused.lines[1]
    assert (await inside("check", "may.db", "--direction", "inbound", *QUICK, api=api)).code == 0
