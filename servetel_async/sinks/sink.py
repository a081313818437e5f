"""What every destination can do, and what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from servetel_async.protocol.rows import records_of

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord


class Batch(NamedTuple):
    """The calls of one window, newest first; one commit takes all of them.

    Attributes:
        lines: each call as the server sent it: one line of strict JSON in UTF-8, without a line end.
        zone: the account's wall clock.
    """

    lines: list[bytes]
    zone: tzinfo

    def __repr__(self) -> str:
        """Show how many, and not which: a traceback that keeps local variables is no place for calls."""
        return f"<Batch of {len(self.lines)} calls>"

    def records(self) -> list[CallRecord]:
        """Decode them."""
        return records_of(self.lines, self.zone)


class Claim(NamedTuple):
    """Which pull wants the destination.

    Attributes:
        pull: tells pulls apart: query, range and shape of the output.
        scope: tells queries apart without their range: what ``sync`` goes on from.
    """

    pull: str
    scope: str


class Span(NamedTuple):
    """First and last second of a window, ``YYYY-MM-DD HH:MM:SS``; they compare as text."""

    first: str
    last: str


class Saved(NamedTuple):
    """What an interrupted pull left: its header, and one entry for each window that was committed, in that order."""

    header: bytes
    entries: list[bytes]


class Sink(Protocol):
    """One destination of one pull. A window is one ``commit``: its calls and its journal entry, both or neither.

    Headers and entries are JSON texts that a sink keeps and does not read. Its methods block, so they run in a thread
    beside the event loop, one after another: a sink needs no lock.

    Attributes:
        name: how to call it in a message; never holds a password.
        place: the file or directory that it will be; what belongs to it is saved beside it. None where there is none.
        keyed_by_id: it keeps one call per ``id``, the last one written.
        resumable: what was committed outlives this process.
        size: bytes of the output; known after ``finish``.
        sha256: hex digest of the output where it is one file of bytes, else None; known after ``finish``.
    """

    name: str
    place: Path | None
    keyed_by_id: bool
    resumable: bool
    size: int
    sha256: str | None

    @property
    def done(self) -> bool:
        """Whether a killed run had given the output its name already: only the receipt is missing. After ``open``."""
        ...

    def open(self, claim: Claim, *, fresh: bool = False) -> Saved | None:
        """Claim the destination: whatever can be known to be wrong is raised here, before anything is asked for.

        Args:
            claim: whose pull it is.
            fresh: do not look at what an interrupted pull has left: ``begin`` will drop it, readable or not.

        Returns:
            What an interrupted pull has left, be it this one or another; None where there is nothing.

        Raises:
            OutputError: it exists, is something else, or cannot be written.
            OutputLockedError: another run is writing it.
            OutputUnavailableError: if its server is not reachable or busy.
            ResumeMismatchError: what was left cannot be read; nothing was changed.
        """
        ...

    def begin(self, header: bytes) -> None:
        """Begin a pull; what another one left is gone.

        Raises:
            OutputError: as the system says.
        """
        ...

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Take a window: on the disk, with its entry, when this returns.

        Raises:
            OutputError: the disk is full, or whatever else the system says; then nothing of the window is there.
        """
        ...

    def finish(self) -> None:
        """Make the output final: under its name, whole, on the disk.

        Raises:
            OutputError: it could not; what was committed is kept, and ``finish`` can be tried again by another run.
        """
        ...

    def save_receipt(self, receipt: bytes) -> None:
        """Keep the receipt beside or inside of the output, and forget the journal of a finished file.

        Raises:
            OutputError: it could not.
        """
        ...

    def abandon(self) -> None:
        """Let go of it. Never raises; what was committed stays for the next run, what was not is gone."""
        ...


class Database(Sink, Protocol):
    """A destination that keeps the journal of all its pulls."""

    def begin(self, header: bytes, *, keep: bool = False) -> None:
        """Begin a pull as ``Sink.begin`` does; with ``keep`` only its journal is begun anew, and every call stays."""
        ...

    def look(self) -> bool:
        """Open it for reading only, in place of ``open``: nothing is created, changed or locked.

        ``windows``, ``load_receipt`` and ``abandon`` work afterwards.

        Returns:
            Whether a journal of ours is there; if not, there is nothing to read.

        Raises:
            OutputError: if it is something else, or cannot be read.
            OutputLockedError: if another program keeps readers out.
            OutputUnavailableError: if its server is not reachable or busy.
        """
        ...

    def windows(self, scope: str) -> list[bytes]:
        """Give the entries of all windows that were committed for that scope, by any pull."""
        ...

    def load_receipt(self) -> bytes | None:
        """Give the receipt that was saved last; None where there is none."""
        ...


class Encoder(Protocol):
    """Turns batches into one file (or directory) of another format; see ``part.FileSink``, which owns its life."""

    def open(self, path: Path) -> None:
        """Create it, mode 0600 (a directory 0700); nothing is there yet."""
        ...

    def write(self, batch: Batch) -> None:
        """Append the calls of a window."""
        ...

    def close(self) -> None:
        """Finish it: every byte written, on the disk (fsync), closed."""
        ...

    def abandon(self) -> None:
        """Close whatever is open and never raise; the file is removed by others."""
        ...
