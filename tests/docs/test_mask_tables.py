"""The documentation's tables of masks are the tables of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from servetel_async.protocol.mask_rules import AGENT, CIRCLE, HANGUP, RECORD, STEP

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "masks.md"


def table(*rules):
    """The rows of a table: keys that share a rule, in the order of the code."""
    kinds = {}
    for each in rules:
        for key, kind in each.items():
            kinds.setdefault(kind, []).append(f"`{key}`")
    rows = [f"| {', '.join(keys)} | {kind.what} | {kind.left} | {kind.why} |" for kind, keys in kinds.items()]
    return "\n".join(["| key | a value that is | is left as | why |", "|---|---|---|---|", *rows])


@pytest.mark.parametrize(
    "rules", [(RECORD,), (STEP,), (AGENT,), (CIRCLE, HANGUP)], ids=["call", "step", "agent", "circle and code"]
)
def test_each_rule_is_a_row(rules):
    """Each rule of the code is a row of the page. To change a table, change the code and copy this test's output."""
    assert f"\n\n{table(*rules)}\n" in PAGE.read_text("utf-8")
