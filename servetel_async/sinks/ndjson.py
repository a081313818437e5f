"""NDJSON: one record per line, in the server's own bytes.

Nothing is decoded and encoded again on the way to the file, so nothing can be lost: unknown keys, the order of keys
and the way a number was written all stay. Only white space between tokens goes where it would break a line in two.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from servetel_async.errors import OutputError
from servetel_async.protocol.decoding import read_page
from servetel_async.protocol.reply import Reply
from servetel_async.sinks.files import create_private, name_of, output_error, put_in_place, write_all
from servetel_async.sinks.lock import OutputLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servetel_async.protocol.records import CallPage, CallRecord

_HTTP_OK = 200
_STDOUT = 1


def lines_of(page: CallPage) -> bytes:
    """Give the page's calls as they were sent, each on a line of its own, in the order of ``page.records``."""
    if not page.records:
        return b""
    lines = b"\n".join([_line(row) for row in _rows_of(page)]) + b"\n"
    try:
        lines.decode()
    except UnicodeDecodeError:  # one broken name must not make the file unreadable for every strict reader
        return lines.decode("utf-8", "replace").encode()
    return lines


def _line(row: bytes) -> bytes:
    # A line end stands between tokens only: inside of a text it is escaped, else the page would not have been one.
    return msgspec.json.format(row, indent=-1) if b"\n" in row or b"\r" in row else row


def _rows_of(page: CallPage) -> Iterator[bytes]:
    """Each record's own bytes. A page may hold more than its records: duplicates were dropped."""
    body = read_page(Reply(_HTTP_OK, page.raw), 0.0)
    rows = body.rows()
    if len(rows) == len(page.records):
        yield from (bytes(row) for row in rows)
        return
    body.open()
    calls = [call for piece in body.slices() for call in piece]
    wanted = iter(page.records)
    call = next(wanted, None)
    for row, candidate in zip(rows, calls, strict=True):
        # The records are a subsequence of the page, and a dropped duplicate stands behind the one that was kept.
        if call is not None and _key(candidate) == _key(call):
            yield bytes(row)
            call = next(wanted, None)


def _key(call: CallRecord) -> tuple[str, str | None, str | None]:
    """What the stream tells calls by: an id, and its start where a server gives one id to several."""
    return call.id, call.date, call.time


class NdjsonSink:
    """A file: written as ``DEST.part`` beside it, and given its name when it is whole and on the disk."""

    keyed_by_id = False

    def __init__(self, target: Path, *, overwrite: bool = False) -> None:
        self.name = name_of(target)
        self.size = 0
        self.sha256: str | None = None
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._overwrite = overwrite
        self._lock = OutputLock(target)
        self._digest = hashlib.sha256()
        self._descriptor: int | None = None

    def open(self) -> None:
        """Take the lock and create the part file; see ``Sink.open``."""
        self._check_free()
        self._lock.acquire()
        try:
            self._check_free()
            with suppress(FileNotFoundError):
                self._part.unlink()  # of a killed run: whoever holds the lock is the only one who writes it
            self._descriptor = create_private(self._part)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise output_error(self.name, error) from error
            raise

    def write(self, page: CallPage) -> None:
        """Append a page's calls."""
        lines = lines_of(page)
        assert self._descriptor is not None  # noqa: S101 - for the type checker: it is open
        try:
            write_all(self._descriptor, lines)
        except OSError as error:
            raise output_error(self.name, error) from error
        self._digest.update(lines)
        self.size += len(lines)

    def commit(self) -> None:
        """Have the disk know the bytes, then the name."""
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None  # noqa: S101 - for the type checker: it is open
        try:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            put_in_place(self._part, self._target, overwrite=self._overwrite)
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            raise output_error(self.name, error) from error
        self.sha256 = self._digest.hexdigest()

    def abandon(self) -> None:
        """Remove the part file, if there is one left, and release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if self._lock.held:
            with suppress(OSError):
                self._part.unlink()
        self._lock.release()

    def _check_free(self) -> None:
        if self._target.is_dir():
            raise OutputError(f"{self.name} is a directory", fix="give the name of a file in it")
        if not self._overwrite and os.path.lexists(self._target):
            raise self._exists()

    def _exists(self) -> OutputError:
        return OutputError(
            f"{self.name} exists",
            why="what is there is never replaced unasked",
            fix="give another name, or say --overwrite (overwrite=True)",
        )


class StdoutSink:
    """Standard output. Nothing written there can be taken back: the receipt and the exit code tell if it is whole."""

    name = "standard output"
    keyed_by_id = False

    def __init__(self) -> None:
        self.size = 0
        self.sha256: str | None = None
        self._digest = hashlib.sha256()

    def open(self) -> None:
        """Refuse a stream that was closed: its number belongs to some other file by now."""
        if sys.stdout is None:
            raise OutputError("standard output is closed", fix="let it go somewhere, or pull into a file")

    def write(self, page: CallPage) -> None:
        """Write a page's calls, at once: a reader behind a pipe sees them as they come."""
        lines = lines_of(page)
        try:
            write_all(_STDOUT, lines)
        except BrokenPipeError as error:
            raise OutputError("the reader of standard output has gone", fix="let it read to the end") from error
        except OSError as error:
            raise output_error(self.name, error, fix="look where it goes to, or pull into a file") from error
        self._digest.update(lines)
        self.size += len(lines)

    def commit(self) -> None:
        """Everything is out already."""
        self.sha256 = self._digest.hexdigest()

    def abandon(self) -> None:
        """Nothing to take back."""
