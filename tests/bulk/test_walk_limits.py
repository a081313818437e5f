"""What a walk may cost: twice as much as reading the window, because a walk is the last resort."""

from __future__ import annotations

import pytest

from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.windows.uncounted import STALE_PAGES, walk
from servetel_async.protocol.evidence import Evidence
from tests.bulk.small_server import HONEST, Answer
from tests.bulk.test_certify import HOUR, reading, spread


@pytest.mark.parametrize(("limit", "ended"), [(2, False), (3, True)])
async def test_a_walk_may_cost_twice_what_a_window_may(limit, ended):
    """Five pages hold all calls, and the walk requests the empty sixth one only within its budget."""
    async with reading(spread(23), lambda _: Answer(no_count=True), total=False) as case:
        evidence = Evidence(HOUR)
        assert await walk(case.fetcher, HOUR, Cost(limit=limit), evidence, 5) is ended
        assert len(evidence.calls()) == 23


async def test_a_walk_of_a_list_that_grows_in_front_goes_on():
    """Each page repeats the page before, and the growing count explains it: the walk ends when the list rests."""
    calls = spread(23)
    before = set(calls)

    def habit(asked):
        if asked.nth <= STALE_PAGES + 10:
            late = [("2024-05-06 09:59:59", f"late-{asked.nth:03}-{number}") for number in range(5)]
            case.server.calls[:0] = late
            asked.found[:0] = late
        return HONEST

    async with reading(calls, habit) as case:
        evidence = Evidence(HOUR)
        assert await walk(case.fetcher, HOUR, Cost(), evidence, 5)
        assert before <= {(row.start, row.id) for row in evidence.calls()}
