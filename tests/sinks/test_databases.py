"""Rules shared by SQLite and DuckDB files, and recovery after a killed run."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import traceback
from contextlib import closing
from typing import Any

import pytest

from servetel_async import (
    ConfigurationError,
    MalformedResponseError,
    OutputError,
    OutputLockedError,
    ResumeMismatchError,
)
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, named_without_receipt, open_for

duckdb = pytest.importorskip("duckdb")

CLAIM = PullIdentity("pull", "scope", "account")
OTHER = PullIdentity("other", "scope", "account")


def span(number):
    return Span(f"2024-05-{number:02} 00:00:00", f"2024-05-{number:02} 23:59:59")


def entry(number):
    return b'{"n":%d}' % number


def names(directory):
    return {path.name for path in directory.iterdir()}


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def modes(directory):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def rows(target, statement):
    connect: Any = duckdb.connect if ".duckdb" in target.name else sqlite3.connect
    with closing(connect(str(target))) as database:
        return database.execute(statement).fetchall()


@pytest.fixture(params=["a.db", "a.duckdb"])
def target(request, tmp_path):
    """The database of one kind, in its own directory."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / request.param


@pytest.fixture
def log(target):
    """The log that the library keeps beside an open file."""

    def name(path):
        return path.with_name(path.name + (".wal" if target.suffix == ".duckdb" else "-wal"))

    return name


@pytest.fixture
def sinks():
    """Make sinks, and release them in the end."""
    made = []

    def make(path):
        made.append(sink_for(path))
        return made[-1]

    yield make
    for sink in made:
        sink.abandon()


@pytest.fixture
def begun(sinks, batch_of):
    """Open a sink, begin, and commit a window of one call for each number."""

    def start(path, *numbers, claim=CLAIM):
        sink = sinks(path)
        open_for(sink, claim)
        sink.begin(b'{"pull":"%s"}' % claim.pull.encode())
        for number in numbers:
            sink.commit(batch_of(b'{"id":"%d","agent_name":"%d"}' % (number, number)), span(number), entry(number))
        return sink

    return start


@pytest.fixture
def end():
    def run(sink):
        finished(sink)
        sink.abandon()

    return run


@pytest.fixture
def killed(begun, target, tmp_path):
    """Copy the files in the middle of a pull, as a killed run would leave them; returns the path."""

    def run(*numbers):
        sink = begun(target, *numbers)
        place = tmp_path / "left"
        place.mkdir()
        for path in target.parent.iterdir():
            shutil.copy2(path, place)
        sink.abandon()
        return place / target.name

    return run


def test_what_a_killed_run_left_is_gone_on_from(killed, sinks, batch_of, end):
    """A part with its log and an unheld lock is resumed: every committed window ends up in one file."""
    left = killed(3, 1)
    sink = sinks(left)
    assert open_for(sink, CLAIM).entries == [entry(3), entry(1)]
    sink.commit(batch_of(b'{"id":"2"}'), span(2), entry(2))
    end(sink)
    assert names(left.parent) == {left.name, f"{left.name}.receipt.json"}
    assert rows(left, "SELECT id FROM call_records ORDER BY id") == [("1",), ("2",), ("3",)]


def test_a_run_that_was_killed_in_place_is_gone_on_from(begun, end, killed, sinks, target):
    """The log of a database with its final name is read too."""
    end(begun(target, 9))
    left = killed(3)
    sink = sinks(left)
    assert open_for(sink, CLAIM).entries == [entry(3)]
    end(sink)
    assert rows(left, "SELECT id FROM call_records ORDER BY id") == [("3",), ("9",)]


def test_killed_after_the_name_was_given(begun, sinks, target, end):
    """Only the receipt is missing: the pull is unfinished, but its windows need no second reading."""
    sink = begun(target, 3)
    named_without_receipt(sink, target)
    sink.abandon()
    again = sinks(target)
    assert open_for(again, CLAIM).entries == [entry(3)]
    end(again)
    assert open_for(sinks(target), CLAIM) is None


