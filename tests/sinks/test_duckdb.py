"""DuckDB: a window and its journal entry in one transaction; a new database gets its name when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import traceback
from contextlib import closing
from datetime import UTC, datetime

import pytest

from servetel_async import ConfigurationError, OutputError, OutputLockedError, ResumeMismatchError
from servetel_async.sinks import extras as libraries
from servetel_async.sinks.databases.duckdb import DuckdbSink
from servetel_async.sinks.files.ownership import make_directory
from servetel_async.sinks.sink import PullIdentity, Span
from servetel_async.sinks.table.columns import COLUMNS
from tests.sinks.life import finished, open_for

duckdb = pytest.importorskip("duckdb")

CLAIM = PullIdentity("pull", "scope", "account")
CALL = (
    b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57","call_duration":54,'
    b'"charges":0.5,"support_api_call":1,"agent_ring_time":7}'
)
NAME = "a.duckdb"
Sink = DuckdbSink


def rows(target, sql="SELECT * FROM call_records ORDER BY id"):
    with closing(duckdb.connect(str(target))) as database:
        database.execute("SET TimeZone = 'UTC'")
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


def weigh(word):
    """A word's contribution to the checksum of a header."""
    return int.from_bytes(word, "little") * 0xBF58476D1CE4E5B9 % 2**64


def damage_newer(path):
    """Set a storage version of the far future. It follows the magic, and the magic follows a checksum of all words."""
    data = bytearray(path.read_bytes())
    total = int.from_bytes(data[:8], "little") ^ weigh(data[8:16])
    data[12:16] = (10_000).to_bytes(4, "little")
    data[:8] = (total ^ weigh(data[8:16])).to_bytes(8, "little")
    path.write_bytes(data)


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:5_000])


def damage_block(path):
    data = bytearray(path.read_bytes())
    for start in (4096 + 8, 8192 + 8):  # both headers of the database: DuckDB uses the newer one
        data[start : start + 24] = b"\xa5" * 24
    path.write_bytes(data)


def damage_other(path):
    path.write_bytes(b"SQLite format 3\0" + bytes(8_000))


@pytest.mark.parametrize("damage", [damage_newer, damage_cut, damage_block, damage_other])
def test_a_file_that_duckdb_cannot_read_is_no_database(save, tmp_path, damage):
    """The sink recognises each message: a newer version, a damaged file, or another program's file."""
    save(CALL)
    damage(tmp_path / NAME)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(OutputError, match=r"is no DuckDB database") as caught:
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert caught.value.why == "it is another kind of file, of a newer version, or damaged"
    assert (tmp_path / NAME).read_bytes() == before


