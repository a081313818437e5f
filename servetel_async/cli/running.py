"""Runs a command's coroutine, and stops it on SIGINT and SIGTERM: the first time cleanly, the second at once.

A wrapper (``make``, ``uv run``, ``timeout``) passes on a signal that the terminal gave the whole group already. So what
comes right after the first is the same one again, and only a later one is a second.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from servetel_async.cli.exits import Stopped

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType
    from typing import Any

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds in which the same signal may come again.
ECHO = 0.5


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
        until = time.monotonic() + ECHO

        def again(number: int, _frame: FrameType | None) -> None:
            if time.monotonic() >= until:  # it is the system's business now: it ends the process at once
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        for each in SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, again)
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
