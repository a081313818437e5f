"""A database in one file: a new one is built as ``DEST.part`` and renamed at the end, another is updated in place.

The ledger is in the database itself, so a window's calls and its fact are one transaction. This module has what SQLite
and DuckDB share; their own modules open, fill and close each.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from servetel_async.errors import OutputError, OutputLockedError, ResumeMismatchError
from servetel_async.sinks.databases import journal_table as ledger
from servetel_async.sinks.databases.journal_table import INDEXED, TABLE, Totals
from servetel_async.sinks.files.atomic import (
    PrivateFile,
    check_places,
    create_private,
    open_private,
    output_error,
    put_in_place,
    reason_of,
    remove,
)
from servetel_async.sinks.files.lock import OutputLock
from servetel_async.sinks.files.opened import name_of, refuse_lone_log, refuse_open_directory, refuse_planted_database
from servetel_async.sinks.files.ownership import refuse_foreign_part
from servetel_async.sinks.files.places import refuse_mount_point
from servetel_async.sinks.sink import Output, Saved
from servetel_async.sinks.table.columns import KEY, flat_records, pieces_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.sink import Batch, PullIdentity, Seal, Span, Stored


class EmbeddedDatabase:
    """A database in one file, with one writer.

    Subclasses set ``Error`` and ``beside``, and implement each method that raises NotImplementedError here.
    """

    keyed_by_id = True
    resumable = True
    done = False
    #: The base class of the database library's errors.
    Error: type[Exception]
    #: Files that the library keeps beside the database.
    beside: tuple[str, ...] = ()

    def __init__(self, target: Path) -> None:
        self.name = name_of(target)
        self.place: Path | None = target
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._receipt = target.with_name(f"{target.name}.receipt.json")
        self._lock = OutputLock(target)
        self._claim: PullIdentity | None = None
        self._in_place = False
        self._is_new = False
        self._fresh = False
        self._reading = False

    # Implemented by each kind of database

    def _make_file(self) -> None:
        """Create the part, private; the library would use the umask, and its other files take the mode of the part."""
        os.close(create_private(self._part))

    def _indexes(self) -> tuple[str, ...]:
        return (*INDEXED, "reading")

    def _connect(self, path: Path) -> None:
        raise NotImplementedError

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def _disconnect(self) -> None:
        """Close, so that the file alone holds everything. Closing again does nothing."""
        raise NotImplementedError

    #: Name and type of each column of ``call_records``.
    columns: list[tuple[str, str]]

    def _columns(self) -> list[tuple[str, str]]:
        """Return name and type of each existing column; the type of a key column ends with ``KEY``."""
        raise NotImplementedError

    def _foreign_parts(self) -> list[tuple[str, str]]:
        """Return views with the name of our tables, and triggers on them: ``view`` or ``trigger``, and the name."""
        raise NotImplementedError

    def _is_blank(self, path: Path) -> bool:
        """Whether a file beside a database of ours, or in its place, holds nothing to lose."""
        raise NotImplementedError

    def _connect_to_read(self, path: Path) -> None:
        """Open an existing database without changing or creating anything."""
        raise NotImplementedError

    def _has_ledger(self) -> bool:
        """Whether the calls and their ledger are there."""
        raise NotImplementedError

    def _pieces(self, batch: Batch) -> Iterator[list[CallRecord]]:
        for piece in pieces_of(batch):  # so that a window is never held twice, as bytes and as calls
            yield flat_records(piece)

    def _put(self, records: list[CallRecord], reading: int) -> Totals:
        """Write the calls; return the totals of the rows of earlier readings that they replace."""
        raise NotImplementedError

    def _totals(self, which: str, values: Sequence[Any]) -> Totals:
        """Add up the stored rows for which a condition is true, by their reading."""
        raise NotImplementedError

    def _failed(self, error: Exception) -> OutputError:
        raise NotImplementedError

    def _is_passing(self, error: Exception) -> bool:
        """Whether the system caused the error, which then says nothing about the file."""
        raise NotImplementedError

    def open(self, *, fresh: bool = False) -> None:
        """Take the lock, open or create the database; see ``Sink.open``."""
        try:
            with self._telling():
                self._check_kind()
                self._lock.acquire()
                check_places(self._target)
                self._open(fresh=fresh)
        except BaseException:
            self.abandon()
            raise

    def resume(self, claim: PullIdentity) -> Saved | None:
        """Return the state of an interrupted pull; see ``Sink.resume``."""
        self._claim = claim
        if self._fresh:
            return None
        with self._telling():
            which = ("account = ? AND pull = ?", (claim.account, claim.pull)) if self._in_place else ("TRUE", ())
            return self._saved(*which)

    def _check_kind(self) -> None:
        if self._target.is_symlink():
            raise OutputError(f"{self.name} is a symbolic link", fix="give the path of the database itself")
        if self._target.exists() and not self._target.is_file():
            raise OutputError(f"{self.name} is no file", fix="give the name of a database file")
        refuse_mount_point(self._target, self.name)
        refuse_open_directory(self._target)

    def _open(self, *, fresh: bool) -> None:
        self._fresh = fresh
        refuse_foreign_part(self._part, self.beside, ledger.NAMES, self._is_blank)
        self._settle_names()
        self._in_place = self._target.exists()
        if self._in_place:
            refuse_planted_database(self._target, self.beside)
            self._connect(self._target)
            refuse_planted_database(self._target, self.beside)  # the library opens a log that came in between
            self._prepare()
            return
        refuse_lone_log(self._target, self.beside)
        if not self._part.exists():
            self._create()
            return
        if fresh:  # it is kept until the pull begins: it may be an hour's work
            return
        try:
            self._connect(self._part)
            self._prepare()
            self._saved("TRUE", ())
        except (self.Error, OutputError) as error:
            told = self._failed(error) if isinstance(error, self.Error) else error
            if isinstance(told, OutputLockedError) or self._is_passing(error):
                raise told from (None if told is error else error)
            raise ResumeMismatchError(
                f"{self._part.name} cannot be resumed",
                why="it is damaged, or another program wrote it",
                fix="say --no-resume (resume=False) to begin anew, or give another destination",
            ) from error

    def _settle_names(self) -> None:
        """Resolve one file under two names: a run was killed between the two steps of naming."""
        if not self._part.exists():
            return
        if self._target.exists():
            if not self._part.samefile(self._target):
                raise ResumeMismatchError(
                    f"both {self.name} and {self._part.name} are there",
                    why="the first is a database, the second an interrupted pull into a new database of that name",
                    fix="move one of the two away",
                )
            self._part.unlink()

    def _create(self) -> None:
        self._remove(*self.beside)  # the log of a removed part would be read into the new one
        self._is_new = True
        self._make_file()
        self._connect(self._part)
        self._prepare()

    def _is_ours(self) -> bool:
        """Whether the table exists already; raise an error if it is not ours."""
        for kind, name in self._foreign_parts():
            raise OutputError(
                f"{self.name} holds a {kind} {name if name.isidentifier() else ascii(name)}",
                why="calls can only be written to a table, and nothing of others may run with them",
                fix=f"drop or rename the {kind}, or give another destination",
            )
        columns = self._columns()
        if columns and columns != [(name, f"{kind} KEY" if name in KEY else kind) for name, kind in self.columns]:
            raise OutputError(
                f"{self.name} holds a table {TABLE} with other columns",
                why="it was made by another program, or by another version of this one",
                fix="give another destination",
            )
        return bool(columns)

    def _prepare(self) -> None:
        is_ours = self._is_ours()
        for statement in ledger.CREATE:
            self._run(statement)
        if not is_ours:
            columns = [f'"{name}" {kind}{" NOT NULL" if name in KEY else ""}' for name, kind in self.columns]
            self._run("BEGIN")
            self._run(f"CREATE TABLE {TABLE} ({', '.join(columns)}, PRIMARY KEY ({', '.join(KEY)}))")
            for name in self._indexes():
                self._run(f"CREATE INDEX {TABLE}_{name} ON {TABLE} ({name})")
            self._run(ledger.CLEAR)  # the ledger describes rows that were dropped with the table
            self._run("COMMIT")

    def _saved(self, which: str, values: Sequence[Any]) -> Saved | None:
        found = self._run(f"{ledger.INTERRUPTED} AND {which}", values)
        if not found:
            return None
        account, pull, header, since = found[0]
        facts = self._run(ledger.FACTS, (account, pull, since))
        return Saved(ledger.text_of(header), [ledger.text_of(fact) for (fact,) in facts])

    def begin(self, header: bytes, *, keep: bool = False) -> None:
        """Forget what is left of this pull, or of another one in ``DEST.part``, and note the new one."""
        claim = self._own()
        with self._telling():
            if not (keep or self._in_place or self._is_new):
                self._disconnect()
                self._remove("", *self.beside)
                self._create()
            self._fresh = False
            self._run("BEGIN")
            self._run(ledger.FORGET, (claim.account, claim.pull))
            ((reading,),) = self._run(ledger.NEXT)
            self._run(ledger.BEGIN, (claim.account, claim.pull, claim.scope, header.decode(), reading - 1))
            self._run("COMMIT")

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Write a window, its fact and the seals that it changes in one transaction."""
        account, scope, pull = (claim := self._own()).account, claim.scope, claim.pull
        with self._telling(), self._undone():
            self._run("BEGIN")
            ((reading,),) = self._run(ledger.NEXT)
            for before, total in self._write(batch, reading).items():
                for seal in self._run(ledger.SEAL, (before,)):
                    self._run(ledger.RESEAL, (*ledger.without(seal, *total), before))
            seal = ledger.sealed(*self._totals("reading = ?", (reading,)).get(reading, (0, 0)))
            self._run(ledger.NOTE, (reading, account, scope, pull, *span, entry.decode(), *seal))
            for earlier in self._run(ledger.EARLIER, (account, scope, pull, *span, reading)):
                if not self._run(ledger.LEFT, earlier):
                    self._run(ledger.DROP, earlier)
            self._run("COMMIT")
        self._is_new = False

    def _write(self, batch: Batch, reading: int) -> Totals:
        """Write a window's calls; return the totals of the rows that were replaced, by their reading."""
        replaced: Totals = {}
        for records in self._pieces(batch):
            ledger.add(replaced, self._put(records, reading))
        return replaced

    def finish(self, receipt_of: Callable[[Output], bytes]) -> None:
        """Merge all of it into one file, make it durable, name it, and keep its receipt in it and beside it."""
        self._is_new = False
        try:
            self._disconnect()
            file = self._target if self._in_place else self._part
            text = receipt_of(Output(file.stat().st_size, None, {}))
            receipt = PrivateFile(self._receipt, text)
            try:
                self._name()
            except BaseException:
                receipt.discard()
                raise
        except FileExistsError:
            raise OutputError(
                f"{self.name} has appeared meanwhile",
                why="another program made it",
                fix=f"move it away, then run it again: {self._part.name} is whole",
            ) from None
        except (self.Error, OSError) as error:
            raise self._told(error) from error
        try:
            receipt.put_in_place()  # first, because the receipt inside ends the pull
            self._receive(text)
        except (self.Error, OSError) as error:
            receipt.discard()
            raise OutputError(
                f"{self.name} is written, but its receipt cannot be saved",
                why=reason_of(error) if isinstance(error, OSError) else self._failed(error).why,
                fix="run the same command again: it counts the calls again, and reads none",
            ) from error

    def _name(self) -> None:
        """Give a new database its name."""
        if self._in_place:
            return
        refuse_lone_log(self._target, self.beside)
        descriptor = open_private(self._part)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        put_in_place(self._part, self._target, overwrite=False)
        self._in_place = True

    def _receive(self, receipt: bytes) -> None:
        """Keep the receipt in the database, which ends the pull."""
        claim = self._own()
        self._connect(self._target)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        self._run(ledger.RECEIVE, (now, receipt.decode(), claim.account, claim.pull))
        self._disconnect()

    def abandon(self) -> None:
        """Roll back and close, and remove a new database to which nothing was committed."""
        with suppress(Exception):
            self._disconnect()
        if self._is_new and self._lock.held:
            self._remove("", *self.beside)
        self._is_new = False
        self._lock.release()

    def look(self) -> bool:
        """Open the database for reading only; see ``Database.look``."""
        self._reading = True
        with self._telling():
            self._check_kind()
            if not self._target.exists():
                return False
            refuse_planted_database(self._target, self.beside, owner=self._target.stat().st_uid)
            self._connect_to_read(self._target)
            return self._has_ledger()

    def ledger(self) -> list[Stored]:
        """Return all facts; see ``Database.ledger``. A part that will be dropped has none."""
        if self._fresh and not self._in_place:
            return []
        with self._telling():
            return [ledger.stored(row) for row in self._run(ledger.ALL)]

    def content(self) -> dict[int, Seal]:
        """Compute the seals again; see ``Database.content``."""
        with self._telling():
            return ledger.content_of(self._totals("TRUE", ()), [row[0] for row in self._run(ledger.ALL)])

    def stamps(self, reading: int) -> list[str | None]:
        """Return when the calls of a reading began; see ``Database.stamps``."""
        with self._telling():
            return [row[0] for row in self._run(ledger.STAMPS, (reading,))]

    def receipts(self) -> list[bytes]:
        """Return the last receipt of each pull; see ``Database.receipts``."""
        if self._fresh and not self._in_place:
            return []
        with self._telling():
            return [receipt.encode() for (receipt,) in self._run(ledger.RECEIPTS)]

    def _own(self) -> PullIdentity:
        assert self._claim is not None  # noqa: S101 - for the type checker: it was opened
        return self._claim

    def _remove(self, *endings: str) -> None:
        """Remove the part, or the library's files beside it."""
        for ending in endings:
            with suppress(OSError):
                remove(self._part.with_name(f"{self._part.name}{ending}"))

    @contextmanager
    def _telling(self) -> Generator[None]:
        """Turn errors of the database or the system into an ``OutputError``; leave all others as they are."""
        try:
            yield
        except (self.Error, OSError) as error:
            raise self._told(error) from error

    @contextmanager
    def _undone(self) -> Generator[None]:
        """Roll back if the block fails."""
        try:
            yield
        except Exception:
            with suppress(self.Error):
                self._run("ROLLBACK")
            raise

    def _told(self, error: Exception) -> OutputError:
        return output_error(self.name, error) if isinstance(error, OSError) else self._failed(error)
