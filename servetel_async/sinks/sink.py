"""What every destination can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from servetel_async.protocol.records import CallPage


class Sink(Protocol):
    """One destination of one pull: all that was written is there after ``commit``, and nothing of it before.

    Its methods block, so they run in a thread beside the event loop, one after another: a sink needs no lock.

    Attributes:
        name: how to call it in a message; never holds a password.
        keyed_by_id: it keeps one call per ``id``, the last one written.
        size: bytes of the output; known after ``commit``.
        sha256: hex digest of the output where it is a file written from end to end, else None.
    """

    name: str
    keyed_by_id: bool
    size: int
    sha256: str | None

    def open(self) -> None:
        """Claim the destination: whatever can be known to be wrong is raised here, before anything is asked for.

        Raises:
            OutputError: it exists, is something else, or cannot be written.
            OutputLockedError: another run is writing it.
        """
        ...

    def write(self, page: CallPage) -> None:
        """Take the calls of a page.

        Raises:
            OutputError: the disk is full, or whatever else the system says.
        """
        ...

    def commit(self) -> None:
        """Make everything that was written last, at once.

        Raises:
            OutputError: it could not; then nothing of it is there.
        """
        ...

    def abandon(self) -> None:
        """Let go of it. What was written and not committed is gone; after ``commit`` this only releases the claim."""
        ...
