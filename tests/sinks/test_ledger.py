"""The ledger of a database: one fact per reading, and a seal of the rows that it wrote last."""

from __future__ import annotations

import asyncio
import importlib
import random
import sqlite3
from contextlib import closing

import pytest

from servetel_async import OutputError, OutputLockedError
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.sink import PullIdentity, Seal, Span
from servetel_async.sinks.table.columns import COLUMNS
from tests.sinks.life import finished, open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

CLAIM = PullIdentity("pull", "scope", "one")
OTHER = PullIdentity("pull", "scope", "two")
EMPTY = Seal(0, "0" * 16)
CALLS = (
    b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57","call_duration":54}',
    b'{"id":"4","charges":0.1,"support_api_call":1,"agent_ring_time":7,"notes":{"a":[1.5,null]},"status":"\xe0\xa4\x86"}',
    b'{"id":"2","charges":1e300,"support_api_call":0,"call_flow":[{"type":"init"}],"description":"","sid":1}',
    b'{"id":"3"}',
)
#: The digests of ``CALLS`` in an account "one": one for each library, the same in each of its versions.
DIGESTS = {"sqlite": "31bfbeece40c768b", "duckdb": "4a0ca83593c1b81e", "postgres": "b570f507cfe49dbf"}


def span(first, last=None):
    return Span(f"2024-05-{first:02} 00:00:00", f"2024-05-{last or first:02} 23:59:59")


def call(number, name="a"):
    return b'{"id":"%d","agent_name":"%s"}' % (number, str(name).encode())


class Files:
    """A database in a file."""

    def __init__(self, path):
        self.target = path
        self._connect = importlib.import_module("duckdb").connect if path.suffix == ".duckdb" else sqlite3.connect

    def sink(self):
        return sink_for(self.target)

    def ask(self, statement):
        with closing(self._connect(str(self.target))) as database:
            rows = database.execute(statement).fetchall()
            database.commit()
            return rows

    def settle(self, sink):
        """Change the settings of a session."""
        if self.target.suffix == ".duckdb":
            sink._run("SET TimeZone = 'America/New_York'")


class Server:
    """A database on a server."""

    def __init__(self, address):
        self.target = address

    def sink(self):
        return sink_for(self.target)

    def ask(self, statement):
        async def go():
            connection = await importlib.import_module("asyncpg").connect(self.target)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        with asyncio.Runner() as runner:
            return runner.run(go())

    def settle(self, sink):
        for setting in ("TimeZone = 'America/New_York'", "extra_float_digits = -15", "bytea_output = 'escape'"):
            sink._do(sink._ask(f"SET {setting}"))


@pytest.fixture(params=["sqlite", "duckdb", "duckdb without pyarrow", "postgres"])
def kind(request):
    return request.param


@pytest.fixture
def database(kind, request, tmp_path, monkeypatch):
    """An empty database of one kind."""
    if kind == "sqlite":
        yield Files(tmp_path / "a.db")
        return
    if kind != "postgres":
        pytest.importorskip("duckdb")
        if kind.endswith("pyarrow"):
            monkeypatch.setitem(importlib.import_module("sys").modules, "pyarrow", None)
        yield Files(tmp_path / "a.duckdb")
        return
    pytest.importorskip("asyncpg")
    server = request.getfixturevalue("postgres_server")
    main = Server(server.address("postgres"))
    main.ask("DROP DATABASE IF EXISTS ledger WITH (FORCE)")
    main.ask("CREATE DATABASE ledger")
    yield Server(server.address("ledger"))
    main.ask("DROP DATABASE ledger WITH (FORCE)")


@pytest.fixture
def opened(database):
    """Open a sink; release all sinks in the end."""
    made = []

    def run(claim=CLAIM):
        made.append(database.sink())
        open_for(made[-1], claim)
        return made[-1]

    yield run
    for sink in made:
        sink.abandon()


@pytest.fixture
def pull(opened, batch_of):
    """Pull to the end: one window for each pair of a span and its calls."""

    def run(*windows, claim=CLAIM, receipt=b'{"destination":"a"}'):
        sink = opened(claim)
        sink.begin(b"{}")
        for number, (where, calls) in enumerate(windows):
            sink.commit(batch_of(*calls), where, b'{"n":%d}' % number)
        finished(sink, receipt)
        sink.abandon()

    return run


@pytest.fixture
def seen(opened):
    """Return the seals of the ledger, and the seals of the rows."""

    def run():
        sink = opened(PullIdentity("", "", ""))
        seals, content = {each.reading: each.seal for each in sink.ledger()}, sink.content()
        sink.abandon()
        return seals, content

    return run


