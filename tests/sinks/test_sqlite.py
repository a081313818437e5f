"""SQLite: a window and its journal entry in one transaction; a new database gets its name when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from servetel_async import OutputError, OutputLockedError, ResumeMismatchError
from servetel_async.sinks.databases.sqlite import SqliteSink
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, open_for

CLAIM = PullIdentity("pull", "scope", "account")
CALL = (
    b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57","call_duration":54,"charges":0}'
)
NAME = "a.db"
Sink = SqliteSink


def rows(target, sql="SELECT * FROM call_records ORDER BY id"):
    with closing(sqlite3.connect(target)) as database:
        return database.execute(sql).fetchall()


def span(number):
    return Span(f"2024-05-{number:02} 00:00:00", f"2024-05-{number:02} 23:59:59")


def entry(number):
    return b'{"n":%d}' % number


def names(directory):
    return {path.name for path in directory.iterdir()}


def end(sink):
    finished(sink)
    sink.abandon()
    return sink


def kill(sink):
    """Release what a dead process releases, and nothing else."""
    sink._is_new = False
    sink.abandon()


@pytest.fixture
def begun(batch_of):
    """Open a sink, begin, and commit a window for each number, with one call of that id."""

    def start(sink, *numbers, claim=CLAIM):
        open_for(sink, claim)
        sink.begin(b'{"pull":"%s"}' % claim.pull.encode())
        for number in numbers:
            sink.commit(batch_of(b'{"id":"%d"}' % number), span(number), entry(number))
        return sink

    return start


@pytest.fixture
def save(batch_of, tmp_path):
    """Write one window of calls into the database, and finish."""

    def run(*lines):
        sink = Sink(tmp_path / NAME)
        open_for(sink, CLAIM)
        sink.begin(b"{}")
        sink.commit(batch_of(*lines), span(1), entry(1))
        return end(sink)

    return run


def test_a_pull_from_beginning_to_end(begun, tmp_path):
    """It leaves one file that holds all calls, its receipt, and nothing else."""
    end(begun(Sink(tmp_path / NAME), 3, 2, 1))
    assert names(tmp_path) == {NAME, f"{NAME}.receipt.json"}
    assert rows(tmp_path / NAME, "SELECT id FROM call_records ORDER BY id") == [("1",), ("2",), ("3",)]
    assert (tmp_path / f"{NAME}.receipt.json").read_bytes() == b'{"destination":"a"}'


def test_a_new_database_bears_its_name_in_the_end(begun, tmp_path):
    """Until then it is DEST.part, so that it is not taken for complete."""
    sink = begun(Sink(tmp_path / NAME), 3)
    assert not (tmp_path / NAME).exists()
    finished(sink)
    assert rows(tmp_path / NAME, "SELECT id FROM call_records") == [("3",)]
    assert not (tmp_path / f"{NAME}.part").exists()
    sink.abandon()


def test_the_receipt_knows_the_size_of_the_file(begun, tmp_path):
    """The size is that before the receipt is stored in it; a database has no digest."""
    sink = begun(Sink(tmp_path / NAME), 3)
    output = finished(sink)
    assert 0 < output.size <= (tmp_path / NAME).stat().st_size
    assert (output.sha256, output.files) == (None, {})
    sink.abandon()


def test_every_file_is_private(begun, tmp_path):
    """Database, log, lock and receipt have mode 0600 from their first moment, whatever the umask."""
    before = os.umask(0)
    try:
        sink = begun(Sink(tmp_path / NAME), 3, 2)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        end(sink)
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert len(modes) >= 5
    assert set(modes.values()) == {0o600}


def test_a_killed_pull_is_gone_on_from(begun, batch_of, tmp_path):
    """Header and entries come back in the order of their commits."""
    kill(begun(Sink(tmp_path / NAME), 3, 1))
    sink = Sink(tmp_path / NAME)
    saved = open_for(sink, CLAIM)
    assert (saved.header, saved.entries) == (b'{"pull":"pull"}', [entry(3), entry(1)])
    sink.commit(batch_of(b'{"id":"2"}'), span(2), entry(2))
    end(sink)
    assert rows(tmp_path / NAME, "SELECT fact FROM servetel_ledger ORDER BY reading") == [
        ('{"n":3}',),
        ('{"n":1}',),
        ('{"n":2}',),
    ]


def test_a_killed_pull_into_a_database_in_place(begun, save, tmp_path):
    """Its commits are in the database, and the pull can be resumed."""
    save(b'{"id":"9"}')
    kill(begun(Sink(tmp_path / NAME), 3, claim=PullIdentity("other", "scope", "account")))
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, PullIdentity("other", "scope", "account")).entries == [entry(3)]
    end(sink)
    assert rows(tmp_path / NAME, "SELECT id FROM call_records ORDER BY id") == [("3",), ("9",)]


def test_a_pull_of_another_is_given_too(begun, tmp_path):
    """DEST.part belongs to another pull: its header is returned, so that the caller can say so."""
    kill(begun(Sink(tmp_path / NAME), 3, claim=PullIdentity("other", "scope", "account")))
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, CLAIM).header == b'{"pull":"other"}'
    sink.abandon()
    assert (tmp_path / f"{NAME}.part").exists()


def test_begin_drops_what_is_in_a_part(begun, tmp_path):
    """No call and no window of the other pull is left."""
    kill(begun(Sink(tmp_path / NAME), 3, 2, claim=PullIdentity("other", "scope", "account")))
    end(begun(Sink(tmp_path / NAME), 1))
    assert rows(tmp_path / NAME, "SELECT id FROM call_records") == [("1",)]
    assert rows(tmp_path / NAME, "SELECT pull, first FROM servetel_ledger") == [("pull", "2024-05-01 00:00:00")]


def test_fresh_looks_at_nothing(begun, tmp_path):
    """It drops even a damaged part of ours."""
    begun(Sink(tmp_path / NAME), 1).abandon()
    part = tmp_path / f"{NAME}.part"
    part.write_bytes(b"junk" + part.read_bytes()[4:])
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, CLAIM, fresh=True) is None
    sink.begin(b"{}")
    end(sink)
    assert rows(tmp_path / NAME) == []


def test_a_part_that_is_no_database_is_refused(tmp_path):
    """It stays unchanged, even if the run begins anew."""
    (tmp_path / f"{NAME}.part").write_bytes(b"junk" * 5_000)
    for fresh in (False, True):
        with pytest.raises(OutputError, match="not made by this program"):
            open_for(Sink(tmp_path / NAME), CLAIM, fresh=fresh)
    assert names(tmp_path) == {f"{NAME}.part"}
    assert (tmp_path / f"{NAME}.part").read_bytes() == b"junk" * 5_000


def test_a_part_beside_a_database_is_refused(begun, save, tmp_path):
    """It is unclear which one is wanted."""
    kill(begun(Sink(tmp_path / NAME), 3))
    shutil.copy(tmp_path / f"{NAME}.part", tmp_path / NAME)
    before = names(tmp_path)
    with pytest.raises(ResumeMismatchError, match="Move one of the two away"):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert names(tmp_path) == before


def test_killed_between_link_and_unlink(begun, tmp_path):
    """The file has both names: the pull is resumed under the right one."""
    kill(begun(Sink(tmp_path / NAME), 3))
    os.link(tmp_path / f"{NAME}.part", tmp_path / NAME)
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, CLAIM).entries == [entry(3)]
    end(sink)
    assert names(tmp_path) == {NAME, f"{NAME}.receipt.json"}


def test_a_name_that_was_taken_meanwhile(begun, tmp_path):
    """The other file is not overwritten, and the part stays."""
    sink = begun(Sink(tmp_path / NAME), 3)
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        finished(sink)
    sink.abandon()
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert rows(tmp_path / f"{NAME}.part", "SELECT id FROM call_records") == [("3",)]


def test_an_abandoned_pull_that_committed_nothing(begun, tmp_path):
    """It leaves no file."""
    begun(Sink(tmp_path / NAME)).abandon()
    assert names(tmp_path) == set()


def test_an_abandoned_pull_keeps_what_it_committed(begun, tmp_path):
    """DEST.part stays for the next run, without a log or a lock."""
    begun(Sink(tmp_path / NAME), 3).abandon()
    assert names(tmp_path) == {f"{NAME}.part"}


def test_an_existing_database_is_kept_current(save, tmp_path):
    """A known call gets its new values, a new one is added, and all others stay."""
    save(b'{"id":"1","agent_name":"old"}', b'{"id":"2"}')
    save(b'{"id":"1","agent_name":"new"}', b'{"id":"3"}')
    found = rows(tmp_path / NAME, "SELECT id, agent_name FROM call_records ORDER BY id")
    assert found == [("1", "new"), ("2", None), ("3", None)]


def test_one_call_twice_in_a_window(save, tmp_path):
    """The last one counts."""
    save(b'{"id":"1","agent_name":"first"}', b'{"id":"1","agent_name":"last"}')
    assert rows(tmp_path / NAME, "SELECT agent_name FROM call_records") == [("last",)]


def test_no_receipt_at_first(begun, tmp_path):
    """A database has no receipt before a pull has ended."""
    sink = begun(Sink(tmp_path / NAME), 3)
    assert sink.receipts() == []
    sink.abandon()


def test_sql_in_a_name_is_text(save, tmp_path):
    """Values are bound, never pasted into SQL."""
    name = "x'); DROP TABLE call_records; --"
    save(json.dumps({"id": "1", "agent_name": name}).encode())
    assert rows(tmp_path / NAME, "SELECT agent_name FROM call_records") == [(name,)]


def test_texts_that_databases_dislike_are_kept(save, tmp_path):
    """NUL, escapes, line separators and signs of formulas are ordinary characters."""
    text = "=1+1\0\x1b[31m\u2028'\"\U0001f600"
    save(json.dumps({"id": "1", "agent_name": text}).encode())
    assert rows(tmp_path / NAME, "SELECT agent_name FROM call_records") == [(text,)]


def test_hostile_calls_are_all_written(batch_of, hostile, tmp_path):
    """Texts and numbers that harm some reader do not keep a window from being committed."""
    sink = Sink(tmp_path / NAME)
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(hostile, span(1), entry(1))
    end(sink)
    found = rows(tmp_path / NAME, "SELECT id, agent_name, call_duration FROM call_records")
    assert sorted(found) == sorted(
        {record.id: (record.id, record.agent_name, record.call_duration) for record in hostile.records()}.values()
    )


def test_a_file_that_is_no_database_is_refused(tmp_path):
    """A file of another kind stays unchanged."""
    (tmp_path / NAME).write_bytes(b"junk" * 5_000)
    with pytest.raises(OutputError, match=r"is no .* database"):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert (tmp_path / NAME).read_bytes() == b"junk" * 5_000
    assert names(tmp_path) == {NAME}


def test_another_table_of_that_name_is_refused(tmp_path):
    """A table with other columns belongs to another program, and stays unchanged."""
    rows(tmp_path / NAME, "CREATE TABLE call_records (id INTEGER)")
    with pytest.raises(OutputError, match="other columns"):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert names(tmp_path) == {NAME}


def test_other_tables_of_a_database_stay(save, tmp_path):
    """Our tables are added beside the existing ones."""
    rows(tmp_path / NAME, "CREATE TABLE mine AS SELECT 1 AS a")
    save(CALL)
    assert rows(tmp_path / NAME, "SELECT * FROM mine") == [(1,)]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
@pytest.mark.parametrize("there", [True, False])
def test_links_are_refused(tmp_path, begun, name, there):
    """A planted link is not followed, whether it leads to a database or nowhere."""
    (tmp_path / "elsewhere").mkdir()
    if there:
        end(begun(Sink(tmp_path / "elsewhere" / NAME), 3))
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    (tmp_path / name).symlink_to(tmp_path / "elsewhere" / NAME)
    with pytest.raises(OutputError):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before


def test_a_directory_is_refused(tmp_path):
    """A directory is not a database."""
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match="is no file"):
        open_for(Sink(tmp_path / NAME), CLAIM)


def test_a_receipt_that_has_no_place(tmp_path):
    """The error comes before any work."""
    (tmp_path / f"{NAME}.receipt.json").mkdir()
    with pytest.raises(OutputError, match="directory"):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert names(tmp_path) == {f"{NAME}.receipt.json"}


def test_two_writers_on_one_database(begun, tmp_path):
    """The second pull fails at once."""
    first = begun(Sink(tmp_path / NAME), 3)
    with pytest.raises(OutputLockedError):
        open_for(Sink(tmp_path / NAME), CLAIM)
    end(first)


def test_an_abandoned_sink_can_be_abandoned_again(tmp_path):
    """Abandoning never raises, whatever was done before."""
    sink = Sink(tmp_path / NAME)
    sink.abandon()
    open_for(sink, CLAIM)
    sink.abandon()
    sink.abandon()
    assert names(tmp_path) == set()


def test_a_call_becomes_a_typed_row(save, tmp_path):
    """Numbers are numbers, moments carry their offset, and what is missing is NULL."""
    save(CALL)
    (row,) = rows(
        tmp_path / NAME, "SELECT call_duration, charges, agent_name, extra, started_at, ended_at FROM call_records"
    )
    assert row == (54, 0, None, None, "2024-05-02T19:19:59+05:30", "2024-05-02T19:20:57+05:30")


def test_nested_values_become_json(save, tmp_path):
    """Lists and objects are JSON that SQLite can query, unknown keys go to extra, and plain text stays plain."""
    save(
        b'{"id":"1","circle":{"circle":"Delhi"},"missed_agents":[{"a":1}],"notes":"x","new_key":[1,18446744073709551616]}'
    )
    (row,) = rows(
        tmp_path / NAME,
        "SELECT json_extract(circle, '$.circle'), json_extract(missed_agents, '$[0].a'), notes, "
        "json_type(extra, '$.new_key') FROM call_records",
    )
    assert row == ("Delhi", 1, "x", "array")


def test_the_columns_people_search_are_indexed(save, tmp_path):
    """started_at and the three numbers each have an index."""
    save(CALL)
    found = {name for (name,) in rows(tmp_path / NAME, "SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert found >= {f"call_records_{name}" for name in ("started_at", "client_number", "agent_number", "did_number")}


def test_a_reader_sees_whole_windows(save, begun, tmp_path):
    """A database can be written while a reader has it open; the reader sees each window after its commit."""
    save(b'{"id":"9"}')
    with closing(sqlite3.connect(tmp_path / NAME)) as reader:
        assert reader.execute("SELECT count(*) FROM call_records").fetchone() == (1,)
        sink = begun(Sink(tmp_path / NAME), 1, 2)
        assert reader.execute("SELECT count(*) FROM call_records").fetchone() == (3,)
        end(sink)
        assert reader.execute("SELECT count(*) FROM call_records").fetchone() == (3,)


#: Reads as a user without the right to write there.
READ = """
import os, sqlite3, sys
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
found = sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM call_records").fetchall()
print(found, os.listdir(os.path.dirname(sys.argv[1])))
"""


def journal_mode(target):
    """The mode in the file's header: 1 without a write-ahead log, 2 with one."""
    return set(target.read_bytes()[18:20])


