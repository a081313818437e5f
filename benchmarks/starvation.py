"""Short calls beside exports on one client: how long a user waits while streams read everything.

``python -m benchmarks.starvation`` takes about two and a half minutes. Exports read a month on the client of a web
application; every half second a ``count`` with a deadline of three seconds comes in, each for another range. It prints
how many were answered, the median and the longest wait, and how many pages the exports got. It fails if a count was not
answered. The other lines of the table leave some of the rate unused: they have fewer counts, or a higher rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from typing import TYPE_CHECKING

from servetel_async import CallQuery, OverloadedError, ServetelClient
from servetel_async.emulator import Dataset, Emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 30.0
DEADLINE = 3.0
LATENCY = 0.05


async def measure(exports: int, rate: float, every: float, seconds: float) -> tuple[list[float], int, int]:
    """The seconds of each answered count, the number of unanswered ones, and the pages of the exports."""
    data = Dataset.month("2024-05", calls=20_000)
    async with (
        Emulator(data, latency=LATENCY) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=rate, page_size=20) as client,
    ):
        waits: list[float] = []
        refused = 0

        async def export() -> None:
            async for _ in client.calls(query=CallQuery.month("2024-05")):
                pass

        async def person(number: int) -> None:
            nonlocal refused
            begun = time.perf_counter()
            try:
                await client.count("2024-05-01", f"2024-05-31 22:{number // 60:02}:{number % 60:02}", deadline=DEADLINE)
            except OverloadedError:
                refused += 1
            else:
                waits.append(time.perf_counter() - begun)

        reading = [asyncio.create_task(export()) for _ in range(exports)]
        await asyncio.sleep(2.0)
        people = []
        for number in range(round(seconds / every)):
            people.append(asyncio.create_task(person(number)))
            await asyncio.sleep(every)
        await asyncio.gather(*people)
        pages = sum(("limit", "20") in request.query for request in api.requests)
        for task in reading:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*reading)
    return waits, refused, pages


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    seconds = float((arguments or sys.argv[1:] or [SECONDS])[0])
    print("exports | requests/s | a count every | answered | median s | worst s | in intervals | pages of exports")
    failed = 0
    for exports, rate, every in ((3, 2.0, 0.5), (1, 2.0, 2.0), (3, 2.0, 2.0), (1, 20.0, 0.5), (3, 20.0, 0.5)):
        waits, refused, pages = asyncio.run(measure(exports, rate, every, seconds))
        failed += refused
        worst = max(waits)
        print(
            f"{exports} | {rate:g} | {every:g} s | {len(waits)} of {len(waits) + refused} | "
            f"{statistics.median(waits):.2f} | {worst:.2f} | {(worst - LATENCY) * rate:.1f} | {pages}",
            flush=True,
        )
    return min(1, failed)


if __name__ == "__main__":
    sys.exit(main())
