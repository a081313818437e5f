"""Check: does a destination still hold what its ledger says, and does the API still count the same?

1. What is there: the bytes of a file, each file of a directory, the rows of each reading of a database.
2. What the API counts now, for this account and these filters: each window that no later reading has replaced, and
   what later readings have left of a window.
3. The report says what was looked at and what was not. It never says that the rest agrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.bulk.receipt import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many windows, and how many other parts, the report names.
_NAMED = 10


class Recount(NamedTuple):
    """A window and its two counts.

    Attributes:
        first, last: stamps of its seconds, both included.
        counted_then, counted_now: None where the server sent no total.
        rest: whether only what later runs have left of it was counted. Then ``counted_then`` is its rows.
    """

    first: str
    last: str
    counted_then: int | None
    counted_now: int | None
    rest: bool = False

    def __str__(self) -> str:
        rest = ", what later runs have left of it" if self.rest else ""
        return f"{self.first} to {self.last}{rest}: {self.counted_now or 0:,} now, {self.counted_then or 0:,} then"


class Difference(NamedTuple):
    """A part of a destination that is not as it was written.

    Attributes:
        what: a window or a file.
        how: what is different, for people.
    """

    what: str
    how: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        windows: those that were counted again, newest first.
        differences: parts of the destination that are not as they were written.
        looked_at: what was verified, for people; one line for each thing.
        not_looked_at: what was not, and why.
    """

    windows: tuple[Recount, ...]
    differences: tuple[Difference, ...]
    looked_at: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[Recount, ...]:
        """The windows whose count differs now."""
        known = [window for window in self.windows if window.counted_then is not None]
        return tuple(window for window in known if window.counted_then != window.counted_now)

    @property
    def agrees(self) -> bool:
        """Whether nothing that was looked at differs."""
        return not self.changed and not self.differences

    def __str__(self) -> str:
        then = sum(window.counted_then or 0 for window in self.windows)
        now = sum(window.counted_now or 0 for window in self.windows)
        lines = list(self.looked_at)
        if self.windows and all(window.counted_then is None for window in self.windows):
            lines.append("the API sends no count, so there is none to compare")
        elif self.windows:
            lines.append(f"{now:,} calls now, {then:,} when it was pulled, in {plural(len(self.windows), 'window')}")
        lines += _some([str(window) for window in self.changed], "windows that differ")
        lines += _some([f"{each.what}: {each.how}" for each in self.differences], "that are not as they were written")
        lines += [f"not looked at: {each}" for each in self.not_looked_at]
        lines.append(self._verdict())
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.agrees:
            return "it does not agree: pull it again, or sync"
        return "all of it agrees" if not self.not_looked_at else "all that was looked at agrees"


def _some(lines: Sequence[str], rest: str) -> list[str]:
    shown = [f"  {line}" for line in lines[:_NAMED]]
    return [*shown, f"  and {len(lines) - _NAMED:,} more {rest}"] if len(lines) > _NAMED else shown
