"""One pull with an accident in a process of its own: run by ``test_uncovered_faults.py``.

Takes a job as JSON: ``base_url``, ``token``, ``destination``, and ``after``, windows after which the accident comes.
The accident is ``memory`` (no more of it), or ``clock``: a file for libfaketime, and the clocks that it shows in turn.
Prints the result as JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import time
from pathlib import Path

from servetel_async import Retry, ServetelClient, ServetelError

MUCH, LITTLE = 64 * 1024 * 1024, 4096
#: Imports of a pull's beginning, which come first: without memory only the import would fail.
EARLY = ("servetel_async.bulk.pull", "servetel_async.sinks.databases.sqlite", "servetel_async.sinks.formats.ndjson")


def take_the_memory(held):
    """Fill this process's memory, and allow it no more."""
    has = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has, resource.RLIM_INFINITY))
    size = MUCH
    while size >= LITTLE:
        try:
            held.append(bytearray(size))
        except MemoryError:
            size //= 2


async def main(job):
    done, failed, years, held = [0], [], [], []
    clocks = iter(job.get("clocks", ()))

    def happen(progress):
        if progress.windows < job.get("after", 0) or progress.windows == done[0]:
            return
        done[0] = progress.windows
        if job.get("memory"):
            take_the_memory(held)
        shown = next(clocks, None)
        if shown is not None:
            Path(job["clock"]).write_text(shown, "ascii")
            years.append(time.gmtime().tm_year)

    async with ServetelClient(
        job["token"],
        base_url=job["base_url"],
        rate=None,
        page_size=10,
        max_concurrency=2,
        retry=Retry(base=0.01, cap=0.1),
        on_event=lambda event: failed.append(event.error) if event.kind == "request" and event.error else None,
    ) as client:
        try:
            receipt = await client.pull(job["destination"], **job["pull"], on_progress=happen)
        except ServetelError as error:
            return {"error": type(error).__name__, "why": error.why, "years": years}
        return {"complete": receipt.complete, "seconds": receipt.seconds, "years": years, "failed": failed}


if __name__ == "__main__":
    for name in EARLY:
        importlib.import_module(name)
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
