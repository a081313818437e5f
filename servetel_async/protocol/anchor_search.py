"""The search for the anchor, the last delivered call: which page to request next.

1. Page 1 comes first: it shows the page length. Then comes the page that the anchor's rank points to.
2. Calls are sorted by start. If all calls of a page are newer, the anchor is on a later page; if all are older, on an
   earlier page. The search steps to that side, 1, 2, 4 ... pages at a time, then halves the rest.
3. Starts and counts only say where to look first. If they mislead, every page is looked at, the nearest first.
   The anchor is gone only after the end of the list and every page before it were seen.
"""

from __future__ import annotations

from itertools import count


class AnchorSearch:
    """Choose pages; know only page numbers and starts.

    Args:
        rank: the anchor's place in the list when it was delivered.
        start: the anchor's start; empty if that is unreadable.
    """

    def __init__(self, rank: int, start: str) -> None:
        self._rank = rank
        self._start = start
        self._looked: set[int] = set()
        self._low = 1  # by the starts, the anchor is not on an earlier page
        self._high: int | None = None  # nor on a later page
        self._end: int | None = None  # the list ends with this page at the latest
        self._near = 1  # the last page that was looked at
        self._step = 1  # pages to step, once the starts show the side
        self._side = 0

    def next_page(self, size: int, last: int | None) -> int | None:
        """Choose the next page to look at; None after all pages.

        Args:
            size: calls on a page.
            last: the last page by the server's count; None without one.
        """
        if not self._looked:
            return 1
        highest = min((page for page in (self._high, self._end, last) if page is not None), default=None)
        if len(self._looked) == 1:
            page = -(-self._rank // size)
            page = page if last is None else min(page, last)
        else:
            page = self._near + self._side * self._step
            self._step *= 2
            if highest is not None and not self._low <= page <= highest:
                page = (self._low + highest) // 2
        if page < 1 or page in self._looked or (self._end is not None and page > self._end):
            return self._nearest()
        return page

    def _nearest(self) -> int | None:
        for distance in count():
            behind, in_front = self._near + distance, self._near - distance
            if behind not in self._looked and (self._end is None or behind <= self._end):
                return behind
            if in_front > 0 and in_front not in self._looked and (self._end is None or in_front <= self._end):
                return in_front
            if in_front < 1 and self._end is not None and behind > self._end:
                return None
        raise AssertionError  # pragma: no cover - count() has no end

    def looked(self, page: int, newest: str, oldest: str) -> None:
        """Note a page without the anchor, with the starts of its first and its last call.

        A start is empty if it is unreadable, or if the page was empty although it should have rows.
        """
        self._looked.add(page)
        self._near, self._side = page, 0
        if not (self._start and newest and oldest):
            return
        if oldest > self._start:
            self._low, self._side = max(self._low, page + 1), 1
        elif newest < self._start:
            self._high, self._side = page - 1 if self._high is None else min(self._high, page - 1), -1

    def ended(self, page: int) -> None:
        """Note a page past the end of the list."""
        self._looked.add(page)
        self._near, self._side = page, -1
        self._end = page - 1 if self._end is None else min(self._end, page - 1)