def test_killed_while_a_part_was_removed(killed, begun, end, log):
    """A log without its part is not read into the next part."""
    left = killed(3, 2)
    left.with_name(f"{left.name}.part").unlink()
    end(begun(left, 1))
    assert rows(left, "SELECT id FROM call_records") == [("1",)]
    assert not log(left).exists()


def test_a_log_whose_database_is_gone_is_refused(killed, begun, end, sinks, target, log):
    """Otherwise the library would read it into the new database of that name, over its calls."""
    end(begun(target, 9))
    left = killed(3)
    left.unlink()
    before = contents(left.parent)
    with pytest.raises(OutputError, match=f"{log(left).name} is there without {left.name}"):
        open_for(sinks(left), CLAIM)
    before.pop(f"{left.name}.lock")
    assert contents(left.parent) == before


def test_a_log_that_appears_meanwhile_is_refused(begun, sinks, target, log, end):
    """The part is kept, and gets its name once the log is gone."""
    sink = begun(target, 3)
    log(target).write_bytes(b"log")
    with pytest.raises(OutputError, match="is there without"):
        finished(sink)
    sink.abandon()
    log(target).unlink()
    again = sinks(target)
    assert open_for(again, CLAIM).entries == [entry(3)]
    end(again)
    assert rows(target, "SELECT id FROM call_records") == [("3",)]


def test_killed_between_its_two_names(killed, sinks, end):
    """One file has both names, and includes its log: the pull is resumed under the right name."""
    left = killed(3)
    again = sinks(left)
    open_for(again, CLAIM)
    again.abandon()
    part = left.with_name(f"{left.name}.part")
    os.link(part, left)
    sink = sinks(left)
    assert open_for(sink, CLAIM).entries == [entry(3)]
    assert not part.exists()
    end(sink)
    assert names(left.parent) == {left.name, f"{left.name}.receipt.json"}


def test_every_file_is_private_at_every_moment(begun, sinks, batch_of, target, end, log):
    """Part, log, lock, and the files beside a database in place are private whatever the umask."""
    seen = {}
    before = os.umask(0)
    try:
        for claim in (CLAIM, OTHER):
            sink = sinks(target)
            for step in (
                lambda sink=sink, claim=claim: open_for(sink, claim),
                lambda sink=sink: sink.begin(b"{}"),
                lambda sink=sink: sink.commit(batch_of(b'{"id":"1"}'), span(1), entry(1)),
                lambda sink=sink: finished(sink),
                sink.abandon,
            ):
                step()
                seen |= modes(target.parent)
    finally:
        os.umask(before)
    assert {target.name, f"{target.name}.part", log(target).name, f"{target.name}.lock"} <= set(seen)
    assert set(seen.values()) == {0o600}


def test_fresh_keeps_a_part_until_a_pull_begins(begun, sinks, target, end):
    """A run that fails before its first window destroys no earlier work."""
    begun(target, 3).abandon()
    before = contents(target.parent)
    sink = sinks(target)
    assert open_for(sink, CLAIM, fresh=True) is None
    sink.abandon()
    assert contents(target.parent) == before
    sink = sinks(target)
    open_for(sink, CLAIM, fresh=True)
    sink.begin(b"{}")
    end(sink)
    assert rows(target, "SELECT count(*) FROM call_records") == [(0,)]


