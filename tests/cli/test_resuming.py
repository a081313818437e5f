"""A pull that ended early: what is kept, what the message says, and how the same command resumes it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from servetel_async import IST, CallQuery, ServetelClient
from servetel_async.bulk.pull import pull
from servetel_async.cli import exits
from servetel_async.cli.job import Job
from servetel_async.cli.options.connection import Connection
from servetel_async.cli.output.watch import Watch
from servetel_async.emulator import Dataset, Fault
from tests.cli.conftest import LATE, MONTH, SLOW, committed, failing, struck

STALL = [Fault("stall", seconds=60, nth=LATE, times=1)]
NAMES = ("may.ndjson", "may.csv.gz", "may.db")


def kept_of(line):
    """The number of calls, and the arguments of the command that resumes."""
    calls, _, command = line.partition(" calls are kept; resume with: servetel ")
    return int(calls.rpartition(" ")[2]), shlex.split(command)


async def interrupt(launch, api, tmp_path, number, *arguments):
    """Start a pull, and signal it when some of it is committed and a request stalls."""
    running = await launch("pull", *arguments, *SLOW, api=api)
    await struck(api, "stall")
    await committed(tmp_path / f"{arguments[0]}.part")
    running.signal(number)
    return await running.end()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated"), (signal.SIGHUP, 129, "Terminated")],
)
@pytest.mark.parametrize("name", NAMES)
async def test_an_interrupted_pull_is_gone_on_with(launch, inside, emulate, large, tmp_path, number, code, word, name):
    """A signal ends a pull cleanly; the message says correctly what is kept and how to resume."""
    api = await emulate(large, faults=STALL)
    ended = await interrupt(launch, api, tmp_path, number, name)
    assert ended.code == code, ended.err
    assert ended.lines[-1].startswith(f"{word}: ")
    calls, command = kept_of(ended.lines[-1])
    assert command == ["pull", name, *SLOW]
    assert 0 < calls < 600
    assert b"Traceback" not in ended.err
    assert not (tmp_path / f"{name}.lock").exists()
    asked = len(api.requests)
    again = await inside(*command, api=api)
    assert again.code == 0, again.err
    assert int(re.match(r"600 calls, (\d+) of them read already, ", again.lines[0])[1]) >= calls
    assert again.lines[-2] == "600 of the 600 the API counted"
    assert len(api.requests) - asked < 600 / 5


async def test_an_interrupted_pull_keeps_its_words_to_itself(launch, emulate, large, tmp_path):
    """The command to resume is shown without personal values of filters."""
    api = await emulate(large, faults=[Fault("stall", seconds=60)])
    running = await launch("pull", "may.ndjson", *MONTH, "--callerid", "+919876543210", api=api)
    await struck(api, "stall")
    running.signal(signal.SIGINT)
    ended = await running.end()
    assert ended.code == 130
    assert ended.lines[-1] == (
        "Interrupted: nothing is kept yet; "
        "run it again: servetel pull may.ndjson --month 2024-05 --rate 0 --callerid ..."
    )
    assert list(tmp_path.iterdir()) == []


async def test_an_interrupted_pull_to_standard_output(launch, emulate, dataset):
    """An interrupted pull to standard output cannot be resumed."""
    api = await emulate(dataset, faults=[Fault("stall", seconds=60)])
    running = await launch("pull", "-", *MONTH, api=api)
    await struck(api, "stall")
    running.signal(signal.SIGTERM)
    ended = await running.end()
    assert ended.code == 143
    assert ended.lines[-1] == "Terminated: what went to standard output is not complete"


async def test_an_ignored_signal_stays_ignored(launch, emulate, large, tmp_path):
    """A pull under nohup, or in a shell's background, ignores those signals and completes."""
    api = await emulate(large, faults=[Fault("stall", seconds=1, nth=LATE, times=1)])
    running = await launch("pull", "may.ndjson", *SLOW, api=api, limit="trap '' HUP INT")
    await struck(api, "stall")
    await committed(tmp_path / "may.ndjson.part")
    running.signal(signal.SIGHUP)
    running.signal(signal.SIGINT)
    assert (await running.end()).code == 0


