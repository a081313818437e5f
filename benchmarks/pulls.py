"""The certified pull: against reading and throwing away, against dlt, into each destination, and how often it asks."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import contenders
from benchmarks.measure import interleave, ratio
from benchmarks.page_server import MONTH, serving
from benchmarks.section import Section, at_least, at_most, table
from servetel_async import CallQuery, ServetelClient
from servetel_async.bulk.writer import Writer

if TYPE_CHECKING:
    from typing import Any

KINDS = (".ndjson", ".ndjson.gz", ".ndjson.zst", ".csv", ".csv.gz", ".parquet", "/", ".db", ".duckdb")
BESIDE_DLT = (".ndjson", ".csv", ".parquet", ".duckdb")
POSTGRES = os.environ.get("SERVETEL_BENCHMARK_POSTGRES")


class TimedWriter(Writer):
    """Counts the seconds in which its thread works."""

    busy = 0.0

    async def run(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        def timed() -> Any:
            begun = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                TimedWriter.busy += time.perf_counter() - begun

        return await super().run(timed)


def into_each(url: str, calls: int, kinds: list[str]) -> list[list[str]]:
    """Calls a second into each destination, and how much of the time its thread worked."""
    module: Any = importlib.import_module("servetel_async.bulk.pull")
    real, module.Writer = module.Writer, TimedWriter
    rows = []
    try:
        for kind in kinds:
            TimedWriter.busy = 0.0
            found = interleave({kind: partial(contenders.pull, url, 1000, kind)}, 1)[kind]
            outside = 1 - TimedWriter.busy / 2 / found.wall[0]  # of two rounds, the first for warmth
            rows.append([_name(kind), f"{found.per_second:,.0f}", f"{found.cpu_us:.1f}", f"{outside:.0%}"])
            assert found.units == calls
    finally:
        module.Writer = real
    return rows


def _name(kind: str) -> str:
    return "PostgreSQL" if "://" in kind else f"`{kind}`"


def requests(url: str, calls: int) -> dict[str, float]:
    """Requests over the fewest possible, pages of 100."""

    async def run() -> dict[str, float]:
        query, fewest = CallQuery.month(MONTH), -(-calls // 100)
        async with ServetelClient(contenders.TOKEN, base_url=url, rate=None, page_size=100) as client:
            stream = client.calls(query=query)
            async for _ in stream:
                pass
            return {"stream": stream.stats.requests / fewest}

    return asyncio.run(run())


def run(*, quick: bool) -> Section:
    calls, rounds = (20_000, 3) if quick else (100_000, 5)
    budgets = []
    with serving(calls) as url:
        plain = f"{url}/plain"
        raw = interleave(
            {
                "read and thrown away": partial(contenders.discard, plain, 1000, calls),
                "raw NDJSON pull": partial(contenders.pull, plain, 1000, ".ndjson"),
            },
            rounds,
        )
        speed = 1 / ratio(raw["raw NDJSON pull"], raw["read and thrown away"], of="wall")
        noise = 2 * sum(each.spread for each in raw.values()) if quick else 0.0
        budgets.append(
            at_least("raw NDJSON pull, records/s against reading and throwing away", 0.5, speed, noise=noise)
        )
        for name, measured in requests(plain, calls).items():
            budgets.append(at_most(f"{name}: requests over the fewest possible", 1.02, measured))
        rows = [
            [name, f"{each.per_second:,.0f}", f"{each.cpu_us:.1f}", f"±{each.spread:.0%}"] for name, each in raw.items()
        ]
        lines = table(["pages of 1,000", "records/s", "CPU µs per record", "spread"], rows)
        if not quick:
            kinds = [*KINDS, *([POSTGRES] if POSTGRES else [])]
            lines += ["Into each destination, with its receipt; the rest of the time is the client's:", ""]
            rows = into_each(plain, calls, kinds)
            lines += table(["destination", "calls/s", "CPU µs per call", "outside the sink"], rows)
    if not quick:
        more, lines_of_dlt = beside_dlt(20_000)
        budgets += more
        lines += lines_of_dlt
    return Section("The pull", lines, budgets)


def beside_dlt(calls: int) -> tuple[list[Any], list[str]]:
    """The same calls into the same format, by dlt's rest_api source with stock settings."""
    rows, budgets = [], []
    with serving(calls) as url:
        for ending in BESIDE_DLT:
            found = interleave(
                {
                    "pull": partial(contenders.pull, f"{url}/plain", 1000, ending),
                    "dlt": partial(contenders.dlt_pull, f"{url}/plain", 1000, ending),
                },
                3,
            )
            times = ratio(found["dlt"], found["pull"], of="wall")
            cells = (f"{found[name].per_second:,.0f}" for name in ("pull", "dlt"))
            rows.append([f"`{ending}`", *cells, f"{times:.1f}x"])
            budgets.append(at_least(f"pull into `{ending}`, times as many records/s as dlt", 10.0, times))
    return budgets, ["Against dlt, records a second:", "", *table(["format", "pull", "dlt", ""], rows)]
