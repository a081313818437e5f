"""The window filter: each call of a window once, and none from outside of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from servetel_async.protocol.clock import IST, is_wall_stamp, zone_named
from servetel_async.protocol.conventions import lies_inside
from servetel_async.protocol.evidence import out_of_window

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window


class WindowFilter:
    """Pass each call of one window once.

    It holds the ids of that window and no more, so a year costs the memory of its busiest month. A call is identified
    by its ``id``; if an id comes with another start, the server gave it twice, and both calls pass.

    Attributes:
        duplicates: calls that came again.
        reused_ids: calls with an id that another call had before.
        undated: calls with an unreadable date, which may lie outside of the window.
    """

    def __init__(self, window: Window) -> None:
        self._set_bounds(window)
        self._seen: dict[Hashable, int] = {}
        self._this_pass: set[Hashable] | None = None
        self.duplicates = 0
        self.reused_ids = 0
        self.undated = 0

    def begin_pass(self) -> None:
        """Begin to read the window again, whole; the calls already passed stay known."""
        self._this_pass = set()

    def narrow(self, window: Window) -> None:
        """Begin to read a part of the window; the calls already passed stay known."""
        self._set_bounds(window)
        self.begin_pass()

    def _set_bounds(self, window: Window) -> None:
        self._window = window
        self._first, self._last = window.first, window.last
        self._first_day, self._last_day = self._first[:10], self._last[:10]

    def sift(self, records: Sequence[CallRecord]) -> tuple[list[CallRecord], int]:
        """Return the calls that pass for the first time, and the number of calls not yet met in this pass.

        Raises:
            OutOfWindowError: if the start, the end and the insertion of a call all lie outside of the window.
        """
        dates = [record.date for record in records]
        starts = list(map(hash, zip(dates, [record.time for record in records], strict=True)))
        if self._this_pass is None and self._are_inside(dates):
            fresh = list(records)
            if self._add([record.id for record in fresh], starts):
                return fresh, len(fresh)
        return self._sift_each(records, starts)

    def _add(self, ids: list[str], starts: list[int]) -> bool:
        """Add calls if all are new, else add none. Looking first would cost another pass over them."""
        seen = self._seen
        before = len(seen)
        deque(map(seen.setdefault, ids, starts), 0)
        added = len(seen) - before
        if added == len(ids):
            return True
        for _ in range(added):  # a dict pops its newest item first
            seen.popitem()
        return False

    def _are_inside(self, dates: list[str | None]) -> bool:
        """Whether every day lies between the first and the last day, which need the time as well."""
        first, last = self._first_day, self._last_day
        return all(day is not None and first < day < last for day in set(dates))

    def _sift_each(self, records: Sequence[CallRecord], starts: list[int]) -> tuple[list[CallRecord], int]:
        seen = self._seen
        fresh: list[CallRecord] = []
        before = len(self._this_pass) if self._this_pass is not None else 0
        for record, start in zip(records, starts, strict=True):
            self._check(record)
            key: Hashable = record.id
            if seen.get(key, start) != start:
                key = (record.id, record.date, record.time)  # a twin: another call had its id before
                self.reused_ids += key not in seen
            if key in seen:
                self.duplicates += 1
            else:
                seen[key] = start
                fresh.append(record)
            if self._this_pass is not None:
                self._this_pass.add(key)
        return fresh, len(fresh) if self._this_pass is None else len(self._this_pass) - before

    def _check(self, record: CallRecord) -> None:
        stamp = f"{record.date} {record.time}"
        if self._first <= stamp <= self._last:
            return
        if not is_wall_stamp(stamp):
            self.undated += 1
            return
        # The server may file calls by their end or by their insertion.
        zone = zone_named(record.zone) or IST
        if not lies_inside(self._window, record.id, stamp, record.end_stamp or "", zone):
            raise out_of_window(self._window, stamp)
