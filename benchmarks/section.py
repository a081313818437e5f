"""What a benchmark hands over to the report."""

from __future__ import annotations

from dataclasses import dataclass, field

#: A plot: where its picture is, and what it shows.
Plot = tuple[str, str]


@dataclass(frozen=True)
class Budget:
    """One line of the budgets.

    Attributes:
        what: is measured; budget: what it may be; measured: what it was.
        met: whether it is, in the report; tolerated: whether CI lets it pass, which is a matter of noise too.
    """

    what: str
    budget: str
    measured: str
    met: bool
    tolerated: bool


def at_most(what: str, bound: float, measured: float, *, unit: str = "x", noise: float = 0.0) -> Budget:
    """A budget that is kept where the measured number is not greater.

    Args:
        what: is measured.
        bound: what it may be.
        measured: what it was.
        unit: of both.
        noise: by which share of it the measurements beside it lie apart: CI lets so much pass.
    """
    met = measured <= bound
    return Budget(what, f"≤ {bound:g}{unit}", f"{measured:.2f}{unit}", met, measured <= bound * (1 + noise))


def at_least(
    what: str, bound: float, measured: float, *, unit: str = "x", noise: float = 0.0, floor: float | None = None
) -> Budget:
    """A budget that is kept where the measured number is not smaller.

    Args:
        what: is measured.
        bound: what it may be.
        measured: what it was.
        unit: of both.
        noise: as in ``at_most``.
        floor: what CI holds it to, where the report says why the budget is out of reach.
    """
    held_to = (bound if floor is None else floor) / (1 + noise)
    return Budget(what, f"≥ {bound:g}{unit}", f"{measured:.2f}{unit}", measured >= bound, measured >= held_to)


@dataclass
class Section:
    """A part of the report.

    Attributes:
        lines: Markdown.
        series: plots to draw: name, title, axes, and curves by label.
    """

    title: str
    lines: list[str]
    budgets: list[Budget] = field(default_factory=list[Budget])
    plots: list[Chart] = field(default_factory=list["Chart"])


@dataclass(frozen=True)
class Chart:
    """One plot, both of its axes logarithmic."""

    name: str
    title: str
    x: str
    y: str
    curves: dict[str, list[tuple[float, float]]]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]
