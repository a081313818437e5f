"""The journal of a file: a line with a checksum for each step, durable before the next step.

A line that was cut off by a kill is dropped: its step did not happen. Any other damage is refused.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import msgspec

from servetel_async.errors import ResumeMismatchError
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.sinks.files.atomic import create_private, open_private, sync_directory, write_all
from servetel_async.sinks.files.opened import name_of, objection_to, planted

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
_CHECKSUM = 9  # eight hex digits and a blank


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal.

    Attributes:
        kind: ``"begin"``, ``"window"`` or ``"done"``.
        format: the version of this journal; only in the first line.
        body: the pull's header, or the window's entry.
        first, last: first and last second of the window.
        end: length of the part with this window; crc: checksum of the window's bytes in it.
        zone: name of the account's zone.
        size, sha256: size and digest of the output that is about to get its name.
    """

    kind: str
    format: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")
    first: str = ""
    last: str = ""
    end: int = 0
    crc: int = 0
    zone: str | None = None
    size: int = 0
    sha256: str = ""


_decode = msgspec.json.Decoder(Line).decode


class Journal:
    """A journal that is open for appending.

    Attributes:
        lines: its lines in order; the first is the beginning.
    """

    def __init__(self, descriptor: int, lines: list[Line]) -> None:
        self._descriptor = descriptor
        self.lines = lines

    @classmethod
    def create(cls, path: Path, header: bytes) -> Journal:
        """Create a journal, and make it durable.

        Raises:
            OSError: if the system refuses it.
        """
        journal = cls(create_private(path), [])
        try:
            journal.append(Line("begin", format=FORMAT, body=msgspec.Raw(header)))
            sync_directory(path.parent)
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal | None:
        """Open the journal that a killed run left; None if it has no whole line.

        Raises:
            ResumeMismatchError: if it is damaged, or another version's.
            OutputError: if it is not as we leave it: another user may have written it.
            OSError: if the system refuses it; FileNotFoundError if there is no journal.
        """
        descriptor = open_private(path)
        try:
            lines, whole = _load(descriptor, path)
            if lines:
                os.ftruncate(descriptor, whole)
                os.lseek(descriptor, whole, os.SEEK_SET)
                return cls(descriptor, lines)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def append(self, line: Line) -> None:
        """Append a line; it is durable when this returns.

        Raises:
            OSError: if the system refuses it.
        """
        text = msgspec.json.encode(line)
        write_all(self._descriptor, b"%08x %s\n" % (zlib.crc32(text), text))
        os.fsync(self._descriptor)
        self.lines.append(line)

    def close(self) -> None:
        os.close(self._descriptor)


def _load(descriptor: int, path: Path) -> tuple[list[Line], int]:
    """Read the whole lines; return them and their size."""
    if why := objection_to(os.fstat(descriptor)):
        raise planted(name_of(path), why)
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read()
    whole = data.rfind(b"\n") + 1
    lines = [_read(line, path) for line in data[:whole].splitlines()]
    if lines and (lines[0].kind != "begin" or lines[0].format != FORMAT):
        raise _damaged(path, "another version of this program wrote it")
    return lines, whole


def _read(text: bytes, path: Path) -> Line:
    checksum, body = text[:_CHECKSUM], text[_CHECKSUM:]
    if checksum != b"%08x " % zlib.crc32(body):
        raise _damaged(path, "its checksum does not agree")
    try:
        return _decode(body)
    except (*UNDECODABLE, RecursionError):
        raise _damaged(path, "another version of this program wrote it") from None


def _damaged(path: Path, why: str) -> ResumeMismatchError:
    return ResumeMismatchError(
        f"{name_of(path)} cannot be resumed",
        why=why,
        fix="say --no-resume (resume=False) to begin anew, or give another destination",
    )
