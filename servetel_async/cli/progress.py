"""How far a pull is: a bar on a terminal, a line every ten seconds where there is none."""

# ruff: noqa: PLC0415 - rich is slow to import, and only a terminal needs it

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from servetel_async.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.transport.transport import Event

#: Seconds between two lines in a log.
LOG_EVERY = 10.0
_MINUTE = 60


class Display(Protocol):
    """Shows how far a pull is, between ``start`` and ``stop``."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self, progress: PullProgress) -> None:
        """Show where it is now."""
        ...

    def note(self, event: Event) -> None:
        """Take note of a request or a wait."""
        ...


def display(*, quiet: bool) -> Display:
    """Choose by where standard error goes."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr is not None and sys.stderr.isatty() else Log()


class Silent:
    """Shows nothing."""

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""

    def show(self, progress: PullProgress) -> None:
        """Nothing."""

    def note(self, event: Event) -> None:
        """Nothing."""


class Log(Silent):
    """A line now and then, fit for a log file."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, write: Callable[[str], None] = say) -> None:
        self._clock = clock
        self._write = write
        self._next = clock() + LOG_EVERY

    def show(self, progress: PullProgress) -> None:
        """Write a line if it is time for one."""
        if self._clock() >= self._next:
            self._next = self._clock() + LOG_EVERY
            self._write(describe(progress))

    def note(self, event: Event) -> None:
        """A wait is said too: a log that stands still looks like a hang."""
        if event.kind == "wait" and self._clock() >= self._next:
            self._next = self._clock() + LOG_EVERY
            self._write(waiting(event))


class Bar(Silent):
    """A bar with rate and remaining time; below it a second row, only while there is something to say."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        self._row = ""
        self._row_until = 0.0
        row_now = self._row_now

        class TwoRows(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                row = row_now()
                if row:
                    yield Text(f"  {row}", style="dim")

        columns = (BarColumn(), TextColumn("{task.fields[text]}", markup=False))
        self._bar = TwoRows(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None, text="counting")

    def start(self) -> None:
        """Draw it."""
        self._bar.start()

    def stop(self) -> None:
        """Wipe it away."""
        self._bar.stop()

    def show(self, progress: PullProgress) -> None:
        """Move it."""
        self._bar.update(self._task, completed=progress.records, total=progress.total, text=describe(progress))

    def note(self, event: Event) -> None:
        """Show a wait for as long as it lasts."""
        if event.kind == "wait":
            self._row, self._row_until = waiting(event), time.monotonic() + event.seconds

    def _row_now(self) -> str:
        return self._row if time.monotonic() < self._row_until else ""


def describe(progress: PullProgress) -> str:
    """``12,300 of 37,431 calls, 210/s, 2 min left, 3 retries``."""
    rate = progress.records / progress.seconds if progress.seconds > 0 else 0.0
    text = (
        f"{progress.records:,} calls" if progress.total is None else f"{progress.records:,} of {progress.total:,} calls"
    )
    text += f", {rate:,.0f}/s"
    if progress.total is not None and rate:
        text += f", {_rough(max(0, progress.total - progress.records) / rate)} left"
    return f"{text}, {progress.retries} retried" if progress.retries else text


def waiting(event: Event) -> str:
    """``page 12: RateLimitError, waiting 4 s``."""
    page = "" if event.page is None else f"page {event.page}: "
    return f"{page}{event.error}, trying again in {event.seconds:.0f} s"


def _rough(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    return f"{minutes} min" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE} min"
