"""PostgreSQL: a window and its journal entry in one transaction, on a real server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import traceback
from datetime import UTC, datetime

import pytest

from servetel_async import ConfigurationError, OutputError, OutputLockedError, OutputUnavailableError
from servetel_async.sinks import extras as libraries
from servetel_async.sinks.databases.postgres import PostgresSink
from servetel_async.sinks.databases.postgres_errors import explain, is_readable
from servetel_async.sinks.sink import PullIdentity, Span
from servetel_async.sinks.table.columns import COLUMNS
from tests.sinks.life import finished, open_for
from tests.sinks.postgres_server import postgres_server  # noqa: F401 - a fixture

asyncpg = pytest.importorskip("asyncpg")

CLAIM = PullIdentity("pull", "scope", "account")
#: Too long for a key, and not compressible.
NOISE = hashlib.shake_256(b"").hexdigest(10_000)
DAY = Span("2024-05-01 00:00:00", "2024-05-01 23:59:59")


def span(number):
    return Span(f"2024-05-{number:02} 00:00:00", f"2024-05-{number:02} 23:59:59")


@pytest.fixture
def ask(postgres_server):  # noqa: F811
    """Query a database of the server as the superuser, or as the given user; returns its rows."""

    def run(statement, *values, database="postgres"):
        async def go():
            connection = await asyncpg.connect(postgres_server.address(database))
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()

        with asyncio.Runner() as runner:
            return runner.run(go())

    return run


@pytest.fixture
def database(postgres_server, ask):  # noqa: F811
    """The name of an empty database."""
    ask("DROP DATABASE IF EXISTS calls WITH (FORCE)")
    ask("CREATE DATABASE calls")
    yield "calls"
    ask("DROP DATABASE calls WITH (FORCE)")


@pytest.fixture
def rows(ask, database):
    return lambda statement, *values: ask(statement, *values, database=database)


@pytest.fixture
def sinks(postgres_server, database):  # noqa: F811
    """Make sinks for the empty database, and release them in the end."""
    made = []

    def make(address=None):
        sink = PostgresSink(address or postgres_server.address(database))
        made.append(sink)
        return sink

    yield make
    for sink in made:
        sink.abandon()


@pytest.fixture
def save(sinks, batch_of):
    """Write one window of calls, and finish."""

    def run(*lines):
        sink = sinks()
        open_for(sink, CLAIM)
        sink.begin(b'{"h":1}')
        sink.commit(batch_of(*lines), DAY, b'{"n":1}')
        finished(sink)
        sink.abandon()
        return sink

    return run


CALL = (
    b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57","call_duration":54,'
    b'"charges":0.5,"support_api_call":1,"agent_ring_time":7,"notes":{"a":[1]}}'
)


def test_a_call_becomes_a_typed_row(save, rows):
    """Numbers are numbers, moments are moments, nested values are JSON, and missing ones are NULL."""
    save(CALL)
    (row,) = rows(
        "SELECT started_at, ended_at, call_duration, charges, support_api_call, agent_ring_time, agent_name, extra "
        "FROM call_records"
    )
    started, ended = datetime(2024, 5, 2, 13, 49, 59, tzinfo=UTC), datetime(2024, 5, 2, 13, 50, 57, tzinfo=UTC)
    assert row == (started, ended, 54, 0.5, True, "7", None, None)


def test_json_can_be_queried(save, rows):
    """Nested values are jsonb, and so is plain text in an open field."""
    save(CALL, b'{"id":"2","notes":"plain \\"text\\""}')
    assert rows("SELECT notes #>> '{a,0}' FROM call_records WHERE id = '1'") == [("1",)]
    assert rows("SELECT notes #>> '{}' FROM call_records WHERE id = '2'") == [('plain "text"',)]


def test_every_value_of_realistic_calls(sinks, rows, realistic, expected):
    """For 250 calls in every odd form, each column holds the value of the server's JSON."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(realistic, DAY, b"{}")
    lines = {str(json.loads(line)["id"]): line for line in realistic.lines}
    kinds = dict(
        rows(
            "SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_name = $1",
            "call_records",
        )
    )
    found = rows(f"SELECT {', '.join(column.name for column in COLUMNS)} FROM call_records")
    assert {row[0] for row in found} == set(lines)
    for row in found:
        for column, value in zip(COLUMNS, row, strict=True):
            wanted = expected(lines[row[0]], column.name)
            if kinds[column.name] == "jsonb" and value is not None:
                value = json.loads(value)
            if column.name == "agent_ring_time" and wanted is not None:
                wanted = str(wanted)
            if column.name == "circle" and value is not None:
                wanted = {"operator": None, "circle": None} | wanted
            assert value == wanted, column.name


