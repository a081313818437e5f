"""The page of all faults, made of ``docs/reference/faults.toml``: ``python -m tests.torture.fault_page`` writes it."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "docs" / "reference" / "faults.toml"
PAGE = ROOT / "docs" / "reference" / "faults.md"
HEAD = """\
<!-- Made of faults.toml by `python -m tests.torture.fault_page`: change the data, not this page. -->

# Faults

What can go wrong, what comes of it, and the tests that show it. Nothing is listed without a test, or the reason why it has no test.
A fault that stays ends in one of the [errors](errors.md). One that passes is not noticed.
"Tried again" means: as often as `Retry(attempts=)` allows, five requests at most by default; a [pull](../how-to/bulk-pull.md) is more patient.

Tests are named without `tests/` and `test_`: `transport/wire_faults`: `a_full_backlog_is_a_timeout_of_the_connection` is `tests/transport/test_wire_faults.py::test_a_full_backlog_is_a_timeout_of_the_connection`.
"""


def groups() -> list[dict[str, Any]]:
    """The data of the file."""
    return tomllib.loads(DATA.read_text("utf-8"))["group"]


def tests_of(fault: dict[str, Any]) -> str:
    """Return its tests, by file, or the reason why it has no test."""
    if "reason" in fault:
        return fault["reason"]
    files: defaultdict[str, list[str]] = defaultdict(list)
    for test in fault["tests"]:
        file, _, name = test.partition("::")
        short = file.removeprefix("tests/").removesuffix(".py").replace("/test_", "/")
        files[short].append(f"`{name.removeprefix('test_')}`")
    return "; ".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())


def page() -> str:
    """Return the whole page."""
    lines = [HEAD]
    for group in groups():
        lines += [f"## {group['title']}", "", "| # | fault | what comes of it | tests |", "|---|---|---|---|"]
        for fault in group["fault"]:
            cells = (str(fault["number"]), fault["what"], fault["behaviour"], tests_of(fault))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
