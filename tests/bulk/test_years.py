"""Some histories, and all that once failed; ``python -m tests.bulk.years`` plays as many as you like."""

from __future__ import annotations

import pytest

from tests.bulk.years.known import KNOWN
from tests.bulk.years.run import look, play_one

SEEDS, CHUNKS = 60, 3


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_nothing_claimed_over_months_is_untrue(chunk):
    """Calls come late, runs end early, clocks are wrong: every claim is still true, and no alarm is false."""
    found = await look(range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS))
    assert not found.wrong, "\n\n".join(found.texts)
    assert found.runs > SEEDS // CHUNKS
    assert found.requests > found.runs


@pytest.mark.parametrize("name", KNOWN)
async def test_what_was_wrong_once_is_right(name):
    """Each past mistake has a short history that shows it."""
    one = await play_one(KNOWN[name])
    assert not one.wrong, "\n".join(one.story)
    assert one.runs
