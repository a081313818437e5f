"""A quarter of all replies goes wrong, in ten ways at once: the pull is complete all the same."""

from __future__ import annotations

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault

MAY = CallQuery.month("2024-05")
KINDS = (
    Fault("status", status=500, probability=0.02),
    Fault("status", status=503, probability=0.02),
    Fault("html_200", probability=0.02),
    Fault("retry_after", retry_after=0, probability=0.02),
    Fault("empty_page", probability=0.02),
    Fault("short_page", probability=0.02),
    Fault("wrong_page", probability=0.02),
    Fault("repeat_page", probability=0.02),
    Fault("results_null", probability=0.02),
    Fault("wrong_count", probability=0.02),
    Fault("truncated_json", probability=0.02),
    Fault("cut_body", probability=0.02),
    Fault("reset", probability=0.02),
    Fault("close", probability=0.02),
)


@pytest.fixture(scope="module")
def month():
    return Dataset.month("2024-05", calls=400, php_quirks=True)


@pytest.mark.parametrize("seed", range(4))
async def test_a_quarter_of_the_replies_goes_wrong(month, tmp_path, seed):
    """Every call is there once, byte for byte, whichever replies failed, lied or never came."""
    async with (
        Emulator(month, faults=KINDS, seed=seed) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=10, retry=Retry(attempts=10, base=0.001)
        ) as client,
    ):
        receipt = await client.pull(tmp_path / "a.ndjson", query=MAY)
        assert receipt.complete
        assert sorted((tmp_path / "a.ndjson").read_bytes().splitlines()) == sorted(call.body for call in month.calls)
        assert len(api.fired) >= 10
        assert api.fired.total() > len(api.requests) / 8
