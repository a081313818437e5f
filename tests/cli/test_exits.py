"""How a command ends: exit codes, signals, and the three lines on standard error."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
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
    PermissionDeniedError,
    RateLimitError,
    ResumeMismatchError,
    ServerError,
    WrongAddressError,
)
from servetel_async.cli.exits import again, code_of, report_error
from servetel_async.emulator import Fault
from tests.cli.conftest import MONTH, struck


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError, 2),
        (WrongAddressError, 2),
        (BodyTooLargeError, 2),
        (OutputError, 2),
        (OutputLockedError, 2),
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
    """A disk that fills up while a pull runs is not the user's mistake."""
    assert code_of(KeyError("x")) == 1
    assert code_of(OutputError("x"), started=True) == 5


def three_lines(ended):
    what, why, fix = ended.lines[-3:]
    assert what.startswith("Error: ")
    assert why.startswith("  Why: ")
    assert fix.startswith("  Fix: ")
    return what, why, fix


async def test_4_a_wrong_token(servetel, emulate, dataset, tmp_path):
    """What, why and what to do; the token stands nowhere, and nothing is written."""
    ended = await servetel("pull", "may.ndjson", *MONTH, api=await emulate(dataset), SERVETEL_TOKEN="canary-token-123")
    assert ended.code == 4
    three_lines(ended)
    assert b"canary" not in ended.out + ended.err
    assert list(tmp_path.iterdir()) == []


async def test_2_no_token(servetel):
    """Without a token nothing can be asked."""
    ended = await servetel("pull", "may.ndjson", *MONTH)
    assert ended.code == 2
    assert "SERVETEL_TOKEN" in three_lines(ended)[2]


async def test_5_the_network(servetel, unused_tcp_port_factory):
    """Nobody listens: temporary."""
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    ended = await servetel("pull", "a.db", *MONTH, SERVETEL_TOKEN="canary-token-123", SERVETEL_BASE_URL=url)
    assert ended.code == 5
    assert ended.lines[0].startswith("Error: the connection was refused")


async def test_5_a_server_of_garbage(servetel, emulate, dataset, tmp_path):
    """A reply that is no page is not written, and not shown either."""
    page = b"<html>\x1b]0;owned\x07 +919888889999</html>"
    api = await emulate(dataset, faults=[Fault("status", status=200, body=page)])
    ended = await servetel("pull", "a.ndjson", *MONTH, api=api)
    assert ended.code == 5
    assert b"owned" not in ended.err
    assert list(tmp_path.iterdir()) == []


async def test_6_a_count_that_does_not_agree(servetel, emulate, dataset, tmp_path):
    """The API counts a call that nobody can read."""
    api = await emulate(dataset, faults=[Fault("wrong_count", shift=1)])
    ended = await servetel("pull", "a.db", *MONTH, api=api)
    assert ended.code == 6
    three_lines(ended)
    assert list(tmp_path.iterdir()) == []


async def test_6_calls_outside_of_the_range(servetel, emulate, dataset):
    """A server that ignores the dates is found out."""
    record = next(dataset.records()) | {"date": "2019-01-01"}
    body = json.dumps({"count": 1, "limit": 100, "size": 1, "page": 1, "results": [record]}).encode()
    ended = await servetel(
        "pull", "a.db", *MONTH, api=await emulate(dataset, faults=[Fault("status", status=200, body=body)])
    )
    assert ended.code == 6
    assert record["client_number"].encode() not in ended.err


async def test_a_servers_message_cannot_command_the_terminal(servetel, emulate, dataset):
    """Escapes and markup in a message are made visible or dropped."""
    api = await emulate(
        dataset, faults=[Fault("success_false_200", message="\x1b[2J[bold red]gone[/]\r\n\x9b31m\u202e")]
    )
    ended = await servetel("pull", "a.db", *MONTH, api=api)
    assert ended.code == 2
    text = ended.err.decode()
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    assert "[bold red]" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["may.ndjson", "may.db"])
async def test_an_interrupted_pull_is_put_away(launch, emulate, dataset, tmp_path, number, code, name):
    """A signal in the middle: nothing is left, and the command to run again is printed."""
    api = await emulate(dataset, faults=[Fault("stall", seconds=60)])
    running = await launch("pull", name, *MONTH, "--agents", "1", "--page-size", "10", api=api)
    await struck(api, "stall")
    running.signal(number)
    ended = await running.end()
    assert ended.code == code
    assert ended.lines[-1] == f"Run it again: servetel pull {name} --month 2024-05 --rate 0 --agents ... --page-size 10"
    assert b"Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


async def test_a_killed_pull_is_in_nobodys_way(launch, servetel, emulate, dataset, tmp_path):
    """SIGKILL leaves a part file at most; the same command then ends as if nothing had been."""
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
    """The second one ends at once with 2; killing the first frees the output."""
    api = await emulate(dataset, faults=[Fault("stall", page=3, seconds=60, times=1)])
    first = await launch("pull", "may.ndjson", *MONTH, api=api)
    await struck(api, "stall")
    assert (tmp_path / "may.ndjson.part").exists()
    second = await servetel("pull", "may.ndjson", *MONTH, api=api)
    assert second.code == 2
    assert "another run is writing" in three_lines(second)[0]
    first.signal(signal.SIGKILL)
    await first.end()
    assert (await servetel("pull", "may.ndjson", *MONTH, api=api)).code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk(emulate, dataset, tmp_path, launch, monkeypatch):
    """Standard output that takes no more is temporary: 5, three lines, no traceback."""
    api = await emulate(dataset)
    create = asyncio.create_subprocess_exec
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda *a, **k: create(*a, **{**k, "stdout": full}))
        ended = await (await launch("pull", "-", *MONTH, api=api)).end()
    assert ended.code == 5
    _, why, fix = three_lines(ended)
    assert "no space left" in why
    assert "directory" not in fix


def test_the_command_to_run_again_is_quoted_and_masked():
    """A shell can read it, and it shows no number."""
    assert again(["pull", "a b.db", "--callerid=+91", "--did-number", "+92", "--agents", "1", "--last", "7d"]) == (
        "servetel pull 'a b.db' --callerid=... --did-number ... --agents ... --last 7d"
    )


STORM = """
import asyncio, signal, sys
from servetel_async.cli import running
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
    """What a wrapper passes on at once is the first signal again; a later one ends the process."""
    done = subprocess.run([sys.executable, "-c", STORM, echo], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (code, said), done.stderr


def test_a_reason_that_is_not_known_is_left_out(capsys):
    """An error without a reason is told in two lines."""
    assert report_error(ConfigurationError("that is not a month", fix="write it as YYYY-MM")) == 2
    assert capsys.readouterr().err == "Error: that is not a month\n  Fix: write it as YYYY-MM\n"
