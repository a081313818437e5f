"""The end of a command: exit codes, signals, and the three lines on standard error."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from servetel_async import (
    AuthenticationError,
    BodyTooLargeError,
    ConfigurationError,
    ConnectionFailedError,
    CountDriftError,
    MalformedResponseError,
    OutOfWindowError,
    OutputError,
    OutputLockedError,
    OutputUnavailableError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    ResumeMismatchError,
    ServerError,
    WrongAddressError,
)
from servetel_async.cli.exits import again, code_of, report_error
from servetel_async.emulator import Dataset, Fault
from tests.cli.conftest import MONTH, struck


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError, 2),
        (WrongAddressError, 2),
        (BodyTooLargeError, 2),
        (OutputError, 2),
        (OutputLockedError, 5),
        (OutputUnavailableError, 5),
        (ResumeMismatchError, 2),
        (AuthenticationError, 4),
        (PermissionDeniedError, 4),
        (RateLimitError, 5),
        (ServerError, 5),
        (ConnectionFailedError, 5),
        (MalformedResponseError, 5),
        (CountDriftError, 6),
        (OutOfWindowError, 6),
    ],
)
def test_each_error_has_its_code(error, code):
    """The table of exit codes."""
    assert code_of(error("x")) == code


def test_a_foreign_error_is_a_bug_and_a_late_output_error_is_temporary():
    """A foreign error is a bug; a disk that fills up while a pull runs is temporary."""
    assert code_of(KeyError("x")) == 1
    assert code_of(OutputError("x"), started=True) == 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServerError, 3),
        (RateLimitError, 3),
        (ConnectionFailedError, 3),
        (OverloadedError, 3),
        (MalformedResponseError, 3),
        (OutputError, 3),
        (OutputLockedError, 3),
        (ResumeMismatchError, 2),
        (BodyTooLargeError, 2),
        (AuthenticationError, 4),
        (OutOfWindowError, 6),
    ],
)
def test_what_is_temporary_is_resumable_where_something_is_kept(error, code):
    """A temporary error is resumable if something is kept; a permanent error stays permanent."""
    assert code_of(error("x"), started=True, kept=True) == code


def three_lines(ended):
    what, why, fix = ended.lines[-3:]
    assert what.startswith("Error: ")
    assert why.startswith("  Why: ")
    assert fix.startswith("  Fix: ")
    return what, why, fix


async def test_5_a_server_of_garbage(servetel, emulate, dataset, tmp_path):
    """A reply that is no page is neither written nor shown."""
    page = b"<html>\x1b]0;owned\x07 +919888889999</html>"
    api = await emulate(dataset, faults=[Fault("status", status=200, body=page)])
    ended = await servetel("pull", "a.ndjson", *MONTH, api=api)
    assert ended.code == 5
    assert b"owned" not in ended.err
    assert list(tmp_path.iterdir()) == []


async def test_6_a_count_that_does_not_agree(inside, emulate, dataset, tmp_path):
    """If the API counts a call that it does not give, the output is written and at most ten windows are named."""
    api = await emulate(dataset, faults=[Fault("wrong_count", shift=1)])
    ended = await inside("pull", "a.db", *MONTH, api=api)
    assert ended.code == 6
    verdict = next(number for number, line in enumerate(ended.lines) if "NOT COMPLETE: " in line)
    named = ended.lines[verdict + 1 :]
    assert 0 < len(named) <= 11
    assert all(re.match("  (2024-05-.*: the API counts|and .* more)", line) for line in named)
    assert (tmp_path / "a.db").exists()


async def test_6_and_no_output_where_strict(inside, emulate, dataset, tmp_path):
    """With --strict a count that does not agree is an error, which says what is kept."""
    api = await emulate(dataset, faults=[Fault("wrong_count", shift=1)])
    ended = await inside("pull", "a.ndjson", *MONTH, "--strict", api=api)
    assert ended.code == 6
    assert ended.lines[-4] == "Error: the output would not be complete"
    assert " calls are kept; resume with: servetel pull a.ndjson" in ended.lines[-1]
    assert not (tmp_path / "a.ndjson").exists()


@pytest.mark.parametrize(("flags", "code"), [((), 6), (("--allow-quarantine",), 0)])
async def test_records_that_nobody_can_read(inside, emulate, tmp_path, flags, code):
    """Undecodable records are quarantined beside the output; with --allow-quarantine the exit code is 0."""
    two = Dataset.range("2024-05-06", "2024-05-06", calls=2)
    page = {"count": 2, "limit": 100, "size": 2, "page": 1, "results": [next(two.records()), "no record at all"]}
    api = await emulate(two, faults=[Fault("status", status=200, body=json.dumps(page).encode(), nth=1)])
    ended = await inside("pull", "a.ndjson", *MONTH, *flags, api=api)
    assert ended.code == code, ended.err
    assert b"1 record cannot be read" in ended.err
    assert (tmp_path / "a.ndjson.quarantine.ndjson").exists()


async def test_an_old_quarantine_goes_with_its_file(inside, emulate, tmp_path):
    """--overwrite removes the quarantine of the old output."""
    two = Dataset.range("2024-05-06", "2024-05-06", calls=2)
    page = {"count": 2, "limit": 100, "size": 2, "page": 1, "results": [next(two.records()), "no record at all"]}
    bad = await emulate(two, faults=[Fault("status", status=200, body=json.dumps(page).encode(), nth=1)])
    assert (await inside("pull", "a.ndjson", *MONTH, api=bad)).code == 6
    assert (tmp_path / "a.ndjson.quarantine.ndjson").exists()
    ended = await inside("pull", "a.ndjson", *MONTH, "--overwrite", api=await emulate(two))
    assert ended.code == 0, ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.ndjson", "a.ndjson.receipt.json"}


async def test_5_a_database_that_another_program_has(inside, emulate, dataset, tmp_path, monkeypatch):
    """A database that another program holds is temporary, and no request is sent."""
    monkeypatch.setattr("servetel_async.sinks.databases.sqlite._PATIENCE", 0.01)
    api = await emulate(dataset)
    assert (await inside("pull", "a.db", *MONTH, api=api)).code == 0
    asked = len(api.requests)
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for command in (("pull", "a.db", *MONTH), ("sync", "a.db")):
            ended = await inside(*command, "--rate", "0", api=api)
            assert ended.code == 5, ended.err
            assert "a.db is locked" in three_lines(ended)[0]
    assert len(api.requests) == asked


async def test_5_a_database_server_that_is_not_there_just_now(inside, emulate, dataset, unused_tcp_port):
    """A database server that refuses connections is temporary."""
    pytest.importorskip("asyncpg")
    api = await emulate(dataset)
    address = f"postgresql://puller:s3cret@127.0.0.1:{unused_tcp_port}/calls"
    for command in (("pull", address, *MONTH), ("sync", address), ("check", address)):
        ended = await inside(*command, api=api)
        assert ended.code == 5, ended.err
        _, why, fix = three_lines(ended)
        assert "no server listens there now" in why
        assert "run it again later" in fix
        assert b"s3cret" not in ended.err
    assert api.requests == []


async def test_only_the_quarantine_is_allowed(inside, emulate, dataset):
    """If anything but the quarantine is wrong, the exit code is still 6."""
    api = await emulate(dataset, faults=[Fault("wrong_count", shift=1)])
    assert (await inside("pull", "a.db", *MONTH, "--allow-quarantine", api=api)).code == 6


async def test_a_servers_message_cannot_command_the_terminal(inside, emulate, dataset):
    """Escapes and markup in a message are made visible or dropped."""
    api = await emulate(
        dataset, faults=[Fault("success_false_200", message="\x1b[2J[bold red]gone[/]\r\n\x9b31m\u202e")]
    )
    ended = await inside("pull", "a.db", *MONTH, api=api)
    assert ended.code == 2
    text = ended.err.decode()
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    assert "[bold red]" in text


async def test_a_killed_pull_is_in_nobodys_way(launch, servetel, emulate, dataset, tmp_path):
    """SIGKILL leaves a part file at most; the same command then completes the output."""
    api = await emulate(dataset)
    for name in ("may.ndjson", "may.db"):
        api.add_fault(Fault("stall", page=3, seconds=60, times=1))
        running = await launch("pull", name, *MONTH, api=api)
        await struck(api, "stall")
        running.signal(signal.SIGKILL)
        await running.end()
        ended = await servetel("pull", name, *MONTH, api=api)
        assert ended.code == 0, ended.err
        assert ended.lines[-2] == "250 of the 250 the API counted"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("may.ndjson", "may.ndjson.receipt.json", "may.db", "may.db.receipt.json")
    }


async def test_two_commands_on_one_output(launch, servetel, emulate, dataset, tmp_path):
    """The second command ends at once with 5, so that a loop tries again; killing the first frees the output."""
    api = await emulate(dataset, faults=[Fault("stall", page=3, seconds=60, times=1)])
    first = await launch("pull", "may.ndjson", *MONTH, api=api)
    await struck(api, "stall")
    assert (tmp_path / "may.ndjson.part").exists()
    second = await servetel("pull", "may.ndjson", *MONTH, api=api)
    assert second.code == 5
    assert "another run is writing" in three_lines(second)[0]
    first.signal(signal.SIGKILL)
    await first.end()
    assert (await servetel("pull", "may.ndjson", *MONTH, api=api)).code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk(emulate, dataset, tmp_path, launch, monkeypatch):
    """A full standard output is temporary: code 5, three lines, no traceback."""
    api = await emulate(dataset)
    create = asyncio.create_subprocess_exec
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda *a, **k: create(*a, **{**k, "stdout": full}))
        ended = await (await launch("pull", "-", *MONTH, api=api)).end()
    assert ended.code == 5
    _, why, fix = three_lines(ended)
    assert "no space left" in why
    assert "directory" not in fix


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b.db", "--callerid=+91", "--did-number", "+92"], "'a b.db' --callerid=... --did-number ..."),
        (["a.db", "--agents", "1", "--last", "7d"], "a.db --agents ... --last 7d"),
        (["a.db", "--no-resume", "--fast"], "a.db --fast"),
        (["postgresql://me:p@ss/word@host/calls"], "postgresql://...@host/calls"),
        (["postgresql://host/calls?password=secret&x=1"], "'postgresql://host/calls?password=...&x=1'"),
    ],
)
def test_the_command_to_run_again(arguments, said):
    """The command to run again is valid shell, shows no number and no password, and keeps all flags."""
    assert again(["pull", *arguments], leave_out="--no-resume") == f"servetel pull {said}"


STORM = """
import asyncio, signal, sys
from servetel_async.cli import run as running
from servetel_async.cli.exits import Stopped

