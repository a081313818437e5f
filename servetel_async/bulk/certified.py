"""A window as it was read: its calls, what the server counts, and which parts could not be proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from servetel_async.protocol.evidence import ordered

if TYPE_CHECKING:
    from servetel_async.protocol.rows import Row


class Flaw(msgspec.Struct, frozen=True, omit_defaults=True):
    """What could not be proved.

    Attributes:
        first, last: seconds of it.
        why: what the server said and gave.
        lost: its pages did not come, so its calls are missing; else they are there, and only the proof is not (but for
            a list that changed faster than it could be read: of that is there what came).
    """

    first: str
    last: str
    why: str
    lost: bool = False


@dataclass(slots=True)
class Certified:
    """A window as it was read.

    Attributes:
        calls: every call once, newest first.
        counted: what the server counts; None where it does not count the whole.
        duplicates: records that came again.
        kinds: how its parts were proved.
        flaws: the parts that were not.
        wrong: the count stood still while it was read, and is not what was read.
        moved: the count moved.
    """

    calls: list[Row]
    counted: int | None
    duplicates: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    wrong: bool = False
    moved: bool = False


def merged(parts: list[Certified]) -> Certified:
    """Make one of the parts of a window."""
    counts = [part.counted for part in parts]
    whole = Certified(ordered(row for part in parts for row in part.calls), None)
    if None not in counts:
        whole.counted = sum(count for count in counts if count is not None)
    for part in parts:
        whole.duplicates += part.duplicates
        whole.kinds += part.kinds
        whole.flaws += part.flaws
    return whole
