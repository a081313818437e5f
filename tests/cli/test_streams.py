"""Standard streams that are closed, full, or without a reader."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from servetel_async.emulator import Fault
from tests.cli.conftest import MONTH, struck

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full and a shell")

ODD = os.fsdecode(b"b\xff")


@pytest.fixture
def unread():
    """Make the writing end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


async def test_events_that_nobody_reads_end_no_pull(servetel, emulate, dataset, tmp_path, unread):
    """If the reader of --json is gone, the pull continues quietly and ends with its own code."""
    ended = await servetel("pull", "may.ndjson", *MONTH, "--json", api=await emulate(dataset), stdout=unread)
    assert (ended.code, ended.err) == (0, b"")
    assert len((tmp_path / "may.ndjson").read_bytes().splitlines()) == 250


@pytest.mark.parametrize(("redirect", "lines"), [(">/dev/full", 1), (">&-", 0)])
async def test_events_that_cannot_be_written_end_no_pull(servetel, emulate, dataset, tmp_path, redirect, lines):
    """If standard output is full or closed, the message comes once at most, and the output is complete."""
    ended = await servetel("pull", "may.ndjson", *MONTH, "--json", api=await emulate(dataset), redirect=redirect)
    assert (ended.code, len(ended.lines)) == (0, lines)
    assert (tmp_path / "may.ndjson.receipt.json").exists()


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
async def test_an_error_event_that_cannot_be_written_changes_no_code(servetel, emulate, dataset, redirect):
    """If an error event cannot be written, the exit code stays the same."""
    ended = await servetel(
        *("pull", "a.db", *MONTH, "--json"),
        api=await emulate(dataset),
        redirect=redirect,
        SERVETEL_TOKEN="canary-token-123",
    )
    assert ended.code == 4
    assert b"Traceback" not in ended.err


@pytest.mark.parametrize("json", [(), ("--json",)])
@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 5), (">&-", 0)])
async def test_a_dry_run_that_cannot_be_written(servetel, emulate, dataset, redirect, code, json):
    """A full standard output is temporary and no bug; a closed one is no error."""
    ended = await servetel("pull", "a.db", *MONTH, "--dry-run", *json, api=await emulate(dataset), redirect=redirect)
    assert ended.code == code
    assert b"Traceback" not in ended.err
    assert (b"no space left" in ended.err) == (code == 5)


async def test_a_dry_run_that_nobody_reads(servetel, emulate, dataset, unread):
    """A dry run without a reader ends without an error."""
    ended = await servetel("pull", "a.db", *MONTH, "--dry-run", api=await emulate(dataset), stdout=unread)
    assert (ended.code, ended.err) == (0, b"")


async def test_help_that_cannot_be_written(servetel):
    """If standard output is full, help ends with the reason, without a traceback."""
    ended = await servetel("--help", redirect=">/dev/full")
    assert ended.code == 5
    assert ended.lines[:2] == ["Error: standard output cannot be written", "  Why: no space left on device"]


async def test_help_that_nobody_reads(servetel, unread):
    """Help without a reader ends without an error."""
    ended = await servetel("--help", stdout=unread)
    assert (ended.code, ended.err) == (0, b"")


async def test_a_pull_needs_no_standard_error(servetel, emulate, dataset, tmp_path):
    """A pull with a closed standard error completes as usual."""
    ended = await servetel("pull", "may.ndjson", *MONTH, api=await emulate(dataset), redirect="2>&-")
    assert ended.code == 0
    assert len((tmp_path / "may.ndjson").read_bytes().splitlines()) == 250


@pytest.mark.parametrize("arguments", [("pull",), ("pull", "a.txt", *MONTH), ("pull", "-", "--month", "x")])
async def test_a_wrong_command_needs_no_standard_error(servetel, arguments):
    """With a closed standard error a wrong command still has its exit code."""
    assert (await servetel(*arguments, redirect="2>&-")).code == 2


@pytest.mark.parametrize("redirect", [">&-", "<&- >&-", "<&- >&- 2>&-"])
async def test_a_closed_standard_output_is_no_destination(servetel, emulate, dataset, redirect):
    """It is refused without a request, because its descriptor may belong to another file by now."""
    api = await emulate(dataset)
    ended = await servetel("pull", "-", *MONTH, api=api, redirect=redirect)
    assert (ended.code, ended.out, api.requests) == (2, b"", [])


async def test_no_file_gets_the_place_of_a_closed_stream(launch, emulate, dataset, tmp_path):
    """While a pull runs, none of its files has one of the first three descriptors."""
    api = await emulate(dataset, faults=[Fault("stall", seconds=60)])
    running = await launch("pull", "may.ndjson", *MONTH, api=api, redirect="<&- >&- 2>&-")
    await struck(api, "stall")
    places = {str(Path(f"/proc/{running.process.pid}/fd/{number}").readlink()) for number in range(3)}
    assert places == {os.devnull}
    assert (tmp_path / "may.ndjson.lock").exists()


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
@pytest.mark.parametrize("ending", [".ndjson", ".db"])
async def test_a_name_that_is_no_text_is_a_name(servetel, emulate, dataset, tmp_path, ending, environment):
    """Output and receipt keep a name that is no text; messages spell out its odd bytes."""
    ended = await servetel("pull", ODD + ending, *MONTH, api=await emulate(dataset), **environment)
    assert ended.code == 0, ended.err
    assert {path.name for path in tmp_path.iterdir()} == {ODD + ending, f"{ODD}{ending}.receipt.json"}
    assert ended.lines[-1].startswith(f"b\\xff{ending}, ")


async def test_a_failed_pull_into_a_name_that_is_no_text_leaves_nothing(servetel, emulate, dataset, tmp_path):
    """A failed pull removes the new database, whatever its name is."""
    api = await emulate(dataset, faults=[Fault("status", status=401)])
    assert (await servetel("pull", f"{ODD}.db", *MONTH, api=api)).code == 4
    assert list(tmp_path.iterdir()) == []


async def test_a_receipt_without_a_place_costs_no_request(servetel, emulate, dataset, tmp_path):
    """A receipt that cannot be written ends the pull before any request, with the system's reason."""
    api = await emulate(dataset)
    (tmp_path / "may.db.receipt.json").mkdir()
    taken = await servetel("pull", "may.db", *MONTH, api=api)
    long = await servetel("pull", f"{'x' * 235}.ndjson", *MONTH, api=api)
    assert (taken.code, long.code, api.requests) == (2, 2, [])
    assert taken.lines[1] == "  Why: is a directory"
    assert long.lines[1] == "  Why: file name too long"
    assert {path.name for path in tmp_path.iterdir()} == {"may.db.receipt.json"}


async def test_a_database_is_there_when_nobody_hears_of_it(servetel, emulate, dataset, tmp_path, unread):
    """A completed output is never reported as failed, even if the receipt's event is lost."""
    ended = await servetel("pull", "may.db", *MONTH, "--json", api=await emulate(dataset), stdout=unread)
    assert ended.code == 0
    with closing(sqlite3.connect(tmp_path / "may.db")) as database:
        assert database.execute("SELECT count(*) FROM call_records").fetchone() == (250,)
