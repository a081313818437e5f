"""DuckDB: the table ``call_records``, typed, one row per call, kept current by ``id``."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import TYPE_CHECKING, Any

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.sinks.columns import COLUMNS, MOMENTS, rows_of
from servetel_async.sinks.embedded import TABLE, EmbeddedDatabase
from servetel_async.sinks.libraries import missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord

_TYPES = {"INTEGER": "BIGINT", "NUMERIC": "DOUBLE", "TEXT": "VARCHAR"}
#: Rows of one statement: their values go over as one list for each column.
_ROWS = 1000


def _type(name: str, declared: str, kinds: frozenset[Any]) -> str:
    if name in MOMENTS:
        return "TIMESTAMP WITH TIME ZONE"
    if bool in kinds:
        return "BOOLEAN"
    if kinds >= {int, str}:
        return "VARCHAR"  # a number, or a text that is none
    return _TYPES[declared]


_COLUMNS = [(column.name, _type(column.name, column.type, column.kinds)) for column in COLUMNS]
_NAMES = ", ".join(f'"{name}"' for name, _ in _COLUMNS)
# Every name below stands in this package; no text of a caller or a server becomes SQL.
_UPSERT = (
    f"INSERT OR REPLACE INTO {TABLE} ({_NAMES}) SELECT "
    + ", ".join(f"unnest(?::{'VARCHAR' if name in MOMENTS else kind}[])" for name, kind in _COLUMNS)
)


class DuckdbSink(EmbeddedDatabase):
    """A database: new, or one that is kept current. Rows of calls that the pull does not bring stay as they are."""

    beside = (".wal",)

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        try:
            self._library: Any = importlib.import_module("duckdb")
        except ImportError:
            raise missing("duckdb", "duckdb") from None
        self.Error = self._library.Error
        self._database: Any = None

    def _make_file(self) -> None:
        """DuckDB takes no empty file: it makes its own."""

    def _connect(self, path: Path) -> None:
        with _private_files():
            # No extension is fetched from anywhere: what is needed is built in.
            self._database = self._library.connect(str(path), config={"autoinstall_known_extensions": "false"})

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with _private_files():
            found: list[tuple[Any, ...]] = self._database.execute(statement, list(values)).fetchall()
        return found

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        with contextlib.closing(database), _private_files(), contextlib.suppress(self._library.TransactionException):
            database.execute("ROLLBACK")
        # Closing the last connection brings its log into the file.

    def _columns(self) -> list[tuple[str, str]]:
        tables = self._run("SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND NOT internal", (TABLE,))
        found = self._run(f"PRAGMA table_info('{TABLE}')") if tables else []
        return [(name, f"{kind} KEY" if key else kind) for _, name, kind, _, _, key in found]

    def _wanted(self) -> list[tuple[str, str]]:
        return [(name, f"{kind} KEY" if name == "id" else kind) for name, kind in _COLUMNS]

    def _declarations(self) -> list[str]:
        return [f'"{name}" {kind}{" PRIMARY KEY" if name == "id" else ""}' for name, kind in _COLUMNS]

    def _indexes(self) -> tuple[str, ...]:
        """DuckDB keeps the bounds of each block of each column; an index would live in memory, and help no scan."""
        return ()

    def _insert(self, records: list[CallRecord]) -> None:
        rows = {
            row[0]: row for row in rows_of(records)
        }  # one statement must not bring a key twice: the last one counts
        values = list(rows.values())
        for start in range(0, len(values), _ROWS):
            columns = zip(*values[start : start + _ROWS], strict=True)
            self._run(
                _UPSERT, [_texts(column) if kind == "VARCHAR" else list(column) for column, kind in _paired(columns)]
            )

    def _failed(self, error: Exception) -> OutputError:
        said = str(error)
        if "lock" in said.lower() and isinstance(error, self._library.IOException):
            return OutputLockedError(
                f"{self.name} is locked", why="another program has it open", fix="end that program, or wait"
            )
        if "not a valid DuckDB database" in said or "checksum" in said.lower():
            return OutputError(
                f"{self.name} is no DuckDB database",
                why="it is another kind of file, of a newer version, or damaged",
                fix="give another destination",
            )
        # Its message may hold a value or a path: the kind of error is enough.
        return OutputError(
            f"{self.name} cannot be written",
            why=f"DuckDB says {type(error).__name__}",
            fix="check the directory, its permissions and the free space, or give another destination",
        )


def _paired(columns: Iterable[tuple[Any, ...]]) -> Iterator[tuple[tuple[Any, ...], str]]:
    return zip(columns, (kind for _, kind in _COLUMNS), strict=True)


def _texts(column: tuple[Any, ...]) -> list[str | None]:
    return [value if value is None or isinstance(value, str) else str(value) for value in column]


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """DuckDB creates its file and its log itself, with the process's mask: nobody else may read them from the start."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
