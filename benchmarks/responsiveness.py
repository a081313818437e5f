"""The delay of other tasks in a web app that pulls in the background."""

from __future__ import annotations

import asyncio
import time

from benchmarks.contenders import TOKEN
from benchmarks.page_server import MONTH, serving
from benchmarks.section import Budget, Section, table
from servetel_async import CallQuery, ServetelClient

TICK = 0.001
#: Milliseconds by page size: of a hundred ticks the latest but one, and of all. CI allows twice as much, plus the
#: delay of an idle loop, because other programs may use the machine.
BOUNDS = {1000: (5.0, 10.0), 5000: (15.0, 25.0)}


async def lags(work: asyncio.Task[None]) -> list[float]:
    """The delay in seconds of each tick of a millisecond while the work runs."""
    found = []
    while not work.done():
        begun = time.perf_counter()
        await asyncio.sleep(TICK)
        found.append(time.perf_counter() - begun - TICK)
    await work
    return found


async def while_streaming(url: str, size: int) -> list[float]:
    async def work() -> None:
        async with ServetelClient(TOKEN, base_url=url, rate=None, page_size=size) as client:
            async for _ in client.calls(query=CallQuery.month(MONTH)):
                pass

    return await lags(asyncio.create_task(work()))


async def while_idle() -> list[float]:
    return await lags(asyncio.create_task(asyncio.sleep(2.0)))


def run(*, quick: bool) -> Section:
    calls = 20_000 if quick else 100_000
    rows, budgets = [], []
    with serving(calls) as url:
        idle = asyncio.run(while_idle())
        asyncio.run(while_streaming(f"{url}/plain", 1000))  # once to warm up
        for size in (100, 1000, 5000):
            found = asyncio.run(while_streaming(f"{url}/plain", size))
            p50, p99, longest = (1e3 * each for each in _percentiles(found))
            rows.append([f"pages of {size}", f"{p50:.1f}", f"{p99:.1f}", f"{longest:.1f}"])
            if size in BOUNDS:
                late, latest = BOUNDS[size]
                noise = 1e3 * max(idle)
                met = p99 <= late and longest <= latest
                tolerated = p99 <= 2 * late + noise and longest <= 3 * latest + noise
                what = f"lag of a 1 ms ticker, pages of {size}: p99; longest"
                bound, measured = f"≤ {late:g} ms; ≤ {latest:g} ms", f"{p99:.1f} ms; {longest:.1f} ms"
                budgets.append(Budget(what, bound, measured, met, tolerated))
    p50, p99, longest = (1e3 * each for each in _percentiles(idle))
    rows.insert(0, ["nothing else in the loop", f"{p50:.1f}", f"{p99:.1f}", f"{longest:.1f}"])
    lines = ["By how many ms a tick of 1 ms comes late, while a stream is read in the same loop.", ""]
    return Section("The loop", lines + table(["", "half of all", "p99", "longest"], rows), budgets)


def _percentiles(found: list[float]) -> tuple[float, float, float]:
    in_order = sorted(found)
    return in_order[len(in_order) // 2], in_order[int(0.99 * (len(in_order) - 1))], in_order[-1]
