"""Hours in a moment: an event loop whose clock stands still while there is work, and jumps to the next timer where not.

Sockets are real. The loop looks for a few milliseconds whether anything comes; what is on its way over loopback does.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

#: Real seconds without a byte after which nothing is on its way any more.
QUIET = 0.003
BEGIN = 1_000_000.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(QUIET)
        if not events:
            self.now += timeout
        return events


class FakeClockLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class Switch(float):
    """As a fault's ``probability``: 1 while it is on, 0 while it is off."""

    __slots__ = ("on",)

    def __new__(cls) -> Switch:
        switch = super().__new__(cls, 1.0)
        switch.on = False
        return switch

    def __gt__(self, _drawn: object) -> bool:
        return self.on

    def turn(self, *, on: bool) -> None:
        """Switch it."""
        self.on = on


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of its own; whoever reads the monotonic clock meanwhile reads the loop's."""
    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        with mock.patch.object(time, "monotonic", runner.get_loop().time):
            return runner.run(main)