@pytest.mark.parametrize("name", [*NAMES, "there.db"])
async def test_3_a_server_that_goes_away(inside, emulate, large, dataset, tmp_path, name):
    """An error after windows were committed is resumable, and the message says correctly how much is kept."""
    if name == "there.db":
        assert (await inside("pull", name, "--month", "2024-04", "--rate", "0", api=await emulate(dataset))).code == 0
    api = await emulate(large, faults=failing(times=1))
    ended = await inside("pull", name, *SLOW, "--patience", "0s", api=api)
    assert ended.code == 3, ended.err
    calls, command = kept_of(ended.lines[-1])
    assert ended.lines[-3].startswith("Error: the server failed (HTTP 503)")
    assert 0 < calls < 600
    healed = await emulate(large)
    again = await inside(*command, api=healed)
    assert again.code == 0, again.err
    assert again.lines[-2] == "600 of the 600 the API counted"
    assert len(healed.requests) < 600 / 5


async def test_3_is_told_to_programs_too(inside, emulate, large):
    """The error's event has the exit code and what is kept; failed requests are events of waits."""
    api = await emulate(large, faults=failing())
    ended = await inside("pull", "may.db", *SLOW, "--patience", "0s", "--json", api=api)
    events = [json.loads(line) for line in ended.out.splitlines()]
    last = events[-1]
    assert (ended.code, last["event"], last["error"], last["exit_code"]) == (3, "error", "ServerError", 3)
    assert 0 < last["kept"] < 600
    waits = [event for event in events if event["event"] == "wait"]
    assert {event["status"] for event in waits} == {503}


@pytest.mark.parametrize(
    "block",
    [
        {"status": 403, "body": b'{"message":"Forbidden"}'},
        {"status": 403, "body": b'{"success":false,"message":"Forbidden"}'},
        {"status": 403, "body": b"<html>Access Denied</html>"},
        {"status": 404, "body": b""},
    ],
    ids=["gateway", "success", "web page", "404"],
)
async def test_3_a_firewall_that_blocks_in_the_middle(inside, emulate, large, block):
    """A 403 or 404 of an address that has worked is temporary, not "not authorised"; the same command completes it."""
    ended = await inside(
        "pull", "may.ndjson", *SLOW, "--patience", "0s", api=await emulate(large, faults=failing(**block))
    )
    assert ended.code == 3, ended.err
    assert f"Error: the server refuses what it allowed before (HTTP {block['status']}" in ended.lines[-4]
    assert "has given good replies" in ended.lines[-3]
    again = await inside(*kept_of(ended.lines[-1])[1], api=await emulate(large))
    assert again.code == 0, again.err
    assert again.lines[-2] == "600 of the 600 the API counted"


async def test_0_a_firewall_that_blocks_for_a_moment(inside, emulate, large):
    """A pull does not fail if a block passes soon."""
    api = await emulate(large, faults=[Fault("status", status=403, body=b"", nth=nth) for nth in range(20, 120, 20)])
    ended = await inside("pull", "may.ndjson", *SLOW, api=api)
    assert ended.code == 0, ended.err
    assert api.fired["status"] == 5


async def test_4_keeps_what_it_has(inside, emulate, large):
    """A token that ends during a pull is not authorised; the message says that the committed windows are kept."""
    api = await emulate(large, faults=failing(status=401, body=b'{"success":false,"message":"Unauthenticated."}'))
    ended = await inside("pull", "may.ndjson", *SLOW, api=api)
    assert ended.code == 4, ended.err
    assert kept_of(ended.lines[-1])[0] > 0


async def test_another_pull_is_not_mixed_in(inside, emulate, large, tmp_path):
    """Another command for the output of an interrupted pull is refused, and the error says what is there."""
    api = await emulate(large, faults=failing())
    assert (await inside("pull", "may.ndjson", *SLOW, "--patience", "0s", api=api)).code == 3
    before = (tmp_path / "may.ndjson.part").read_bytes()
    other = await inside("pull", "may.ndjson", *SLOW, "--direction", "inbound", api=api)
    assert other.code == 2
    assert other.lines[0] == "Error: may.ndjson holds an interrupted pull of something else"
    assert "all calls, 2024-05-01" in other.lines[1]
    assert "say --no-resume to drop it" in other.lines[2]
    assert (tmp_path / "may.ndjson.part").read_bytes() == before


