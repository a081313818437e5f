"""An event loop whose clock stops while there is work, and otherwise jumps to the next timer.

Sockets and threads are real. The loop polls sockets for a few milliseconds, which is long over loopback, and waits
as long as a thread works.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

T = TypeVar("T")

#: After so many real seconds without a byte no more bytes are expected.
QUIET = 0.003
BEGIN = 1_000_000.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN
        self._works: list[Future[Any]] = []

    def watch(self, submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
        """Record the work given to threads: until it begins, its thread looks idle."""

        def noted(*args: Any, **kwargs: Any) -> Future[Any]:
            work = submit(*args, **kwargs)
            self._works.append(work)
            return work

        return noted

    def _work_is_left(self) -> bool:
        self._works = [work for work in self._works if not work.done()]
        return bool(self._works)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(QUIET)
        while not events and (self._work_is_left() or _threads_work()):
            events = super().select(QUIET)
        events = events or super().select(0)  # a thread reports its result before it becomes idle
        if not events:
            self.now += timeout
        return events


def _threads_work() -> bool:
    """Whether a thread of an executor is busy."""
    frames = sys._current_frames()
    workers = [frames.get(thread.ident or 0) for thread in threading.enumerate()]
    return any(frame is not None and _in_executor(frame) and frame.f_code.co_name != "_worker" for frame in workers)


def _in_executor(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_worker" and frame.f_code.co_filename.endswith("thread.py"):
            return True
        frame = frame.f_back
    return False


class FakeClockLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.jumping = _JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


class Switch(float):
    """A fault's ``probability``: 1 while it is on, 0 while it is off."""

    __slots__ = ("on",)

    def __new__(cls) -> Self:
        switch = super().__new__(cls, 1.0)
        switch.on = False
        return switch

    def __gt__(self, _drawn: object) -> bool:
        return self.on

    def turn(self, *, on: bool) -> None:
        """Turn it on or off."""
        self.on = on


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it in its own loop; meanwhile the monotonic clock shows the loop's time."""
    loop = FakeClockLoop()
    submit = loop.jumping.watch(ThreadPoolExecutor.submit)
    with (
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(ThreadPoolExecutor, "submit", lambda *args, **kwargs: submit(*args, **kwargs)),
    ):
        return runner.run(main)
