"""The certified pull: against reading and discarding, against dlt, into each destination, and its requests."""

from __future__ import annotations

import asyncio
import importlib
import os
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import by_hand, contenders, pull_memory
from benchmarks.measure import all_cores, interleave, once, ratio
from benchmarks.page_server import MONTH, serving
from benchmarks.section import Section, at_least, at_most, table
from servetel_async import CallQuery, ServetelClient
from servetel_async.bulk.sink_thread import SinkThread

if TYPE_CHECKING:
    from typing import Any

    from benchmarks.measure import Timing
    from benchmarks.section import Budget

#: Approximate bytes of a call.
BYTES = 2_050
#: Destinations whose memory is measured with a million calls.
BOUNDED = (".ndjson", ".parquet", ".db")
KINDS = (".ndjson", ".ndjson.gz", ".ndjson.zst", ".csv", ".csv.gz", ".parquet", "/", ".db", ".duckdb")
BESIDE_DLT = (".ndjson", ".csv", ".parquet", ".duckdb")
BY_HAND = {".csv": by_hand.csv_by_hand, ".parquet": by_hand.parquet_by_hand}
POSTGRES = os.environ.get("SERVETEL_BENCHMARK_POSTGRES")


class TimedWriter(SinkThread):
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
    real, module.SinkThread = module.SinkThread, TimedWriter
    rows = []
    try:
        for kind in kinds:
            once(partial(contenders.pull, url, 1000, kind))  # to warm up
            TimedWriter.busy = 0.0
            units, wall, cpu = once(partial(contenders.pull, url, 1000, kind))
            assert units == calls
            outside = 1 - TimedWriter.busy / wall
            rows.append([_name(kind), f"{units / wall:,.0f}", f"{cpu / units * 1e6:.1f}", f"{outside:.0%}"])
    finally:
        module.SinkThread = real
    return rows


def _name(kind: str) -> str:
    return "PostgreSQL" if "://" in kind else f"`{kind}`"


