"""A set of seconds that are covered: it grows window by window, and gives the rest of another window. Pure.

A ledger of years holds many readings with gaps between them, so neither step may look at all of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from servetel_async.protocol.clock import SECOND, shift
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from datetime import datetime


class Covered:
    """A set of covered seconds; see the module. All windows are closed."""

    def __init__(self) -> None:
        # Of windows that neither overlap nor touch, oldest first.
        self._starts: list[datetime] = []
        self._ends: list[datetime] = []

    def add(self, window: Window) -> None:
        """Cover a window. It joins those that it overlaps or touches."""
        start, end = window.start, window.end
        assert start is not None  # noqa: S101 - for the type checker: it is closed
        assert end is not None  # noqa: S101 - for the type checker: it is closed
        low = bisect_left(self._ends, shift(start, -SECOND))
        high = bisect_right(self._starts, shift(end, SECOND))
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def left(self, window: Window) -> list[Window]:
        """Return the parts of a window that are not covered, newest first."""
        start, end = window.start, window.end
        assert start is not None  # noqa: S101 - for the type checker: it is closed
        assert end is not None  # noqa: S101 - for the type checker: it is closed
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)
        return window.without(list(map(Window, self._starts[low:high], self._ends[low:high])))

    def inside(self, window: Window) -> list[Window]:
        """Return the parts of a window that are covered, newest first."""
        return window.without(self.left(window))
