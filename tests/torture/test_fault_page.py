"""The page of faults has every fault, with a test that exists or with a reason."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.torture.fault_page import PAGE, ROOT, groups, page

FAULTS = [fault for group in groups() for fault in group["fault"]]


@cache
def names_in(file):
    """The names of the test functions of a file, without an import."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_is_there():
    """Each of the 263 numbers names one fault. A number is never used again, because tests name it."""
    assert sorted(fault["number"] for fault in FAULTS) == list(range(1, 276))
    assert len({fault["what"] for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault["number"]))
def test_a_fault_has_a_behaviour_and_a_test_or_a_reason(fault):
    """No cell is empty, and each named test exists."""
    assert fault["what"].strip()
    assert fault["behaviour"].strip()
    if "reason" in fault:
        assert set(fault) == {"number", "what", "behaviour", "reason"}
        assert fault["reason"].startswith(("does not apply: ", "not tested: "))
        return
    assert set(fault) == {"number", "what", "behaviour", "tests"}
    assert fault["tests"]
    assert len(set(fault["tests"])) == len(fault["tests"])
    for test in fault["tests"]:
        file, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in names_in(file), test


def test_almost_every_fault_is_tested():
    """Only faults of features that this library lacks have a reason instead of a test."""
    assert sum("reason" in fault for fault in FAULTS) <= 3


def test_the_page_is_made_of_the_data():
    """``python -m tests.torture.fault_page`` was run after the last change."""
    text = PAGE.read_text("utf-8")
    assert text == page()
    assert "|  |" not in text
