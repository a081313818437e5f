"""The report: ``docs/explanation/performance.md`` and its plots, made of the measurements alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.section import table

if TYPE_CHECKING:
    from benchmarks.section import Chart, Section

DOCS = Path(__file__).parent.parent / "docs" / "explanation"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def budgets_of(sections: list[Section]) -> list[str]:
    """The table of all budgets."""
    rows = [
        [each.what, each.budget, each.measured, "yes" if each.met else "**no**"]
        for section in sections
        for each in section.budgets
    ]
    return table(["what", "budget", "measured", "met"], rows)


def write(sections: list[Section], header: str) -> None:
    """Put it between the marks of the page; the text around them is written by hand."""
    lines = [BEGIN, "", header, "", "## Budgets", "", *budgets_of(sections)]
    for section in sections:
        lines += [f"## {section.title}", "", *section.lines]
        for chart in section.plots:
            draw(chart)
            lines += [f"![{chart.title}](plots/{chart.name}.svg)", ""]
    page = DOCS / "performance.md"
    text = page.read_text("utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(before + "\n".join([*lines, END]) + after, "utf-8")


def draw(chart: Chart) -> None:
    """Draw it as SVG, the same bytes for the same figures."""
    import matplotlib as mpl  # noqa: PLC0415 - the quick set draws nothing

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": chart.name, "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, points in chart.curves.items():
        axes.loglog(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel=chart.x, ylabel=chart.y, title=chart.title)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    place = DOCS / "plots"
    place.mkdir(exist_ok=True)
    figure.savefig(place / f"{chart.name}.svg", metadata={"Date": None})
    plt.close(figure)
