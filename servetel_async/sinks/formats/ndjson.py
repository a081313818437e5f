"""NDJSON: one record per line, in the server's own bytes.

Nothing is decoded and encoded again on the way to the file, so nothing can be lost: unknown keys, the order of keys
and the way a number was written all stay. Only white space between tokens is removed if it would break a line in two.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from servetel_async.errors import OutputError
from servetel_async.sinks.files.atomic import Digester, output_error, write_all
from servetel_async.sinks.files.compression import PackedFile
from servetel_async.sinks.sink import Output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servetel_async.sinks.sink import Batch, PullIdentity, Saved, Span

_STDOUT = 1


class LinesEncoder:
    """Writes lines into a file; see ``sink.Encoder``.

    Args:
        packing: ``".gz"`` or ``".zst"``; see ``compression.PackedFile``.
    """

    def __init__(self, packing: str | None = None) -> None:
        self._file = PackedFile(packing)

    def open(self, path: Path) -> None:
        """Create the file."""
        self._file.open(path)

    def write(self, batch: Batch) -> None:
        """Append a window."""
        self._file.write(b"".join([line + b"\n" for line in batch.lines]))

    def close(self) -> None:
        """Make it durable."""
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        self._file.abandon()


class StdoutSink:
    """Standard output. Printed calls cannot be taken back; the receipt and the exit code say if they are complete."""

    name = "standard output"
    place: Path | None = None
    keyed_by_id = False
    resumable = False
    done = False

    def __init__(self) -> None:
        self._written = Digester()

    def open(self, *, fresh: bool = False) -> None:  # noqa: ARG002 - nothing can be saved there
        """Refuse a closed stream: its descriptor may belong to another file by now."""
        if sys.stdout is None:
            raise OutputError("standard output is closed", fix="let it go somewhere, or pull into a file")

    def resume(self, claim: PullIdentity) -> Saved | None:  # noqa: ARG002 - nothing can be saved there
        """Return None: there is nothing to resume."""
        return None

    def begin(self, header: bytes) -> None:
        """Do nothing: there is nothing to prepare."""

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:  # noqa: ARG002 - there is no journal
        """Write a window's calls at once: a reader of a pipe sees them as they come."""
        lines = b"".join([line + b"\n" for line in batch.lines])
        try:
            write_all(_STDOUT, lines)
        except BrokenPipeError as error:
            raise OutputError("the reader of standard output has gone", fix="let it read to the end") from error
        except OSError as error:
            raise output_error(self.name, error, fix="look where it goes to, or pull into a file") from error
        self._written.update(lines)

    def finish(self, receipt_of: Callable[[Output], bytes]) -> None:
        """Make the receipt, but keep none: everything is printed already, and a receipt has no place there."""
        receipt_of(Output(*self._written.digest(), {}))

    def abandon(self) -> None:
        """Do nothing: there is nothing to take back."""
