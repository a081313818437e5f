"""What a walk may cost: twice what reading a window may, for it is the last that can be done for it."""

from __future__ import annotations

import pytest

from servetel_async.bulk.tally import Tally
from servetel_async.bulk.walk import walk
from servetel_async.protocol.evidence import Evidence
from tests.bulk.small_server import Answer
from tests.bulk.test_certify import HOUR, reading, spread


@pytest.mark.parametrize(("limit", "ended"), [(2, False), (3, True)])
async def test_a_walk_may_cost_twice_what_a_window_may(limit, ended):
    """Five pages hold all calls, and the walk still asks for the empty one behind them if it may cost so much."""
    async with reading(spread(23), lambda _: Answer(no_count=True), total=False) as case:
        evidence = Evidence(HOUR)
        assert await walk(case.fetcher, HOUR, Tally(limit=limit), evidence, 5) is ended
        assert len(evidence.calls()) == 23
