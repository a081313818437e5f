"""The sieve: each call of a window once, and none from outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.errors import OutOfWindowError
from servetel_async.protocol.clock import is_wall_stamp

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window


class Sieve:
    """Lets each call of one window through once.

    It holds the ids of that window and no more, so a year costs the memory of its busiest month. A call is told by its
    ``id``; an id that comes with another start was given twice by the server, and both calls pass.

    Attributes:
        duplicates: calls that were met again.
        reused_ids: calls that bear an id another call had before.
        undated: calls whose date cannot be read, so that nobody can tell whether they lie in the window.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._first, self._last = window.first, window.last
        self._first_day, self._last_day = self._first[:10], self._last[:10]
        self._seen: dict[Hashable, int] = {}
        self._this_pass: set[Hashable] | None = None
        self.duplicates = 0
        self.reused_ids = 0
        self.undated = 0

    def begin_pass(self) -> None:
        """Begin to read the window again, whole: what was let through stays known."""
        self._this_pass = set()

    def sift(self, records: Iterable[CallRecord]) -> tuple[list[CallRecord], int]:
        """Give the calls that were never let through, and how many were not yet met in this pass.

        Raises:
            OutOfWindowError: a call lies outside of the window.
        """
        seen = self._seen
        fresh: list[CallRecord] = []
        first_day, last_day = self._first_day, self._last_day
        for record in records:
            date = record.date
            if date is None or not first_day < date < last_day:
                self._check(record)
            key = record.id
            if key not in seen:
                seen[key] = hash(date) ^ hash(record.time)
                fresh.append(record)
            elif seen[key] != hash(date) ^ hash(record.time) and (key, date, record.time) not in seen:
                self.reused_ids += 1
                seen[key, date, record.time] = 0
                fresh.append(record)
            else:
                self.duplicates += 1
        if self._this_pass is None:
            return fresh, len(fresh)
        before = len(self._this_pass)
        for record in records:
            twin = (record.id, record.date, record.time)
            self._this_pass.add(twin if twin in seen else record.id)
        return fresh, len(self._this_pass) - before

    def _check(self, record: CallRecord) -> None:
        stamp = f"{record.date} {record.time}"
        if self._first <= stamp <= self._last:
            return
        if not is_wall_stamp(stamp):
            self.undated += 1
            return
        raise OutOfWindowError(
            f"a call that started {stamp} came for {self._window}",
            why="the server ignored the dates, or this account's clock runs in another zone",
            fix="check zone= and array_style=; a proxy that drops query parameters would show the same",
        )