async def test_no_resume_begins_anew(inside, emulate, large):
    """--no-resume drops the kept part and reads everything; after an interrupt it is not recommended again."""
    api = await emulate(large, faults=failing())
    assert (await inside("pull", "may.ndjson", *SLOW, "--patience", "0s", api=api)).code == 3
    ended = await inside("pull", "may.ndjson", *SLOW, "--no-resume", "--direction", "inbound", api=await emulate(large))
    assert ended.code == 0
    assert "read already" not in ended.lines[0]
    api = await emulate(large, faults=failing())
    ended = await inside("pull", "may.csv", *SLOW, "--no-resume", "--patience", "0s", api=api)
    assert ended.code == 3
    assert "--no-resume" not in kept_of(ended.lines[-1])[1]


async def test_no_resume_that_gets_nowhere_claims_nothing(inside, emulate, large):
    """If a --no-resume run commits nothing, the message does not claim that something is kept."""
    api = await emulate(large, faults=failing())
    assert (await inside("pull", "may.ndjson", *SLOW, "--patience", "0s", api=api)).code == 3
    api = await emulate(large, faults=[Fault("status", status=403, body=b'{"success":false}')])
    ended = await inside("pull", "may.ndjson", *SLOW, "--no-resume", api=api)
    assert ended.code == 4
    assert not any("kept" in line for line in ended.lines)


async def test_a_resumed_pull_that_gets_nowhere_still_has_what_it_had(inside, emulate, large):
    """If the server is dead from the first request on, the kept windows are still there, so the code is 3 and not 5."""
    api = await emulate(large, faults=failing())
    url = api.base_url
    ended = await inside("pull", "may.ndjson", *SLOW, "--patience", "0s", api=api)
    calls, _ = kept_of(ended.lines[-1])
    await api.__aexit__(None, None, None)
    dead = await inside("pull", "may.ndjson", *SLOW, SERVETEL_BASE_URL=url, SERVETEL_TOKEN=api.token)
    assert dead.code == 3
    assert kept_of(dead.lines[-1])[0] == calls


@pytest.mark.parametrize("way", [("--last", "20d"), ("--from-date", "{day}")])
async def test_a_range_that_moves_is_gone_on_with(inside, emulate, tmp_path, way):
    """The same relative range resumes the same pull later, and keeps its original end."""
    now = datetime.now(IST)
    recent = Dataset.range(f"{now - timedelta(days=15):%Y-%m-%d}", f"{now:%Y-%m-%d %H:%M:%S}", calls=600)
    words = [part.format(day=f"{now - timedelta(days=20):%Y-%m-%d}") for part in way]
    quick = ("--rate", "0", "--page-size", "5", "--concurrency", "1")
    ended = await inside(
        "pull", "a.ndjson", *words, *quick, "--patience", "0s", api=await emulate(recent, faults=failing())
    )
    assert ended.code == 3, ended.err
    again = await inside("pull", "a.ndjson", *words, *quick, api=await emulate(recent))
    assert again.code == 0, again.err
    assert "read already" in again.lines[0]
    lines = (tmp_path / "a.ndjson").read_bytes().splitlines()
    starts = [(record["date"], record["time"]) for record in map(json.loads, lines)]
    assert len({json.loads(line)["id"] for line in lines}) == len(lines)
    assert all(former >= latter for former, latter in pairwise(starts))


@pytest.mark.parametrize("name", ["may.ndjson", "may.db"])
async def test_a_signal_at_the_last_moment(emulate, dataset, tmp_path, monkeypatch, capsys, name):
    """If the output is finished before the signal is handled, it is reported as complete, with its receipt."""
    api = await emulate(dataset)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["servetel", "pull", name])
    query = CallQuery.month("2024-05")
    watch = Watch(Connection())
    job = Job(name, None, watch)
    async with ServetelClient(api.token, base_url=api.base_url, rate=None) as client:
        await pull(client, name, query, on_receipt=watch.take)
    code = await asyncio.to_thread(job.stopped, exits.Stopped(signal.SIGINT))
    assert code == 130
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["Interrupted: but the output is final already", "250 of the 250 the API counted"]