def test_hostile_calls_are_all_written(sinks, rows, hostile):
    """Texts and numbers that harm some reader do not keep a window from being committed."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(hostile, DAY, b"{}")
    (count,) = rows("SELECT count(*) FROM call_records")
    assert count == (len({record.id.replace("\0", "\ufffd") for record in hostile.records()}),)


def test_nul_becomes_the_replacement_character(save, rows):
    """PostgreSQL accepts no NUL in texts or JSON; an escaped backslash before u0000 is not one."""
    save(rb'{"id":"1","agent_name":"a\u0000b","notes":"c\u0000d","call_flow":[{"name":"e\u0000f\\u0000g\u2028"}]}')
    assert rows("SELECT agent_name, notes #>> '{}', call_flow #>> '{0,name}' FROM call_records") == [
        ("a\ufffdb", "c\ufffdd", "e\ufffdf\\u0000g\u2028")
    ]


def test_surrogates_in_json_are_pairs_or_replaced(save, rows):
    """A pair becomes its character; a lone half becomes the replacement character."""
    save(rb'{"id":"1","call_flow":[{"name":"\ud83d\ude00 \ud800x \udc00"}]}')
    ((name,),) = rows("SELECT call_flow #>> '{0,name}' FROM call_records")
    assert name == "\U0001f600 \ufffdx \ufffd"


@pytest.mark.parametrize("number", ["1e200000", "-1E-99999", "9" * 140_000], ids=["large", "small", "long"])
def test_numbers_that_numeric_cannot_hold_become_texts(save, rows, number):
    """JSON numbers have no bounds, PostgreSQL's have: such a number is kept as text."""
    save(b'{"id":"1","call_flow":[{"value":"1e200000","odd":%s}]}' % number.encode())
    ((value, odd),) = rows("SELECT call_flow #>> '{0,value}', call_flow -> 0 -> 'odd' FROM call_records")
    assert (value, json.loads(odd)) == ("1e200000", number)


def test_moments_outside_of_the_calendar_are_null(save, rows):
    """The first second of year 1 in India does not exist in UTC; its date stays as sent."""
    save(b'{"id":"1","date":"0001-01-01","time":"00:00:00","end_stamp":"9999-12-31 23:59:59"}')
    ((started, ended, date),) = rows("SELECT started_at, ended_at, date FROM call_records")
    assert (started, ended.year, date) == (None, 9999, "0001-01-01")


def test_a_long_number_is_no_trouble_for_an_index(save, rows):
    """An indexed column accepts a text that is too long for a B-tree."""
    text = NOISE
    save(b'{"id":"1","client_number":"%s"}' % text.encode())
    assert rows("SELECT client_number FROM call_records WHERE client_number = $1", text) == [(text,)]


