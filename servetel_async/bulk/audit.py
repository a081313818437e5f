"""The audit: what all windows of a range have together is what the API counts in the whole range.

One request for every 31 days; where it does not agree, the windows that differ are found by halving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.windows import LONGEST, Window
from servetel_async.transport.tasks import run_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.fetcher import Fetcher
    from servetel_async.bulk.journal import Entry
    from servetel_async.bulk.tally import Tally


async def find_changed(fetcher: Fetcher, entries: Sequence[Entry], tally: Tally) -> list[Entry]:
    """Give the windows whose count is no longer what was read.

    Args:
        fetcher: where counts come from.
        entries: windows without a gap between them, newest first.
        tally: takes the cost.
    """
    parts = await run_together([_differing(fetcher, month, tally) for month in _months(entries)])
    return [entry for part in parts for entry in part]


async def _differing(fetcher: Fetcher, entries: Sequence[Entry], tally: Tally) -> list[Entry]:
    window = Window.of(entries[-1].first, entries[0].last)
    count = await fetcher.count(window, tally)
    if count == sum(entry.counted or 0 for entry in entries):
        return []
    if len(entries) == 1:
        return list(entries)
    middle = len(entries) // 2
    halves = (entries[:middle], entries[middle:])
    parts = await run_together([_differing(fetcher, half, tally) for half in halves])
    return [entry for part in parts for entry in part]


def _months(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Windows in groups of 31 days at most."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if groups and Window.of(entry.first, groups[-1][0].last).seconds <= LONGEST.total_seconds():
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups
