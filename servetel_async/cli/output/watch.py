"""Watches a pull for its user: shows progress or reports events, and remembers what decides the exit code."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from servetel_async.cli.output.estimates import Estimate
from servetel_async.cli.output.progress import display
from servetel_async.cli.output.terminal import say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.cli.options.connection import Connection
    from servetel_async.cli.output.events import Events
    from servetel_async.transport.endpoint import Event

#: Seconds between two looks at the clock.
_TICK = 1.0
_GOOD = 200


class Watch:
    """The watch of one run.

    Args:
        connection: the connection flags, for the estimate.
        events: the events of ``--json``; None without it.
        quiet: whether to show nothing.
        estimate: whether to print the estimated cost.
        patience: seconds of an outage that are waited for; None without a limit of this kind.

    Attributes:
        started: whether a request was sent.
        windows: windows that are committed; kept: their calls.
        receipt: the receipt of a run whose output is final; None before.
    """

    def __init__(
        self,
        connection: Connection,
        events: Events | None = None,
        *,
        quiet: bool = False,
        estimate: bool = False,
        patience: float | None = None,
    ) -> None:
        self.started = False
        self.windows = self.kept = 0
        self.receipt: PullReceipt | None = None
        self._connection = connection
        self._events = events
        self._quiet = quiet
        self._display = display(quiet=quiet or events is not None, patience=patience)
        self._estimates = estimate
        self._was_good = False

    def show(self, progress: PullProgress) -> None:
        """Take the current progress: ``on_progress`` of a pull."""
        if self._estimates and progress.total is not None:
            self._estimates = False
            self._estimate(progress.total, progress.records if progress.windows else 0)
        self.windows, self.kept = progress.windows, progress.kept
        self._display.show(progress)
        if self._events is not None:
            self._events.progress(progress)

    def take(self, receipt: PullReceipt) -> None:
        """Take the receipt: ``on_receipt`` of a run."""
        self.receipt = receipt

    def note(self, event: Event) -> None:
        """Take note of a request or a wait: ``on_event`` of the client."""
        self.started = True
        self._display.note(event)
        good = event.kind == "request" and event.status == _GOOD
        # After the first good reply the pull itself waits, and only the pull knows how long.
        if self._events is not None and (event.kind == "wait" or (self._was_good and not good)):
            self._events.wait(event)
        self._was_good = self._was_good or good

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncGenerator[None]:
        """Show the display inside this block, even if nothing comes."""
        self._display.start()
        ticking = asyncio.ensure_future(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            self._display.stop()

    async def _tick(self) -> None:
        while True:
            self._display.tick()
            await asyncio.sleep(_TICK)

    def _estimate(self, calls: int, read: int) -> None:
        connection = self._connection
        estimate = Estimate.of(calls, page_size=connection.page_size, rate=connection.rate, read=read)
        if self._events is not None:
            self._events.estimate(estimate)
        elif not self._quiet:
            say(str(estimate))
