"""The rules of a check: does a destination still hold what its ledger says, and is the API's count still the same?

1. A check compares the content: the bytes of a file, each file of a directory, the rows of each reading of a database.
2. A check asks the API for counts with this account and these filters. It counts each window that no later reading has
   replaced. Of a window that was replaced in part, it counts the rest.
3. The report lists what was checked and what was not. It never says that the rest agrees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.bulk.receipt import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Most windows, and most other differences, that the report names.
_NAMED = 10


class Recount(NamedTuple):
    """A window and its two counts.

    Attributes:
        first, last: stamps of its first and last second, both included.
        counted_then, counted_now: the two counts; None if the server sent no total.
        rest: whether later runs replaced a part. Then only the rest was counted, and ``counted_then`` is its rows.
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
        what: the window or the file.
        how: the difference, for people.
    """

    what: str
    how: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        windows: the windows that were counted again, newest first.
        differences: parts of the destination that are not as they were written.
        looked_at: descriptions of what was checked, for people.
        not_looked_at: descriptions of what was not checked, and why.
    """

    windows: tuple[Recount, ...]
    differences: tuple[Difference, ...]
    looked_at: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()

    @property
    def changed(self) -> tuple[Recount, ...]:
        """The windows whose count has changed."""
        return tuple(window for window in self._comparable if window.counted_then != window.counted_now)

    @property
    def _comparable(self) -> list[Recount]:
        """The windows for which the API sent a total both times."""
        return [window for window in self.windows if None not in (window.counted_then, window.counted_now)]

    @property
    def agrees(self) -> bool:
        """Whether all that was checked agrees, and was proved when it was read."""
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
