"""``servetel pull``: its output, its messages, and where they go."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from servetel_async import IST
from servetel_async.emulator import Dataset
from tests.cli.conftest import MONTH


async def test_a_month_into_a_file(servetel, emulate, dataset, tmp_path):
    """The file holds the server's bytes, standard error the receipt, and standard output nothing."""
    ended = await servetel("pull", "may.ndjson", *MONTH, api=await emulate(dataset))
    assert (ended.code, ended.out) == (0, b"")
    assert ended.lines[0] == "250 calls, about 4 requests, as fast as the API answers"
    assert ended.lines[1] == "250 of the 250 the API counted"
    assert sorted((tmp_path / "may.ndjson").read_bytes().splitlines()) == sorted(call.body for call in dataset.calls)


async def test_standard_output_is_data_only(servetel, emulate, dataset, tmp_path):
    """With - every line of standard output is a record, and no file is written."""
    ended = await servetel("pull", "-", *MONTH, api=await emulate(dataset))
    assert ended.code == 0
    assert sorted(ended.out.splitlines()) == sorted(call.body for call in dataset.calls)
    assert list(tmp_path.iterdir()) == []


async def test_the_output_is_private(servetel, emulate, dataset, tmp_path):
    """Every file that a pull writes has mode 0600."""
    await servetel("pull", "may.db", *MONTH, api=await emulate(dataset))
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "may.db": 0o600,
        "may.db.receipt.json": 0o600,
    }


async def test_nothing_is_overwritten_unasked(servetel, emulate, dataset, tmp_path):
    """An existing file is refused without a request, and replaced with --overwrite."""
    api = await emulate(dataset)
    (tmp_path / "may.ndjson").write_text("mine")
    ended = await servetel("pull", "may.ndjson", *MONTH, api=api)
    assert (ended.code, api.requests) == (2, [])
    assert (tmp_path / "may.ndjson").read_text() == "mine"
    assert (await servetel("pull", "may.ndjson", *MONTH, "--overwrite", api=api)).code == 0
    assert (tmp_path / "may.ndjson").read_text() != "mine"


async def test_filters_are_flags(servetel, emulate, dataset):
    """Each filter reaches the API; several agents are several values."""
    api = await emulate(dataset)
    agents = [agent.id for agent in dataset.centre.agents[:3]]
    flags = [flag for agent in agents for flag in ("--agents", agent)]
    ended = await servetel(
        "pull", "-", *MONTH, *flags, "--direction", "inbound", "--call-type", "c", "--duration", ">=5", api=api
    )
    assert ended.code == 0, ended.err
    want = api.truth(
        {"agents[]": [f"agent|{each}" for each in agents]},
        direction="inbound",
        call_type="c",
        duration=5,
        operator=">=",
    )
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == want
    assert want


@pytest.mark.parametrize("way", [("--last", "2d"), ("--last", "30h"), ("--yesterday",), ("--from-date", "{day}")])
async def test_other_ways_to_name_a_range(servetel, emulate, way):
    """Days, hours, yesterday and an open end are read on the account's calendar."""
    now = datetime.now(IST)
    recent = Dataset.range(f"{now - timedelta(days=3):%Y-%m-%d}", f"{now:%Y-%m-%d %H:%M:%S}", calls=200)
    day = f"{now - timedelta(days=1):%Y-%m-%d}"
    ended = await servetel(
        "pull", "-", "--rate", "0", *(part.format(day=day) for part in way), api=await emulate(recent)
    )
    assert ended.code == 0, ended.err
    dates = {json.loads(line)["date"] for line in ended.out.splitlines()}
    assert day in dates
    if way == ("--yesterday",):
        assert dates == {day}


async def test_dry_run_counts_and_writes_nothing(servetel, emulate, dataset, tmp_path):
    """A dry run prints calls, requests and time, and sends the counting request only."""
    api = await emulate(dataset)
    ended = await servetel("pull", "may.ndjson", "--month", "2024-05", "--dry-run", api=api)
    assert (ended.code, len(api.requests)) == (0, 1)
    assert ended.out.decode() == "250 calls, about 4 requests, about 2.0 s at 2 requests/s; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


async def test_json_events(servetel, emulate, dataset):
    """Each line of standard output is an object: the beginning, the estimate, progress, and the receipt last."""
    ended = await servetel("pull", "may.db", *MONTH, "--json", api=await emulate(dataset))
    events = [json.loads(line) for line in ended.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("start", "receipt")
    assert set(kinds[1:-1]) == {"estimate", "progress"}
    assert next(event for event in events if event["event"] == "estimate")["calls"] == 250
    assert (events[-1]["complete"], events[-1]["records"], events[-1]["counted"]) == (True, 250, 250)
    assert ended.err == b""


async def test_json_tells_an_error_too(servetel, emulate, dataset):
    """The error is an event too."""
    api = await emulate(dataset)
    ended = await servetel("pull", "may.db", *MONTH, "--json", api=api, SERVETEL_TOKEN="canary-token-123")
    last = json.loads(ended.out.splitlines()[-1])
    assert (ended.code, last["event"], last["error"], last["exit_code"]) == (4, "error", "AuthenticationError", 4)


async def test_a_token_file(servetel, emulate, dataset, tmp_path):
    """A token file comes before the environment's token, and must be private to its owner."""
    api = await emulate(dataset)
    file = tmp_path / "token"
    file.write_text(api.token + "\n")
    file.chmod(0o600)
    environment = {"api": api, "SERVETEL_TOKEN": "canary-token-123"}
    assert (await servetel("pull", "a.db", *MONTH, "--token-file", "token", **environment)).code == 0
    file.chmod(0o644)
    assert (await servetel("pull", "b.db", *MONTH, "--token-file", "token", **environment)).code == 2


async def test_quiet_still_shows_the_receipt(servetel, emulate, dataset):
    """--quiet removes only the progress."""
    ended = await servetel("pull", "may.db", *MONTH, "--quiet", api=await emulate(dataset))
    assert len(ended.lines) == 2


async def test_names_reach_the_database_as_they_are(servetel, emulate, tmp_path):
    """Escapes and markup in a name are data: kept in the output, and nowhere on the terminal."""
    day = Dataset.range("2024-05-06", "2024-05-06", calls=5)
    api = await emulate(day)
    name = "\x1b[31mEve[bold]\u202e\x07"
    api.insert("2024-05-06 12:00:00", agent_name=name)
    ended = await servetel("pull", "may.db", *MONTH, api=api)
    assert ended.code == 0
    assert b"Eve" not in ended.out + ended.err
    with closing(sqlite3.connect(tmp_path / "may.db")) as database:
        assert database.execute("SELECT count(*) FROM call_records WHERE agent_name = ?", (name,)).fetchone() == (1,)