def test_columns(pull, database):
    """A row is a call between its account and its last reading; CSV and Parquet have neither."""
    pull((span(1), [call(1)]), (span(2), [call(2)]))
    names = [column.name for column in COLUMNS]
    assert names[0] == "id"
    assert not {"account", "reading"} & set(names)
    rows = database.ask("SELECT * FROM call_records ORDER BY id")
    assert [(row[0], row[1], row[-1]) for row in rows] == [("one", "1", 1), ("one", "2", 2)]
    assert len(rows[0]) == len(names) + 2


def test_a_fact_is_kept_as_it_was_given(pull, opened):
    """Account, scope, pull, window and fact come back, the oldest reading first."""
    pull((span(2), [call(1)]), (span(1), [call(2), call(3)]))
    pull((span(3), []), claim=PullIdentity("another", "scope two", "two"))
    found = opened().ledger()
    assert [each[:6] for each in found] == [
        (1, "one", "scope", "pull", span(2), b'{"n":0}'),
        (2, "one", "scope", "pull", span(1), b'{"n":1}'),
        (3, "two", "scope two", "another", span(3), b'{"n":0}'),
    ]
    assert [each.seal.rows for each in found] == [1, 2, 0]
    assert found[2].seal == EMPTY
    assert repr(found[0]) == "<Stored 1: 2024-05-02 00:00:00 to 2024-05-02 23:59:59, 1 rows>"


def test_rows_that_nothing_has_touched_agree(pull, seen):
    """The seals agree with the rows."""
    pull((span(1), CALLS), (span(2), []))
    seals, content = seen()
    assert seals == content
    assert seals[1].rows == len(CALLS)
    assert seals[2] == EMPTY


@pytest.mark.parametrize("kind", ["sqlite", "postgres"], indirect=True)  # DuckDB locks readers out meanwhile
def test_who_looks_sees_rows_and_ledger_of_one_moment(pull, opened, database, batch_of):
    """A window that is written between the two reads is in neither."""
    pull((span(1), [call(1), call(2)]))
    sink, reader = opened(), database.sink()
    sink.begin(b"{}")
    assert reader.look()
    try:
        seals = {each.reading: each.seal for each in reader.ledger()}
        sink.commit(batch_of(call(1, "b"), call(3)), span(2), b"{}")
        assert reader.content() == seals
    finally:
        reader.abandon()


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_what_is_read_without_locks_is_refused_if_a_run_writes_it_meanwhile(pull, database):
    """A database left in write-ahead mode has no log, and a reader must not create one."""
    pull((span(1), [call(1), call(2)]))
    database.ask("PRAGMA journal_mode = WAL")
    assert not database.target.with_name("a.db-wal").exists()
    reader = database.sink()
    assert reader.look()
    try:
        assert len(reader.ledger()) == 1
        pull((span(3), [call(1, "b")]))
        with pytest.raises(OutputLockedError, match="is being written"):
            reader.content()
    finally:
        reader.abandon()


@pytest.mark.parametrize("kind", ["sqlite", "duckdb", "postgres"], indirect=True)
def test_when_the_calls_of_a_reading_began(pull, database):
    """The starts are as the server sent them; None if it sent none."""
    pull((span(1), [call(9)]), (span(2), [CALLS[0]]))
    reader = database.sink()
    assert reader.look()
    assert [reader.stamps(number) for number in (1, 2)] == [[None], ["2024-05-02 19:19:59"]]
    reader.abandon()


def test_digests_are_the_same_in_each_version(pull, seen, kind):
    """A newer library can check a database that an older one wrote."""
    pull((span(1), CALLS))
    assert seen()[0][1] == Seal(4, DIGESTS[kind.split()[0]])


def test_digests_do_not_depend_on_the_session(pull, opened, database):
    """Time zone and number format are settings of a session."""
    pull((span(1), CALLS))
    sink = opened()
    before = sink.content()
    database.settle(sink)
    assert sink.content() == before


def test_digests_do_not_depend_on_the_order(pull, seen):
    """The same calls in another order, over the earlier rows, give the later reading the earlier seal."""
    calls = [call(number) for number in range(300)]
    pull((span(1), calls))
    before = seen()[1][1]
    pull((span(2), calls[199::-1]), (span(3), [call(number, "new") for number in range(150, 300)]))
    pull((span(4), calls[::-1]))
    seals, content = seen()
    assert seals == content
    assert seals[4] == before
    assert {seal for reading, seal in seals.items() if reading != 4} == {EMPTY}


def test_a_call_that_comes_again_belongs_to_the_later_reading(pull, seen):
    """It is no longer a row of the earlier one: 20 rows, not 21."""
    pull((span(1), [call(number) for number in range(10)]), (span(2), [call(number) for number in range(9, 20)]))
    seals, content = seen()
    assert [seals[1].rows, seals[2].rows] == [9, 11]
    assert seals == content


