"""The memory of a pull does not grow with the number of calls.

    python -m benchmarks.pull_memory [.ndjson .parquet .db ...]

The emulator runs in its own process; each pull runs in its own, too, and its peak resident memory is read from the
kernel. Pages of 1,000 calls. Fails if 1,000,000 calls take more than 1.1 x the memory of 100,000.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.header import header

SMALL, LARGE = 100_000, 1_000_000
KINDS = (".ndjson", ".parquet", ".db", ".csv", ".duckdb")
BOUND = 1.1

SERVER = """
import asyncio, sys
from servetel_async.emulator import Dataset, Emulator
async def main():
    async with Emulator(Dataset.month("2024-05", calls=int(sys.argv[1]))) as api:
        print(api.base_url, api.token, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def pull(url: str, token: str, dest: str) -> None:
    """One pull, in this process; prints seconds and peak memory."""
    import asyncio  # noqa: PLC0415 - so that the parent, which only starts processes, stays small

    from servetel_async import CallQuery, ServetelClient  # noqa: PLC0415

    async def run() -> float:
        async with ServetelClient(token, base_url=url, rate=None, page_size=1000) as client:
            begun = time.perf_counter()
            receipt = await client.pull(dest, query=CallQuery.month("2024-05"))
            assert receipt.complete, receipt
            return time.perf_counter() - begun

    seconds = asyncio.run(run())
    # Not ru_maxrss: a process inherits that of its parent.
    peak = int(Path("/proc/self/status").read_text("ascii").split("VmHWM:")[1].split()[0])
    print(json.dumps([seconds, peak / 1024]))


def measure(calls: int, kinds: list[str]) -> dict[str, tuple[float, float]]:
    """Seconds and MiB of each kind of destination."""
    found: dict[str, tuple[float, float]] = {}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(calls)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        for kind in kinds:
            with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
                arguments = [sys.executable, __file__, "--pull", url, token, f"{directory}/may{kind}"]
                done = subprocess.run(arguments, capture_output=True, text=True, check=True)
                found[kind] = tuple(json.loads(done.stdout))
    finally:
        server.terminate()
        server.wait()
    return found


def main(kinds: list[str]) -> int:
    """Print the table."""
    print(f"{header()}; pages of 1,000\n")
    print(f"| destination | {SMALL:,}: MiB | {LARGE:,}: MiB | ratio | {LARGE:,}: calls/s |\n|---|---|---|---|---|")
    small, large = measure(SMALL, kinds), measure(LARGE, kinds)
    worst = 0.0
    for kind in kinds:
        ratio = large[kind][1] / small[kind][1]
        worst = max(worst, ratio)
        print(
            f"| `{kind}` | {small[kind][1]:.0f} | {large[kind][1]:.0f} | {ratio:.2f} | {LARGE / large[kind][0]:,.0f} |"
        )
    return int(worst > BOUND)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pull"]:
        pull(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:] or list(KINDS)))
