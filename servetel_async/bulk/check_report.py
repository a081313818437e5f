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
        return tuple(window for window in self._comparable if window.counted_then != window.counted_now)

    @property
    def _comparable(self) -> list[Recount]:
        """The windows of which the API sent a total both times."""
        return [window for window in self.windows if None not in (window.counted_then, window.counted_now)]

    @property
    def agrees(self) -> bool:
        """Whether nothing that was looked at differs, and nothing of it was read without a proof."""
        return not self.changed and not self.differences

    def __str__(self) -> str:
        known, not_looked_at = self._comparable, list(self.not_looked_at)
        then = sum(window.counted_then or 0 for window in known)
        now = sum(window.counted_now or 0 for window in known)
        lines = list(self.looked_at)
        if self.windows and not known:
            lines.append("the API sends no count, so there is none to compare")
        elif self.windows:
            lines.append(f"{now:,} calls now, {then:,} when it was pulled, in {plural(len(known), 'window')}")
            if uncounted := len(self.windows) - len(known):
                not_looked_at.append(f"counts of {plural(uncounted, 'window')} of which the API sent no total")
        lines += _some([str(window) for window in self.changed], "windows that differ")
        lines += _some([f"{each.what}: {each.how}" for each in self.differences], "that are not as they were written")
        lines += [f"not looked at: {each}" for each in not_looked_at]
        lines.append(self._verdict(not_looked_at))
        return "\n".join(lines)

    def _verdict(self, not_looked_at: Sequence[str]) -> str:
        if not self.agrees:
            return "it does not agree: pull it again, or sync"
        return "all of it agrees" if not not_looked_at else "all that was looked at agrees"


def _some(lines: Sequence[str], rest: str) -> list[str]:
    shown = [f"  {line}" for line in lines[:_NAMED]]
    return [*shown, f"  and {len(lines) - _NAMED:,} more {rest}"] if len(lines) > _NAMED else shown
