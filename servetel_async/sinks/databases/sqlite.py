"""SQLite: the table ``call_records``, one row per call, kept current by account and ``id``.

Writes go through a write-ahead log with ``synchronous = FULL``: a committed window survives a power cut. A program that
reads meanwhile sees the table as it was before a window or as it is after, never between.

A finished database has no write-ahead log, so it can be read from a read-only directory or medium. If another program
has it open at that moment, it stays in write-ahead mode, until the next run that finishes alone.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.sinks.databases.embedded import EmbeddedDatabase
from servetel_async.sinks.databases.journal_table import LEDGER, PULLS, TABLE, Totals
from servetel_async.sinks.files.opened import open_to_read
from servetel_async.sinks.table.columns import COLUMNS, rows_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord

#: Seconds to wait for another program's short transaction.
_PATIENCE = 5.0
#: Errors of the system, not of the file.
_PASSING = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_PERM")

#: Bytes of a journal's header, and the sizes that a sector or a page may have. https://sqlite.org/fileformat2.html
_JOURNAL_HEADER, _SIZES = 28, frozenset(2**power for power in range(9, 17))
#: The first bytes of a database and of a log, and the bytes up to the number of tables.
_MAGIC, _LOGS, _HEADER = b"SQLite format 3\0", (b"7\x7f\x06\x82", b"7\x7f\x06\x83", b"\xd9\xd5\x05\xf9"), 105

_COLUMNS = [("account", "TEXT"), *((column.name, column.type) for column in COLUMNS), ("reading", "BIGINT")]
_names = [name for name, _ in _COLUMNS]
# Every name below is a name of this package; no text of a caller or a server becomes SQL.
_UPSERT = (
    f"INSERT INTO {TABLE} ({', '.join(_names)}) VALUES ({', '.join('?' * len(_names))}) "  # noqa: S608
    f"ON CONFLICT (account, id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _names[2:])}"
)
_SELECT = f"SELECT {', '.join(_names[-1:] + _names[:-1])} FROM {TABLE} WHERE "  # noqa: S608
_pack = msgspec.msgpack.Encoder().encode


#: Foreign views, triggers and column defaults call no function that does more than compute.
_NO_TRUST = "PRAGMA trusted_schema = OFF"


class SqliteSink(EmbeddedDatabase):
    """A SQLite database, new or kept current. Rows of calls that the pull does not bring stay as they are."""

    Error = sqlite3.Error
    beside = ("-wal", "-shm", "-journal")
    columns = _COLUMNS

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self._database: sqlite3.Connection | None = None
        self._frozen: tuple[int, int] | None = None  # first size and time of a file that is read without locks

    def _connect(self, path: Path) -> None:
        if path.is_symlink():
            raise OutputError(f"{self.name} is a symbolic link", fix="give the path of the database itself")
        # One thread at a time uses it, though not always the same one.
        database = self._database = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        # A call is 2 to 3 KB: pages of 4 KB would be half empty. The size is fixed with the first table.
        database.execute("PRAGMA page_size = 16384")
        database.execute(_NO_TRUST)
        database.execute("PRAGMA cache_size = -64000")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")  # to know now whether another program has it
        database.execute("ROLLBACK")
        self._is_ours()  # before the journal mode is written into the file: a refused file must not change
        database.execute("PRAGMA journal_mode = WAL")

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        assert self._database is not None  # noqa: S101 - for the type checker: it is open
        if statement == "BEGIN":
            statement = "BEGIN IMMEDIATE"
        with self._unwritten():
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _unwritten(self) -> Generator[None]:
        """Refuse what was read without locks while another program wrote: it is of two moments."""
        try:
            yield
        finally:
            if self._frozen is not None and _state_of(self._target) != self._frozen:
                raise OutputLockedError(
                    f"{self.name} is being written", why="another program works on it", fix="wait until it has ended"
                )

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        if self._reading:
            database.close()
            return
        # Leaving write-ahead mode merges the log, and fails if another program has the database open. A database in
        # place may be read meanwhile: a checkpoint merges what it can, and the reader's last close merges the rest. A
        # new database must be one file that no other program has open: otherwise its log is left behind.
        unfolded: sqlite3.Error | None = None
        with closing(database):
            if database.in_transaction:
                database.execute("ROLLBACK")
            try:
                if not (self._in_place and _is_folded_at_once(database)):
                    mode = "wal_checkpoint(TRUNCATE)" if self._in_place else "journal_mode = DELETE"
                    database.execute(f"PRAGMA {mode}")
            except sqlite3.Error as error:
                unfolded = error
        path = self._target if self._in_place else self._part
        # Closing was a second try. A journal that is left belongs to this very name: SQLite looks for it there.
        left = [ending for ending in ("-wal", "-journal") if path.with_name(f"{path.name}{ending}").exists()]
        if not left or (self._in_place and unfolded is None):
            return
        if unfolded is None:  # a failed change of the mode is not always an error: it may return the old mode
            raise OutputError(
                f"{self.name} cannot be written",
                why=f"SQLite left {path.name}{left[0]} behind",
                fix="check the disk and its free space, then run it again",
            )
        if not self._in_place:
            raise self._failed(unfolded)
        raise OutputError(
            f"{self.name} is written, but only together with {self.name}{left[0]}",
            why=f"its log could not be merged into it: {self._failed(unfolded).why}",
            fix="keep the two side by side, make space, then open it once with any SQLite program",
        )

    def _columns(self) -> list[tuple[str, str]]:
        found = self._run(f"SELECT name, type, pk FROM pragma_table_info('{TABLE}')")  # noqa: S608 - a name of ours
        return [(name, f"{kind} KEY" if key else kind) for name, kind, key in found]

    def _foreign_parts(self) -> list[tuple[str, str]]:
        found = self._run(
            "SELECT type, name FROM sqlite_master WHERE type = 'view' AND name IN (?1, ?2, ?3) "
            "OR type = 'trigger' AND tbl_name IN (?1, ?2, ?3) ORDER BY type DESC, name",
            (TABLE, LEDGER, PULLS),
        )
        return [(kind, name) for kind, name in found]

    def _has_ledger(self) -> bool:
        return (
            len(self._run("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)", (LEDGER, TABLE))) > 1
        )

    def _is_blank(self, path: Path) -> bool:
        if path.name.endswith("-shm"):
            return True
        start = _start_of(path, _HEADER)
        if path != self._part:  # a log is of no use without its database
            return start[:4] in _LOGS or _is_unsynced_journal(start)
        page = int.from_bytes(start[16:18], "big")
        # A kill while the first page is written leaves a part of that page.
        return start.startswith(_MAGIC) and path.stat().st_size <= page and not any(start[103:105])

    def _connect_to_read(self, path: Path) -> None:
        # A reader would create a log for a database left in write-ahead mode. Without a log, no program writes.
        log = path.with_name(f"{path.name}-wal")
        in_log_mode = _start_of(path, 20)[18:20] == b"\2\2"
        self._frozen = _state_of(path) if in_log_mode and not log.exists() else None
        how = "mode=ro" if self._frozen is None else "immutable=1"
        self._database = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?{how}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        self._database.execute(_NO_TRUST)
        self._database.execute("BEGIN")  # stays open: rows and ledger must be of one moment

    def _put(self, records: list[CallRecord], reading: int) -> Totals:
        assert self._database is not None  # noqa: S101 - for the type checker: it is open
        account, ids = self._own().account, [record.id for record in records]
        which = f"account = ? AND id IN ({', '.join('?' * len(ids))}) AND (reading IS NULL OR reading <> ?)"
        replaced = self._totals(which, (account, *ids, reading))
        self._database.executemany(_UPSERT, ((account, *row, reading) for row in rows_of(records)))
        return replaced

    def _totals(self, which: str, values: Sequence[Any]) -> Totals:
        assert self._database is not None  # noqa: S101 - for the type checker: it is open
        totals: Totals = {}
        self._database.text_factory = bytes  # faster, and it takes text of other programs that is not UTF-8
        try:
            with self._unwritten():
                for row in self._database.execute(_SELECT + which, values):
                    digest = int.from_bytes(blake2b(_pack(row[1:]), digest_size=8).digest(), "little")
                    rows, digests = totals.get(row[0], (0, 0))
                    totals[row[0]] = rows + 1, digests + digest
        finally:
            self._database.text_factory = str
        return totals

    def _is_passing(self, error: Exception) -> bool:
        return (getattr(error, "sqlite_errorname", "") or "").startswith(_PASSING)

    def _failed(self, error: Exception) -> OutputError:
        code = getattr(error, "sqlite_errorname", "") or ""
        if _is_busy(error):
            return OutputLockedError(
                f"{self.name} is locked",
                why="another program has a transaction open in it",
                fix="end that program, or wait",
            )
        if code.startswith(("SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_SHM", "SQLITE_PROTOCOL")):
            return OutputError(
                f"{self.name} cannot be locked",
                why=f"its file system refuses locks or shared memory (SQLite says {code})",
                fix="give a destination on a local disk, then copy the finished output",
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


def _is_folded_at_once(database: sqlite3.Connection) -> bool:
    """Leave write-ahead mode if no other program has the database open now; return whether that was done."""
    database.execute("PRAGMA busy_timeout = 0")
    try:
        (mode,) = database.execute("PRAGMA journal_mode = DELETE").fetchone()
        return bool(mode == "delete")
    except sqlite3.OperationalError as error:
        if not _is_busy(error):
            raise
        return False
    finally:
        database.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorname", "") or ""
    return code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _state_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _is_unsynced_journal(start: bytes) -> bool:
    """Check for the first bytes of a rollback journal before its first fsync: SQLite writes its magic at that fsync.

    The first 12 bytes are zero. Then come a random number and the sizes of the database, of a sector and of a page.
    """
    sizes = (int.from_bytes(start[20:24], "big"), int.from_bytes(start[24:28], "big"))
    return not any(start[:12]) and (len(start) < _JOURNAL_HEADER or all(size in _SIZES for size in sizes))


def _start_of(path: Path, size: int) -> bytes:
    with open_to_read(path, follow=True) as file:
        return file.read(size)
