"""How progress is shown: a bar of two rows on a terminal, else a line every ten seconds."""

# ruff: noqa: PLC0415 - rich is slow to import, and only a terminal needs it

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Protocol, TextIO, cast

from servetel_async.cli.output.situation import Situation
from servetel_async.cli.output.terminal import is_terminal, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import RenderableType

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.transport.endpoint import Event

#: Seconds between two lines in a log.
LOG_EVERY = 10.0


class Display(Protocol):
    """Shows the progress of a pull, between ``start`` and ``stop``."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def show(self, progress: PullProgress) -> None:
        """Take the current progress."""
        ...

    def note(self, event: Event) -> None:
        """Take note of a request or a wait."""
        ...

    def tick(self) -> None:
        """Refresh the display; called regularly, even if nothing comes."""
        ...


def display(*, quiet: bool, patience: float | None = None) -> Display:
    """Choose a display by where standard error goes."""
    if quiet:
        return Silent()
    situation = Situation(patience)
    return Bar(situation) if is_terminal() else Log(situation)


class Silent:
    """Shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def show(self, progress: PullProgress) -> None:
        """Do nothing."""

    def note(self, event: Event) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""


class Log(Silent):
    """A line now and then, fit for a log file."""

    def __init__(
        self,
        situation: Situation,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = say,
    ) -> None:
        self._situation = situation
        self._clock = clock
        self._write = write
        self._next = clock() + LOG_EVERY

    def show(self, progress: PullProgress) -> None:
        """Take the current progress, and write a line if it is time for one."""
        self._situation.take(progress)
        self.tick()

    def note(self, event: Event) -> None:
        """Take note of a request or a wait."""
        self._situation.note(event)

    def tick(self) -> None:
        """Write a line if it is time for one: a silent log looks like a hang."""
        if self._clock() >= self._next:
            self._next = self._clock() + LOG_EVERY
            second = self._situation.second_row()
            self._write(f"{self._situation.first_row()}; {second}" if second else self._situation.first_row())


class Bar(Silent):
    """A bar with rate and remaining time; below it a second row, only while there is something to say."""

    def __init__(self, situation: Situation) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        self._situation = situation
        self._row = ""
        row_now = self._row_now

        class TwoRows(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                row = row_now()
                if row:
                    yield Text(f"  {row}", style="dim")

        columns = (BarColumn(), TextColumn("{task.fields[text]}", markup=False))
        console = Console(file=cast("IO[str]", _Terminal(sys.stderr)))
        self._bar = TwoRows(*columns, console=console, transient=True, redirect_stdout=False)
        self._task = self._bar.add_task("", total=None, text=situation.first_row())

    def start(self) -> None:
        """Draw the bar."""
        self._bar.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def show(self, progress: PullProgress) -> None:
        """Move the bar."""
        self._situation.take(progress)
        self._bar.update(self._task, completed=progress.records, total=progress.total)
        self.tick()

    def note(self, event: Event) -> None:
        """Take note of a request or a wait."""
        self._situation.note(event)

    def tick(self) -> None:
        """Update both rows."""
        self._row = self._situation.second_row()
        self._bar.update(self._task, text=self._situation.first_row())

    def _row_now(self) -> str:
        return self._row


class _Terminal:
    """A terminal that may be gone: a closed window must not end a pull."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()
