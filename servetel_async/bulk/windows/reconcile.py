"""Reconciliation: the counts of all windows must add up to what the API counts in the whole range.

It takes one request for every 31 days. If the sum differs, halving finds the windows that differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.aio.tasks import run_together
from servetel_async.protocol.windows import LONGEST, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.bulk.ledger import Reading


async def find_changed(fetcher: Fetcher, readings: Sequence[Reading], cost: Cost) -> list[Reading]:
    """Return the readings whose windows now have another count.

    Args:
        fetcher: the source of counts.
        readings: readings of windows without a gap between them, newest first.
        cost: the cost to add to.
    """
    parts = await run_together([_differing(fetcher, month, cost) for month in _months(readings)])
    return [reading for part in parts for reading in part]


async def _differing(fetcher: Fetcher, readings: Sequence[Reading], cost: Cost) -> list[Reading]:
    window = Window.of(readings[-1].first, readings[0].last)
    count = await fetcher.count(window, cost)
    if count == sum(reading.counted or 0 for reading in readings):
        return []
    if len(readings) == 1:
        return list(readings)
    middle = len(readings) // 2
    halves = (readings[:middle], readings[middle:])
    parts = await run_together([_differing(fetcher, half, cost) for half in halves])
    return [reading for part in parts for reading in part]


def _months(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Group windows into at most 31 days."""
    groups: list[list[Reading]] = []
    for reading in readings:
        if groups and Window.of(reading.first, groups[-1][0].last).seconds <= LONGEST.total_seconds():
            groups[-1].append(reading)
        else:
            groups.append([reading])
    return groups
