"""Runs a command's coroutine, and stops it on SIGINT, SIGTERM and SIGHUP: the first time cleanly, the second at once.

A wrapper (``make``, ``uv run``, ``timeout``) passes on a signal that the terminal has sent to the whole group already.
So a signal right after the first is the same one again, and only a later one counts as the second.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from servetel_async.cli.exits import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType
    from typing import Any

T = TypeVar("T")
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)
#: Seconds in which the same signal may come again.
ECHO = 0.5


def install_signal_handlers(handler: Callable[[int, FrameType | None], None]) -> None:
    """Make signals end the process like Ctrl-C, through its ``finally`` blocks, until an event loop takes over."""
    for number in SIGNALS:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(ValueError):  # outside the main thread there are no signals
                signal.signal(number, handler)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end.

    Raises:
        Stopped: if a signal came; the cleanup is done.
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
            if time.monotonic() >= until:  # from now on the system ends the process at once
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        for each in heeded:
            loop.remove_signal_handler(each)
            signal.signal(each, again)
        task.cancel()

    # Ignored signals stay ignored: nohup and background jobs of a shell need that.
    heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    for number in heeded:
        # Windows raises a KeyboardInterrupt instead, and outside the main thread there are no signals.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not came:
            raise
    raise Stopped(came[0])
