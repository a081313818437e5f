"""Lost calls, and the cost of losing none: each way to read a month of calls that changes while it is read.

    python -m benchmarks.completeness [calls]

Still: nothing moves. Moving: before every 50th request a late call appears somewhere in the month, and before every
200th one disappears; at 2 requests a second that is far more than any account sees. Ties: calls that start in the same
second come in another order at every request. LOST are calls that were there during the whole pull and are not in its
result; x is requests over the fewest that could do it.
"""

from __future__ import annotations

import asyncio
import calendar
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.header import header
from servetel_async import CallQuery, ServetelClient
from servetel_async.emulator import Dataset, Emulator

MONTH = "2024-05"
MAY = CallQuery.month(MONTH)
PAGE = 100
SCENES: dict[str, dict[str, Any]] = {
    "still": {},
    "still, unstable ties": {"shuffle_ties": True},
    "moving": {"late_every": 50, "delete_every": 201},
    "moving, unstable ties": {"late_every": 50, "delete_every": 201, "shuffle_ties": True},
}


async def walk(client: ServetelClient, query: CallQuery) -> list[str]:
    """Page by page until one is short: the usual loop."""
    found: list[str] = []
    for number in range(1, 10**6):
        page = await client.fetch_page(query, number, PAGE)
        found += [call.id for call in page.records]
        if len(page) < PAGE:
            break
    return found


async def naive(client: ServetelClient, _directory: Path) -> list[str]:
    """One walk through the month."""
    return await walk(client, MAY)


async def days(client: ServetelClient, _directory: Path) -> list[str]:
    """A walk through each day, without duplicates."""
    found: dict[str, None] = {}
    for day in range(calendar.monthrange(2024, 5)[1], 0, -1):
        found.update(dict.fromkeys(await walk(client, CallQuery.day(f"{MONTH}-{day:02}"))))
    return list(found)


async def pull(client: ServetelClient, directory: Path, *, fast: bool = False) -> list[str]:
    """A certified pull; raises if it does not report itself complete."""
    receipt = await client.pull(directory / "may.ndjson", query=MAY, fast=fast)
    assert receipt.complete, receipt
    with (directory / "may.ndjson").open("rb") as lines:
        return [str(json.loads(line)["id"]) for line in lines]


async def fast(client: ServetelClient, directory: Path) -> list[str]:
    """The same without the repair of page edges."""
    return await pull(client, directory, fast=True)


STRATEGIES = {"one walk": naive, "days, deduplicated": days, "`pull(fast=True)`": fast, "`pull()`": pull}


async def measure(dataset: Dataset, knobs: dict[str, Any], strategy: Any) -> tuple[float, int, int]:
    """Requests over the fewest, duplicates, lost."""
    async with (
        Emulator(dataset, **knobs) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=PAGE) as client,
    ):
        before = set(api.truth())
        with tempfile.TemporaryDirectory() as directory:
            found = await strategy(client, Path(directory))
        stayed = before & set(api.truth())
        return len(api.requests) / -(-len(before) // PAGE), len(found) - len(set(found)), len(stayed - set(found))


def main(calls: int) -> int:
    """Print the table; fails if a pull loses a call, or exceeds its budget."""
    dataset = Dataset.month(MONTH, calls=calls)
    print(f"{header()}; {calls:,} calls, pages of {PAGE}\n")
    print(f"| | {' | '.join(SCENES)} |\n|---|{'---|' * len(SCENES)}")
    failed = False
    for name, strategy in STRATEGIES.items():
        cells: list[str] = []
        for scene, knobs in SCENES.items():
            ratio, duplicates, lost = asyncio.run(measure(dataset, knobs, strategy))
            cells.append(f"{ratio:.2f}x, {duplicates} twice, {f'**{lost} LOST**' if lost else '0 lost'}")
            bound = {"`pull(fast=True)`": 1.05, "`pull()`": 1.25}.get(name)
            failed |= bound is not None and (lost > 0 or (scene == "still" and ratio > bound))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