def test_a_finished_database_needs_no_log(begun, save, tmp_path):
    """After any pull, a reader needs no right to write beside the database."""
    save(b'{"id":"1"}')
    assert journal_mode(tmp_path / NAME) == {1}
    end(begun(Sink(tmp_path / NAME), 2))
    assert journal_mode(tmp_path / NAME) == {1}
    # Not in pytest's directories: those are closed to the other user.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        there = Path(name)
        shutil.copy(tmp_path / NAME, there)
        (there / NAME).chmod(0o444)
        there.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", READ, there / NAME], capture_output=True, text=True, check=False)
        assert done.stdout == "[(2,)] ['a.db']\n", done.stderr


def test_a_reader_that_stays_keeps_the_log(save, begun, tmp_path):
    """A sync neither waits for a reader nor disturbs it; the next run that finishes alone leaves no log."""
    save(b'{"id":"9"}')
    with closing(sqlite3.connect(tmp_path / NAME)) as reader:
        sink = begun(Sink(tmp_path / NAME), 1)
        assert journal_mode(tmp_path / NAME) == {2}
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM call_records").fetchone() == (2,)
        finished(sink)
        assert reader.execute("SELECT count(*) FROM call_records").fetchone() == (2,)
        sink.abandon()
        assert journal_mode(tmp_path / NAME) == {2}
    end(begun(Sink(tmp_path / NAME), 2))
    assert journal_mode(tmp_path / NAME) == {1}
    assert names(tmp_path) == {NAME, f"{NAME}.receipt.json"}


