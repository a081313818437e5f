"""Some seeds of the model of resuming; ``python -m tests.stream.resume_model`` runs any number."""

from __future__ import annotations

import pytest

from tests.stream.resume_model import look

SEEDS, CHUNKS = 150, 3


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_no_resume_is_short_in_silence_and_none_fails_falsely(chunk):
    """Lists change between runs and within them. Each call comes once, or a justified error is raised."""
    wrongs, first, runs, requests = await look(range(chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS))
    assert not wrongs, "\n".join(first)
    assert runs > SEEDS // CHUNKS
    assert requests > runs