def test_an_id_that_is_too_long_is_said(sinks, batch_of, rows):
    """PostgreSQL limits the length of a key: the error says so, and no call of the window is there."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    with pytest.raises(OutputError, match="longer than PostgreSQL allows"):
        sink.commit(batch_of(b'{"id":"1"}', b'{"id":"%s"}' % NOISE.encode()), DAY, b"{}")
    assert rows("SELECT count(*) FROM call_records") == [(0,)]


def test_ids_that_become_one_are_one_row(save, rows):
    """Two ids that differ only in NUL and its replacement: the last call is kept, without an error."""
    save(rb'{"id":"a\u0000","agent_name":"first"}', '{"id":"a\ufffd","agent_name":"last"}'.encode())
    assert rows("SELECT id, agent_name FROM call_records") == [("a\ufffd", "last")]


def test_sql_in_a_name_is_text(save, rows):
    """Values are bound, never pasted into SQL."""
    name = "x'); DROP TABLE call_records; --\t\\N"
    save(json.dumps({"id": "1", "agent_name": name}).encode())
    assert rows("SELECT agent_name FROM call_records") == [(name,)]


def test_an_existing_table_is_kept_current(save, rows):
    """A known call gets its new values, a new one is added, and all others stay."""
    save(b'{"id":"1","agent_name":"old"}', b'{"id":"2"}')
    save(b'{"id":"1","agent_name":"new"}', b'{"id":"3"}')
    assert rows("SELECT id, agent_name FROM call_records ORDER BY id") == [("1", "new"), ("2", None), ("3", None)]


def test_one_call_twice_in_a_window(save, rows):
    """The last one counts."""
    save(b'{"id":"1","agent_name":"first"}', b'{"id":"1","agent_name":"last"}')
    assert rows("SELECT agent_name FROM call_records") == [("last",)]


def test_the_columns_people_search_are_indexed(save, rows):
    """started_at and the three numbers each have an index."""
    save(CALL)
    names = {name for (name,) in rows("SELECT indexname::text FROM pg_indexes WHERE tablename = 'call_records'")}
    assert names >= {f"call_records_{name}" for name in ("started_at", "client_number", "agent_number", "did_number")}


def test_a_pull_that_was_killed_is_gone_on_from(sinks, batch_of, rows):
    """Header and facts come back in the order of their commits."""
    first = sinks()
    assert open_for(first, CLAIM) is None
    first.begin(b'{"h":1}')
    for number in (3, 1, 2):
        first.commit(batch_of(b'{"id":"%d"}' % number), span(number), b'{"n":%d}' % number)
    first._connection.terminate()
    second = sinks()
    saved = open_for(second, CLAIM)
    assert (saved.header, saved.entries) == (b'{"h":1}', [b'{"n":3}', b'{"n":1}', b'{"n":2}'])
    second.commit(batch_of(b'{"id":"5"}'), span(4), b'{"n":4}')
    assert rows("SELECT fact FROM servetel_ledger ORDER BY reading")[-1] == ('{"n":4}',)


def test_another_pull_is_not_gone_on_from(sinks):
    """The state of one pull is not that of another, and fresh ignores any state."""
    first = sinks()
    open_for(first, CLAIM)
    first.begin(b"{}")
    first.abandon()
    second = sinks()
    assert open_for(second, PullIdentity("other", "scope", "account")) is None
    second.abandon()
    assert open_for(sinks(), CLAIM, fresh=True) is None


def test_no_receipt_at_first(sinks):
    """A database has no receipt before a pull has ended."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    assert sink.receipts() == []