def test_a_reader_in_a_transaction_of_a_database_without_a_log_is_waited_for(save, tmp_path, monkeypatch):
    """Changing the mode needs a moment without readers. After that, readers block nothing."""
    save(b'{"id":"9"}')
    monkeypatch.setattr("servetel_async.sinks.databases.sqlite._PATIENCE", 0.01)
    with closing(sqlite3.connect(tmp_path / NAME)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM call_records").fetchone()
        with pytest.raises(OutputLockedError):
            open_for(Sink(tmp_path / NAME), CLAIM)
        reader.rollback()
        open_for(Sink(tmp_path / NAME), CLAIM)


@pytest.mark.parametrize("code", ["SQLITE_IOERR_LOCK", "SQLITE_IOERR_SHMMAP", "SQLITE_PROTOCOL"])
def test_a_file_system_without_locks_is_named(tmp_path, code):
    """The error does not blame another program."""
    error = sqlite3.OperationalError()
    error.sqlite_errorname = code
    said = Sink(tmp_path / NAME)._failed(error)
    assert type(said) is OutputError
    assert "refuses locks" in said.why


def test_a_database_in_log_mode_is_looked_at_without_a_log(save, begun, tmp_path):
    """Opened in the usual way, a reader would leave files behind."""
    save(b'{"id":"9"}')
    with closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute("PRAGMA journal_mode = WAL")
    assert journal_mode(tmp_path / NAME) == {2}
    before = names(tmp_path)
    sink = Sink(tmp_path / NAME)
    assert sink.look()
    assert sink.receipts() != []
    assert names(tmp_path) == before
    sink.abandon()
    assert names(tmp_path) == before


def test_a_part_that_somebody_reads_is_not_named(begun, tmp_path):
    """Its log would be left behind: the next run names it, once the reader has closed it."""
    sink = begun(Sink(tmp_path / NAME), 3)
    with closing(sqlite3.connect(tmp_path / f"{NAME}.part")) as reader:
        reader.execute("SELECT count(*) FROM call_records").fetchone()
        sink._database.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(OutputLockedError):
            finished(sink)
        sink.abandon()
    assert not (tmp_path / NAME).exists()
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, CLAIM).entries == [entry(3)]
    end(sink)
    assert rows(tmp_path / NAME, "SELECT id FROM call_records") == [("3",)]


