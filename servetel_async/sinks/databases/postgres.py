"""PostgreSQL: the table ``call_records``, typed, one row per call, kept current by account and ``id``.

A window is one transaction: COPY into a temporary table, one upsert, its fact and the seals. The run holds an advisory
lock of the database, which ends with its connection. Nested values are ``jsonb``, so that they can be queried.
PostgreSQL takes no NUL and no lone surrogate: U+FFFD replaces them. A number in JSON that its ``numeric`` cannot hold
becomes the text that was sent, and a moment that no UTC date can hold becomes NULL.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.protocol.tokens import Secret
from servetel_async.sinks.databases import journal_table as ledger
from servetel_async.sinks.databases.journal_table import INDEXED, TABLE, Totals, numbered
from servetel_async.sinks.databases.postgres_errors import explain, is_readable, refuse_other_encoding, unreadable
from servetel_async.sinks.databases.postgres_tables import (
    FOREIGN_PARTS,
    KINDS,
    refuse_foreign_parts,
    refuse_other_kinds,
)
from servetel_async.sinks.extras import missing
from servetel_async.sinks.sink import Output, Saved
from servetel_async.sinks.table.columns import COLUMNS, KEY, MOMENTS, flat_records, values_by_name
from servetel_async.sinks.table.timestamps import moments_of, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import tzinfo
    from pathlib import Path

    from servetel_async.sinks.sink import Batch, PullIdentity, Seal, Span, Stored
    from servetel_async.sinks.table.columns import Column

T = TypeVar("T")
#: Seconds for a connection and for a statement of the ledger; a window's COPY may take longer.
_CONNECT, _STATEMENT = 15.0, 300.0
_STAGE = "servetel_stage"
# All escapes of a JSON text, with surrogate pairs and escaped backslashes; of these, NUL and lone surrogates.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_UNHOLDABLE = re.compile(r"u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
# A number that ``numeric`` may not hold: its limit is 131072 digits before the point and 16383 after it.
_EXTREME = re.compile(r"[0-9]{1000}|[0-9][eE][+-]?[0-9]{4}")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)
_encode = msgspec.json.Encoder().encode


def _type(column: Column) -> str:
    if column.name in MOMENTS:
        return "timestamptz"
    if column.converter is not None:  # lists, objects, or values of any shape
        return "jsonb"
    if bool in column.kinds:
        return "boolean"
    if column.kinds >= {int, str}:
        return "text"  # a number, or a text such as N.A.
    if int in column.kinds:
        return "double precision" if float in column.kinds else "bigint"
    return "text"


_COLUMNS = [("account", "text"), *((column.name, _type(column)) for column in COLUMNS), ("reading", "bigint")]
_NAMES = [name for name, _ in _COLUMNS[1:-1]]
# Every name below is a name of this package; no text of a caller or a server becomes SQL.
_DECLARED = ", ".join(f'"{name}" {kind}{" NOT NULL" if name in KEY else ""}' for name, kind in _COLUMNS)
_QUOTED = ", ".join(f'"{name}"' for name in _NAMES)
_INSERT = (
    f"INSERT INTO {TABLE} (reading, account, {_QUOTED}) SELECT $1, $2, {_QUOTED} FROM {_STAGE} "  # noqa: S608
    f"ON CONFLICT ({', '.join(KEY)}) DO "
)
_UPSERT = (
    f"{_INSERT}UPDATE SET "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in ("reading", *_NAMES[1:]))
    + f" WHERE {TABLE}.reading IS DISTINCT FROM excluded.reading"  # rows that this reading inserted are there already
)
# The binary form of a row has the length of each value, knows NULL, and depends on no setting of a session.
_HASH = f"('x' || left(encode(sha256(record_send(ROW(account, {_QUOTED}))), 'hex'), 16))::bit(64)::bigint"
_TOTALS = f"SELECT reading, count(*), sum({_HASH}) FROM {TABLE} WHERE {{}} GROUP BY reading"  # noqa: S608
_OLD = f"reading IS DISTINCT FROM $1 AND account = $2 AND id IN (SELECT id FROM {_STAGE})"  # noqa: S608 - a name of ours


class PostgresSink:
    """A PostgreSQL database. Rows of calls that the pull does not bring stay as they are."""

    keyed_by_id = True
    resumable = True
    done = False
    place: Path | None = None

    def __init__(self, address: str) -> None:
        try:
            self._library: Any = importlib.import_module("asyncpg")
        except ImportError:
            raise missing("asyncpg", "postgres") from None
        self._address = Secret(address)
        self.name = _name_of(address)
        self._runner: asyncio.Runner | None = None
        self._connection: Any = None
        self._claim: PullIdentity | None = None
        self._fresh = False

    def open(self, *, fresh: bool = False) -> None:
        """Connect, take the lock, make the tables; see ``Sink.open``."""
        self._fresh = fresh
        try:
            self._connect()
            self._do(self._open())
        except BaseException:
            self.abandon()
            raise

    def resume(self, claim: PullIdentity) -> Saved | None:
        """Return the state of an interrupted pull; see ``Sink.resume``."""
        self._claim = claim
        return None if self._fresh else self._do(self._saved(claim))

    def _connect(self) -> None:
        if not is_readable(str.__str__(self._address)):
            raise unreadable(self.name)
        self._runner = asyncio.Runner()
        # Replace any error: the errors of the library have the address among their locals.
        self._connection = self._do(self._connected(), any_error=True)

    async def _connected(self) -> Any:
        return await self._library.connect(str.__str__(self._address), timeout=_CONNECT, command_timeout=_STATEMENT)

    async def _open(self) -> None:
        lock = "SELECT pg_try_advisory_lock(hashtext(coalesce(current_schema(), '') || '.call_records'))"
        if not await self._connection.fetchval(lock):
            raise OutputLockedError(
                f"another run is writing {self.name}",
                why="its lock is held by a connection that is alive",
                fix="wait until it has ended",
            )
        await self._check_database()
        await self._prepare()

    async def _saved(self, claim: PullIdentity) -> Saved | None:
        find = f"{ledger.INTERRUPTED} AND account = $1 AND pull = $2"
        found = await self._connection.fetchrow(find, claim.account, claim.pull)
        if found is None:
            return None
        facts = await self._ask(ledger.FACTS, claim.account, claim.pull, found["since"])
        return Saved(ledger.text_of(found["header"]), [ledger.text_of(fact) for (fact,) in facts])

    async def _check_database(self) -> None:
        """Refuse a database that cannot hold calls or has foreign parts, before anything is made or read."""
        refuse_other_encoding(await self._connection.fetchval("SHOW server_encoding"), self.name)
        schema = await self._connection.fetchval("SELECT quote_ident(current_schema())")
        if schema is not None:  # no name of ours is looked for in another schema
            await self._connection.execute(f"SET search_path = {schema}")
        ours = [TABLE, ledger.PULLS, ledger.LEDGER]
        refuse_other_kinds([tuple(row) for row in await self._connection.fetch(KINDS, ours)], self.name)
        refuse_foreign_parts([tuple(row) for row in await self._connection.fetch(FOREIGN_PARTS, ours)], self.name)

    async def _prepare(self) -> None:
        found = await self._connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
            TABLE,
        )
        columns = [(row["column_name"], row["data_type"]) for row in found]
        wanted = [(name, "timestamp with time zone" if kind == "timestamptz" else kind) for name, kind in _COLUMNS]
        if columns and columns != wanted:
            raise OutputError(
                f"{self.name} holds a table {TABLE} with other columns",
                why="it was made by another program, or by another version of this one",
                fix="give another database, or another schema",
            )
        async with self._connection.transaction():
            for statement in ledger.CREATE:
                await self._connection.execute(statement)
            if not columns:
                await self._connection.execute(f"CREATE TABLE {TABLE} ({_DECLARED}, PRIMARY KEY ({', '.join(KEY)}))")
                await self._connection.execute(ledger.CLEAR)  # its rows were dropped with the table
            for name in (*INDEXED, "reading"):
                # Phone numbers are only looked up by value, and a hash index takes a text of any length.
                method = "btree" if name in (*MOMENTS, "reading") else "hash"
                await self._connection.execute(
                    f"CREATE INDEX IF NOT EXISTS {TABLE}_{name} ON {TABLE} USING {method} ({name})"
                )
        await self._connection.execute(
            f"CREATE TEMPORARY TABLE {_STAGE} ON COMMIT DELETE ROWS AS SELECT {_QUOTED} FROM {TABLE} WITH NO DATA"  # noqa: S608
        )

    def begin(self, header: bytes, *, keep: bool = False) -> None:  # noqa: ARG002 - calls stay in any case
        """Forget what is left of this pull, and note the new one."""
        self._do(self._begin(self._own(), header.decode()))

    async def _begin(self, claim: PullIdentity, header: str) -> None:
        async with self._connection.transaction():
            await self._ask(ledger.FORGET, claim.account, claim.pull)
            ((reading,),) = await self._ask(ledger.NEXT)
            await self._ask(ledger.BEGIN, claim.account, claim.pull, claim.scope, header, reading - 1)

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Write a window, its fact and the seals that it changes in one transaction."""
        self._do(self._commit(self._own(), _rows_of(batch), span, entry.decode()))

    async def _commit(self, claim: PullIdentity, rows: list[tuple[Any, ...]], span: Span, entry: str) -> None:
        account, scope, pull = claim.account, claim.scope, claim.pull
        async with self._connection.transaction():
            ((reading,),) = await self._ask(ledger.NEXT)
            await self._connection.copy_records_to_table(_STAGE, records=rows, columns=_NAMES)
            done = await self._connection.execute(f"{_INSERT}NOTHING", reading, account)  # all that most windows need
            if int(done.split()[-1]) < len(rows):
                for before, total in (await self._totals(_OLD, reading, account)).items():
                    for seal in await self._ask(ledger.SEAL, before):
                        await self._ask(ledger.RESEAL, *ledger.without(seal, *total), before)
                await self._connection.execute(_UPSERT, reading, account)
            total = (await self._totals("reading = $1", reading)).get(reading, (0, 0))
            await self._ask(ledger.NOTE, reading, account, scope, pull, *span, entry, *ledger.sealed(*total))
            for earlier in await self._ask(ledger.EARLIER, account, scope, pull, *span, reading):
                if not await self._ask(ledger.LEFT, *earlier):
                    await self._ask(ledger.DROP, *earlier)

    async def _totals(self, which: str, *values: Any) -> Totals:
        """Add up the stored rows for which a condition is true, by their reading."""
        found = await self._connection.fetch(_TOTALS.format(which), *values)
        return {reading: (rows, int(digests)) for reading, rows, digests in found}

    async def _ask(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement of the ledger."""
        found: list[Any] = await self._connection.fetch(numbered(statement), *values)
        return found

    def finish(self, receipt_of: Callable[[Output], bytes]) -> None:
        """End the pull with its receipt; every window is committed already."""
        size = self._do(self._connection.fetchval(f"SELECT pg_total_relation_size('{TABLE}')"))
        receipt = receipt_of(Output(size, None, {})).decode()
        claim, now = self._own(), datetime.now(UTC).isoformat(timespec="microseconds")
        self._do(self._ask(ledger.RECEIVE, now, receipt, claim.account, claim.pull))

    def abandon(self) -> None:
        """Close the connection, which releases the lock."""
        runner, self._runner = self._runner, None
        connection, self._connection = self._connection, None
        if runner is None:
            return
        with suppress(Exception):
            if connection is not None:
                with suppress(Exception):
                    runner.run(connection.close(timeout=_CONNECT))
                connection.terminate()
        with suppress(Exception):
            runner.close()

    def look(self) -> bool:
        """Connect for reading only; see ``Database.look``."""
        self._connect()
        # The transaction stays open: rows and ledger must be of one moment.
        self._do(self._connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        self._do(self._check_database())
        found = "SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL"
        return bool(self._do(self._connection.fetchval(found, ledger.LEDGER, TABLE)))

    def ledger(self) -> list[Stored]:
        """Return all facts; see ``Database.ledger``."""
        return [ledger.stored(row) for row in self._do(self._ask(ledger.ALL))]

    def content(self) -> dict[int, Seal]:
        """Compute the seals again; see ``Database.content``."""
        readings = [row[0] for row in self._do(self._ask(ledger.ALL))]
        return ledger.content_of(self._do(self._totals("TRUE")), readings)

    def stamps(self, reading: int) -> list[str | None]:
        """Return when the calls of a reading began; see ``Database.stamps``."""
        return [row[0] for row in self._do(self._ask(ledger.STAMPS, reading))]

    def receipts(self) -> list[bytes]:
        """Return the last receipt of each pull; see ``Database.receipts``."""
        return [receipt.encode() for (receipt,) in self._do(self._ask(ledger.RECEIPTS))]

    def _own(self) -> PullIdentity:
        assert self._claim is not None  # noqa: S101 - for the type checker: it was opened
        return self._claim

    def _do(self, work: Coroutine[Any, Any, T], *, any_error: bool = False) -> T:
        """Run a coroutine in this sink's own loop; errors reveal neither the address nor a value."""
        assert self._runner is not None  # noqa: S101 - for the type checker: it was opened
        library = self._library
        expected: Any = (library.PostgresError, library.InterfaceError, OSError, ValueError, OverflowError, TypeError)
        if any_error:
            expected = Exception
        failure = None
        try:
            return self._runner.run(work)
        except OutputError:
            raise
        except expected as error:
            failure = self._failed(error)
        raise failure

    def _failed(self, error: Exception) -> OutputError:
        return explain(error, self._library, self.name, connected=self._connection is not None)


def _name_of(address: str) -> str:
    """Name database and host; name neither if part of a password may have slipped into them."""
    nameless = "a PostgreSQL database"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "this computer", parts.port  # a port that is not a number may be half a password
    except ValueError:
        return nameless
    database = parts.path.lstrip("/")
    if "@" in parts.path + parts.query + parts.fragment or not (host + database).isprintable():
        return nameless
    return f"the PostgreSQL database {database or 'of this user'} on {host}"


def _rows_of(batch: Batch) -> list[tuple[Any, ...]]:
    """Return a row for each id, with the values that PostgreSQL takes; the last one counts."""
    calls = flat_records(batch)
    fields = values_by_name(calls)
    columns: list[Sequence[Any]] = []
    for column, (name, kind) in zip(COLUMNS, _COLUMNS[1:-1], strict=True):
        if kind == "timestamptz":
            columns.append([_in_utc(moment) for moment in moments_of(stamps_of(fields, name), batch.zone)])
            continue
        values = fields[name]
        if kind == "jsonb":
            values = [None if value is None else _as_json(value, column.converter) for value in values]
        elif kind == "text":
            values = [None if value is None else _clean(value) for value in values]
        columns.append(values)
    return list({row[0]: row for row in zip(*columns, strict=True)}.values())


def _in_utc(moment: datetime | None, zone: tzinfo = UTC) -> datetime | None:
    try:
        return None if moment is None else moment.astimezone(zone)
    except OverflowError:
        return None


def _as_json(value: Any, convert: Callable[[Any], str | None]) -> str | None:
    """Write a value as JSON that ``jsonb`` takes. It is changed as text, so that the rest stays as it was sent."""
    text = _encode(_clean(value)).decode() if isinstance(value, str) else convert(value)
    if text is None:
        return None
    if "\\u" in text:
        text = _ESCAPE.sub(_holdable, text)
    return _TOKEN.sub(_quoted, text) if _EXTREME.search(text) else text


def _holdable(found: re.Match[str]) -> str:
    escape = found[0]
    return "\ufffd" if _UNHOLDABLE.fullmatch(escape, 1) else escape


def _quoted(found: re.Match[str]) -> str:
    token = found[0]
    return f'"{token}"' if token[0] != '"' and _EXTREME.search(token) else token


def _clean(value: Any) -> str:
    """Return a text that PostgreSQL takes: without NUL and lone surrogates."""
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
