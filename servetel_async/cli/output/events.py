"""Events as JSON lines on standard output, for programs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from servetel_async.cli.output.terminal import say, standard_output
from servetel_async.cli.output.wording import in_flags
from servetel_async.errors import OutputError

if TYPE_CHECKING:
    from servetel_async.bulk.progress import PullProgress
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.cli.output.estimates import Estimate
    from servetel_async.transport.endpoint import Event


class Events:
    """Events, one object per line. A closed standard output must not end a pull.

    Attributes:
        failed: whether standard output took no more.
    """

    #: Seconds between two progress events.
    EVERY = 1.0

    def __init__(self) -> None:
        self._next = 0.0
        self.failed = False

    def put(self, event: str, **fields: Any) -> None:
        """Write one event. Seconds and other fractions have three digits."""
        if sys.stdout is None:
            return
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}
        # The line goes out as bytes, whatever the terminal's encoding.
        line = spelt_out(msgspec.json.encode({"event": event, **shown}).decode()).encode() + b"\n"
        try:
            with standard_output():
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except OutputError as error:
            self.failed = True
            say(f"No more events: {error.what} ({error.why})")

    def progress(self, progress: PullProgress) -> None:
        """Report the progress, once a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.EVERY
            self.put("progress", **asdict(progress))

    def wait(self, event: Event) -> None:
        """Report a request that failed and is tried again; ``seconds`` is None if the time is not known."""
        seconds = event.seconds if event.kind == "wait" else None
        self.put("wait", page=event.page, error=event.error, status=event.status, seconds=seconds)

    def estimate(self, estimate: Estimate) -> None:
        """Report the estimated cost."""
        self.put("estimate", calls=estimate.calls, requests=estimate.requests, seconds=estimate.seconds)

    def receipt(self, receipt: PullReceipt) -> None:
        """Report the receipt."""
        self.put("receipt", **msgspec.to_builtins(receipt))

    def error(self, error: BaseException, code: int, *, kept: int = 0) -> None:
        """Report the error that ended the run."""
        said = {name: in_flags(getattr(error, name, "")) for name in ("what", "why", "fix")}
        self.put("error", error=type(error).__name__, exit_code=code, kept=kept, **said)


def spelt_out(line: str) -> str:
    """Escape characters that a terminal would obey and JSON allows: DEL, C1 and direction marks."""
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1].replace("\x7f", "\\u007f") for each in line)
