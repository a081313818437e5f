"""One run that writes: what it is called, how it is watched, and how it ends."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from servetel_async.cli import exits
from servetel_async.cli.kept import Kept, look
from servetel_async.cli.terminal import say
from servetel_async.errors import OutputLockedError

if TYPE_CHECKING:
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.cli.events import Events
    from servetel_async.cli.watch import Watch
    from servetel_async.sinks.sink import Claim

#: Windows that are named where the output is not complete; the receipt names all of them.
_NAMED = 10


class Job:
    """See the module.

    Args:
        destination: as it was given.
        events: where programs are told; None where there are none.
        watch: of this run.
        fresh: it was asked to drop what an earlier run has left.

    Attributes:
        claim: how the destination tells this run from others; None until that is known.
        begun: when it began; a receipt that is older is another run's.
    """

    def __init__(self, destination: str, events: Events | None, watch: Watch, *, fresh: bool = False) -> None:
        self.claim: Claim | None = None
        self._destination = destination
        self._events = events
        self._watch = watch
        self._fresh = fresh
        self.begun = datetime.now(UTC)

    def finished(self, receipt: PullReceipt, *, allow_quarantine: bool = False) -> int:
        """Tell the verdict; gives the exit code."""
        self._tell(receipt)
        if receipt.complete:
            return exits.COMPLETE
        if self._events is None:
            _name_flaws(receipt)
        if allow_quarantine and quarantine_is_all(receipt):
            return exits.COMPLETE
        return exits.DISAGREES

    def line(self, receipt: PullReceipt) -> None:
        """Tell the verdict of one run of many, in one line."""
        if self._events is not None:
            self._events.receipt(receipt)
            return
        first = str(receipt).splitlines()[0]
        verdict = "complete" if receipt.complete else f"NOT COMPLETE: {receipt.certified}"
        say(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {first}; {verdict}")

    def failed(self, error: Exception) -> int:
        """Tell what ended it and what is kept; gives the exit code."""
        kept = Kept() if isinstance(error, OutputLockedError) else self._look()
        code = exits.report_error(error, started=self._watch.started, kept=kept.windows > 0)
        if kept.windows:
            say(self._go_on(kept))
        if self._events is not None:
            self._events.error(error, code, kept=kept.calls)
        return code

    def stopped(self, stopped: exits.Stopped) -> int:
        """Tell that a signal stopped it and what is kept; gives the exit code."""
        kept = self._look()
        if kept.receipt is not None:
            code = exits.report_stop(stopped.signal, "but the output is whole already")
            self._tell(kept.receipt)
        elif kept.windows:
            code = exits.report_stop(stopped.signal, self._go_on(kept))
        elif self._destination == "-":
            code = exits.report_stop(stopped.signal, "what went to standard output is not complete")
        else:
            code = exits.report_stop(stopped.signal, f"nothing is kept yet; run it again: {exits.again(sys.argv[1:])}")
        if self._events is not None:
            self._events.put("interrupted", exit_code=code, kept=kept.calls)
        return code

    def _look(self) -> Kept:
        # Before the first window what is there was left by an earlier run, and this one was to drop it.
        if self.claim is None or (self._fresh and not self._watch.windows):
            return Kept()
        return look(self._destination, self.claim, self.begun)

    def _go_on(self, kept: Kept) -> str:
        calls = "1 call is" if kept.calls == 1 else f"{kept.calls:,} calls are"
        return f"{calls} kept; go on with: {exits.again(sys.argv[1:], leave_out='--no-resume')}"

    def _tell(self, receipt: PullReceipt) -> None:
        if self._events is not None:
            self._events.receipt(receipt)
            return
        for line in str(receipt).splitlines():
            say(line)


def quarantine_is_all(receipt: PullReceipt) -> bool:
    """Whether records that nobody can read are all that is wrong: it is what the conclusion looks at last."""
    from servetel_async.bulk.receipt import plural  # noqa: PLC0415 - so that --help loads no HTTP client

    said = f"{plural(receipt.quarantined, 'record')} cannot be read"
    return receipt.quarantined > 0 and receipt.certified.startswith(said)


def _name_flaws(receipt: PullReceipt) -> None:
    flaws = [flaw for window in receipt.windows for flaw in window.flaws]
    for flaw in flaws[:_NAMED]:
        say(f"  {flaw}")
    if len(flaws) > _NAMED:
        say(f"  and {len(flaws) - _NAMED:,} more, which the receipt names")