def requests(url: str, calls: int) -> list[Budget]:
    """Requests over the fewest possible, with pages of 100."""

    async def run() -> dict[str, float]:
        query, found = CallQuery.month(MONTH), {}
        async with ServetelClient(contenders.TOKEN, base_url=url, rate=None, page_size=100) as client:
            stream = client.calls(query=query)
            async for _ in stream:
                pass
            found["stream"] = float(stream.stats.requests)
            with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
                for name, fast in {"`pull(fast=True)`": True, "certified pull": False}.items():
                    receipt = await client.pull(f"{directory}/{fast}.ndjson", query=query, fast=fast)
                    found[name] = float(receipt.requests)
        return found

    found, fewest = asyncio.run(run()), -(-calls // 100)
    bounds = {"stream": 1.02, "`pull(fast=True)`": 1.05, "certified pull": 1.25}
    return [
        at_most(f"{name}: requests over the fewest possible, {calls:,} calls", bounds[name], measured / fewest)
        for name, measured in found.items()
    ]


def disk(size: int = 100_000_000) -> float:
    """Seconds to write and sync this many bytes, a megabyte at a time: the floor of any output."""
    piece = os.urandom(1_000_000)
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        begun = time.perf_counter()
        for _ in range(size // len(piece)):
            os.write(file.fileno(), piece)
        os.fsync(file.fileno())
        return time.perf_counter() - begun


def raw(url: str, calls: int, rounds: int, *, quick: bool) -> tuple[Budget, list[str]]:
    """A pull that keeps the server's own bytes, against reading and discarding, and against the disk alone."""
    found = interleave(
        {
            "read and thrown away": partial(contenders.discard, url, 1000, calls),
            "raw NDJSON pull": partial(contenders.pull, url, 1000, ".ndjson"),
        },
        rounds,
    )
    speed = 1 / ratio(found["raw NDJSON pull"], found["read and thrown away"], of="wall")
    noise = 2 * sum(each.spread for each in found.values()) if quick else 0.0
    what = "raw NDJSON pull, records/s against reading and throwing away"
    rows = [
        [name, f"{each.per_second:,.0f}", f"{each.cpu_us:.1f}", f"±{each.spread:.0%}"] for name, each in found.items()
    ]
    written = sorted(disk() for _ in range(3))[1]
    rows.append(
        ["the same bytes written and synced, and nothing else", f"{100_000_000 / BYTES / written:,.0f}", "", ""]
    )
    return at_least(what, 0.5, speed, noise=noise, held_to=0.05), table(
        ["pages of 1,000", "records/s", "CPU µs per record", "spread"], rows
    )


def memory() -> tuple[list[Budget], list[str]]:
    """A pull of a million calls beside one of a hundred thousand."""
    kinds = list(BOUNDED)
    small, large = pull_memory.measure(pull_memory.SMALL, kinds), pull_memory.measure(pull_memory.LARGE, kinds)
    rows = [[f"`{kind}`", f"{small[kind][1]:.0f}", f"{large[kind][1]:.0f}"] for kind in kinds]
    what = "memory of a pull of 1,000,000 calls over that of 100,000"
    budgets = [at_most(f"{what}, `{kind}`", pull_memory.BOUND, large[kind][1] / small[kind][1]) for kind in kinds]
    return budgets, ["Peak of the pulling process in MiB:", "", *table(["", "100,000 calls", "1,000,000"], rows)]


def run(*, quick: bool) -> Section:
    calls, rounds = (20_000, 3) if quick else (100_000, 5)
    budgets: list[Budget] = []
    with serving(calls) as url, all_cores():
        plain = f"{url}/plain"
        budget, lines = raw(plain, calls, rounds, quick=quick)
        budgets += [budget, *requests(plain, calls)]
        if not quick:
            kinds = [*KINDS, *([POSTGRES] if POSTGRES else [])]
            lines += ["Into each destination, with its receipt; the rest of the time is the client's:", ""]
            rows = into_each(plain, calls, kinds)
            lines += table(["destination", "calls/s", "CPU µs per call", "outside the sink"], rows)
    if not quick:
        with all_cores():
            for more, described in (beside_dlt(10_000), memory()):
                budgets += more
                lines += described
    return Section("The pull", lines, budgets)


def beside_dlt(calls: int) -> tuple[list[Budget], list[str]]:
    """The same calls into the same format, by dlt's rest_api source with stock settings."""
    rows, budgets = [], []
    with serving(calls) as url:
        for ending in BESIDE_DLT:
            plain = f"{url}/plain"
            compared = {
                "pull": partial(contenders.pull, plain, 1000, ending),
                "dlt": partial(contenders.dlt_pull, plain, 1000, ending, calls),
            }
            if ending in BY_HAND:
                compared["by hand"] = partial(BY_HAND[ending], plain, 1000, calls)
                compared["encoder"] = partial(by_hand.encoded, plain, 1000, calls, ending)
            found = interleave(compared, 2)
            times = ratio(found["dlt"], found["pull"], of="wall")
            cells = [f"`{ending}`", *(f"{found[name].per_second:,.0f}" for name in ("pull", "dlt")), f"{times:.1f}x"]
            for name in ("encoder", "by hand"):
                cells += _beside(found[name], found["dlt"]) if name in found else ["", ""]
            rows.append(cells)
            budgets.append(at_least(f"pull into `{ending}`, times as many records/s as dlt", 10.0, times))
    titles = ["format", "pull", "dlt", "pull / dlt", "encoder", "encoder / dlt", "by hand", "by hand / dlt"]
    lines = [
        "Against dlt, records a second. *Encoder*: the same file, of pages that are asked for and encoded one by one.",
        "*By hand*: a loop of one's own into a plainer file, what is nested as JSON and without moments.",
        "",
        *table(titles, rows),
    ]
    return budgets, lines


def _beside(contender: Timing, dlt: Timing) -> list[str]:
    return [f"{contender.per_second:,.0f}", f"{ratio(dlt, contender, of='wall'):.1f}x"]
