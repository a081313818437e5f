"""Runs a command's coroutine, and stops it on SIGINT and SIGTERM: the first time cleanly, the second at once."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from servetel_async.cli.exits import Stopped

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end.

    Raises:
        Stopped: a signal came, and everything was put away.
    """
    return asyncio.run(_with_signals(work))


async def _with_signals(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    came: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        came.append(number)
        for each in SIGNALS:  # the next one is the system's business: it ends the process at once
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        task.cancel()

    for number in SIGNALS:
        with suppress(NotImplementedError):  # Windows: Ctrl-C comes as a KeyboardInterrupt there
            loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not came:
            raise
    raise Stopped(came[0])
