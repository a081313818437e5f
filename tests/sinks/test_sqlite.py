"""SQLite: the table call_records, one transaction per pull, kept current by id."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing

import pytest

from servetel_async import OutputError, OutputLockedError
from servetel_async.sinks.sqlite import SqliteSink

CALL = (
    b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57","call_duration":54,"charges":0}'
)


def save(target, *pages):
    sink = SqliteSink(target)
    sink.open()
    for page in pages:
        sink.write(page)
    sink.commit()
    sink.abandon()
    return sink


def rows(target, sql="SELECT * FROM call_records ORDER BY id"):
    with closing(sqlite3.connect(target)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(sql)]


def test_a_call_becomes_a_typed_row(page_of, tmp_path):
    """Numbers are numbers, moments carry their offset, and what is missing is NULL."""
    save(tmp_path / "a.db", page_of(CALL))
    (row,) = rows(tmp_path / "a.db")
    assert (row["call_duration"], row["charges"], row["agent_name"], row["extra"]) == (54, 0, None, None)
    assert (row["started_at"], row["ended_at"]) == ("2024-05-02T19:19:59+05:30", "2024-05-02T19:20:57+05:30")


def test_nested_values_become_json(page_of, tmp_path):
    """Lists and objects are JSON text, unknown keys are kept in extra, and a plain text stays one."""
    row = b'{"id":"1","circle":{"circle":"Delhi"},"missed_agents":[{"a":1}],"notes":"x","new_key":[1e400,18446744073709551616]}'
    save(tmp_path / "a.db", page_of(row))
    (row,) = rows(tmp_path / "a.db")
    assert json.loads(row["circle"])["circle"] == "Delhi"
    assert json.loads(row["missed_agents"]) == [{"a": 1}]
    assert row["notes"] == "x"
    assert "new_key" in json.loads(row["extra"])


def test_texts_that_databases_dislike_do_no_harm(page_of, tmp_path):
    """NUL, lone surrogates, U+2028 and numbers beyond 64 bits reach the table or extra, and break nothing."""
    nul = b'{"id":"1","agent_name":"a\\u0000b\xe2\x80\xa8","call_duration":99999999999999999999,"notes":99999999999999999999}'
    save(tmp_path / "a.db", page_of(nul), page_of(b'{"id":"2","agent_name":"a\\ud800b"}'))
    first, second = rows(tmp_path / "a.db")
    assert first["agent_name"] == "a\0b\u2028"
    assert (first["call_duration"], first["notes"]) == (None, "99999999999999999999")
    assert second["agent_name"] == "a\ufffdb"


def test_sql_in_a_name_is_text(page_of, tmp_path):
    """Values are bound, never pasted."""
    name = "x'); DROP TABLE call_records; --"
    save(tmp_path / "a.db", page_of(json.dumps({"id": "1", "agent_name": name}).encode()))
    assert rows(tmp_path / "a.db")[0]["agent_name"] == name


def test_an_existing_database_is_kept_current(page_of, tmp_path):
    """A call that is there takes its new values, a new one is added, and all others stay."""
    save(tmp_path / "a.db", page_of(b'{"id":"1","notes":"old"}', b'{"id":"2"}'))
    save(tmp_path / "a.db", page_of(b'{"id":"1","notes":"new"}', b'{"id":"3"}'))
    assert [(row["id"], row["notes"]) for row in rows(tmp_path / "a.db")] == [("1", "new"), ("2", None), ("3", None)]


def test_nothing_is_seen_before_commit(page_of, tmp_path):
    """A reader sees the table as it was; after an abandoned pull it still is."""
    save(tmp_path / "a.db", page_of(b'{"id":"1"}'))
    sink = SqliteSink(tmp_path / "a.db")
    sink.open()
    sink.write(page_of(b'{"id":"2"}'))
    assert len(rows(tmp_path / "a.db")) == 1
    sink.abandon()
    assert len(rows(tmp_path / "a.db")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_new_database_goes_when_it_is_abandoned(page_of, tmp_path):
    """A failed pull leaves no empty database, no log and no lock behind."""
    sink = SqliteSink(tmp_path / "a.db")
    sink.open()
    sink.write(page_of(b'{"id":"1"}'))
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_private(page_of, tmp_path):
    """Database, log and index are 0600 from their first moment, whatever the umask."""
    before = os.umask(0)
    try:
        sink = SqliteSink(tmp_path / "a.db")
        sink.open()
        sink.write(page_of(b'{"id":"1"}'))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        sink.commit()
        sink.abandon()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("a.db", "a.db-shm", "a.db-wal", "a.db.lock"), 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    assert sink.size == (tmp_path / "a.db").stat().st_size


def test_the_columns_people_search_are_indexed(page_of, tmp_path):
    """started_at and the three numbers have an index each."""
    save(tmp_path / "a.db", page_of(CALL))
    names = {row["name"] for row in rows(tmp_path / "a.db", "SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {
        f"call_records_{column}" for column in ("started_at", "client_number", "agent_number", "did_number")
    } <= names


def test_a_file_that_is_no_database_is_refused(tmp_path):
    """Another kind of file is left as it is."""
    (tmp_path / "a.db").write_bytes(b"not a database, but long enough to look like one\n" * 50)
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(OutputError, match="no SQLite database"):
        SqliteSink(tmp_path / "a.db").open()
    assert (tmp_path / "a.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_another_table_of_that_name_is_refused(tmp_path):
    """A table with other columns belongs to another program, and is left as it is."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE call_records (id INTEGER)")
        database.commit()
    with pytest.raises(OutputError, match="other columns"):
        SqliteSink(tmp_path / "a.db").open()
    assert rows(tmp_path / "a.db", "SELECT sql FROM sqlite_master") == [
        {"sql": "CREATE TABLE call_records (id INTEGER)"}
    ]


