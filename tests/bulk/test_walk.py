"""Whole pulls from a server that sends its first counts late."""

from __future__ import annotations

import pytest

from servetel_async import Retry, ServetelClient
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

EARLY = [f"2024-05-05 {hour:02}:{minute:02}:00" for hour in range(12) for minute in range(0, 60, 7)]
LATE = ["2024-05-06 09:00:00", "2024-05-06 09:00:00", "2024-05-06 09:30:00"]
CALLS = calls_at(*EARLY, *LATE)
#: Calls of the two hours before this time may still change, so they are a window of their own.
NOW = "Mon, 06 May 2024 04:30:00 GMT"


@pytest.mark.parametrize("counts_from", [5, 9, 14, 20])
async def test_what_was_walked_before_the_server_counted_is_read_again(tmp_path, counts_from):
    """The newest window came empty without a count; once counts come, it is read again."""

    def habit(asked):
        if asked.nth >= counts_from:
            return HONEST
        return Answer(no_count=True, rows=[] if asked.last > "2024-05-06" and asked.first > "2024-05-06" else None)

    async with (
        SmallServer(CALLS, habit, date=NOW) as server,
        ServetelClient(
            "token-123456", base_url=server.base_url, rate=None, page_size=7, max_concurrency=1, retry=Retry(attempts=1)
        ) as client,
    ):
        receipt = await client.pull(tmp_path / "calls.ndjson", "2024-05-05", "2024-05-06 10:00:00")
    assert receipt.complete
    assert receipt.records == receipt.counted == len(CALLS)
    assert {window.proof for window in receipt.windows}.isdisjoint({"walked"})
    assert len((tmp_path / "calls.ndjson").read_bytes().splitlines()) == len(CALLS)