async def work():
    signal.raise_signal(signal.SIGINT)
    try:
        await asyncio.sleep(30)
    finally:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        print("put away")

running.ECHO = float(sys.argv[1])
try:
    running.run(work())
except Stopped as stopped:
    print(stopped.signal.name)
"""


@pytest.mark.parametrize(("echo", "code", "said"), [("60", 0, "put away\nSIGINT\n"), ("0", -signal.SIGTERM, "")])
def test_only_a_later_signal_is_a_second_one(echo, code, said):
    """A signal right after the first counts as the same one; a later one ends the process."""
    done = subprocess.run([sys.executable, "-c", STORM, echo], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_a_reason_that_is_not_known_is_left_out(capsys):
    """An error without a reason has two lines."""
    assert report_error(ConfigurationError("that is not a day", fix="write it as YYYY-MM")) == 2
    assert capsys.readouterr().err == "Error: that is not a day\n  Fix: write it as YYYY-MM\n"


PERSONAL = ("--callerid", "--destination", "--did-number", "--call-id", "--agents", "--email")


@pytest.mark.parametrize("flag", PERSONAL)
@pytest.mark.parametrize("spelling", ["{} {}", "{}={}"])
def test_a_personal_value_is_not_in_the_command_to_run_again(flag, spelling):
    """Numbers, ids and addresses become an ellipsis in every spelling of a flag; the flag itself stays."""
    command = again(["pull", "a.db", *spelling.format(flag, "+919812345678").split(" "), "--fast"])
    assert "98123" not in command
    assert command == f"servetel pull a.db {spelling.format(flag, '...')} --fast"


def test_the_text_of_a_foreign_error_is_not_shown(capsys):
    """The type and the place of a foreign error are shown, but not its text, which may hold a number."""
    number = f"+91{9_812_345_678}"  # a traceback shows this line
    try:
        raise KeyError(number)
    except KeyError as error:
        assert report_error(error) == 1
    said = capsys.readouterr().err
    assert "KeyError" in said
    assert Path(__file__).name in said
    assert "9812345678" not in said
