"""Records a second into every destination, and how much of the time is the destination's.

    python benchmarks/pull_sinks.py [postgresql://...]

The same 100,000 calls, pages of 1,000, from an emulator in its own process. The sink's share is what its one thread was
busy with, over the time of the pull; the rest is the client and waiting for the emulator.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import tempfile
import time

from benchmarks.header import header
from benchmarks.pull_memory import SERVER

from servetel_async import CallQuery, ServetelClient
from servetel_async.bulk.writer import Writer

CALLS = 100_000
KINDS = (".ndjson", ".ndjson.gz", ".ndjson.zst", ".csv", ".csv.gz", ".parquet", "/", ".db", ".duckdb")


class TimedWriter(Writer):
    """Counts the seconds in which its thread works."""

    busy = 0.0

    async def run(self, work, /, *args, **kwargs):
        def timed():
            begun = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                TimedWriter.busy += time.perf_counter() - begun

        return await super().run(timed)


async def measure(url: str, token: str, dest: str) -> tuple[float, float, int]:
    """Seconds, seconds of the sink, bytes of the output."""
    TimedWriter.busy = 0.0
    async with ServetelClient(token, base_url=url, rate=None, page_size=1000) as client:
        begun = time.perf_counter()
        receipt = await client.pull(dest, query=CallQuery.month("2024-05"))
        assert receipt.complete, receipt
        return time.perf_counter() - begun, TimedWriter.busy, receipt.bytes


def main(more: list[str]) -> int:
    """Print the table."""
    module = importlib.import_module("servetel_async.bulk.pull")

    module.Writer = TimedWriter
    print(f"{header()}; {CALLS:,} calls, pages of 1,000\n")
    print("| destination | calls/s | outside the sink | MB |\n|---|---|---|---|")
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(CALLS)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        for kind in (*KINDS, *more):
            with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
                dest = kind if "://" in kind else f"{directory}/may{kind}"
                seconds, busy, size = asyncio.run(measure(url, token, dest))
            name = "PostgreSQL" if "://" in kind else f"`{kind}`"
            print(f"| {name} | {CALLS / seconds:,.0f} | {1 - busy / seconds:.0%} | {size / 1e6:,.0f} |", flush=True)
    finally:
        server.terminate()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
