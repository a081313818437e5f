"""A server whose deeper pages cost more: a pull by windows against one walk.

    python -m benchmarks.offset_cost

The emulator waits ``COST`` seconds for every 1,000 rows that a page skips. A walk through one window of n calls waits
for n * n / 2 of them, a pull for n. What is fitted is the exponent of time over calls.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.header import header
from servetel_async import CallQuery, ServetelClient
from servetel_async.emulator import Dataset, Emulator

MAY = CallQuery.month("2024-05")
SIZES = (10_000, 30_000, 100_000)
COST = 0.01


async def measure(calls: int) -> tuple[float, float]:
    """Seconds of a pull and of a walk."""
    dataset = Dataset.month("2024-05", calls=calls)
    async with (
        Emulator(dataset, offset_cost=COST) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None) as client,
    ):
        with tempfile.TemporaryDirectory() as directory:
            begun = time.perf_counter()
            receipt = await client.pull(Path(directory) / "may.ndjson", query=MAY)
            pulled = time.perf_counter() - begun
            assert receipt.complete
        begun = time.perf_counter()
        count = 0
        async for page in client.calls(query=MAY).pages():
            count += len(page)
        assert count == calls
        return pulled, time.perf_counter() - begun


def slope(points: list[tuple[int, float]]) -> float:
    """The exponent, by least squares over the logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def main() -> int:
    """Print the table; fails if the pull is not linear."""
    print(f"{header()}; {COST * 1000:.0f} ms for every 1,000 rows skipped, 4 requests at the same time\n")
    print("| calls | pull, s | one walk, s |\n|---|---|---|")
    found = []
    for calls in SIZES:
        pulled, walked = asyncio.run(measure(calls))
        found.append((calls, pulled, walked))
        print(f"| {calls:,} | {pulled:.1f} | {walked:.1f} |", flush=True)
    pull_slope = slope([(calls, pulled) for calls, pulled, _ in found])
    walk_slope = slope([(calls, walked) for calls, _, walked in found])
    print(f"| exponent | {pull_slope:.2f} | {walk_slope:.2f} |")
    return int(pull_slope > 1.2)


if __name__ == "__main__":
    sys.exit(main())
