"""The emulator in a process of its own: it shares neither loop nor interpreter lock with the measured code."""

from __future__ import annotations

import asyncio
import multiprocessing
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

DAY = "2024-05-06"


class Address(NamedTuple):
    """Its address, and the token for it."""

    base_url: str
    token: str


def _serve(pipe: Connection, calls: int, options: dict[str, Any]) -> None:
    from servetel_async.emulator import Dataset, Emulator

    async def run() -> None:
        dataset = Dataset.range(f"{DAY} 08:00:00", f"{DAY} 19:59:59", calls=calls)
        async with Emulator(dataset, **options) as api:
            pipe.send((api.base_url, api.token))
            with suppress(EOFError):  # nothing ever comes; it waits for the end of the pipe
                await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


@contextmanager
def server_of(calls: int, **options: Any) -> Iterator[Address]:
    """Serve this many calls of one day; ends the process at the end.

    Args:
        calls: how many.
        options: of ``Emulator``.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, calls, options), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(30):
            raise TimeoutError("the server did not start")
        yield Address(*ours.recv())
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
