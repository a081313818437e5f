"""The verdict on a run: whether its readings hold all that the API counted, and if not, what is wrong. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servetel_async.bulk.receipt import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.ledger import Reading

#: Most windows that a message names; the receipt names all of them.
_NAMED = 3


class Evidence(NamedTuple):
    """The evidence of a run.

    Attributes:
        readings: the readings, newest window first.
        moved: readings whose count still differed at the end.
        before_start: calls that the API counts before the oldest one that it gave.
        overwritten: calls of these readings whose row a call with the same id in another window has taken.
        keyed_by_id: whether the destination keeps one call per id.
        confirmed: whether the run's conventions held to its end.
        is_closed: whether a killed run had given the output its name already, so that nothing can be added.
    """

    readings: Sequence[Reading]
    moved: Sequence[Reading] = ()
    before_start: int = 0
    overwritten: int = 0
    keyed_by_id: bool = False
    confirmed: bool = True
    is_closed: bool = False


class Verdict(NamedTuple):
    """The verdict on a run.

    Attributes:
        reason: the verdict for programs: ``complete``, ``lost``, ``unproved``, ``moved``, ``conventions``,
            ``before_start``, ``reused_ids`` or ``quarantined``.
        text: the verdict for people: the proof, or what is wrong.
    """

    reason: str
    text: str

    @property
    def is_complete(self) -> bool:
        """Whether every call that the API counted is there."""
        return self.reason == "complete"


def judge(evidence: Evidence) -> Verdict:  # noqa: PLR0911 - a table
    """Judge a run; the gravest flaw decides."""
    readings = evidence.readings
    lost = [reading for reading in readings if reading.lost]
    if lost:
        return Verdict("lost", f"pages of {named(lost)} did not come")
    flawed = [reading for reading in readings if reading.flaws]
    if flawed:
        first = flawed[0].flaws[0]
        text = f"{named(flawed)} could not be proved; the first of it, {first.first} to {first.last}: {first.why}"
        return Verdict("unproved", text)
    if evidence.moved:
        moved = named(evidence.moved)
        if evidence.is_closed:
            return Verdict("moved", f"{moved} changed after the output was written; pull it again")
        return Verdict("moved", f"{moved} did not stop changing while it was read")
    if not evidence.confirmed:
        text = "how the API reads dates could not be established, so calls at the edges of windows may be missing"
        return Verdict("conventions", text)
    if evidence.before_start:
        text = f"the API counts {evidence.before_start:,} calls before the oldest one that it gave"
        return Verdict("before_start", text)
    reused = total(readings, "reused_ids") if evidence.keyed_by_id else 0
    reused = max(reused, evidence.overwritten)
    if reused:
        text = f"the API gave {reused:,} calls an id that another call has, and the table keeps one of each"
        return Verdict("reused_ids", text)
    quarantined = sum(len(reading.quarantined) for reading in readings)
    if quarantined:
        kept = "it is kept apart, as it was sent" if quarantined == 1 else "they are kept apart, as they were sent"
        return Verdict("quarantined", f"{plural(quarantined, 'record')} cannot be read; {kept}")
    return Verdict("complete", _proof(readings))


def counted_in(readings: Sequence[Reading]) -> int | None:
    """Add up the API's counts of some readings; None if one has no total."""
    counts = [reading.counted for reading in readings]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def total(readings: Sequence[Reading], name: str) -> int:
    """Add up one attribute of some readings."""
    return sum(getattr(reading, name) for reading in readings)


def named(readings: Sequence[Reading]) -> str:
    """Name the first few windows, for a message."""
    names = [f"{reading.first} to {reading.last}" for reading in readings[:_NAMED]]
    more = f" and {len(readings) - _NAMED:,} more" if len(readings) > _NAMED else ""
    return f"{', '.join(names)}{more}"


def _proof(readings: Sequence[Reading]) -> str:
    if counted_in(readings) is None:
        return "the pages were read to an empty one"
    repaired = sum(reading.kinds.get("repaired", 0) for reading in readings)
    proof = f"{plural(len(readings), 'window')} certified"
    return f"{proof}, {repaired:,} with page edges read again" if repaired else proof
