"""CPU per record of the typed stream, against a bare loop over the same server and the same structs.

Run it on an idle machine: ``python benchmarks/typed_stream.py``. The emulator runs in a process of its own; where the
system allows it, client and server are pinned to a core each. Only the ratios mean something on another machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection

CALLS = 50_000
ROUNDS = 5
MONTH = ("2024-05-01", "2024-05-31")


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


def serve(pipe: Connection) -> None:
    from servetel_async.emulator import Dataset, Emulator  # noqa: PLC0415 - the client's process loads no server

    pin(1)

    async def run() -> None:
        async with Emulator(Dataset.month("2024-05", calls=CALLS)) as api:
            pipe.send((api.base_url, api.token))
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def typed_stream(url: str, token: str, size: int) -> int:
    from servetel_async import ServetelClient  # noqa: PLC0415

    records = 0
    async with ServetelClient(token, base_url=url, rate=None, page_size=size) as client:
        async for _ in client.calls(*MONTH):
            records += 1
    return records


async def bare_loop(url: str, token: str, size: int) -> int:
    """What one would write by hand: no retry, no order, no dedupe, no proof, the same concurrency."""
    import aiohttp  # noqa: PLC0415
    import msgspec  # noqa: PLC0415

    from servetel_async.protocol.records import CallRecord  # noqa: PLC0415

    page = msgspec.defstruct("Page", [("results", tuple[CallRecord, ...])], gc=False)
    decode = msgspec.json.Decoder(page, strict=False).decode
    slots, records = asyncio.Semaphore(4), 0
    query = {"from_date": f"{MONTH[0]} 00:00:00", "to_date": f"{MONTH[1]} 23:59:59", "limit": str(size)}

    async def fetch(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal records
        async with slots, session.get(f"{url}/v1/call/records", params=query | {"page": str(number)}) as reply:
            for _ in decode(await reply.read()).results:
                records += 1

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        pages = range(1, CALLS // size + 1)
        for first in pages[::32]:
            await asyncio.gather(*(fetch(session, number) for number in pages[first - 1 : first + 31]))
    return records


def main() -> None:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url, token = here.recv()
    pin(0)
    print("page   bare us   stream us   stream/bare (budget)")
    for size, budget in ((100, 1.25), (1000, 0.8), (5000, 0.8)):
        spent: dict[object, list[float]] = {bare_loop: [], typed_stream: []}
        for _ in range(ROUNDS):
            for contender in (bare_loop, typed_stream):
                begun = time.process_time()
                records = asyncio.run(contender(url, token, size))
                assert records == CALLS
                spent[contender].append((time.process_time() - begun) / CALLS * 1e6)
        bare, stream = statistics.median(spent[bare_loop]), statistics.median(spent[typed_stream])
        print(f"{size:4}   {bare:7.2f}   {stream:9.2f}   {stream / bare:.2f} (<= {budget})")
    here.send("done")
    server.join()


if __name__ == "__main__":
    main()
