"""A short run of the fuzz target; the nightly job runs it for longer and keeps its findings."""

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
    """Each undamaged seed is read, because otherwise only refusals would be tested."""
    assert any(play(bytes([index]) + seed)[1] == "NoneType" for seed in seeds()[target])


def test_what_is_kept_and_received_is_read_or_refused():
    """Damaged replies, journals, receipts, facts and checkpoints give values or errors of ours."""
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
