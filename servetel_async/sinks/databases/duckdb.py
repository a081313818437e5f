"""DuckDB: the table ``call_records``, typed, one row per call, kept current by account and ``id``.

DuckDB creates its file and its log itself, with the mode of the umask, which all threads share. So the file is created
in a directory of ours and then moved, and the log is there, private and empty, before DuckDB looks for it.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.protocol.clock import IST, zone_named
from servetel_async.sinks.databases.embedded import EmbeddedDatabase
from servetel_async.sinks.databases.journal_table import LEDGER, PULLS, TABLE, Totals
from servetel_async.sinks.extras import missing
from servetel_async.sinks.files.atomic import create_private, put_in_place, remove
from servetel_async.sinks.files.opened import open_to_read
from servetel_async.sinks.files.ownership import make_directory
from servetel_async.sinks.table.columns import (
    COLUMNS,
    KEY,
    MOMENTS,
    PIECE_BYTES,
    flat_records,
    pieces_of,
    values_by_name,
)
from servetel_async.sinks.table.timestamps import moments_of, stamps_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.sink import Batch
    from servetel_async.sinks.table.columns import Column

#: The directory in which a new file is made, beside the part.
_NEST = ".new"
_CONFIG = {
    "autoinstall_known_extensions": "false",  # nothing is downloaded: all that is needed is built in
    "temp_directory": "",  # calls are never spilt into a file that others could read
}
#: Set once it is connected: no foreign view or macro reads files or loads code.
_CLOSED = ("SET enable_external_access = false", "SET autoload_known_extensions = false")
_TYPES = {"INTEGER": "BIGINT", "NUMERIC": "DOUBLE", "TEXT": "VARCHAR"}
#: The bytes of a DuckDB database file from its ninth on.
_MAGIC = b"DUCK"
# DuckDB has one exception class for all failures of the system or the file, so its message must decide. The tests cause
# each message with the lowest and the newest version, so they notice a change of the words.
#: DuckDB's messages for a DuckDB file that is cut off, damaged, or of a newer version.
_DAMAGED = ("Corrupt", "Could not read enough bytes", "version number")
#: The system's messages for a full disk or quota: DuckDB passes them on.
_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)))
#: The system's messages for a file system without locks.
_NO_LOCKS = tuple(map(os.strerror, (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)))
#: Size of a database file that holds nothing yet, in bytes.
_BLANK = 12_288
_HERE = "WHERE database_name = current_database() AND schema_name = 'main'"
#: Rows of one statement.
_ROWS = 2048


def _type(column: Column) -> str:
    if column.name in MOMENTS:
        return "TIMESTAMP WITH TIME ZONE"
    if bool in column.kinds:
        return "BOOLEAN"
    if column.kinds >= {int, str}:
        return "VARCHAR"  # a number, or a text that is not a number
    return _TYPES[column.type]


def _given(column: Column, kind: str) -> str:
    """Return the SQL that reads a column's values from the JSON."""
    values = f'unnest(columns."{column.name}")'
    # A moment that DuckDB cannot read becomes NULL: ``date``, ``time`` and ``end_stamp`` stay as they were sent.
    return f"try_cast({values} AS {kind})" if column.name in MOMENTS else values


def _digested(name: str, kind: str) -> str:
    """Return the SQL of a column's value in the digest: equal in each version and zone, NULL unlike an empty text."""
    ways = {"DOUBLE": "format('{{:.17e}}', {})", "TIMESTAMP WITH TIME ZONE": "epoch_us({})::VARCHAR"}
    value = ways.get(kind, "{}" if kind == "VARCHAR" else "{}::VARCHAR").format(f'"{name}"')
    return f"coalesce({value}, chr(30))"


