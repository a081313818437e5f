"""The interface of all destinations, and the data that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from servetel_async.protocol.rows import records_of

if TYPE_CHECKING:
    from collections.abc import Callable
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
        """Show the number of calls only: a traceback that keeps local variables must not show calls."""
        return f"<Batch of {len(self.lines)} calls>"

    def records(self) -> list[CallRecord]:
        """Decode the calls."""
        return records_of(self.lines, self.zone)


class PullIdentity(NamedTuple):
    """The identity of a pull that claims a destination.

    Attributes:
        pull: identity of the pull: query, range and shape of the output.
        scope: identity of the query without its range.
        account: the label of the account.
    """

    pull: str
    scope: str
    account: str


class Span(NamedTuple):
    """First and last second of a window, ``YYYY-MM-DD HH:MM:SS``; they compare as text."""

    first: str
    last: str


class Saved(NamedTuple):
    """The state of an interrupted pull: its header, and one entry per committed window, in the order of commits."""

    header: bytes
    entries: list[bytes]


class Seal(NamedTuple):
    """The rows that a reading wrote last, as a database holds them.

    Attributes:
        rows: number of the rows.
        digest: order-independent digest of their values, 16 hex digits.
    """

    rows: int
    digest: str


class Stored(NamedTuple):
    """One fact of the ledger, as a database keeps it.

    Attributes:
        reading: its number; the rows of ``call_records`` carry it.
        account, scope, pull: see ``PullIdentity``.
        span: its window.
        fact: JSON that a sink does not read.
        seal: the rows that should be there now.
    """

    reading: int
    account: str
    scope: str
    pull: str
    span: Span
    fact: bytes
    seal: Seal

    def __repr__(self) -> str:
        """Show its number and window, but not the fact: it may quote calls."""
        return f"<Stored {self.reading}: {self.span.first} to {self.span.last}, {self.seal.rows} rows>"


class Output(NamedTuple):
    """An output that is about to get its name.

    Attributes:
        size: size in bytes.
        sha256: hex digest; of a directory, of the names and digests of all its files; None for a database.
        files: digest of each file of a directory, by its path in it.
    """

    size: int
    sha256: str | None
    files: dict[str, str]


class Sink(Protocol):
    """One destination of one pull. A window is one ``commit``: its calls and its journal entry, both or neither.

    Headers and entries are JSON texts that a sink keeps and does not read. Its methods block, so they run in a thread
    beside the event loop, one after another: a sink needs no lock.

    Attributes:
        name: its name in messages; never holds a password.
        place: the path of the file or directory; small files are saved beside it. None if it has no path.
        keyed_by_id: whether it keeps one call per ``id``, the last one written.
        resumable: whether what was committed outlives this process.
    """

    name: str
    place: Path | None
    keyed_by_id: bool
    resumable: bool

    @property
    def done(self) -> bool:
        """Whether a killed run had named the output already, and only the receipt is missing. Valid after ``open``."""
        ...

    def open(self, *, fresh: bool = False) -> None:
        """Take the destination. Everything that can be refused before the first request is refused here.

        Args:
            fresh: ignore what an interrupted pull has left, even if it is unreadable: ``begin`` will drop it.

        Raises:
            OutputError: if the destination exists, is something else, or cannot be written.
            OutputLockedError: if another run is writing the destination.
            OutputUnavailableError: if its server is not reachable or busy.
            ResumeMismatchError: if what was left cannot be read; nothing was changed.
        """
        ...

    def resume(self, claim: PullIdentity) -> Saved | None:
        """Claim the destination for a pull, after ``open``.

        Returns:
            What an interrupted pull has left, or None. An existing database returns only what this very pull has left.
            A file or a new database may return what another pull has left.
        """
        ...

    def begin(self, header: bytes) -> None:
        """Begin a pull, and drop what an interrupted one has left.

        Raises:
            OutputError: if the system refuses it.
        """
        ...

    def commit(self, batch: Batch, span: Span, entry: bytes) -> None:
        """Take a window. It is durable, with its entry, when this returns.

        Raises:
            OutputError: if the system refuses it, for instance because the disk is full; then nothing of it is kept.
        """
        ...

    def finish(self, receipt_of: Callable[[Output], bytes]) -> None:
        """Make the output final: whole, durable, under its name; keep its receipt, and end the pull.

        Args:
            receipt_of: makes the receipt. If there is a place beside the output, space for the receipt is taken
                before the output gets its name.

        Raises:
            OutputError: if the output cannot be finished; what was committed is kept, and another run can try again.
        """
        ...

    def abandon(self) -> None:
        """Release the destination. Never raises; what was committed stays for the next run, all else is dropped."""
        ...


class Database(Sink, Protocol):
    """A destination that keeps the ledger of all its pulls."""

    def begin(self, header: bytes, *, keep: bool = False) -> None:
        """Begin a pull as ``Sink.begin`` does. With ``keep`` all calls and facts that are there stay."""
        ...

    def look(self) -> bool:
        """Open the database for reading only, in place of ``open``: nothing is created, changed or locked.

        ``ledger``, ``content``, ``stamps``, ``receipts`` and ``abandon`` work afterwards. What they return is of one
        moment, also while a run writes.

        Returns:
            Whether a ledger of ours is there; if not, there is nothing to read.

        Raises:
            OutputError: if the destination is something else, or cannot be read.
            OutputLockedError: if another program keeps readers out.
            OutputUnavailableError: if its server is not reachable or busy.
        """
        ...

    def ledger(self) -> list[Stored]:
        """Return the facts of all accounts, oldest reading first."""
        ...

    def content(self) -> dict[int, Seal]:
        """Compute the seals from the rows that are there now, by reading; rows of no known reading are under 0."""
        ...

    def stamps(self, reading: int) -> list[str | None]:
        """Return the moments at which the calls of a reading began, as they were sent; None if a call has no moment."""
        ...

    def receipts(self) -> list[bytes]:
        """Return the last receipt of each pull, newest first."""
        ...


class Encoder(Protocol):
    """Turns batches into one file (or directory) of another format; ``file_sink.FileSink`` opens and closes it."""

    def open(self, path: Path) -> None:
        """Create the file, mode 0600 (a directory 0700); nothing is there yet."""
        ...

    def write(self, batch: Batch) -> None:
        """Append the calls of a window."""
        ...

    def close(self) -> None:
        """Finish the output: all bytes written, durable (fsync), closed."""
        ...

    def abandon(self) -> None:
        """Close whatever is open and never raise; the caller removes the file."""
        ...
