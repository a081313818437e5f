"""The known state of a destination: its changes, the claims about it, and its last content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.bulk.years.server import NEVER

if TYPE_CHECKING:
    from tests.bulk.years.history import Step
    from tests.bulk.years.product import Row

#: An account, and whether it masks: calls that one of them has seen do not count for the other.
Owner = tuple[int, bool]


class Claim(NamedTuple):
    """A range of an account that a receipt called complete, with the server's clock from ``began`` to ``ended``."""

    account: int
    first: int
    last: int
    final: int
    began: int
    ended: int
    certain: bool  # proved, with a right clock


class Asked(NamedTuple):
    """A run of the product: its request, and its time.

    Attributes:
        first, last: the range; None if a side is open.
        name: of a range that changes daily.
        pending: the same run, ended before.
    """

    kind: str
    account: int
    step: Step
    first: int | None
    last: int | None
    name: str | None
    began: int
    pending: Pending | None = None

    @property
    def owner(self) -> Owner:
        return self.account, self.step.mask

    @property
    def resumes(self) -> bool:
        return self.pending is not None

    @property
    def is_closed(self) -> bool:
        """Whether the resumed run had named the output: then a file gets no more calls."""
        return self.pending is not None and self.pending.asked.step.kill == "named"

    @property
    def since(self) -> int:
        """When the first of the resumed runs began."""
        return self.began if self.pending is None else self.pending.asked.since

    @property
    def identity(self) -> tuple[object, ...]:
        dates = () if self.name else (self.first, self.last)
        return self.kind, self.account, self.step.mask, self.name, dates


@dataclass
class Pending:
    """A run that was ended; ``excused``: an event in it explains a result that is not complete."""

    asked: Asked
    committed: int
    excused: bool


@dataclass
class Place:
    """A destination and its known state.

    Attributes:
        rows: its rows after the last step.
        claims: the claims about it.
        pendings: the runs that were ended; a database may have several.
        synced: by owner, when its last good sync began.
        territory: by owner, from where on its syncs keep the calls.
        runs: by owner, when each run since then began.
        unfinished: by owner, where pulls of ranges that were not over ended.
        spoilt: calls that were tampered with and still differ from the server's.
        mended: calls that were tampered with and came again since: the seal of their first reading no longer agrees.
        replaced: calls whose row another call with the same id has taken.
        masked: calls whose rows were masked.
        writers: the accounts that wrote it.
        masks: with a mask, without, or both.
        oldest: when its first run began.
        damaged: after tampering it may be refused.
        dropped: it or its table is gone, so the next run starts from nothing.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    pendings: dict[tuple[object, ...], Pending] = field(default_factory=dict)
    synced: dict[Owner, int] = field(default_factory=dict)
    territory: dict[Owner, int] = field(default_factory=dict)
    runs: dict[Owner, list[int]] = field(default_factory=dict)
    unfinished: dict[Owner, list[int]] = field(default_factory=dict)
    spoilt: set[int] = field(default_factory=set)
    mended: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)
    masked: set[int] = field(default_factory=set)
    writers: set[int] = field(default_factory=set)
    masks: set[bool] = field(default_factory=set)
    oldest: int = NEVER
    damaged: bool = False
    dropped: bool = False

    def forget(self) -> None:
        """Drop all claims: the destination or its table is gone."""
        self.__dict__.update(Place(damaged=True).__dict__)