def test_another_programs_transaction_locks_it(tmp_path, monkeypatch):
    """A database that another program is writing is reported as locked, not broken."""
    monkeypatch.setattr("servetel_async.sinks.databases.sqlite._PATIENCE", 0.01)
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputLockedError):
            open_for(Sink(tmp_path / NAME), CLAIM)


def test_a_full_disk_is_an_output_error(save, begun, batch_of, tmp_path):
    """The error says so, and neither the window's calls nor its entry are there."""
    save(b'{"id":"9"}')
    sink = begun(Sink(tmp_path / NAME))
    (pages,) = sink._database.execute("PRAGMA page_count").fetchone()
    sink._database.execute(f"PRAGMA max_page_count = {pages}")
    many = batch_of(*(b'{"id":"x%d","notes":"%s"}' % (index, b"n" * 9_000) for index in range(50)))
    with pytest.raises(OutputError, match="disk is full"):
        sink.commit(many, span(2), entry(2))
    sink.abandon()
    assert rows(tmp_path / NAME, "SELECT id FROM call_records") == [("9",)]
    assert rows(tmp_path / NAME, "SELECT first FROM servetel_ledger") == [(span(1).first,)]


@contextmanager
def full(sink):
    """Let no file grow once SQLite has to fold in its log."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def trace(statement):
        if "wal_checkpoint" in statement or "journal_mode = DELETE" in statement:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    sink._database.set_trace_callback(trace)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_be_folded_in_is_told(save, begun, tmp_path):
    """The disk is full: the error says that the database is written, with its -wal beside it."""
    save(b'{"id":"9"}')
    sink = begun(Sink(tmp_path / NAME), 1)
    with full(sink), pytest.raises(OutputError, match="is written, but only together"):
        finished(sink)
    sink.abandon()
    assert (tmp_path / f"{NAME}-wal").exists()
    assert len(rows(tmp_path / NAME)) == 2


def test_a_new_database_that_cannot_be_folded_gets_no_name(begun, tmp_path):
    """It is incomplete without its log; the next run names it."""
    sink = begun(Sink(tmp_path / NAME), 1)
    with full(sink), pytest.raises(OutputError, match="cannot be written"):
        finished(sink)
    sink.abandon()
    assert not (tmp_path / NAME).exists()
    assert rows(tmp_path / f"{NAME}.part", "SELECT id FROM call_records") == [("1",)]


def test_a_trigger_on_a_table_of_ours_is_refused(tmp_path):
    """It would run with each call that is written."""
    target = tmp_path / "a.db"
    sink = SqliteSink(target)
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    end(sink)
    with closing(sqlite3.connect(target)) as database:
        database.execute("CREATE TRIGGER theirs AFTER INSERT ON call_records BEGIN DELETE FROM servetel_ledger; END")
    with pytest.raises(OutputError, match="holds a trigger theirs"):
        open_for(SqliteSink(target), CLAIM)