def test_a_call_twice_in_a_window_is_one_row(pull, seen, database):
    """The last one counts, near or far."""
    calls = [call(number % 700, number) for number in range(1_500)]
    pull((span(1), [call(3, "old"), call(9_000)]), (span(2), calls))
    seals, content = seen()
    assert [seals[1].rows, seals[2].rows] == [1, 700]
    assert seals == content
    assert database.ask("SELECT agent_name FROM call_records WHERE id = '3'") == [("1403",)]


@pytest.mark.parametrize("seed", range(2))
def test_seals_are_what_is_there_after_any_commits(opened, batch_of, kind, seed):
    """After each commit of repeated, doubled or changed calls of two accounts the seals agree."""
    rng = random.Random(f"{kind}{seed}")
    truth = {}
    for claim in (CLAIM, OTHER) * 3:
        sink = opened(claim)
        sink.begin(b"{}")
        for _ in range(4):
            numbers = [rng.randrange(40) for _ in range(rng.randrange(12))]
            calls = [(number, rng.choice("abc")) for number in numbers]
            first = rng.randrange(1, 20)
            sink.commit(batch_of(*(call(*each) for each in calls)), span(first, first + rng.randrange(8)), b"{}")
            truth |= {(claim.account, number): name for number, name in calls}
            found = sink.ledger()
            assert {each.reading: each.seal for each in found} == sink.content()
            assert sum(each.seal.rows for each in found) == len(truth)
            assert [each.reading for each in found] == sorted({each.reading for each in found})
        finished(sink)
        sink.abandon()


def test_two_accounts_have_rows_of_their_own(pull, seen, database):
    """Both have a call of one id: neither call is lost, and neither changes the other's seal."""
    pull((span(1), [call(1, "a")]))
    pull((span(1), [call(1, "b"), call(2, "b")]), claim=OTHER)
    assert database.ask("SELECT account, id, agent_name FROM call_records ORDER BY account, id") == [
        ("one", "1", "a"),
        ("two", "1", "b"),
        ("two", "2", "b"),
    ]
    seals, content = seen()
    assert [seals[1].rows, seals[2].rows] == [1, 2]
    assert seals == content


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("DELETE FROM call_records WHERE id = '1'", {1}),
        ("DELETE FROM call_records", {1, 2}),
        ("UPDATE call_records SET agent_name = 'x' WHERE id = '1'", {1}),
        ("UPDATE call_records SET agent_name = NULL WHERE id = '1'", {1}),
        ("UPDATE call_records SET status = '' WHERE id = '1'", {1}),
        ("UPDATE call_records SET charges = 0 WHERE id = '2'", {1}),
        ("UPDATE call_records SET account = 'two' WHERE id = '5'", {2}),
        ("UPDATE call_records SET agent_name = status, status = agent_name WHERE id = '1'", {1}),
        ("UPDATE call_records SET reading = 2 WHERE id = '1'", {1, 2}),
        ("UPDATE call_records SET reading = 77 WHERE id = '1'", {0, 1}),
        ("INSERT INTO call_records (account, id) VALUES ('one', 'mine')", {0}),
        ("DELETE FROM servetel_ledger WHERE reading = 2", {0, 2}),
    ],
)
def test_what_others_change_shows(pull, seen, database, change, wrong):
    """A row that is deleted, added, changed or moved, and a deleted fact, are found."""
    pull((span(1), [call(1), call(2)]), (span(2), [call(5)]))
    before, _ = seen()
    database.ask(change)
    _, content = seen()
    assert {reading for reading in {*before, *content} if before.get(reading) != content.get(reading)} == wrong


def test_a_window_that_is_read_again_makes_good_what_others_changed(pull, seen, database):
    """Changed and deleted rows are written again, and every seal agrees."""
    calls = [call(1), call(2), call(3)]
    pull((span(1), calls))
    database.ask("UPDATE call_records SET agent_name = 'x' WHERE id = '1'")
    database.ask("DELETE FROM call_records WHERE id = '2'")
    pull((span(1), calls))
    seals, content = seen()
    assert seals == content == {2: seals[2]}
    assert seals[2].rows == 3


def test_an_earlier_reading_without_rows_goes(pull, seen):
    """A later one of the same seconds, account and query has taken its rows, or it had none."""
    pull((span(1), [call(1)]), (span(2), []), (span(1, 2), [call(1), call(2)]))
    assert seen()[0].keys() == {3}


def test_an_earlier_reading_with_rows_stays(pull, seen):
    """The later reading lacks one of its calls: the fact still describes an existing row."""
    pull((span(1), [call(1), call(2)]), (span(1, 2), [call(2)]))
    seals, content = seen()
    assert {reading: seal.rows for reading, seal in seals.items()} == {1: 1, 2: 1}
    assert seals == content