_PAIRS = [(column, _type(column)) for column in COLUMNS]
_COLUMNS = [("account", "VARCHAR"), *((column.name, kind) for column, kind in _PAIRS), ("reading", "BIGINT")]
# One JSON text of all columns is bound and read in C++: a list of Python objects for each column takes twice the time.
_SHAPE = json.dumps({column.name: ["VARCHAR" if column.name in MOMENTS else kind] for column, kind in _PAIRS})
_NAMES = ", ".join(f'"{column.name}"' for column in COLUMNS)
_GIVEN = ", ".join(_given(column, kind) for column, kind in _PAIRS)
# Every name below is a name of this package; no text of a caller or a server becomes SQL.
_INTO = f"INTO {TABLE} (account, {_NAMES}, reading)"
_FROM_JSON = f"SELECT ?, {_GIVEN}, ? FROM (SELECT from_json(?, '{_SHAPE}') AS columns)"  # noqa: S608
# Where pyarrow is installed, its tables take half the time of the JSON.
_TABLE = "servetel_table"
_FROM_TABLE = f"SELECT ?, {_NAMES}, ? FROM {_TABLE}"  # noqa: S608
_DIGEST = ", ".join(_digested(name, kind) for name, kind in _COLUMNS[:-1])
_TOTALS = f"SELECT reading, count(*), sum(md5_number_lower(concat_ws(chr(31), {_DIGEST}))::HUGEINT) FROM {TABLE} WHERE "  # noqa: S608
_encode = msgspec.json.Encoder().encode


class DuckdbError(Exception):
    """An error of DuckDB without its message, which may quote a value, a statement or a path."""

    def __init__(self, kind: str, what: str = "") -> None:
        super().__init__(f"DuckDB says {kind}")
        self.kind = kind
        self.what = what


