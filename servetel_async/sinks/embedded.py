"""A database in one file: a new one is built as ``DEST.part`` and named at the end, another is updated in place.

The journal stands in the database itself, so a window's calls and its entry are one transaction. What SQLite and DuckDB
have in common is here; how each is opened, filled and closed is theirs.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from servetel_async.errors import OutputError, OutputLockedError, ResumeMismatchError
from servetel_async.sinks.columns import COLUMNS, flat_records, pieces_of
from servetel_async.sinks.files import (
    check_places,
    create_private,
    name_of,
    open_private,
    output_error,
    put_in_place,
    reason_of,
    remove,
    save_private,
)
from servetel_async.sinks.lock import OutputLock
from servetel_async.sinks.ownership import refuse_foreign_part
from servetel_async.sinks.places import refuse_mount_point
from servetel_async.sinks.sink import Saved

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.sink import Batch, Claim, Span

TABLE, PULLS, WINDOWS = "call_records", "servetel_pulls", "servetel_windows"
INDEXED = ("started_at", "client_number", "agent_number", "did_number")
_PULLS = "pull TEXT PRIMARY KEY, scope TEXT, header TEXT, finished_at TEXT, receipt TEXT"
_WINDOWS = "pull TEXT, scope TEXT, first TEXT, last TEXT, seq BIGINT, entry TEXT, PRIMARY KEY (pull, first, last)"
#: A database, or its log, that names none of the journal's tables is not ours.
_TABLES_OF_OURS = (PULLS.encode(), WINDOWS.encode())
JOURNAL = (f"CREATE TABLE IF NOT EXISTS {PULLS} ({_PULLS})", f"CREATE TABLE IF NOT EXISTS {WINDOWS} ({_WINDOWS})")


class EmbeddedDatabase:
    """One file, one writer.

    Subclasses give ``Error``, ``beside`` and what raises NotImplementedError here.
    """

    keyed_by_id = True
    resumable = True
    done = False
    sha256: str | None = None
    #: What the database library raises.
    Error: type[Exception]
    #: Files that the library keeps beside the database.
    beside: tuple[str, ...] = ()

    def __init__(self, target: Path) -> None:
        self.name = name_of(target)
        self.place: Path | None = target
        self.size = 0
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._receipt = target.with_name(f"{target.name}.receipt.json")
        self._lock = OutputLock(target)
        self._claim: Claim | None = None
        self._in_place = False
        self._is_new = False
        self._reading = False
        self._seq = 0

    # What the kinds of databases give

    def _make_file(self) -> None:
        """Create the part; the library would do it with the mask's mode, and what it keeps beside it takes its mode."""
        os.close(create_private(self._part))

    def _indexes(self) -> tuple[str, ...]:
        return INDEXED

    def _connect(self, path: Path) -> None:
        raise NotImplementedError

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def _disconnect(self) -> None:
        """Close, so that the file alone holds everything. Closing again does nothing."""
        raise NotImplementedError

    def _columns(self) -> list[tuple[str, str]]:
        """Name and type of each column that there is."""
        raise NotImplementedError

    def _wanted(self) -> list[tuple[str, str]]:
        """Name and type of each column that there should be."""
        raise NotImplementedError

    def _is_view(self) -> bool:
        """Whether a view has the table's name."""
        raise NotImplementedError

    def _is_blank(self, path: Path) -> bool:
        """Whether a file beside a database of ours, or in its place, holds nothing to lose."""
        raise NotImplementedError

    def _connect_to_read(self, path: Path) -> None:
        """Open a database that is there without changing or creating anything."""
        raise NotImplementedError

    def _has_journal(self) -> bool:
        """Whether the tables of the journal are there."""
        raise NotImplementedError

    def _declarations(self) -> list[str]:
        return [column.declaration for column in COLUMNS]

    def _write(self, batch: Batch) -> None:
        for piece in pieces_of(batch):  # so that a window is never held twice, as bytes and as calls
            self._insert(flat_records(piece))

    def _insert(self, records: list[CallRecord]) -> None:
        raise NotImplementedError

    def _failed(self, error: Exception) -> OutputError:
        raise NotImplementedError

    def _is_passing(self, error: Exception) -> bool:
        """Whether it is the system that failed, and says nothing against the file."""
        raise NotImplementedError

    # The life of a pull

    def open(self, claim: Claim, *, fresh: bool = False) -> Saved | None:
        """Take the lock, open or create the database, look whether a pull was interrupted; see ``Sink.open``."""
        self._claim = claim
        try:
            with self._telling():
                self._check_kind()
                self._lock.acquire()
                check_places(self._target)
                return self._open(claim, fresh=fresh)
        except BaseException:
            self.abandon()
            raise

    def _check_kind(self) -> None:
        if self._target.is_symlink():
            raise OutputError(f"{self.name} is a symbolic link", fix="give the path of the database itself")
        if self._target.exists() and not self._target.is_file():
            raise OutputError(f"{self.name} is no file", fix="give the name of a database file")
        refuse_mount_point(self._target, self.name)

    def _open(self, claim: Claim, *, fresh: bool) -> Saved | None:
        refuse_foreign_part(self._part, self.beside, _TABLES_OF_OURS, self._is_blank)
        self._settle_names()
        self._in_place = self._target.exists()
        if self._in_place:
            self._connect(self._target)
            self._prepare()
            return None if fresh else self._saved("pull = ?", (claim.pull,))
        self._check_alone()
        if not self._part.exists():
            self._create()
            return None
        if fresh:  # it may be an hour's work until a pull begins
            return None
        try:
            self._connect(self._part)
            self._prepare()
            return self._saved("TRUE", ())
        except (self.Error, OutputError) as error:
            told = self._failed(error) if isinstance(error, self.Error) else error
            if isinstance(told, OutputLockedError) or self._is_passing(error):
                raise told from (None if told is error else error)
            raise ResumeMismatchError(
                f"{self._part.name} cannot be gone on from",
                why="it is damaged, or another program wrote it",
                fix="say --no-resume (resume=False) to begin anew, or give another destination",
            ) from error

    def _check_alone(self) -> None:
        """A log whose database is gone would be read into the new one as soon as that bears the name."""
        for ending in self.beside:
            log = self._target.with_name(f"{self._target.name}{ending}")
            if os.path.lexists(log):
                raise OutputError(
                    f"{name_of(log)} is there without {self.name}",
                    why="it belongs to a database of that name, and would be read into the new one",
                    fix="bring its database back, or remove it",
                )

    def _settle_names(self) -> None:
        """A run that was killed between the two steps of naming left one file under two names."""
        if not self._part.exists():
            return
        if self._target.exists():
            if not self._part.samefile(self._target):
                raise ResumeMismatchError(
                    f"both {self.name} and {self._part.name} are there",
                    why="the one is a database, the other an interrupted pull into a new one of that name",
                    fix="move one of the two away",
                )
            self._part.unlink()

    def _create(self) -> None:
        self._remove(*self.beside)  # a log of a part that was removed would be read into the new one
        self._is_new = True
        self._make_file()
        self._connect(self._part)
        self._prepare()

    def _is_ours(self) -> bool:
        """Whether the table is there already; raises where it is somebody else's."""
        if self._is_view():
            raise OutputError(
                f"{self.name} holds a view {TABLE}",
                why="calls can only be written to a table",
                fix="rename the view, or give another destination",
            )
        columns = self._columns()
        if columns and columns != self._wanted():
            raise OutputError(
                f"{self.name} holds a table {TABLE} with other columns",
                why="it was made by another program, or by another version of this one",
                fix="give another destination",
            )
        return bool(columns)

    def _prepare(self) -> None:
        if not self._is_ours():
            self._run("BEGIN")
            self._run(f"CREATE TABLE {TABLE} ({', '.join(self._declarations())})")
            for name in self._indexes():
                self._run(f"CREATE INDEX {TABLE}_{name} ON {TABLE} ({name})")
            self._run("COMMIT")
        for statement in JOURNAL:
            self._run(statement)

    def _saved(self, which: str, values: Sequence[Any]) -> Saved | None:
        found = self._run(f"SELECT pull, header FROM {PULLS} WHERE {which} AND finished_at IS NULL", values)  # noqa: S608
        if not found:
            return None
        pull, header = found[0]
        rows = self._run(f"SELECT entry, seq FROM {WINDOWS} WHERE pull = ? ORDER BY seq", (pull,))  # noqa: S608
        self._seq = rows[-1][1] + 1 if rows else 0
        return Saved(header.encode(), [entry.encode() for entry, _ in rows])

    def begin(self, header: bytes, *, keep: bool = False) -> None:
        """Forget what is left of this pull, or of another one in ``DEST.part``, and note the new one."""
        claim = self._own()
        with self._telling():
            if not (keep or self._in_place or self._is_new):
                self._disconnect()
                self._remove("", *self.beside)
                self._create()
            self._seq = 0
            self._run("BEGIN")
            for table in (PULLS, WINDOWS):
                self._run(f"DELETE FROM {table} WHERE pull = ?", (claim.pull,))  # noqa: S608 - names of ours
            self._run(
                f"INSERT INTO {PULLS} (pull, scope, header) VALUES (?, ?, ?)",  # noqa: S608 - a name of ours
                (claim.pull, claim.scope, header.decode()),
            )
            self._run("COMMIT")

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Write a window and its entry in one transaction."""
        claim = self._own()
        with self._telling(), self._undone():
            self._run("BEGIN")
            self._write(batch)
            self._run(
                f"DELETE FROM {WINDOWS} WHERE pull = ? AND first >= ? AND last <= ?",  # noqa: S608 - a name of ours
                (claim.pull, span.first, span.last),
            )
            self._run(
                f"INSERT INTO {WINDOWS} (pull, scope, first, last, seq, entry) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
                (claim.pull, claim.scope, span.first, span.last, self._seq, entry.decode()),
            )
            self._run("COMMIT")
        self._seq += 1
        self._is_new = False

    def finish(self) -> None:
        """Bring all of it into the one file, have the disk know it, and give it its name."""
        self._is_new = False
        try:
            self._disconnect()
            if not self._in_place:
                self._check_alone()
                descriptor = open_private(self._part)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                put_in_place(self._part, self._target, overwrite=False)
                self._in_place = True
            self.size = self._target.stat().st_size
        except FileExistsError:
            raise OutputError(
                f"{self.name} has appeared meanwhile",
                why="another program made it",
                fix=f"move it away, then run it again: {self._part.name} is whole",
            ) from None
        except (self.Error, OSError) as error:
            raise self._told(error) from error

    def save_receipt(self, receipt: bytes) -> None:
        """Keep it in the database, which ends the pull, and beside it."""
        claim = self._own()
        try:
            self._connect(self._target)
            self._run(
                f"UPDATE {PULLS} SET finished_at = ?, receipt = ? WHERE pull = ?",  # noqa: S608 - a name of ours
                (datetime.now(UTC).isoformat(timespec="microseconds"), receipt.decode(), claim.pull),
            )
            self._disconnect()
            save_private(self._receipt, receipt)
        except OSError as error:
            raise OutputError(
                f"the receipt of {self.name} cannot be saved",
                why=f"{reason_of(error)}; the output itself is written",
                fix="use the output: the calls need not be pulled again",
            ) from error
        except self.Error as error:
            raise self._failed(error) from error

    def abandon(self) -> None:
        """Roll back and close; a new database that nothing was committed to goes."""
        with suppress(Exception):
            self._disconnect()
        if self._is_new and self._lock.held:
            self._remove("", *self.beside)
        self._is_new = False
        self._lock.release()

    # For sync and check

    def look(self) -> bool:
        """Open the database for reading only; see ``Database.look``."""
        self._reading = True
        with self._telling():
            self._check_kind()
            if not self._target.exists():
                return False
            self._connect_to_read(self._target)
            return self._has_journal()

    def windows(self, scope: str) -> list[bytes]:
        """Give the entries of all windows that were committed for that scope, by any pull."""
        with self._telling():
            rows = self._run(f"SELECT entry FROM {WINDOWS} WHERE scope = ? ORDER BY first", (scope,))  # noqa: S608
        return [entry.encode() for (entry,) in rows]

    def load_receipt(self) -> bytes | None:
        """Give the receipt that was saved last."""
        last = f"SELECT receipt FROM {PULLS} WHERE receipt IS NOT NULL ORDER BY finished_at DESC LIMIT 1"  # noqa: S608
        with self._telling():
            rows = self._run(last)
        return rows[0][0].encode() if rows else None

    def _own(self) -> Claim:
        assert self._claim is not None  # noqa: S101 - for the type checker: it was opened
        return self._claim

    def _remove(self, *endings: str) -> None:
        """Remove the part, or what the library keeps beside it."""
        for ending in endings:
            with suppress(OSError):
                remove(self._part.with_name(f"{self._part.name}{ending}"))

    @contextmanager
    def _telling(self) -> Generator[None]:
        """Say what the database or the system says; whatever else comes is left as it is."""
        try:
            yield
        except (self.Error, OSError) as error:
            raise self._told(error) from error

    @contextmanager
    def _undone(self) -> Generator[None]:
        """Roll back what fails."""
        try:
            yield
        except Exception:
            with suppress(self.Error):
                self._run("ROLLBACK")
            raise

    def _told(self, error: Exception) -> OutputError:
        return output_error(self.name, error) if isinstance(error, OSError) else self._failed(error)
