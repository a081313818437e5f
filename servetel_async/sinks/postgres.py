"""PostgreSQL: the table ``call_records``, typed, one row per call, kept current by ``id``.

A window is one transaction: COPY into a temporary table, one upsert, the journal entry. The run holds an advisory lock
of the database, which dies with its connection. Nested values are ``jsonb``, so that they can be queried. PostgreSQL
takes no NUL and no half of a surrogate pair: U+FFFD stands for them. A number in JSON that its ``numeric`` cannot hold
becomes the text that was sent, and a moment that no calendar has in UTC becomes NULL.
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
from servetel_async.sinks.columns import COLUMNS, MOMENTS, flat_records, values_by_name
from servetel_async.sinks.embedded import INDEXED, JOURNAL, PULLS, TABLE, WINDOWS
from servetel_async.sinks.libraries import missing
from servetel_async.sinks.moments import moments_of, stamps_of
from servetel_async.sinks.postgres_errors import (
    explain,
    is_readable,
    refuse_other_encoding,
    refuse_other_kinds,
    unreadable,
)
from servetel_async.sinks.sink import Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import tzinfo
    from pathlib import Path

    from servetel_async.sinks.columns import Column
    from servetel_async.sinks.sink import Batch, Claim, Span

T = TypeVar("T")
#: Seconds for a connection and for a statement of the journal; a window's COPY may take longer.
_CONNECT, _STATEMENT = 15.0, 300.0
_STAGE = "servetel_stage"
# A half of a pair, or NUL, among all escapes of a JSON text; an escaped backslash is one of them.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_UNHOLDABLE = re.compile(r"u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
# A number that ``numeric`` may not hold: it ends at 131072 digits before the point and 16383 behind it.
_EXTREME = re.compile(r"[0-9]{1000}|[0-9][eE][+-]?[0-9]{4}")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)
_encode = msgspec.json.Encoder().encode


def _type(column: Column) -> str:
    if column.name in MOMENTS:
        return "timestamptz"
    if column.converter is not None:  # lists, objects, or whatever the API sends
        return "jsonb"
    if bool in column.kinds:
        return "boolean"
    if column.kinds >= {int, str}:
        return "text"  # a number, or a text that is none
    if int in column.kinds:
        return "double precision" if float in column.kinds else "bigint"
    return "text"


_COLUMNS = [(column.name, _type(column)) for column in COLUMNS]
_NAMES = [name for name, _ in _COLUMNS]
# Every name below stands in this package; no text of a caller or a server becomes SQL.
_DECLARED = ", ".join(f'"{name}" {kind}{" PRIMARY KEY" if name == "id" else ""}' for name, kind in _COLUMNS)
_QUOTED = ", ".join(f'"{name}"' for name in _NAMES)
_UPSERT = (
    f"INSERT INTO {TABLE} ({_QUOTED}) SELECT {_QUOTED} FROM {_STAGE} ON CONFLICT (id) DO UPDATE SET "  # noqa: S608
    + ", ".join(f'"{name}" = excluded."{name}"' for name in _NAMES[1:])
)


class PostgresSink:
    """A database on a server. Rows of calls that the pull does not bring stay as they are."""

    keyed_by_id = True
    resumable = True
    done = False
    sha256: str | None = None
    place: Path | None = None

    def __init__(self, address: str) -> None:
        try:
            self._library: Any = importlib.import_module("asyncpg")
        except ImportError:
            raise missing("asyncpg", "postgres") from None
        self._address = Secret(address)
        self.name = _name_of(address)
        self.size = 0
        self._runner: asyncio.Runner | None = None
        self._connection: Any = None
        self._claim: Claim | None = None
        self._seq = 0

    def open(self, claim: Claim, *, fresh: bool = False) -> Saved | None:
        """Connect, take the lock, make the tables, look whether a pull was interrupted; see ``Sink.open``."""
        self._claim = claim
        try:
            self._connect()
            return self._do(self._open(claim, fresh=fresh))
        except BaseException:
            self.abandon()
            raise

    def _connect(self) -> None:
        if not is_readable(str.__str__(self._address)):
            raise unreadable(self.name)
        self._runner = asyncio.Runner()
        # Whatever goes wrong there: what the library raises has the address among its locals.
        self._connection = self._do(self._connected(), any_error=True)

    async def _connected(self) -> Any:
        return await self._library.connect(str.__str__(self._address), timeout=_CONNECT, command_timeout=_STATEMENT)

    async def _open(self, claim: Claim, *, fresh: bool) -> Saved | None:
        lock = "SELECT pg_try_advisory_lock(hashtext(coalesce(current_schema(), '') || '.call_records'))"
        if not await self._connection.fetchval(lock):
            raise OutputLockedError(
                f"another run is writing {self.name}",
                why="its lock is held by a connection that is alive",
                fix="wait until it has ended",
            )
        await self._check_database()
        await self._prepare()
        if fresh:
            return None
        find = f"SELECT header FROM {PULLS} WHERE pull = $1 AND finished_at IS NULL"  # noqa: S608 - a name of ours
        header = await self._connection.fetchval(find, claim.pull)
        if header is None:
            return None
        rows = await self._connection.fetch(
            f"SELECT entry, seq FROM {WINDOWS} WHERE pull = $1 ORDER BY seq",  # noqa: S608 - a name of ours
            claim.pull,
        )
        self._seq = rows[-1]["seq"] + 1 if rows else 0
        return Saved(header.encode(), [row["entry"].encode() for row in rows])

    async def _check_database(self) -> None:
        """Refuse what cannot hold calls, before anything is made in it."""
        refuse_other_encoding(await self._connection.fetchval("SHOW server_encoding"), self.name)
        found = await self._connection.fetch(
            "SELECT relname, relkind::text FROM pg_class "
            "WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($1)",
            [TABLE, PULLS, WINDOWS],
        )
        refuse_other_kinds([tuple(row) for row in found], self.name)

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
            await self._connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({_DECLARED})")
            for name in INDEXED:
                # Numbers are looked up, and a hash takes a text of any length.
                method = "btree" if name in MOMENTS else "hash"
                await self._connection.execute(
                    f"CREATE INDEX IF NOT EXISTS {TABLE}_{name} ON {TABLE} USING {method} ({name})"
                )
            for statement in JOURNAL:
                await self._connection.execute(statement)
        await self._connection.execute(f"CREATE TEMPORARY TABLE {_STAGE} (LIKE {TABLE}) ON COMMIT DELETE ROWS")

    def begin(self, header: bytes, *, keep: bool = False) -> None:  # noqa: ARG002 - calls stay in any case
        """Forget what is left of this pull, and note the new one."""
        self._seq = 0
        self._do(self._begin(self._own(), header.decode()))

    async def _begin(self, claim: Claim, header: str) -> None:
        async with self._connection.transaction():
            for table in (PULLS, WINDOWS):
                await self._connection.execute(f"DELETE FROM {table} WHERE pull = $1", claim.pull)  # noqa: S608
            await self._connection.execute(
                f"INSERT INTO {PULLS} (pull, scope, header) VALUES ($1, $2, $3)",  # noqa: S608 - a name of ours
                claim.pull,
                claim.scope,
                header,
            )

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Write a window and its entry in one transaction."""
        self._do(self._commit(self._own(), _rows_of(batch), span, entry.decode()))
        self._seq += 1

    async def _commit(self, claim: Claim, rows: list[tuple[Any, ...]], span: Span, entry: str) -> None:
        async with self._connection.transaction():
            await self._connection.copy_records_to_table(_STAGE, records=rows, columns=_NAMES)
            await self._connection.execute(_UPSERT)
            await self._connection.execute(
                f"DELETE FROM {WINDOWS} WHERE pull = $1 AND first >= $2 AND last <= $3",  # noqa: S608 - a name of ours
                claim.pull,
                span.first,
                span.last,
            )
            await self._connection.execute(
                f"INSERT INTO {WINDOWS} (pull, scope, first, last, seq, entry) VALUES ($1, $2, $3, $4, $5, $6)",  # noqa: S608
                claim.pull,
                claim.scope,
                span.first,
                span.last,
                self._seq,
                entry,
            )

    def finish(self) -> None:
        """Every window is committed already; only the size is asked for."""
        self.size = self._do(self._connection.fetchval(f"SELECT pg_total_relation_size('{TABLE}')"))

    def save_receipt(self, receipt: bytes) -> None:
        """Keep it in the database, which ends the pull."""
        self._do(
            self._connection.execute(
                f"UPDATE {PULLS} SET finished_at = $1, receipt = $2 WHERE pull = $3",  # noqa: S608 - a name of ours
                datetime.now(UTC).isoformat(timespec="microseconds"),
                receipt.decode(),
                self._own().pull,
            )
        )

    def abandon(self) -> None:
        """Close the connection; the lock goes with it."""
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
        self._do(self._connection.execute("SET default_transaction_read_only = on"))
        return bool(self._do(self._connection.fetchval("SELECT to_regclass($1) IS NOT NULL", PULLS)))

    def windows(self, scope: str) -> list[bytes]:
        """Give the entries of all windows that were committed for that scope, by any pull."""
        rows = self._do(
            self._connection.fetch(f"SELECT entry FROM {WINDOWS} WHERE scope = $1 ORDER BY first", scope)  # noqa: S608
        )
        return [row["entry"].encode() for row in rows]

    def load_receipt(self) -> bytes | None:
        """Give the receipt that was saved last."""
        text = self._do(
            self._connection.fetchval(
                f"SELECT receipt FROM {PULLS} WHERE receipt IS NOT NULL ORDER BY finished_at DESC LIMIT 1"  # noqa: S608
            )
        )
        return None if text is None else text.encode()

    def _own(self) -> Claim:
        assert self._claim is not None  # noqa: S101 - for the type checker: it was opened
        return self._claim

    def _do(self, work: Coroutine[Any, Any, T], *, any_error: bool = False) -> T:
        """Run it in this sink's own loop; what goes wrong says nothing of the address or of a value."""
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
    """Name database and host, and nothing where a password might have slipped into them."""
    nameless = "a PostgreSQL database"
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "this computer", parts.port  # a port that is no number may be half a password
    except ValueError:
        return nameless
    database = parts.path.lstrip("/")
    if "@" in parts.path + parts.query + parts.fragment or not (host + database).isprintable():
        return nameless
    return f"the PostgreSQL database {database or 'of this user'} on {host}"


def _rows_of(batch: Batch) -> list[tuple[Any, ...]]:
    """Give a row for each id as PostgreSQL spells it; the last one counts."""
    calls = flat_records(batch)
    fields = values_by_name(calls)
    columns: list[Sequence[Any]] = []
    for column, (name, kind) in zip(COLUMNS, _COLUMNS, strict=True):
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
    """Write a value as JSON that ``jsonb`` takes; it is changed as text, so that all else stays as it was sent."""
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
    """Give a text that PostgreSQL takes: no NUL and no half of a surrogate pair."""
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