class DuckdbSink(EmbeddedDatabase):
    """A DuckDB database, new or kept current. Rows of calls that the pull does not bring stay as they are."""

    Error = DuckdbError
    beside = (".wal", _NEST)
    columns = _COLUMNS

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        try:
            self._library: Any = importlib.import_module("duckdb")
        except ImportError:
            raise missing("duckdb", "duckdb") from None
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
        except ImportError:
            self._arrow = None
        self._database: Any = None
        self._path = self._part

    def _make_file(self) -> None:
        """Make the file in a directory of ours: DuckDB opens no empty file, so we cannot create it beforehand."""
        nest = self._part.with_name(f"{self._part.name}{_NEST}")
        remove(nest)
        make_directory(nest)
        made = nest / "database"
        try:
            with closing(self._opened(made)):
                pass
            made.chmod(0o600)
            put_in_place(made, self._part, overwrite=False)
        finally:
            remove(nest)

    def _connect(self, path: Path) -> None:
        self._path = path
        for each in (path, self._log):
            if each.is_symlink():
                raise OutputError(f"{self.name} is a symbolic link", fix="give the path of the database itself")
        remove(self._part.with_name(f"{self._part.name}{_NEST}"))  # left by a run killed while it made the file
        self._database = self._opened(path)

    def _connect_to_read(self, path: Path) -> None:
        self._path = path
        self._database = self._opened(path, read_only=True)

    def _has_ledger(self) -> bool:
        find = f"SELECT 1 FROM duckdb_tables() {_HERE} AND table_name IN (?, ?)"  # noqa: S608 - a text of ours
        return len(self._run(find, (LEDGER, TABLE))) > 1

    def _foreign_parts(self) -> list[tuple[str, str]]:
        find = f"SELECT view_name FROM duckdb_views() {_HERE} AND view_name IN (?, ?, ?)"  # noqa: S608 - a text of ours
        return [("view", name) for (name,) in self._run(find, (TABLE, LEDGER, PULLS))]

    def _is_blank(self, path: Path) -> bool:
        return path == self._part and not self._is_foreign(path) and path.stat().st_size <= _BLANK

    def _opened(self, path: Path, *, read_only: bool = False) -> Any:
        failure = None
        try:
            database = self._library.connect(str(path), read_only=read_only, config=_CONFIG)
            for setting in _CLOSED:
                database.execute(setting)
        except self._library.Error as error:
            failure = self._without_words(error)
        else:
            return database
        raise failure

    @property
    def _log(self) -> Path:
        return self._path.with_name(f"{self._path.name}.wal")

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        failure = None
        if not self._reading:
            self._reserve_log()
        try:
            found: list[tuple[Any, ...]] = self._database.execute(statement, list(values)).fetchall()
        except self._library.Error as error:
            failure = self._without_words(error)
        else:
            return found
        raise failure

    def _reserve_log(self) -> None:
        """Create the log: DuckDB appends to an existing log, and removes it each time it is merged into the file."""
        with suppress(FileExistsError):
            os.close(create_private(self._log))

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        if self._reading:
            database.close()
            return
        failure = None
        with closing(database):
            with suppress(self._library.Error):
                database.execute("ROLLBACK")
            try:  # closing does it too, but does not say if it failed
                database.execute("CHECKPOINT")
            except self._library.Error as error:
                failure = self._without_words(error)
        # Another connection of this process may be writing to a database in place: its log is merged later.
        if failure is not None and not (self._in_place and failure.kind == "TransactionException"):
            raise failure
        with suppress(FileNotFoundError):
            if self._log.stat().st_size == 0:
                self._log.unlink()  # ours, and DuckDB had nothing to write

    def _columns(self) -> list[tuple[str, str]]:
        here = f"{_HERE} AND table_name = ?"
        find = f"SELECT constraint_column_names FROM duckdb_constraints() {here} AND constraint_type = 'PRIMARY KEY'"  # noqa: S608
        keys: list[str] = [name for (names,) in self._run(find, (TABLE,)) for name in names]
        find = f"SELECT column_name, data_type FROM duckdb_columns() {here} ORDER BY column_index"  # noqa: S608
        return [(name, f"{kind} KEY" if name in keys else kind) for name, kind in self._run(find, (TABLE,))]

    def _indexes(self) -> tuple[str, ...]:
        """Make no index: DuckDB keeps the bounds of each block of each column. An index would only cost memory."""
        return ()

    def _pieces(self, batch: Batch) -> Iterator[list[CallRecord]]:
        """Join pieces, as far as memory allows: a statement costs as much as hundreds of rows."""
        calls: dict[str, CallRecord] = {}  # one statement must not bring a key twice: the last one counts
        size = 0
        for piece in pieces_of(batch):
            calls.update((record.id, record) for record in flat_records(piece))
            size += sum(map(len, piece.lines))
            if len(calls) >= _ROWS or size >= PIECE_BYTES:
                yield list(calls.values())
                calls.clear()
                size = 0
        if calls:
            yield list(calls.values())

    def _put(self, records: list[CallRecord], reading: int) -> Totals:
        columns = _columns_of(records)
        account = self._own().account
        table = None if self._arrow is None else self._table_of(columns)
        if table is None:
            stamped = {name: [each and each.isoformat() for each in columns[name]] for name in MOMENTS}
            text = _encode({**columns, **stamped}).decode()
            return self._put_rows(_FROM_JSON, (account, reading, text), columns["id"])
        self._database.register(_TABLE, table)
        try:
            return self._put_rows(_FROM_TABLE, (account, reading), columns["id"])
        finally:
            with suppress(self._library.Error):  # a failed transaction allows nothing but its end
                self._database.unregister(_TABLE)

    def _put_rows(self, given: str, values: tuple[Any, ...], ids: list[str]) -> Totals:
        """Insert new calls, then replace old ones if there are any: to find these, DuckDB scans the whole table."""
        ((new,),) = self._run(f"INSERT {_INTO} {given} ON CONFLICT ({', '.join(KEY)}) DO NOTHING", values)
        if new == len(ids):
            return {}
        account, reading = values[:2]
        which = "account = ? AND id IN (SELECT unnest(?)) AND (reading IS NULL OR reading <> ?)"
        replaced = self._totals(which, (account, ids, reading))
        self._run(f"INSERT OR REPLACE {_INTO} {given}", values)
        return replaced

    def _totals(self, which: str, values: Sequence[Any]) -> Totals:
        found = self._run(f"{_TOTALS}{which} GROUP BY reading", values)
        return {reading: (rows, digests) for reading, rows, digests in found}

    def _table_of(self, columns: dict[str, list[Any]]) -> Any:
        """Return the columns as an Arrow table; None if a value does not fit Arrow's types."""
        arrow = self._arrow
        kinds = {
            "BIGINT": arrow.int64(),
            "DOUBLE": arrow.float64(),
            "BOOLEAN": arrow.bool_(),
            "VARCHAR": arrow.string(),
            "TIMESTAMP WITH TIME ZONE": arrow.timestamp("us", tz="UTC"),
        }
        try:
            return arrow.table({column.name: arrow.array(columns[column.name], kinds[kind]) for column, kind in _PAIRS})
        except (arrow.ArrowException, ValueError, OverflowError, TypeError):
            return None

    def _without_words(self, error: Exception) -> DuckdbError:
        library, said = self._library, str(error)
        what = ""
        # On a ConnectionException another connection of this process has the file open with other settings.
        if "set lock" in said and any(sign in said for sign in _NO_LOCKS):
            what = "no locks"
        elif "set lock" in said or isinstance(error, library.ConnectionException):
            what = "locked"
        elif self._is_refused():
            what = "refused"
        elif self._is_foreign(self._path) or any(sign in said for sign in _DAMAGED):
            what = "foreign"
        elif any(sign in said for sign in _FULL):
            what = "full"
        elif isinstance(error, library.OutOfMemoryException):
            what = "memory"
        return DuckdbError(type(error).__name__, what)

    def _is_refused(self) -> bool:
        place = self._path if self._path.exists() else self._path.parent
        return not os.access(place, os.R_OK | os.W_OK)

    def _is_foreign(self, path: Path) -> bool:
        try:
            with open_to_read(path, follow=True) as file:
                start = file.read(12)
        except OSError:
            return False
        return start != b"" and start[8:] != _MAGIC

    def _is_passing(self, error: Exception) -> bool:
        return getattr(error, "what", "") in {"locked", "no locks", "full", "memory", "refused"}

    def _failed(self, error: Exception) -> OutputError:
        what = getattr(error, "what", "")
        if what == "locked":
            return OutputLockedError(
                f"{self.name} is locked", why="another program has it open", fix="end that program, or wait"
            )
        if what == "no locks":
            return OutputError(
                f"{self.name} cannot be locked",
                why="its file system refuses locks, so two programs could write it at once",
                fix="give a destination on a local disk, then copy the finished output",
            )
        if what == "foreign":
            return OutputError(
                f"{self.name} is no DuckDB database",
                why="it is another kind of file, of a newer version, or damaged",
                fix="give another destination",
            )
        if what == "full":
            return OutputError(
                f"{self.name} cannot be written", why="the disk is full", fix="make space, then run it again"
            )
        if what == "memory":
            return OutputError(
                f"{self.name} cannot be written", why="DuckDB has no memory left", fix="free some, then run it again"
            )
        return OutputError(
            f"{self.name} cannot be written",
            why="the system does not let us" if what == "refused" else str(error),
            fix="check the directory, its permissions and the free space, or give another destination",
        )


def _columns_of(calls: list[CallRecord]) -> dict[str, list[Any]]:
    """Return the calls' values, column by column."""
    zone = zone_named(calls[0].zone) or IST
    fields = values_by_name(calls)
    columns: dict[str, list[Any]] = {}
    for column, kind in _PAIRS:
        name, convert = column.name, column.converter
        if name in MOMENTS:
            columns[name] = moments_of(stamps_of(fields, name), zone)
            continue
        values: list[Any] = list(fields[name])
        if convert is not None:
            values = [None if value is None else convert(value) for value in values]
        elif kind == "VARCHAR" and int in column.kinds:
            values = [str(value) if isinstance(value, int) else value for value in values]
        columns[name] = values
    return columns
