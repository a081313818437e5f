"""The live table of calls: sorted newest first, searched by filter, changed while it is read."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from random import Random
from typing import Final

from servetel_async.emulator.calls import Call
from servetel_async.emulator.filters import FiledBy, Filter

__all__ = ["Table"]

#: The field of a call that holds each moment.
_FIELDS: Final[dict[FiledBy, str]] = {"start": "start", "end": "end", "insertion": "inserted"}
_SEARCHES_KEPT: Final = 256


class Table:
    """One emulator's own calls, newest first, later serial first within a second.

    Args:
        newest_first: the calls, by their start.
        filed_by: the moment that dates are compared with.
        order: the moment that the list is sorted by.
    """

    def __init__(self, newest_first: Iterable[Call], *, filed_by: FiledBy = "start", order: FiledBy = "start") -> None:
        self._calls = list(newest_first)
        self._filed_at: Callable[[Call], int] = attrgetter(_FIELDS[filed_by])
        self._sorted_at: Callable[[Call], int] = attrgetter(_FIELDS[order])
        self._is_sorted = filed_by == order
        if order != "start":
            self._calls.sort(key=self._order)
        #: Calls that were deleted, in order of deletion.
        self.deleted: list[Call] = []
        self._searches: dict[Filter, Sequence[Call]] = {}
        self._next_serial = max((call.serial for call in self._calls), default=-1) + 1

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def newest(self) -> Call | None:
        return self._calls[0] if self._calls else None

    @property
    def middle(self) -> Call | None:
        return self._calls[len(self) // 2] if self._calls else None

    def next_serial(self) -> int:
        """Return a serial that no call has or had."""
        self._next_serial += 1
        return self._next_serial - 1

    def matching(self, wanted: Filter) -> Sequence[Call]:
        """Return the calls that pass a filter, newest first; the result is shared and must not be changed.

        It is kept until the table changes: a deep page then costs its own length, not the table's.
        """
        found = self._searches.get(wanted)
        if found is None:
            if len(self._searches) >= _SEARCHES_KEPT:
                self._searches.clear()
            found = self._searches[wanted] = self._search(wanted)
        return found

    def insert(self, call: Call) -> None:
        insort(self._calls, call, key=self._order)
        self._searches.clear()

    def delete(self, record_id: str) -> None:
        """Delete the record with this id.

        Raises:
            KeyError: if no record has it.
        """
        for index, call in enumerate(self._calls):
            if call.id == record_id:
                self.deleted.append(self._calls.pop(index))
                self._searches.clear()
                return
        raise KeyError(record_id)

    def _search(self, wanted: Filter) -> Sequence[Call]:
        found = self._between(wanted.since, wanted.until)
        for test in wanted.predicates():
            found = [call for call in found if test(call)]
        return found

    def _between(self, since: int | None, until: int | None) -> list[Call]:
        """Return the calls filed from one instant to another, both included."""
        if not self._is_sorted:
            filed = [(call, self._filed_at(call)) for call in self._calls]
            return [call for call, at in filed if (since is None or at >= since) and (until is None or at <= until)]
        begin = 0 if until is None else bisect_left(self._calls, -until, key=self._newness)
        end = len(self) if since is None else bisect_right(self._calls, -since, key=self._newness)
        return self._calls[begin:end]

    def page(self, found: Sequence[Call], offset: int, limit: int, ties: Random | None = None) -> Sequence[Call]:
        """Cut a page out of a search; with `ties`, calls of the same second come in a random order."""
        end = min(offset + limit, len(found))
        if ties is None or offset >= end:
            return found[offset:end]
        # A tie at the page's edge is shuffled whole, else a row could not cross the edge.
        first = bisect_left(found, self._newness(found[offset]), key=self._newness)
        last = bisect_right(found, self._newness(found[end - 1]), key=self._newness)
        shuffled: list[Call] = []
        for _, group in groupby(found[first:last], self._newness):
            tied = list(group)
            ties.shuffle(tied)
            shuffled += tied
        return shuffled[offset - first : end - first]

    def _newness(self, call: Call) -> int:
        return -self._sorted_at(call)

    def _order(self, call: Call) -> tuple[int, int]:
        return -self._sorted_at(call), -call.serial