def test_the_receipt_knows_the_size_of_the_table(sinks, batch_of):
    """A server's table has no digest, and no path for files beside it."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(batch_of(CALL), span(1), b"{}")
    output = finished(sink)
    assert output.size > 0
    assert (output.sha256, output.files, sink.place) == (None, {}, None)
    sink.abandon()


def test_two_writers_on_one_database(sinks):
    """The second one fails at once, and works after the first has released its lock."""
    first, second = sinks(), sinks()
    open_for(first, CLAIM)
    with pytest.raises(OutputLockedError):
        open_for(second, CLAIM)
    first.abandon()
    open_for(second, CLAIM)


def test_a_lost_connection_says_how_to_go_on(sinks, batch_of, ask, rows):
    """The server ends the connection: the error names the same command, and no call of the window is there."""
    sink = sinks()
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'calls'")
    with pytest.raises(OutputUnavailableError, match=r"was lost.*same command"):
        sink.commit(batch_of(CALL), DAY, b"{}")
    assert rows("SELECT count(*) FROM call_records") == [(0,)]


def test_an_abandoned_sink_can_be_abandoned_again(sinks):
    """Abandoning never raises, with or without a connection."""
    sink = sinks()
    sink.abandon()
    open_for(sink, CLAIM)
    sink._connection.terminate()
    sink.abandon()
    sink.abandon()


def test_a_server_that_is_not_there(unused_tcp_port, sinks):
    """An output error comes before any request."""
    with pytest.raises(OutputUnavailableError, match="cannot be reached"):
        open_for(sinks(f"postgresql://u:s3cret@127.0.0.1:{unused_tcp_port}/calls"), CLAIM)


def test_a_database_that_is_not_there(sinks, postgres_server):  # noqa: F811
    """The error names it, and says what to do."""
    with pytest.raises(OutputError, match=r"nowhere on 127\.0\.0\.1 does not exist"):
        open_for(sinks(postgres_server.address("nowhere")), CLAIM)


def test_a_database_that_cannot_hold_every_letter_is_refused(sinks, postgres_server, ask):  # noqa: F811
    """The fix creates one that can; no table is made in this one."""
    ask("DROP DATABASE IF EXISTS latin WITH (FORCE)")
    ask("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(OutputError, match="LATIN1") as caught:
            open_for(sinks(postgres_server.address("latin")), CLAIM)
        assert "createdb -E UTF8" in caught.value.fix
        assert ask("SELECT count(*) FROM pg_class WHERE relname = 'call_records'", database="latin") == [(0,)]
    finally:
        ask("DROP DATABASE latin WITH (FORCE)")


def test_a_server_without_tls(sinks, postgres_server):  # noqa: F811
    """The error says that TLS is missing, not the server."""
    with pytest.raises(OutputError, match="offers no TLS") as caught:
        open_for(sinks(postgres_server.address("calls") + "?sslmode=require"), CLAIM)
    assert type(caught.value) is OutputError


@pytest.mark.parametrize("secret", ["se/cret", "se#cret", "se?cret", "12/se@cret", "12?se@cret", "[secret"])
@pytest.mark.parametrize("do", ["open", "look"])
def test_a_password_that_is_not_encoded(sinks, secret, do):
    """It splits the address: the error says what to do, and shows no part of the password."""
    sink = sinks(f"postgresql://user:{secret}@127.0.0.1:1/calls")
    with pytest.raises(OutputError, match=r"(?i)percent-encode") as caught:
        open_for(sink, CLAIM) if do == "open" else sink.look()
    assert "cret" not in _all_of(caught.value)


@pytest.mark.parametrize(
    "address",
    [  # each in another form
        "postgresql://u:p%2Fw@db:5432/calls?sslmode=disable",
        "postgresql:///calls?user=me@corp",
        "postgresql://a:1,b:2/calls",
        "postgresql://u@[::1]:5432/calls",
        "postgres://db",
    ],
)
def test_addresses_that_can_be_read(address):
    """Several hosts, an IPv6 address, or a user with an @ among the options are allowed."""
    assert is_readable(address)


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
@pytest.mark.parametrize("name", ["call_records", "servetel_pulls"])
def test_a_view_in_the_place_of_a_table_is_named(sinks, rows, kind, name):
    """No call can be written to a view; no table is made beside it."""
    rows("CREATE TABLE theirs (id integer)")
    rows(f"CREATE {kind} {name} AS SELECT * FROM theirs")
    with pytest.raises(OutputError, match=f"holds a {kind.lower()} {name}"):
        open_for(sinks(), CLAIM)
    assert rows("SELECT count(*) FROM pg_class WHERE relname LIKE 'servetel_ledger'") == [(0,)]


def test_looking_creates_nothing(sinks, rows, save):
    """An empty database stays empty; in one of ours the receipt can be read, and nothing can be written."""
    sink = sinks()
    assert not sink.look()
    sink.abandon()
    assert rows("SELECT count(*) FROM pg_class WHERE relname ~ '^(servetel|call)_'") == [(0,)]
    save(CALL)
    sink = sinks()
    assert sink.look()
    assert [each.fact for each in sink.ledger()] == [b'{"n":1}']
    assert sink.receipts() == [b'{"destination":"a"}']
    with pytest.raises(OutputError, match="read-only"):
        sink._do(sink._connection.execute("CREATE TABLE more ()"))


def test_looking_is_in_no_runs_way(sinks):
    """A database can be read while a run holds its lock."""
    open_for(sinks(), CLAIM)
    assert sinks().look()


def test_a_server_without_a_connection_left(sinks, ask):
    """The error is temporary: the documented loop tries again."""
    ask("DROP ROLE IF EXISTS single")
    ask("CREATE ROLE single LOGIN PASSWORD 's' CONNECTION LIMIT 0")
    sink = sinks()
    address = str.__str__(sink._address).split("@")[1]
    with pytest.raises(OutputUnavailableError, match="no connection left"):
        open_for(sinks(f"postgresql://single:s@{address}"), CLAIM)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (asyncpg.CannotConnectNowError(), OutputUnavailableError, "starting, stopping or recovering"),
        (asyncpg.AdminShutdownError(), OutputUnavailableError, "shutting down"),
        (asyncpg.CrashShutdownError(), OutputUnavailableError, "restarting after a crash"),
        (asyncpg.LockNotAvailableError(), OutputUnavailableError, "locked a table"),
        (asyncpg.DeadlockDetectedError(), OutputUnavailableError, "same tables"),
        (asyncpg.SerializationError(), OutputUnavailableError, "same rows"),
        (asyncpg.ConnectionDoesNotExistError(), OutputUnavailableError, "ended the connection"),
        (TimeoutError(), OutputUnavailableError, "did not answer in time"),
        (FileNotFoundError(), OutputUnavailableError, "no server listens there now"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), OutputUnavailableError, "ended the connection"),
        (socket.gaierror(socket.EAI_NONAME, "x"), OutputError, "host name is not known"),
        (ssl.SSLCertVerificationError(), OutputError, "certificate is not trusted"),
        (asyncpg.ReadOnlySQLTransactionError(), OutputError, "standby"),
        (asyncpg.InvalidAuthorizationSpecificationError(), OutputError, "without TLS"),
        (asyncpg.InterfaceError(""), OutputError, "options contradict"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_passes_is_told_from_what_lasts(error, kind, said):
    """A temporary error exits with code 5, so that a loop tries again; a lasting one with 2."""
    explained = explain(error, asyncpg, "x", connected=False)
    assert type(explained) is kind
    assert said in explained.why


@pytest.mark.parametrize("option", ["?sslmode=nonsense", "?target_session_attrs=nonsense"])
def test_an_address_that_cannot_be_read(sinks, postgres_server, option):  # noqa: F811
    """The driver refuses it: an output error without the address."""
    with pytest.raises(OutputError) as caught:
        open_for(sinks(postgres_server.address("calls") + option), CLAIM)
    assert postgres_server.password not in _all_of(caught.value)


def test_a_wrong_password_is_nowhere_in_the_error(sinks, postgres_server):  # noqa: F811
    """Neither its text nor its traceback holds the password."""
    with pytest.raises(OutputError, match="User or password is wrong") as caught:
        open_for(sinks(postgres_server.address("calls", password="s3cret-word")), CLAIM)
    said = _all_of(caught.value)
    assert "s3cret-word" not in said
    assert "puller" not in str(caught.value)


def _all_of(error):
    """Everything that an error report could print: texts, causes, and the locals of each frame but the test's."""
    error.__traceback__ = error.__traceback__.tb_next
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("postgresql://user:pass@db.example:5433/calls?sslmode=require", "the PostgreSQL database calls on db.example"),
        ("postgresql:///calls", "the PostgreSQL database calls on this computer"),
        ("postgresql://user:pass@db.example", "the PostgreSQL database of this user on db.example"),
        ("postgresql://user:pa/ss@db.example/calls", "a PostgreSQL database"),
        ("postgresql://user:pa#ss@db.example/calls", "a PostgreSQL database"),
        ("postgresql://user:pa?ss@db.example/calls", "a PostgreSQL database"),
        ("postgresql://user:12/pa@ss@db.example/calls", "a PostgreSQL database"),
        ("postgresql://user:12#ss@db.example/calls", "a PostgreSQL database"),
        ("postgresql://user:pass@[db/calls", "a PostgreSQL database"),
        ("postgresql://db.example/ca\x1b[31mlls", "a PostgreSQL database"),
    ],
)
def test_the_name_holds_no_password(address, name):
    """It has the database and the host, or neither if the password was not quoted."""
    sink = PostgresSink(address)
    assert sink.name == name
    assert repr(sink._address) == "***"


