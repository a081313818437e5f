"""Files: windows are appended to ``DEST.part`` and noted in ``DEST.part.journal``; ``DEST`` appears at the end, whole.

1. A commit appends the window's lines to the part, makes them durable, then appends the journal's line. From that
   moment the window counts. Bytes of the part after the last journaled one are cut off.
2. The part holds the server's own bytes. If ``DEST`` is plain NDJSON, the part becomes ``DEST``. For every other format
   the part's windows are compressed, and at the end they are encoded into ``DEST.part.new``.
3. A window that is committed again replaces its first commit.
4. The output gets its name last: after the receipt was written beside it under another name, and the journal noted the
   digest of the output. A run that is killed at any moment leaves what the next one needs: the part and its journal, or
   the output and a journal that knows it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from servetel_async.errors import OutputError
from servetel_async.protocol.clock import IST, name_zone, zone_named
from servetel_async.sinks.files import ownership
from servetel_async.sinks.files.atomic import (
    Digest,
    Digester,
    PrivateFile,
    check_places,
    create_private,
    digest_of,
    digest_of_all,
    digests_in,
    open_private,
    output_error,
    put_in_place,
    reason_of,
    remove,
    sync_directory,
    write_all,
)
from servetel_async.sinks.files.compression import fast_packer, unpack
from servetel_async.sinks.files.journal import Journal, Line
from servetel_async.sinks.files.lock import OutputLock
from servetel_async.sinks.files.opened import name_of, objection_to, planted
from servetel_async.sinks.files.places import refuse_mount_point
from servetel_async.sinks.formats.ndjson import LinesEncoder
from servetel_async.sinks.sink import Batch, Output, Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from servetel_async.sinks.sink import Encoder, PullIdentity, Span


#: Lines that are written at a time: some 100 KB. Pieces of a megabyte would fragment the memory.
_LINES = 64


class _Segment(NamedTuple):
    """The place of a window in the part."""

    begin: int
    line: Line


class FileSink:
    """A file, or a directory of files.

    Args:
        target: the path of the output.
        encoder: the encoder of its format; None for plain NDJSON.
        overwrite: whether to replace an output of that name.
        directory: whether the encoder makes a directory.
    """

    keyed_by_id = False
    resumable = True

    def __init__(
        self, target: Path, encoder: Encoder | None = None, *, overwrite: bool = False, directory: bool = False
    ) -> None:
        self.name = name_of(target)
        self.place: Path | None = target
        self._target = target
        self._part = _beside(target, ".part")
        self._journal_path = _beside(target, ".part.journal")
        self._encoded = _beside(target, ".part.new")
        self._aside = _beside(target, ".part.old")
        self._asides = (self._aside,) if directory else ()  # a file is replaced in one step
        self._receipt = _beside(target, ".receipt.json")
        self._encoder = encoder
        self._packer = None if encoder is None else fast_packer()
        self._overwrite = overwrite
        self._directory = directory
        self._lock = OutputLock(target)
        self._journal: Journal | None = None
        self._descriptor: int | None = None
        self._is_new = False
        self._done: Digest | None = None
        self._written: Digester | None = None  # of the part, if this run has written all of it

    @property
    def done(self) -> bool:
        """Whether a killed run had given the output its name already."""
        return self._done is not None

    def open(self, *, fresh: bool = False) -> None:
        """Take the lock, and check what is there; see ``Sink.open``."""
        if not os.path.lexists(self._journal_path):  # pathlib's ``exists`` raises where a name is too long
            try:
                self._check_free()
            except OutputError:
                self._lock.clear()  # left by a run that was killed just before its end
                raise
        self._lock.acquire()
        try:
            check_places(self._target)
            if not fresh:
                with suppress(FileNotFoundError):
                    self._journal = Journal.open(self._journal_path)
            self._check_leftovers()
            self._check_free()
            if self._journal is not None and not self._holds_windows() and not os.path.lexists(self._part):
                self._close()  # left by a run that was killed between the journal and the part
            if self._journal is None:
                return
            if self._done is None:
                self._open_part(self._journal)
        except BaseException as error:
            self.abandon()
            if isinstance(error, OSError):
                raise output_error(self.name, error) from error
            raise

    def resume(self, claim: PullIdentity) -> Saved | None:  # noqa: ARG002 - its header says whose it is
        """Return what an interrupted pull has left, this one or another; see ``Sink.resume``."""
        if self._journal is None:
            return None
        lines = self._journal.lines
        return Saved(bytes(lines[0].body), [bytes(line.body) for line in lines if line.kind == "window"])

    def _holds_windows(self) -> bool:
        return self._journal is not None and any(line.kind == "window" for line in self._journal.lines)

    def _check_leftovers(self) -> None:
        """Refuse foreign files and directories under names of ours. The journal shows that the part is ours."""
        if os.path.lexists(self._journal_path) and not ownership.owns_file(self._journal_path):
            raise ownership.foreign(name_of(self._journal_path))
        begun = os.path.lexists(self._journal_path)
        for path in (self._part, self._encoded, *self._asides):
            is_file = path is not self._aside and (ownership.is_file(path) if begun else ownership.is_empty_file(path))
            is_directory = self._directory and path is not self._part and ownership.owns_directory(path)
            if os.path.lexists(path) and not is_file and not is_directory:
                raise ownership.foreign(name_of(path))

    def _check_free(self) -> None:
        """Refuse a name that is taken, unless a killed run gave it to the output that the journal describes."""
        refuse_mount_point(self._target, self.name)
        if not os.path.lexists(self._target):
            return
        if self._target.is_symlink():
            raise OutputError(
                f"{self.name} exists as a symbolic link",
                why="a link is neither followed nor replaced",
                fix="give the path that it leads to",
            )
        if self._target.is_dir() != self._directory:
            kind, fix = ("no directory", "another name") if self._directory else ("a directory", "the name of a file")
            raise OutputError(f"{self.name} is {kind}", fix=f"give {fix}")
        lines = [] if self._journal is None else self._journal.lines
        done = next((line for line in reversed(lines) if line.kind == "done"), None)
        if done is not None and digest_of(self._target) == (done.size, done.sha256):
            self._done = Digest(done.size, done.sha256)
        elif not self._overwrite:
            raise self._exists()
        elif not (ownership.owns_directory(self._target) if self._directory else ownership.is_file(self._target)):
            raise ownership.foreign(self.name)

    def _open_part(self, journal: Journal) -> None:
        self._descriptor = open_private(self._part)
        if why := objection_to(os.fstat(self._descriptor)):
            raise planted(name_of(self._part), why)
        end = max(line.end for line in journal.lines)
        if os.fstat(self._descriptor).st_size < end:
            raise self._changed()
        os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, end, os.SEEK_SET)

    def begin(self, header: bytes) -> None:
        """Remove what is left of another pull, then create the part and its journal."""
        try:
            self._close()
            self._check_leftovers()
            self._done = None
            self._written = Digester()
            for path in (self._encoded, self._part, self._journal_path):  # last: it shows that the others are ours
                remove(path)
            self._journal = Journal.create(self._journal_path, header)
            self._descriptor = create_private(self._part)
            self._is_new = True
            sync_directory(self._part.parent)
        except OSError as error:
            raise output_error(self.name, error) from error

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Append a window, then its journal line."""
        if self._done is not None:
            raise OutputError(
                f"{self.name} is finished already",
                why="a run that was killed had given it its name; calls have changed since",
                fix="use it as it is, or say --no-resume --overwrite (resume=False, overwrite=True)",
            )
        assert self._journal is not None  # noqa: S101 - for the type checker: a pull has begun
        assert self._descriptor is not None  # noqa: S101 - and nothing is done yet
        crc = 0
        try:
            for piece in self._packed(batch.lines):
                write_all(self._descriptor, piece)
                crc = zlib.crc32(piece, crc)
                if self._written is not None:
                    self._written.update(piece)
            os.fsync(self._descriptor)
            self._journal.append(
                Line(
                    "window",
                    body=msgspec.Raw(entry),
                    first=span.first,
                    last=span.last,
                    end=os.lseek(self._descriptor, 0, os.SEEK_CUR),
                    crc=crc,
                    zone=name_zone(batch.zone),
                )
            )
        except OSError as error:
            raise output_error(self.name, error) from error
        self._is_new = False

    def _packed(self, lines: Sequence[bytes]) -> Iterator[bytes]:
        """Yield a window's lines as they go to the part, piece by piece, so that it is never in memory twice."""
        packer = self._packer
        for start in range(0, len(lines), _LINES):
            piece = b"\n".join([*lines[start : start + _LINES], b""])
            yield piece if packer is None else packer.compress(piece)
        if packer is not None:
            yield packer.flush()

    def finish(self, receipt_of: Callable[[Output], bytes]) -> None:
        """Make the output from the part, give it its name, and keep its receipt beside it."""
        try:
            made, output = self._make()
            receipt = PrivateFile(self._receipt, receipt_of(output))
            try:
                self._name(made, output)
            except BaseException:
                receipt.discard()
                raise
        except FileExistsError:
            raise self._exists() from None
        except OSError as error:
            raise output_error(self.name, error) from error
        try:
            receipt.put_in_place()
            self._close()
            for path in (self._encoded, self._part, *self._asides, self._journal_path):  # the journal last, as above
                remove(path)
            sync_directory(self._target.parent)
        except OSError as error:
            raise OutputError(
                f"{self.name} is written, but its receipt cannot be saved",
                why=reason_of(error),
                fix="run the same command again: it counts the calls again, and reads none",
            ) from error

    def _make(self) -> tuple[Path | None, Output]:
        """Encode the output and compute its digest; return None as its path if it has its name already."""
        if self._done is not None:
            return None, _output_of(self._target)
        segments, is_whole = self._segments()
        if self._encoder is not None or not is_whole:
            self._encode(segments)
            return self._encoded, _output_of(self._encoded)
        return self._part, Output(*self._digest_of(segments), {})

    def _name(self, made: Path | None, output: Output) -> None:
        """Note the digest of the output in the journal, then give the output its name."""
        if made is None:
            return
        assert self._journal is not None  # noqa: S101 - for the type checker: a pull has begun
        self._journal.append(Line("done", size=output.size, sha256=output.sha256 or ""))
        put_in_place(made, self._target, overwrite=self._overwrite)

    def _digest_of(self, segments: list[_Segment]) -> Digest:
        """Return the part's digest; check that windows of another run are as they were journaled."""
        assert self._descriptor is not None  # noqa: S101 - for the type checker: only an open part is made
        written = self._written
        if written is None:
            written = Digester()
            for segment in segments:
                written.update(self._read(segment))
        if os.fstat(self._descriptor).st_size != written.size:
            raise self._changed()
        return written.digest()

    def _encode(self, segments: list[_Segment]) -> None:
        remove(self._encoded)
        encoder = self._encoder if self._encoder is not None else LinesEncoder()
        try:
            encoder.open(self._encoded)
            for segment in segments:
                zone = zone_named(segment.line.zone) or IST
                encoder.write(Batch(self._read(segment).splitlines(), zone))
            encoder.close()
        except BaseException:
            encoder.abandon()
            with suppress(OSError):
                remove(self._encoded)
            raise

    def _segments(self) -> tuple[list[_Segment], bool]:
        """Return each window's last commit, in the order of the first ones, and whether they are all of the part."""
        assert self._journal is not None  # noqa: S101 - for the type checker: a pull has begun
        found: dict[tuple[str, str], _Segment] = {}
        begin = commits = 0
        for line in self._journal.lines:
            if line.kind == "window":
                found[line.first, line.last] = _Segment(begin, line)
                begin, commits = line.end, commits + 1
        return list(found.values()), len(found) == commits

    def _read(self, segment: _Segment) -> bytes:
        assert self._descriptor is not None  # noqa: S101 - for the type checker: only an open part is read
        wanted = segment.line.end - segment.begin
        data = b"".join(_pieces(self._descriptor, segment.begin, wanted))
        if len(data) != wanted or zlib.crc32(data) != segment.line.crc:
            raise self._changed()
        return data if self._encoder is None else unpack(data)

    def abandon(self) -> None:
        """Close what is open, and remove a part to which nothing was committed."""
        with suppress(OSError):
            self._close()
        if self._lock.held and self._is_new:
            for path in (self._part, self._journal_path):
                with suppress(OSError):
                    remove(path)
        self._lock.release()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        journal, self._journal = self._journal, None
        if descriptor is not None:
            os.close(descriptor)
        if journal is not None:
            journal.close()

    def _changed(self) -> OutputError:
        return OutputError(
            f"{self._part.name} is not as this program left it",
            why="its bytes disagree with its journal: another program, or the disk, has changed them",
            fix="say --no-resume (resume=False) to begin anew",
        )

    def _exists(self) -> OutputError:
        return OutputError(
            f"{self.name} exists",
            why="what is there is never replaced unasked",
            fix="give another name, or say --overwrite (overwrite=True)",
        )


def _output_of(path: Path) -> Output:
    files = digests_in(path) if path.is_dir() else {}
    digest = digest_of_all(files) if files else digest_of(path)
    return Output(digest.size, digest.sha256, {name: each.sha256 for name, each in files.items()})


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _pieces(descriptor: int, begin: int, wanted: int) -> Iterator[bytes]:
    while wanted > 0:
        piece = os.pread(descriptor, wanted, begin)
        if not piece:
            return
        yield piece
        begin, wanted = begin + len(piece), wanted - len(piece)
