"""Calls printed to standard output: a window that is read again prints only the calls that are new in it.

A printed call cannot be taken back. If a printed call has left the list since, its window is not complete.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from servetel_async.protocol.rows import RawRecord
    from servetel_async.sinks.sink import Span


class Printed:
    """The printed calls, as hashes of 8 bytes."""

    def __init__(self) -> None:
        self._calls: dict[Span, array[int]] = {}

    def add(self, span: Span, calls: list[RawRecord]) -> list[RawRecord]:
        """Note the calls of a window; return those that were not printed yet."""
        before = set(self._calls.get(span, ()))
        fresh = [call for call in calls if _hash(call) not in before] if before else calls
        self._calls[span] = array("q", [*before, *map(_hash, fresh)])
        return fresh

    def gone(self, span: Span, calls: Iterable[RawRecord]) -> int:
        """Count the printed calls of a window that are not among these."""
        sound = (call for call in calls if call.reason is None)
        return len(set(self._calls.get(span, ())) - set(map(_hash, sound)))


def _hash(call: RawRecord) -> int:
    return hash((call.id, call.moment))
