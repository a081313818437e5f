"""Sums of numbers by stamp: up to a stamp, or before it, without looking at all of them. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Sums:
    """Sums of numbers by stamp; see the module."""

    def __init__(self, numbers: Iterable[tuple[str, int]]) -> None:
        ordered = sorted(numbers)
        self._stamps = [stamp for stamp, _ in ordered]
        self._sums = list(accumulate((number for _, number in ordered), initial=0))

    def up_to(self, stamp: str) -> int:
        """Add up the numbers whose stamp is no later."""
        return self._sums[bisect_right(self._stamps, stamp)]

    def before(self, stamp: str) -> int:
        """Add up the numbers whose stamp is earlier."""
        return self._sums[bisect_left(self._stamps, stamp)]
