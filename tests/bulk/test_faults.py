"""A quarter of all replies fails, in thirteen ways at once: the pull is still complete.

``SERVETEL_FAULT_SEEDS=100`` draws 100 examples; the suite repeats the same four.
"""

from __future__ import annotations

import os

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault

SEEDS = int(os.environ.get("SERVETEL_FAULT_SEEDS", "4"))
MAY = CallQuery.month("2024-05")
FAULTS = (
    Fault("status", status=500, probability=0.02),
    Fault("status", status=503, probability=0.02),
    Fault("html_200", probability=0.02),
    Fault("retry_after", retry_after=0, probability=0.02),
    Fault("empty_page", probability=0.02),
    Fault("short_page", probability=0.02),
    Fault("wrong_page", probability=0.02),
    Fault("repeat_page", probability=0.02),
    Fault("wrong_count", probability=0.02),
    Fault("results_null", probability=0.02),
    Fault("truncated_json", probability=0.02),
    Fault("cut_body", probability=0.02),
    Fault("reset", probability=0.02),
    Fault("close", probability=0.02),
)


@pytest.fixture(scope="module")
def month():
    return Dataset.month("2024-05", calls=1_000, php_quirks=True)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_quarter_of_the_replies_goes_wrong(month, tmp_path, seed):
    """Every call is there once, byte for byte, whichever replies fail."""
    target = tmp_path / "may.ndjson"
    async with (
        Emulator(month, faults=FAULTS, seed=seed) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=10, retry=Retry(attempts=10, base=0.001)
        ) as client,
    ):
        receipt = await client.pull(target, query=MAY)
        truth = api.truth(from_date="2024-05-01 00:00:00", to_date="2024-05-31 23:59:59")
    assert receipt.complete
    assert receipt.records == len(truth) == 1_000
    assert sorted(target.read_bytes().splitlines()) == sorted(call.body for call in month.calls)
    assert len(api.fired) >= 10, api.fired
    assert api.fired.total() > len(api.requests) / 8
