"""The page of promises says what the tests hold us to."""

from __future__ import annotations

import re
from pathlib import Path

from tests.torture.promises import PROMISES
from tests.torture.test_fault_page import names_in

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "explanation" / "reliability.md"


def rows(heading):
    """The lines of a section's table that are about a promise."""
    section = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| P")]


def test_the_page_promises_what_the_tests_measure():
    """Number, words and command of each promise, in their order, and nothing beside them."""
    assert rows("What is promised") == [
        f"| {each.number} | {each.what} | {each.promised} | `python -m tests.torture {each.number}` |"
        for each in PROMISES
    ]


def test_each_promise_has_a_measurement_and_a_method():
    """What was measured has a line for each, and so has how."""
    text = PAGE.read_text("utf-8")
    numbers = [each.number for each in PROMISES]
    assert [line.split()[1] for line in rows("What was measured")] == numbers
    assert [line[4:].partition(".")[0] for line in text.splitlines() if line.startswith("- **P")] == numbers


def test_the_tests_of_each_promise_exist():
    """What is not there measures nothing."""
    for each in PROMISES:
        assert each.tests
        for test in each.tests:
            assert (ROOT / test.partition("::")[0]).exists(), test


def test_the_test_of_each_finding_exists():
    """What was found once is found again, by a test that is there."""
    found = re.findall(r"`(tests/\S+)::(test_\w+)`", PAGE.read_text("utf-8"))
    assert len(found) > 15
    for file, name in found:
        assert name in names_in(file), name