@pytest.mark.parametrize(
    "later",
    [OTHER, PullIdentity("another", "scope two", "one"), PullIdentity("another", "scope", "one")],
    ids=["another account", "another query", "another pull"],
)
def test_readings_of_others_stay(pull, seen, later):
    """An empty window of another account, query or pull says nothing about this one."""
    pull((span(1), []))
    pull((span(1), []), claim=later)
    assert seen()[0] == {1: EMPTY, 2: EMPTY}


def test_a_window_that_only_overlaps_stays(pull, seen):
    """Some of its seconds were not read again."""
    pull((span(1, 2), []))
    pull((span(2, 3), []), claim=PullIdentity("b", "scope", "one"))
    assert seen()[0] == {1: EMPTY, 2: EMPTY}


def test_begin_keeps_all_facts(pull, opened):
    """A pull that begins anew keeps its earlier facts, even those without calls."""
    pull((span(1), [call(1)]), (span(2), []))
    pull((span(3), []), claim=PullIdentity("another", "scope", "one"))
    pull((span(4), []), claim=OTHER)
    sink = opened()
    sink.begin(b"{}")
    assert [each.reading for each in sink.ledger()] == [1, 2, 3, 4]


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_pull_has_the_facts_of_its_own_run(pull, opened, batch_of, database, keep):
    """A finished pull is begun again and interrupted: the facts of the first run are not resumed."""
    pull((span(1), [call(1)]), (span(2), [call(2)]))
    sink = opened()
    sink.begin(b'{"h":2}', keep=keep)
    sink.commit(batch_of(call(3)), span(3), b'{"n":"new"}')
    sink.abandon()
    again = database.sink()
    assert open_for(again, CLAIM) == (b'{"h":2}', [b'{"n":"new"}'])
    again.abandon()


def test_an_interrupted_pull_of_another_account_is_not_resumed(pull, opened, batch_of, database):
    """With the same command each account has its own pull."""
    pull((span(1), [call(1)]))
    sink = opened()
    sink.begin(b'{"of":"one"}')
    sink.commit(batch_of(call(3)), span(3), b'{"n":3}')
    sink.abandon()
    sink = database.sink()
    assert open_for(sink, OTHER) is None
    sink.begin(b'{"of":"two"}')
    sink.abandon()
    for claim, header in ((CLAIM, b'{"of":"one"}'), (OTHER, b'{"of":"two"}')):
        sink = database.sink()
        assert open_for(sink, claim).header == header
        sink.abandon()


def receipt(number):
    return b'{"destination":"%d"}' % number


def test_the_last_receipt_of_each_pull(pull, opened):
    """Each pull of each account has one receipt, its last; the newest comes first."""
    pull(receipt=receipt(1))
    pull(receipt=receipt(2), claim=OTHER)
    pull(receipt=receipt(3), claim=PullIdentity("another", "scope", "one"))
    pull(receipt=receipt(4))
    sink = opened()
    assert sink.receipts() == [receipt(4), receipt(3), receipt(2)]


def test_a_table_that_was_dropped_clears_the_ledger(pull, seen, database):
    """The facts of every account are dropped. The numbers continue."""
    pull((span(1), [call(1)]))
    pull((span(1), [call(1)]), claim=OTHER)
    database.ask("DROP TABLE call_records")
    assert seen() == ({}, {})
    pull((span(1), [call(1)]))
    seals, content = seen()
    assert seals == content
    assert list(seals) == [2]


def test_a_number_is_not_used_twice(pull, seen, database):
    """Rows outlive a dropped ledger: a new reading does not take their number."""
    pull((span(1), [call(1)]), (span(2), [call(2)]))
    database.ask("DROP TABLE servetel_ledger")
    pull((span(3), [call(3)]))
    seals, content = seen()
    assert (list(seals), content[0].rows, content[3]) == ([3], 2, seals[3])


def test_a_table_of_the_version_before_is_refused(database, opened, kind):
    """Its rows have no account, so their owner is unknown."""
    key = "TEXT PRIMARY KEY NOT NULL" if kind == "sqlite" else "TEXT PRIMARY KEY"
    names = ", ".join(f'"{column.name}" {key if column.name == "id" else "TEXT"}' for column in COLUMNS)
    database.ask(f"CREATE TABLE call_records ({names})")
    with pytest.raises(OutputError, match="other columns"):
        opened()


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_text_that_is_no_text(pull, seen, database):
    """Another program wrote invalid UTF-8, which is a change like any other. The other databases refuse it."""
    pull((span(1), [call(1)]))
    database.ask("UPDATE call_records SET agent_name = CAST(x'ff00' AS TEXT)")
    seals, content = seen()
    assert seals[1].rows == content[1].rows == 1
    assert seals != content
    pull((span(1), [call(1)]))
    seals, content = seen()
    assert seals == content
