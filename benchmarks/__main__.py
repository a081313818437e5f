"""Measure everything and write the report.

``python -m benchmarks`` takes about half an hour on an idle machine with two cores, and writes
``docs/explanation/performance.md``. ``--quick`` takes a minute, writes nothing, and fails if a budget is missed
twice by more than the measured noise. Names such as ``typed_stream`` run and print only these.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.header import header
from benchmarks.measure import CLIENT_CORE, pin, settle_allocator

if TYPE_CHECKING:
    from benchmarks.section import Section

SECTIONS = ("typed_stream", "profile", "responsiveness", "limits", "pulls", "footprint", "sizes")
QUICK = ("typed_stream", "responsiveness", "limits", "pulls", "footprint")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="typed_stream", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="the set for CI")
    chosen = parser.parse_args()
    unknown = set(chosen.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    settle_allocator()
    pin(CLIENT_CORE)
    names = chosen.sections or (QUICK if chosen.quick else SECTIONS)
    sections = []
    missed: list[str] = []
    for name in names:
        section = run(name, quick=chosen.quick)
        if chosen.quick and not all(each.tolerated for each in section.budgets):
            section = run(name, quick=True)  # another program may have used the machine for a moment
        sections.append(section)
        missed += [each.what for each in section.budgets if not (each.tolerated if chosen.quick else each.met)]
        if not chosen.quick and not chosen.sections:
            report.write(sections, header())  # a run that is stopped does not lose its measurements
    for each in missed:
        print(f"missed: {each}", file=sys.stderr)
    return min(1, len(missed)) if chosen.quick else 0


def run(name: str, *, quick: bool) -> Section:
    """Measure a section, and print it."""
    section: Section = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
    print("\n".join([f"## {section.title}", "", *section.lines, *report.budgets_of([section])]), flush=True)
    return section


if __name__ == "__main__":
    sys.exit(main())
