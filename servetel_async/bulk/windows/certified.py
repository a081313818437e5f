"""A window after reading: its calls, the server's count, and the parts that could not be proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from servetel_async.protocol.evidence import Key, ordered

if TYPE_CHECKING:
    from servetel_async.protocol.rows import RawRecord


class Flaw(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a window that could not be proved.

    Attributes:
        first, last: its first and last second.
        why: the reason, from what the server said and sent.
        lost: whether calls are missing because pages did not come. Otherwise only the proof is missing (but if the list
            changed faster than it could be read, calls may be missing too).
    """

    first: str
    last: str
    why: str
    lost: bool = False


@dataclass(slots=True)
class Certified:
    """A window after reading.

    Attributes:
        calls: every call once, newest first.
        counted: the server's count; None if the server sends no total.
        duplicates: records that came more than once.
        kinds: numbers of its parts by kind of proof.
        flaws: the parts without a proof.
        wrong: whether the count did not change during the reading, and differs from the calls that were read.
        moved: whether the count changed during the reading.
        conventions: the conventions while it was read (``Conventions.text``); empty if they were unknown, or changed
            meanwhile. If they are not the final ones, the window must be read again.
    """

    calls: list[RawRecord]
    counted: int | None
    duplicates: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    wrong: bool = False
    moved: bool = False
    conventions: str = ""

    @property
    def is_far_off(self) -> bool:
        """Whether the server counts at least twice as many calls as came."""
        return (self.counted or 0) >= 2 * max(1, len(self.calls))

    def is_doubtful(self, above: int | None) -> bool:
        """Whether the count is far above the calls that came, and is wrong, has moved, or is no less than ``above``."""
        counts_as_much = above is not None and (self.counted or 0) >= above
        return self.is_far_off and (self.wrong or self.moved or counts_as_much)


def merged(parts: list[Certified]) -> Certified:
    """Merge the parts of a window into one."""
    counts = [part.counted for part in parts]
    whole = Certified(ordered(row for part in parts for row in part.calls), None)
    if None not in counts:
        whole.counted = sum(count for count in counts if count is not None)
    for part in parts:
        whole.duplicates += part.duplicates
        whole.kinds += part.kinds
        whole.flaws += part.flaws
    return whole


def united(seen: dict[Key, RawRecord], reading: Certified, before: int | None) -> Certified | None:
    """Add a reading of a second to what was seen of it; return the union once it is as large as the server's count."""
    counted = reading.counted or 0
    if counted != before:  # calls came or went: earlier readings prove nothing now
        seen.clear()
    seen.update(((row.id, row.start), row) for row in reading.calls)
    if len(seen) == counted:
        return Certified(ordered(seen.values()), counted, reading.duplicates, Counter(repeated=1))
    if len(seen) > counted:  # a call has left since
        seen.clear()
    return None