def test_another_table_of_that_name_is_refused(sinks, rows):
    """A table with other columns belongs to another program, and stays unchanged."""
    rows("CREATE TABLE call_records (id integer)")
    with pytest.raises(OutputError, match="other columns"):
        open_for(sinks(), CLAIM)
    assert rows("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'servetel%'") == [(0,)]


def test_a_user_who_may_not_write(sinks, postgres_server, ask, rows):  # noqa: F811
    """The error comes before any request."""
    ask("DROP ROLE IF EXISTS reader")
    ask("CREATE ROLE reader LOGIN PASSWORD 'r'")
    with pytest.raises(OutputError, match="This user may not"):
        open_for(sinks(f"postgresql://reader:r@127.0.0.1:{postgres_server.port}/calls"), CLAIM)


def test_a_disk_that_is_full(sinks, batch_of, rows):
    """The error repeats the server's message about its disk."""
    sink = sinks()
    open_for(sink, CLAIM)
    rows(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = 'disk_full'; END $$"
    )
    rows("CREATE TRIGGER full_disk BEFORE INSERT ON call_records FOR EACH ROW EXECUTE FUNCTION fill()")
    sink.begin(b"{}")
    with pytest.raises(OutputError, match="disk is full"):
        sink.commit(batch_of(CALL), DAY, b"{}")
    assert rows("SELECT count(*) FROM servetel_ledger") == [(0,)]


def test_what_the_server_says_of_a_value_is_not_repeated(sinks, batch_of, rows):
    """A user's own constraint fails: its message quotes the row, ours does not."""
    sink = sinks()
    open_for(sink, CLAIM)
    number = "+919812345678"
    rows("ALTER TABLE call_records ADD CONSTRAINT mine CHECK (client_number IS NULL)")
    sink.begin(b"{}")
    with pytest.raises(OutputError, match="CheckViolationError") as caught:
        sink.commit(batch_of(b'{"id":"1","client_number":"%s"}' % number.encode()), DAY, b"{}")
    assert number not in "".join(traceback.format_exception(caught.value))


def test_without_the_driver(monkeypatch):
    """Making the sink raises an error that names the extra to install."""
    monkeypatch.setitem(__import__("sys").modules, "asyncpg", None)
    with pytest.raises(ConfigurationError) as caught:
        PostgresSink("postgresql:///calls")
    assert str(caught.value) == str(libraries.missing("asyncpg", "postgres"))
