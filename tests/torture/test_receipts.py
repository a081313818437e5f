"""The receipt of every kind of output is right, and ``check`` finds later changes."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from servetel_async import PullReceipt, Retry, ServetelClient
from servetel_async.bulk.check import check
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.torture.report import TORTURE, measured

CALLS = 20_000 if TORTURE else 600
MAY = {"from_date": "2024-05-01", "to_date": "2024-05-31"}
NAMES = ("a.ndjson", "a.ndjson.gz", "a.csv", "a.parquet", "days/", "a.db", "a.duckdb")

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


@pytest.mark.parametrize("name", NAMES)
async def test_the_receipt_says_what_happened(tmp_path, name):
    """A receipt has windows without a gap, counts and requests; ``check`` agrees until a late call comes."""
    dataset = Dataset.month("2024-05", calls=CALLS)
    faults = [Fault("status", status=503, nth=number) for number in (3, 7)]
    async with (
        Emulator(dataset, faults=faults) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=20, retry=Retry(attempts=4, base=0.001)
        ) as client,
    ):
        receipt = await client.pull(f"{tmp_path}/{name}", **MAY)
        sent = len(api.requests)
        agrees = await check(client, f"{tmp_path}/{name}")
        api.insert_late("2024-05-20 12:00:00")
        differs = await check(client, f"{tmp_path}/{name}")
    place = tmp_path / name
    assert api.fired.total() == 2
    assert receipt.complete
    assert (receipt.counted_before, receipt.counted, receipt.records) == (CALLS, CALLS, CALLS)
    assert (receipt.requests, receipt.retries) == (sent, 2)
    assert (receipt.duplicates, receipt.quarantined, receipt.undated, receipt.reused_ids) == (0, 0, 0, 0)
    assert sum(window.records for window in receipt.windows) == CALLS
    assert all(window.counted == window.records and window.proof and not window.flaws for window in receipt.windows)
    assert (receipt.windows[-1].first, receipt.windows[0].last) == ("2024-05-01 00:00:00", "2024-05-31 23:59:59")
    saved = place.with_name(f"{place.name}.receipt.json")
    assert msgspec.json.decode(saved.read_bytes(), type=PullReceipt) == receipt
    if receipt.sha256 is not None and place.is_file():
        assert receipt.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
    assert agrees.agrees
    assert [each.counted_now - each.counted_then for each in differs.changed] == [1]
    measured("P16", f"{name}: {len(receipt.windows)} windows, {receipt.records:,} calls; a late call is found by check")
