"""The result of a benchmark for the report."""

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


def at_most(
    what: str, bound: float, measured: float, *, unit: str = "x", noise: float = 0.0, held_to: float | None = None
) -> Budget:
    """A budget that is met if the measured number is not greater.

    Args:
        what: is measured.
        bound: what it may be.
        measured: what it was.
        unit: of both.
        noise: its relative spread in the other measurements, which CI allows.
        held_to: the bound for CI, if the report says why the budget is out of reach.
    """
    tolerated = measured <= (bound if held_to is None else held_to) * (1 + noise)
    return Budget(what, f"≤ {bound:g}{unit}", f"{measured:.2f}{unit}", measured <= bound, tolerated)


def at_least(
    what: str, bound: float, measured: float, *, unit: str = "x", noise: float = 0.0, held_to: float | None = None
) -> Budget:
    """A budget that is met if the measured number is not smaller.

    Args:
        what: is measured.
        bound: what it may be.
        measured: what it was.
        unit: of both.
        noise: as in ``at_most``.
        held_to: as in ``at_most``.
    """
    tolerated = measured >= (bound if held_to is None else held_to) / (1 + noise)
    return Budget(what, f"≥ {bound:g}{unit}", f"{measured:.2f}{unit}", measured >= bound, tolerated)


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
