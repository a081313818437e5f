"""The page of promises agrees with the tests."""

from __future__ import annotations

import re
from pathlib import Path

from tests.torture.promises import PROMISES
from tests.torture.test_fault_page import names_in

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "explanation" / "reliability.md"


def rows(heading):
    """The lines of a section's table about promises."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| P")]


def test_the_page_promises_what_the_tests_measure():
    """The page has the number, text and command of each promise in order, and nothing else."""
    assert rows("What is promised") == [
        f"| {each.number} | {each.what} | {each.promised} | `python -m tests.torture {each.number}` |"
        for each in PROMISES
    ]


def test_each_promise_has_a_measurement_and_a_method():
    """Each promise has a line with its measurement and a line with its method."""
    text = PAGE.read_text("utf-8")
    numbers = [each.number for each in PROMISES]
    assert [line.split()[1] for line in rows("What was measured")] == numbers
    assert [line[4:].partition(".")[0] for line in text.splitlines() if line.startswith("- **P")] == numbers


def test_the_tests_of_each_promise_exist():
    """The tests of each promise exist."""
    for each in PROMISES:
        assert each.tests
        for test in each.tests:
            assert (ROOT / test.partition("::")[0]).exists(), test


def test_the_test_of_each_finding_exists():
    """Each finding has an existing test."""
    found = re.findall(r"`(tests/\S+)::(test_\w+)`", PAGE.read_text("utf-8"))
    assert len(found) > 15
    for file, name in found:
        assert name in names_in(file), name
