"""A process that pulls and prints its memory: ``python -m tests.torture.pulling_process``.

``hostile URL HOW DIRECTORY`` calls an address with hostile replies; ``long URL TOKEN DEST SINCE SIZE LOOK`` pulls
all of it in pages of a size, and records its memory from a call on.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import json
import re
import sys
from pathlib import Path

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError, Timeouts

DAY = "2024-05-06"


def memory(name):
    """Bytes of memory of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) * 1024


class _Mallinfo2(ctypes.Structure):
    """glibc's count of what its allocator holds: ``mallinfo2(3)``."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def in_use():
    """Bytes that are allocated now, without the allocator's reserve; of Python too with ``PYTHONMALLOC=malloc``."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return found.uordblks + found.hblkhd


def forget_peak():
    Path("/proc/self/clear_refs").write_text("5", "ascii")


async def ask(client, how, directory):
    if how == "stream":
        async for _ in client.calls(DAY, DAY):
            pass
    elif how == "page":
        await client.fetch_page(CallQuery(from_date=DAY, to_date=DAY))
    elif how == "count":
        await client.count(DAY, DAY)
    else:
        await client.pull(Path(directory) / f"calls.{how}", DAY, DAY, overwrite=True)


async def hostile(url, how, directory):
    """Call a good address first, so that everything is imported, and then the hostile one."""
    options = {"rate": None, "retry": Retry(attempts=1), "timeouts": Timeouts(read=1, total=2)}
    async with ServetelClient("canary-token", base_url=f"{url}/honest", **options) as client:
        await ask(client, how, directory)
    gc.collect()
    forget_peak()
    before, outcome = memory("VmRSS"), "read"
    async with ServetelClient("canary-token", base_url=f"{url}/hostile", **options) as client:
        try:
            await ask(client, how, directory)
        except ServetelError as error:
            outcome = type(error).__name__
    return {"grown": memory("VmHWM") - before, "outcome": outcome}


async def long(url, token, dest, since, size, look):
    """Pull everything, and record the memory from that call on: ``resident``, or ``in_use``."""
    samples = []
    now = in_use if look == "in_use" else functools.partial(memory, "VmRSS")

    def note(progress):
        if progress.records >= int(since):
            samples.append((progress.records, now()))

    async with ServetelClient(token, base_url=url, rate=None, page_size=int(size)) as client:
        receipt = await client.pull(dest, "2024-05-01", "2024-05-31", on_progress=note)
    return {"samples": samples, "complete": receipt.complete, "records": receipt.records, "peak": memory("VmHWM")}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run({"hostile": hostile, "long": long}[sys.argv[1]](*sys.argv[2:]))) + "\n")
