"""Windows: closed ranges of whole seconds on the account's wall clock, ``[start, end]``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from servetel_async.protocol.clock import EARLIEST, SECOND, is_wall_stamp, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Ranges over 31 days were refused for one user. Shorter limits are learnt (``ranges.py``).
LONGEST = timedelta(days=31)
SHORTEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Window:
    """A closed range; both bounds belong to it, and None leaves that side open."""

    start: datetime | None
    end: datetime | None

    @classmethod
    def of(cls, first: str, last: str) -> Window:
        """Return the window between two stamps, both included."""
        return cls(_moment(first), _moment(last))

    def split(self, longest: timedelta = LONGEST) -> Iterator[Window]:
        """Cut into windows of at most ``longest``, newest first, as the API orders calls. No second is in two."""
        left: Window | None = self
        while left is not None:
            window, left = left.newest(longest)
            yield window

    def newest(self, longest: timedelta) -> tuple[Window, Window | None]:
        """Cut off the newest part, no longer than ``longest``. Return it and the rest; None if nothing is left."""
        if self.start is None or self.end is None or self.length <= longest:
            return self, None
        start = self.end - longest + SECOND
        return Window(start, self.end), Window(self.start, start - SECOND)

    def cut(self, pieces: int) -> list[Window]:
        """Cut a closed window into about equal ones of whole seconds, newest first; never more than it has seconds."""
        if self.start is None or self.end is None:
            return [self]
        seconds = self.seconds
        pieces = max(1, min(pieces, seconds))
        edges = [self.start + timedelta(seconds=seconds * piece // pieces) for piece in range(pieces)]
        ends = [edge - SECOND for edge in edges[1:]] + [self.end]
        return [Window(start, end) for start, end in zip(reversed(edges), reversed(ends), strict=True)]

    def days(self) -> list[Window]:
        """Cut a closed window at every midnight, newest first."""
        if self.start is None or self.end is None:
            return [self]
        days, end = list[Window](), self.end
        while end.date() > self.start.date():
            midnight = end.replace(hour=0, minute=0, second=0)
            days.append(Window(midnight, end))
            end = midnight - SECOND
        return [*days, Window(self.start, end)]

    @property
    def seconds(self) -> int:
        """Return the number of seconds of a closed window."""
        if self.start is None or self.end is None:
            return 0
        return int((self.end - self.start).total_seconds()) + 1

    @property
    def length(self) -> timedelta:
        """Return the length of a closed window."""
        return timedelta(seconds=self.seconds)

    def without(self, taken: list[Window]) -> list[Window]:
        """Return a closed window without the taken windows, newest first."""
        if self.start is None or self.end is None:
            return [self]
        left: list[Window] = []
        end = self.end
        for other in sorted(taken, key=lambda each: each.last, reverse=True):
            if other.start is None or other.end is None or other.end < self.start or other.start > end:
                continue
            if other.end < end:
                left.append(Window(other.end + SECOND, end))
            if other.start == EARLIEST:
                return left
            end = other.start - SECOND
        if end >= self.start:
            left.append(Window(self.start, end))
        return left

    @property
    def first(self) -> str:
        """The smallest stamp inside, as text: every real stamp is larger than an empty text."""
        return "" if self.start is None else stamp(self.start)

    @property
    def last(self) -> str:
        """The largest stamp inside, as text: every real stamp is smaller than ``~``."""
        return "~" if self.end is None else stamp(self.end)

    def __str__(self) -> str:
        """Show the window. It never holds personal data, so errors and logs may show it."""
        return f"{self.first or 'the beginning'} to {'now' if self.end is None else self.last}"


def up_to(windows: list[Window], last: str) -> list[Window]:
    """Return the remaining windows, newest first, up to ``last``; the first one is cut to end there.

    Empty if no window holds ``last``.
    """
    for index, window in enumerate(windows):
        if window.last == last:
            return windows[index:]
        if window.first <= last < window.last and is_wall_stamp(last):
            return [Window(window.start, Window.of(last, last).end), *windows[index + 1 :]]
    return []


def _moment(text: str) -> datetime:
    """Read a stamp, ten times as fast as ``strptime``, which is too slow for a ledger of 20,000 readings."""
    if len(text) != len("2024-05-01 00:00:00") or text[10] != " ":
        raise ValueError(f"a stamp has another form: {len(text)} characters")
    return datetime.fromisoformat(text)
