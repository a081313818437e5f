"""The fuzz target, for a moment: the nightly job plays it for longer, and keeps what it finds."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from tests.torture.fuzz import TARGETS, inputs, play, seeds
from tests.torture.report import SEED, TORTURE, measured

INPUTS = 200_000 if TORTURE else 2_000

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


@pytest.mark.parametrize(
    ("index", "target"), list(enumerate(TARGETS)), ids=lambda value: getattr(value, "__name__", "")
)
def test_a_seed_is_what_it_should_be(index, target):
    """Undamaged, each seed of the fuzz target is read: otherwise only refusals would be tested."""
    assert any(play(bytes([index]) + seed)[1] == "NoneType" for seed in seeds()[target])


def test_what_is_kept_and_received_is_read_or_refused():
    """Damaged replies, journals, receipts, facts and checkpoints end as values, or as errors of ours."""
    ends = Counter()
    for data, _ in islice(inputs(Random(f"fuzz {SEED}"), None), INPUTS):
        try:
            ends[play(data)] += 1
        except Exception as problem:
            problem.add_note(f"input {data[:2000]!r}")
            raise
    measured(
        "P11", f"{INPUTS:,} inputs of the fuzz target: {len(ends)} different ends, 0 foreign errors", seeds=str(SEED)
    )
    assert {name for name, *_ in ends} == {target.__name__ for target in TARGETS}