def test_other_tables_of_a_database_stay(page_of, tmp_path):
    """A database with other tables gets one more."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE mine (a)")
        database.execute("INSERT INTO mine VALUES (1)")
        database.commit()
    save(tmp_path / "a.db", page_of(CALL))
    assert rows(tmp_path / "a.db", "SELECT * FROM mine") == [{"a": 1}]


def test_links_and_directories_are_refused(tmp_path):
    """A planted link is not followed, and a directory is no database."""
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dir.db").mkdir()
    for name in ("link.db", "dir.db"):
        with pytest.raises(OutputError):
            SqliteSink(tmp_path / name).open()
    assert {path.name for path in tmp_path.iterdir()} == {"link.db", "dir.db"}


def test_two_writers_on_one_database(tmp_path):
    """The second pull fails at once."""
    first, second = SqliteSink(tmp_path / "a.db"), SqliteSink(tmp_path / "a.db")
    first.open()
    with pytest.raises(OutputLockedError):
        second.open()
    first.commit()
    first.abandon()


def test_another_programs_transaction_locks_it(tmp_path, monkeypatch):
    """A database that another program is writing is locked, not broken."""
    monkeypatch.setattr("servetel_async.sinks.sqlite._PATIENCE", 0.01)
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputLockedError):
            SqliteSink(tmp_path / "a.db").open()


def test_a_full_disk_is_an_output_error(page_of, tmp_path):
    """SQLite finds no room: the error says so, and the table is as it was."""
    save(tmp_path / "a.db", page_of(b'{"id":"1"}'))
    sink = SqliteSink(tmp_path / "a.db")
    sink.open()
    sink._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(OutputError, match="disk is full"):
        sink.write(page_of(*(b'{"id":"x%d","notes":"%s"}' % (index, b"n" * 9_000) for index in range(50))))
    sink.abandon()
    assert len(rows(tmp_path / "a.db")) == 1


def test_a_log_that_cannot_be_folded_in_is_told(page_of, tmp_path):
    """The disk takes no more after COMMIT: the error says that the output is complete, with its -wal beside it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = SqliteSink(tmp_path / "a.db")
    sink.open()
    sink.write(page_of(CALL))

    def fill(statement):
        if "wal_checkpoint" in statement:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    sink._database.set_trace_callback(fill)
    try:
        with pytest.raises(OutputError, match="written and complete, but only together"):
            sink.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.abandon()
    assert {path.name for path in tmp_path.iterdir()} >= {"a.db", "a.db-wal"}
    assert len(rows(tmp_path / "a.db")) == 1