def test_a_file_that_may_not_be_written(save, tmp_path):
    """The system refuses it: the error calls it neither damaged nor another kind of file."""
    save(CALL)
    (tmp_path / NAME).chmod(0o400)
    code = (
        "from pathlib import Path; from servetel_async import OutputError; from servetel_async.sinks.sink import PullIdentity\n"
        "from servetel_async.sinks.databases.duckdb import DuckdbSink as Sink\n"
        f"try: Sink(Path({str(tmp_path / NAME)!r})).open()\n"
        "except OutputError as error: print(error.why)"
    )
    rights = "-dac_override,-dac_read_search"  # root would write anyway
    around = ["setpriv", "--inh-caps", rights, "--bounding-set", rights] if os.geteuid() == 0 else []
    done = subprocess.run([*around, sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.stdout, done.stderr) == ("the system does not let us\n", "")


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
    """Numbers are numbers, moments are moments, and what is missing is NULL."""
    save(CALL)
    (row,) = rows(
        tmp_path / NAME,
        "SELECT started_at, ended_at, call_duration, charges, support_api_call, agent_ring_time, agent_name, extra "
        "FROM call_records",
    )
    started, ended = datetime(2024, 5, 2, 13, 49, 59, tzinfo=UTC), datetime(2024, 5, 2, 13, 50, 57, tzinfo=UTC)
    assert row == (started, ended, 54, 0.5, True, "7", None, None)


def test_json_can_be_queried(save, tmp_path):
    """DuckDB's own functions read nested values."""
    save(b'{"id":"1","circle":{"circle":"Delhi"},"missed_agents":[{"a":1}]}')
    found = rows(
        tmp_path / NAME, "SELECT circle ->> '$.circle', json_extract(missed_agents, '$[0].a') FROM call_records"
    )
    assert found == [("Delhi", "1")]


def test_every_value_of_realistic_calls(batch_of, realistic, expected, tmp_path):
    """For 250 calls in every odd form, each column holds the value of the server's JSON."""
    sink = Sink(tmp_path / NAME)
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(realistic, span(1), entry(1))
    end(sink)
    lines = {str(json.loads(line)["id"]): line for line in realistic.lines}
    found = rows(tmp_path / NAME, f"SELECT {', '.join(column.name for column in COLUMNS)} FROM call_records")
    assert {row[0] for row in found} == set(lines)
    for row in found:
        for column, value in zip(COLUMNS, row, strict=True):
            wanted = expected(lines[row[0]], column.name)
            if column.converter is not None and column.name not in ("started_at", "ended_at"):
                value = value if isinstance(wanted, str) or value is None else json.loads(value)
            if column.name == "agent_ring_time" and wanted is not None:
                wanted = str(wanted)
            if column.name == "circle" and value is not None:
                wanted = {"operator": None, "circle": None} | wanted
            assert value == wanted, column.name


def test_many_windows_bring_the_log_into_the_file(begun, batch_of, tmp_path):
    """DuckDB removes and recreates its log meanwhile: it is private each time, whatever the umask."""
    before = os.umask(0)
    try:
        sink = begun(Sink(tmp_path / NAME))
        sink._database.execute("SET wal_autocheckpoint = '10KB'")
        sizes = []
        for number in range(1, 29):
            many = (b'{"id":"%d-%d","agent_name":"%s"}' % (number, row, b"n" * 90) for row in range(40))
            sink.commit(batch_of(*many), span(number), entry(number))
            log = tmp_path / f"{NAME}.part.wal"
            sizes.append(log.exists() and log.stat().st_size)
            assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
        assert not all(sizes)
        end(sink)
    finally:
        os.umask(before)
    assert rows(tmp_path / NAME, "SELECT count(*) FROM call_records") == [(28 * 40,)]


def test_the_process_keeps_its_mask(begun, tmp_path, monkeypatch):
    """All threads share one umask, so the sink never changes it."""
    asked = []
    monkeypatch.setattr(os, "umask", asked.append)
    end(begun(Sink(tmp_path / NAME), 1))
    assert asked == []


def test_a_planted_log_is_refused(save, tmp_path):
    """DuckDB would append calls to the file that the link leads to."""
    save(CALL)
    (tmp_path / f"{NAME}.wal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        open_for(Sink(tmp_path / NAME), CLAIM)
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_run_left_that_was_killed_while_it_made_the_file(begun, tmp_path):
    """The directory in which it made the file is removed."""
    make_directory(tmp_path / f"{NAME}.part.new")
    (tmp_path / f"{NAME}.part.new" / "database").write_bytes(b"")
    end(begun(Sink(tmp_path / NAME), 1))
    assert names(tmp_path) == {NAME, f"{NAME}.receipt.json"}


def test_another_program_that_has_it_open_locks_it(save, tmp_path):
    """DuckDB admits one process: the database is reported as locked, not broken."""
    save(CALL)
    code = f"import duckdb; c = duckdb.connect({str(tmp_path / NAME)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(OutputLockedError, match="Another program has it open"):
            open_for(Sink(tmp_path / NAME), CLAIM)
        other.communicate(b"\n")


def test_a_connection_of_this_process_locks_it(save, tmp_path):
    """DuckDB admits no second connection with other settings."""
    save(CALL)
    with closing(duckdb.connect(str(tmp_path / NAME))), pytest.raises(OutputLockedError):
        open_for(Sink(tmp_path / NAME), CLAIM)


def test_two_sinks_in_two_threads(batch_of, tmp_path):
    """They do not affect each other."""
    targets = [tmp_path / f"{number}.duckdb" for number in range(2)]
    failures = []

    def work(target):
        try:
            sink = Sink(target)
            open_for(sink, CLAIM)
            sink.begin(b"{}")
            for number in range(1, 6):
                sink.commit(batch_of(b'{"id":"%d"}' % number), span(number), entry(number))
            end(sink)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [rows(target, "SELECT count(*) FROM call_records") for target in targets] == [[(5,)], [(5,)]]


def test_a_window_that_fails_is_not_there(begun, batch_of, tmp_path):
    """Its calls and its entry are absent; DuckDB's words about a value are not repeated, not even as cause."""
    sink = begun(Sink(tmp_path / NAME), 3)
    sink._run("CREATE UNIQUE INDEX mine ON call_records (client_number)")
    number = "+919812345678"
    calls = (b'{"id":"%d","client_number":"%s"}' % (index, number.encode()) for index in (7, 8))
    with pytest.raises(OutputError) as caught:
        sink.commit(batch_of(*calls), span(1), entry(1))
    assert number not in "".join(traceback.format_exception(caught.value))
    kill(sink)
    sink = Sink(tmp_path / NAME)
    assert open_for(sink, CLAIM).entries == [entry(3)]
    assert sink._run("SELECT id FROM call_records") == [("3",)]
    sink.abandon()


def test_a_disk_that_is_full_while_the_log_is_brought_in(begun, tmp_path):
    """A new database gets no name then: it would be incomplete."""
    resource = pytest.importorskip("resource")
    sink = begun(Sink(tmp_path / NAME), 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written") as caught:
            finished(sink)
        sink.abandon()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.why == "the disk is full"
    assert not (tmp_path / NAME).exists()
    assert rows(tmp_path / f"{NAME}.part", "SELECT id FROM call_records") == [("3",)]


def test_without_the_library(monkeypatch, tmp_path):
    """Making the sink raises an error that names the extra to install."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigurationError) as caught:
        Sink(tmp_path / NAME)
    assert str(caught.value) == str(libraries.missing("duckdb", "duckdb"))


def test_a_part_that_still_has_the_name_under_which_it_was_made_is_resumed(save, tmp_path):
    """A kill between the two steps of naming leaves the part in its directory too; the next run removes that name."""
    nest = tmp_path / f"{NAME}.part.new"
    make_directory(nest)
    part = tmp_path / f"{NAME}.part"
    duckdb.connect(str(part)).close()
    part.chmod(0o600)
    os.link(part, nest / "database")

    save(CALL)

    assert not nest.exists()
    assert (tmp_path / NAME).stat().st_nlink == 1
