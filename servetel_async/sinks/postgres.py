"""PostgreSQL: the table ``call_records``, typed, one row per call, kept current by ``id``.

A window is one transaction: COPY into a temporary table, one upsert, the journal entry. The run holds an advisory lock
of the database, which dies with its connection. Nested values are ``jsonb``, so that they can be queried; it takes no
NUL in a text or in JSON, so it becomes U+FFFD there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.protocol.tokens import Secret
from servetel_async.sinks.columns import COLUMNS, MOMENTS, flat_records, rows_of
from servetel_async.sinks.embedded import INDEXED, JOURNAL, PULLS, TABLE, WINDOWS
from servetel_async.sinks.libraries import missing
from servetel_async.sinks.sink import Saved

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.sink import Batch, Claim, Span

T = TypeVar("T")
#: Seconds for a connection and for a statement of the journal; a window's COPY may take longer.
_CONNECT, _STATEMENT = 15.0, 300.0
_STAGE = "servetel_stage"
#: Fields whose values are lists or objects, or whatever the API sends: JSON.
_JSON = frozenset(
    [
        "notes",
        "contact_details",
        "missed_agents",
        "call_flow",
        "circle",
        "agent_hangup_data",
        "transfer_missed_agent",
        "sip_agent_ids",
        "dialer_call_details",
        "custom_status",
        "extra",
    ]
)


def _type(name: str, kinds: frozenset[Any]) -> str:
    if name in MOMENTS:
        return "timestamptz"
    if name in _JSON:
        return "jsonb"
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "bigint"
    return "double precision" if float in kinds else "text"


_COLUMNS = [(column.name, _type(column.name, column.kinds)) for column in COLUMNS]
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
        try:
            self.name = f"the PostgreSQL database {urlsplit(address).path.lstrip('/') or 'of this user'}"
        except ValueError:
            self.name = "the PostgreSQL database"
        self.size = 0
        self._runner: asyncio.Runner | None = None
        self._connection: Any = None
        self._claim: Claim | None = None
        self._seq = 0

    def open(self, claim: Claim, *, fresh: bool = False) -> Saved | None:
        """Connect, take the lock, make the tables, look whether a pull was interrupted; see ``Sink.open``."""
        self._claim = claim
        self._runner = asyncio.Runner()
        try:
            return self._do(self._open(claim, fresh=fresh))
        except BaseException:
            self.abandon()
            raise

    async def _open(self, claim: Claim, *, fresh: bool) -> Saved | None:
        self._connection = await self._library.connect(
            str.__str__(self._address), timeout=_CONNECT, command_timeout=_STATEMENT
        )
        lock = "SELECT pg_try_advisory_lock(hashtext(current_schema() || '.call_records'))"
        if not await self._connection.fetchval(lock):
            raise OutputLockedError(
                f"another run is writing {self.name}",
                why="its lock is held by a connection that is alive",
                fix="wait until it has ended",
            )
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
                await self._connection.execute(f"CREATE INDEX IF NOT EXISTS {TABLE}_{name} ON {TABLE} ({name})")
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
        self._do(self._commit(self._own(), flat_records(batch), span, entry.decode()))
        self._seq += 1

    async def _commit(self, claim: Claim, records: list[CallRecord], span: Span, entry: str) -> None:
        rows = {record.id: _row(record, values) for record, values in zip(records, rows_of(records), strict=True)}
        async with self._connection.transaction():
            await self._connection.copy_records_to_table(_STAGE, records=rows.values(), columns=_NAMES)
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

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in this thread's own loop; what goes wrong says nothing of the address or of a value."""
        assert self._runner is not None  # noqa: S101 - for the type checker: it was opened
        failure = None
        try:
            return self._runner.run(work)
        except OutputError:
            raise
        except (self._library.PostgresError, self._library.InterfaceError, OSError, TimeoutError, ValueError) as error:
            failure = self._failed(error)
        raise failure

    def _failed(self, error: Exception) -> OutputError:
        library = self._library
        if isinstance(error, library.InvalidAuthorizationSpecificationError):
            return OutputError(
                f"{self.name} does not let us in", why="user or password is wrong", fix="check the address"
            )
        if isinstance(error, library.InvalidCatalogNameError):
            return OutputError(f"{self.name} does not exist", fix="make it (createdb), or check the address")
        if isinstance(error, library.InsufficientPrivilegeError):
            return OutputError(
                f"{self.name} cannot be written", why="this user may not", fix="grant it, or name another user"
            )
        if isinstance(error, library.DiskFullError):
            return OutputError(
                f"{self.name} cannot be written", why="its disk is full", fix="make space, then run it again"
            )
        if isinstance(error, library.PostgresError):
            return OutputError(
                f"{self.name} cannot be written",
                why=f"PostgreSQL says {type(error).__name__}",
                fix="look into its log, then run it again: what was committed is kept",
            )
        return OutputError(
            f"{self.name} cannot be reached",
            why="there is no connection to its server, or it was lost",
            fix="check the address and the server, then run it again: what was committed is kept",
        )


def _row(record: CallRecord, values: list[Any]) -> tuple[Any, ...]:
    row: list[Any] = []
    for (name, kind), value in zip(_COLUMNS, values, strict=True):
        if value is None:
            row.append(None)
        elif kind == "timestamptz":
            row.append(getattr(record, name))
        elif kind == "jsonb":
            row.append(_as_json(value, getattr(record, name)))
        elif kind == "text":
            row.append(_clean(value if isinstance(value, str) else str(value)))
        else:
            row.append(value)
    return tuple(row)


def _as_json(text: str, sent: Any) -> str:
    """What the table has as text, as JSON that ``jsonb`` takes: no NUL and no half of a surrogate pair."""
    written = json.dumps(sent, ensure_ascii=False) if isinstance(sent, str) else text
    if "\\u" not in written and "\0" not in written:
        return written
    return json.dumps(_cleaned(json.loads(written, strict=False)), ensure_ascii=False)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {_clean(key): _cleaned(item) for key, item in cast("dict[str, Any]", value).items()}
    return value


def _clean(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