@pytest.mark.parametrize("damage", ["cut", "zeros", "another program's"])
def test_a_damaged_part_is_refused_and_left_as_it_is(begun, sinks, target, damage):
    """It is neither resumed nor removed."""
    begun(target, 3).abandon()
    part = target.with_name(f"{target.name}.part")
    data = part.read_bytes()
    if damage == "cut":
        part.write_bytes(data[: len(data) // 2 + 100])
    elif damage == "zeros":
        part.write_bytes(b"\0" * 4096 + data[4096:])
    else:
        part.unlink()
        rows(part, "CREATE TABLE call_records (id INTEGER, servetel_pulls TEXT)")
        part.chmod(0o600)
    before = contents(target.parent)
    sink = sinks(target)
    with pytest.raises(ResumeMismatchError, match="cannot be resumed"):
        open_for(sink, CLAIM)
    assert contents(target.parent) == before


def test_fresh_drops_a_damaged_part(begun, sinks, target, batch_of, end):
    """Its log is dropped too."""
    begun(target, 3).abandon()
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(b"junk" + part.read_bytes()[4:])
    sink = sinks(target)
    assert open_for(sink, CLAIM, fresh=True) is None
    sink.begin(b"{}")
    sink.commit(batch_of(b'{"id":"1"}'), span(1), entry(1))
    end(sink)
    assert names(target.parent) == {target.name, f"{target.name}.receipt.json"}


def test_a_database_of_another_program_is_left_as_it_is(sinks, target):
    """It is refused for its columns, and not one byte changes."""
    rows(target, "CREATE TABLE call_records (id INTEGER)")
    before = contents(target.parent)
    with pytest.raises(OutputError, match="other columns"):
        open_for(sinks(target), CLAIM)
    assert contents(target.parent) == before


def test_an_error_is_not_its_own_cause(sinks, target):
    """The chain of causes ends."""
    rows(target, "CREATE TABLE call_records (id INTEGER)")
    with pytest.raises(OutputError) as caught:
        open_for(sinks(target), CLAIM)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("length", [250, 400])
def test_a_name_that_is_too_long(sinks, target, length):
    """If the file's name or that of a file beside it is too long, an output error comes before any request."""
    with pytest.raises(OutputError):
        open_for(sinks(target.with_name("n" * (length - len(target.name)) + target.name)), CLAIM)
    assert names(target.parent) == set()


def test_a_directory_that_is_not_there(sinks, target):
    """The message names the file, but no path."""
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        open_for(sinks(target.parent / "none" / target.name), CLAIM)
    assert str(target.parent) not in str(caught.value)


def test_both_a_database_and_a_part_are_left_as_they_are(begun, sinks, target, end):
    """It is unclear which one is wanted."""
    begun(target, 3).abandon()
    part = target.with_name(f"{target.name}.part")
    kept = part.read_bytes()
    part.unlink()
    end(begun(target, 1))
    part.write_bytes(kept)
    part.chmod(0o600)
    before = contents(target.parent)
    with pytest.raises(ResumeMismatchError, match="Both"):
        open_for(sinks(target), CLAIM)
    assert contents(target.parent) == before


def test_a_finish_that_failed_is_made_up_for(begun, sinks, target, end):
    """Another program took the name: once it is free, the next run finishes without reading a window again."""
    sink = begun(target, 3)
    target.mkdir()
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        finished(sink)
    sink.abandon()
    assert names(target.parent) == {target.name, f"{target.name}.part"}
    target.rmdir()
    again = sinks(target)
    assert open_for(again, CLAIM).entries == [entry(3)]
    end(again)
    assert rows(target, "SELECT id FROM call_records") == [("3",)]


def test_a_receipt_that_cannot_be_saved(begun, sinks, target):
    """The output is complete without its receipt."""
    sink = begun(target, 3)
    named_without_receipt(sink, target)
    sink.abandon()
    assert rows(target, "SELECT id FROM call_records") == [("3",)]


def test_a_commit_that_fails_in_the_middle_leaves_the_sink_usable(begun, batch_of, target, end):
    """Its calls and its entry are absent, and the next window is committed."""
    sink = begun(target, 3)
    odd = batch_of(*(b'{"id":"x%d"}' % index for index in range(600)))
    odd.lines.append(b"[no call]")
    with pytest.raises(MalformedResponseError):
        sink.commit(odd, span(1), entry(1))
    sink.commit(batch_of(b'{"id":"2"}'), span(2), entry(2))
    end(sink)
    assert rows(target, "SELECT id FROM call_records ORDER BY id") == [("2",), ("3",)]
    assert rows(target, "SELECT fact FROM servetel_ledger ORDER BY reading") == [('{"n":3}',), ('{"n":2}',)]


def test_one_call_twice_far_apart_in_a_window(begun, batch_of, target, end):
    """The last one counts, even with a thousand calls between the two."""
    sink = begun(target)
    calls = [b'{"id":"%d","agent_name":"%d"}' % (index % 1_100, index) for index in range(2_500)]
    sink.commit(batch_of(*calls), span(1), entry(1))
    end(sink)
    assert rows(target, "SELECT count(*) FROM call_records") == [(1_100,)]
    assert rows(target, "SELECT agent_name FROM call_records WHERE id = '7'") == [("2207",)]


def test_a_later_window_takes_the_place_of_a_call(begun, batch_of, target, end):
    """A call in two windows has the values of the window that was committed last."""
    sink = begun(target, 3)
    sink.commit(batch_of(b'{"id":"3","agent_name":"new"}'), span(4), entry(4))
    end(sink)
    assert rows(target, "SELECT id, agent_name FROM call_records") == [("3", "new")]


def test_a_pull_without_any_call(begun, batch_of, target, end):
    """The empty window is journaled, and the table exists."""
    sink = begun(target)
    sink.commit(batch_of(), span(1), entry(1))
    end(sink)
    assert rows(target, "SELECT count(*) FROM call_records") == [(0,)]
    assert rows(target, "SELECT count(*) FROM servetel_ledger") == [(1,)]


@pytest.mark.parametrize("steps", range(5))
def test_letting_go_at_any_point(sinks, batch_of, target, steps):
    """Abandoning leaves nothing before the first commit, the part after it, and the database once it is named."""
    sink = sinks(target)
    for step in [
        lambda: open_for(sink, CLAIM),
        lambda: sink.begin(b"{}"),
        lambda: sink.commit(batch_of(b'{"id":"1"}'), span(1), entry(1)),
        lambda: finished(sink),
    ][:steps]:
        step()
    sink.abandon()
    done = {target.name, f"{target.name}.receipt.json"}
    assert names(target.parent) == [set(), set(), set(), {f"{target.name}.part"}, done][steps]


def test_letting_go_of_a_database_in_place(begun, sinks, target, end):
    """A pull that committed nothing leaves it unchanged, except for its own header."""
    end(begun(target, 9))
    sink = sinks(target)
    open_for(sink, OTHER)
    sink.begin(b"{}")
    sink.abandon()
    assert names(target.parent) == {target.name, f"{target.name}.receipt.json"}
    assert rows(target, "SELECT id FROM call_records") == [("9",)]


def test_a_receipt_that_is_a_link_is_refused(sinks, target, tmp_path):
    """It is refused before the first request; the link and its target are unchanged."""
    (tmp_path / "elsewhere").write_text("mine")
    link = target.with_name(f"{target.name}.receipt.json")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="not made by this program"):
        open_for(sinks(target), CLAIM)
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert link.readlink() == tmp_path / "elsewhere"


def test_what_a_journal_cannot_say_is_an_output_error(begun, sinks, target, end):
    """Reading the dropped ledger or receipts of a database raises our error, not the library's."""
    end(begun(target, 9))
    sink = sinks(target)
    open_for(sink, CLAIM)
    sink._run("DROP TABLE servetel_ledger")
    sink._run("DROP TABLE servetel_pulls")
    for ask in (sink.ledger, sink.content, sink.receipts):
        with pytest.raises(OutputError):
            ask()


def test_no_value_is_in_an_error(begun, sinks, target, batch_of):
    """When a table refuses a call, an error report holds neither its number nor a path."""
    sink = begun(target)
    sink._run("DROP TABLE servetel_ledger")
    batch = batch_of(b'{"id":"1","client_number":"%s"}' % b"+919812345678")
    with pytest.raises(OutputError) as caught:
        sink.commit(batch, span(1), entry(1))
    said = "".join(traceback.format_exception(caught.value))
    assert "+919812345678" not in said
    assert str(target.parent) not in str(caught.value)


def test_a_missing_library_names_its_extra(monkeypatch, target):
    """The error comes before any request; SQLite is always there."""
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    if target.suffix == ".db":
        sink_for(target)
        return
    with pytest.raises(ConfigurationError, match=r"ip install 'servetel-async\[duckdb\]'"):
        sink_for(target)


def test_a_part_that_somebody_writes_is_locked_and_not_damaged(begun, sinks, target, monkeypatch):
    """The error does not suggest discarding it."""
    monkeypatch.setattr("servetel_async.sinks.databases.sqlite._PATIENCE", 0.01)
    begun(target, 3).abandon()
    connect: Any = duckdb.connect if target.suffix == ".duckdb" else sqlite3.connect
    with closing(connect(str(target.with_name(f"{target.name}.part")))) as other:
        other.execute("BEGIN IMMEDIATE" if target.suffix == ".db" else "BEGIN")
        with pytest.raises(OutputLockedError):
            open_for(sinks(target), CLAIM)


def test_looking_creates_nothing_and_changes_nothing(begun, sinks, target, end):
    """An existing database is read, and a missing one is not created."""
    sink = sinks(target)
    assert not sink.look()
    sink.abandon()
    assert contents(target.parent) == {}
    end(begun(target, 3))
    before = contents(target.parent)
    sink = sinks(target)
    assert sink.look()
    assert [each.fact for each in sink.ledger()] == [entry(3)]
    assert sink.receipts() == [b'{"destination":"a"}']
    assert contents(target.parent) == before
    sink.abandon()
    sink.abandon()
    assert contents(target.parent) == before


def test_looking_into_a_database_of_another_program(sinks, target):
    """It has no journal of ours, and none is created."""
    rows(target, "CREATE TABLE theirs (id INTEGER)")
    before = contents(target.parent)
    sink = sinks(target)
    assert not sink.look()
    sink.abandon()
    assert contents(target.parent) == before


def test_looking_into_what_is_no_database(sinks, target):
    """The error says so, and the file is unchanged."""
    target.write_bytes(b"junk" * 3000)
    sink = sinks(target)
    with pytest.raises(OutputError, match="is no"):
        sink.look()
    sink.abandon()
    assert target.read_bytes() == b"junk" * 3000


def test_a_view_in_the_place_of_the_table_is_named(sinks, target):
    """No call can be written to a view; no table is made beside it."""
    rows(target, "CREATE TABLE theirs (id INTEGER)")
    rows(target, "CREATE VIEW call_records AS SELECT * FROM theirs")
    before = contents(target.parent)
    with pytest.raises(OutputError, match="holds a view call_records"):
        open_for(sinks(target), CLAIM)
    assert contents(target.parent) == before


@pytest.mark.parametrize("table", ["call_records", "servetel_pulls", "servetel_ledger"])
def test_a_view_that_has_the_name_of_a_table_of_ours_is_refused(table, begun, sinks, target, end):
    """Its author could decide what a pull reads and writes."""
    end(begun(target, 1))
    rows(target, f"DROP TABLE {table}")
    rows(target, f"CREATE VIEW {table} AS SELECT 1 AS id")
    with pytest.raises(OutputError, match=f"holds a view {table}"):
        open_for(sinks(target), CLAIM)


def test_a_database_with_two_names_is_read_and_not_written(begun, sinks, target, end):
    """A kill while it got its name may leave two; a run removes the second one, and a check only reads."""
    end(begun(target, 1))
    os.link(target, target.with_name("second"))
    sink = sinks(target)
    assert sink.look()
    sink.abandon()
    with pytest.raises(OutputError, match="second name"):
        open_for(sinks(target), CLAIM)
