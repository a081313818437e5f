"""One run of pull or sync: how it is reported, and how it ends."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from servetel_async.cli import exits
from servetel_async.cli.output.terminal import say

if TYPE_CHECKING:
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.cli.output.events import Events
    from servetel_async.cli.output.watch import Watch

#: Most flaws that are printed if the output is not complete; the receipt names all of them.
_NAMED = 10


class Job:
    """One run of pull or sync.

    Args:
        destination: the destination as given.
        events: the events of ``--json``; None without it.
        watch: the watch of this run.
    """

    def __init__(self, destination: str, events: Events | None, watch: Watch) -> None:
        self._destination = destination
        self._events = events
        self._watch = watch

    def finished(self, receipt: PullReceipt, *, allow_quarantine: bool = False) -> int:
        """Print the verdict; return the exit code."""
        self._tell(receipt)
        if receipt.complete:
            return exits.COMPLETE
        if self._events is None:
            _name_flaws(receipt)
        if allow_quarantine and receipt.reason == "quarantined":
            return exits.COMPLETE
        return exits.DISAGREES

    def line(self, receipt: PullReceipt) -> None:
        """Print the verdict of one run of many, in one line."""
        if self._events is not None:
            self._events.receipt(receipt)
            return
        first = str(receipt).splitlines()[0]
        say(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {first}; {receipt.verdict}")

    def failed(self, error: Exception) -> int:
        """Print what ended the run and what is kept; return the exit code."""
        watch = self._watch
        is_kept = watch.windows > 0 and self._destination != "-"
        code = exits.report_error(error, started=watch.started, kept=is_kept)
        if is_kept:
            say(self._how_to_resume())
        if self._events is not None:
            self._events.error(error, code, kept=watch.kept if is_kept else 0)
        return code

    def stopped(self, stopped: exits.Stopped) -> int:
        """Print that a signal stopped the run and what is kept; return the exit code."""
        watch = self._watch
        is_kept = watch.windows > 0 and self._destination != "-"
        if watch.receipt is not None:
            code = exits.report_stop(stopped.signal, "but the output is final already")
            self._tell(watch.receipt)
        elif is_kept:
            code = exits.report_stop(stopped.signal, self._how_to_resume())
        elif self._destination == "-":
            code = exits.report_stop(stopped.signal, "what went to standard output is not complete")
        else:
            code = exits.report_stop(stopped.signal, f"nothing is kept yet; run it again: {exits.again(sys.argv[1:])}")
        if self._events is not None:
            self._events.put("interrupted", exit_code=code, kept=watch.kept if is_kept else 0)
        return code

    def _how_to_resume(self) -> str:
        kept = self._watch.kept
        calls = "1 call is" if kept == 1 else f"{kept:,} calls are"
        return f"{calls} kept; resume with: {exits.again(sys.argv[1:], leave_out='--no-resume')}"

    def _tell(self, receipt: PullReceipt) -> None:
        if self._events is not None:
            self._events.receipt(receipt)
            return
        for line in str(receipt).splitlines():
            say(line)


def _name_flaws(receipt: PullReceipt) -> None:
    flaws = [flaw for window in receipt.windows for flaw in window.flaws]
    for flaw in flaws[:_NAMED]:
        say(f"  {flaw}")
    if len(flaws) > _NAMED:
        say(f"  and {len(flaws) - _NAMED:,} more, which the receipt names")
