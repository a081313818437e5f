"""SQLite: the table ``call_records``, one row per call, kept current by ``id``.

One transaction holds all that a pull wrote: a reader sees the table as it was before or as it is after, never between.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.sinks.columns import COLUMNS, rows_of
from servetel_async.sinks.files import create_private, name_of, output_error
from servetel_async.sinks.lock import OutputLock

if TYPE_CHECKING:
    from pathlib import Path

    from servetel_async.protocol.records import CallPage

TABLE = "call_records"
INDEXED = ("started_at", "client_number", "agent_number", "did_number")
#: Seconds to wait for another program's short transaction.
_PATIENCE = 5.0

_names = [column.name for column in COLUMNS]
# Every name below stands in this package; no text of a caller or a server becomes SQL.
_CREATE = f"CREATE TABLE {TABLE} ({', '.join(column.declaration for column in COLUMNS)})"
_UPSERT = (
    f"INSERT INTO {TABLE} ({', '.join(_names)}) VALUES ({', '.join('?' * len(_names))}) "  # noqa: S608
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _names[1:])}"
)


class SqliteSink:
    """A database: new, or one that is kept current. Rows of calls that the pull does not bring stay as they are."""

    keyed_by_id = True
    sha256: str | None = None

    def __init__(self, target: Path) -> None:
        self.name = name_of(target)
        self.size = 0
        self._target = target
        self._lock = OutputLock(target)
        self._database: sqlite3.Connection | None = None
        self._is_new = False
        self._committed = False

    def open(self) -> None:
        """Take the lock, open or create the database, and begin the transaction; see ``Sink.open``."""
        if self._target.is_symlink():
            raise OutputError(f"{self.name} is a symbolic link", fix="give the path of the database itself")
        self._lock.acquire()
        try:
            self._open()
        except BaseException as error:
            self.abandon()
            if isinstance(error, sqlite3.Error):
                raise self._failed(error) from error
            if isinstance(error, OSError):
                raise output_error(self.name, error) from error
            raise

    def _open(self) -> None:
        if self._target.exists() and not self._target.is_file():
            raise OutputError(f"{self.name} is no file", fix="give the name of a database file")
        with suppress(FileExistsError):
            # SQLite would create it with the umask's mode; its -wal and -shm files take their mode from it.
            os.close(create_private(self._target))
            self._is_new = True
        # One thread at a time uses it, though not always the same one.
        database = self._database = sqlite3.connect(
            self._target, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        # A call is 2 to 3 KB: pages of 4 KB would stand half empty. The size is fixed with the first table.
        database.execute("PRAGMA page_size = 16384")
        database.execute("PRAGMA cache_size = -64000")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        columns = [tuple(row) for row in database.execute(f"SELECT name, type, pk FROM pragma_table_info('{TABLE}')")]  # noqa: S608
        if not columns:
            database.execute(_CREATE)
            for name in INDEXED:
                database.execute(f"CREATE INDEX {TABLE}_{name} ON {TABLE} ({name})")
        elif columns != [(column.name, column.type, int(column.name == "id")) for column in COLUMNS]:
            raise OutputError(
                f"{self.name} holds a table {TABLE} with other columns",
                why="it was made by another program, or by another version of this one",
                fix="give another destination",
            )

    def write(self, page: CallPage) -> None:
        """Insert a page's calls; a call that is there already takes its new values."""
        assert self._database is not None  # noqa: S101 - for the type checker: it is open
        try:
            self._database.executemany(_UPSERT, rows_of(page.records))
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def commit(self) -> None:
        """Commit, and bring the log into the database file so that a copy of that file is whole."""
        unfolded: OutputError | None = None
        database, self._database = self._database, None
        assert database is not None  # noqa: S101 - for the type checker: it is open
        try:
            with closing(database):
                database.execute("COMMIT")
                self._committed = True
                # Where another program reads it does nothing, and fails not; then that program's last close does it.
                try:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.Error as error:
                    unfolded = self._failed(error)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if unfolded is not None and self._beside("-wal").exists():  # closing it had been a second try
            raise OutputError(
                f"{self.name} is written and complete, but only together with {self.name}-wal",
                why=f"the one could not be brought into the other: {unfolded.why}",
                fix="keep the two side by side, make space, then open it once with any SQLite program",
            )
        with suppress(OSError):
            self.size = self._target.stat().st_size

    def abandon(self) -> None:
        """Roll back; a database that was made for this pull goes."""
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error), closing(database):
                database.rollback()
        if self._is_new and not self._committed and self._lock.held:
            for ending in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._beside(ending).unlink()
        self._lock.release()

    def _beside(self, ending: str) -> Path:
        return self._target.with_name(self._target.name + ending)

    def _failed(self, error: sqlite3.Error) -> OutputError:
        code = getattr(error, "sqlite_errorname", "") or ""
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return OutputLockedError(
                f"{self.name} is locked",
                why="another program has a transaction open in it",
                fix="end that program, or wait",
            )
        if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            return OutputError(
                f"{self.name} is no SQLite database",
                why="it is another kind of file, encrypted, or damaged",
                fix="give another destination",
            )
        if code.startswith("SQLITE_FULL"):
            return OutputError(
                f"{self.name} cannot be written", why="the disk is full", fix="make space, then run it again"
            )
        return OutputError(
            f"{self.name} cannot be written",
            why=f"SQLite says {code or type(error).__name__}",
            fix="check the directory, its permissions and the free space, or give another destination",
        )
