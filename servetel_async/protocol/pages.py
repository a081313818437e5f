"""Page arithmetic: which page to request next, what a received page shows, and when the end is proved.

Pages are offsets over a live list that the server may reorder, lengthen, shorten or miscount. The rules:

1. The first page is read alone: it brings the count and the real page size, which a server may cap silently.
2. ``count`` is taken as the total once a page was seen whose count exceeds its own rows. Until then it could be the
   page count, and only an empty page ends the list.
3. A total ends the list if that many distinct calls were seen *and* the last page was short. Else one page past the
   end is requested. One short page alone never ends anything.
4. Without a total the end is unknown: pages are requested ahead only in proportion to those read (1 in 40), and the
   empty page that ends the list is requested twice.
5. An empty page where the count says more is requested twice more, then passed over; two in a row end the pass. So does
   an empty page without a count, if the server is known to count; a first page of this kind then means no calls.
6. A page with another number than requested, or the same rows again under the same count, is requested once more, then
   it is an error. Past a proven end it only shows a server that clamps.
7. Another pass over the list follows, three at most, if a count moved or does not agree with the calls seen. Without a
   count it follows if rows came twice or came behind a page that was not full. Else: ``CountDriftError``.
8. A list that only grew is complete as soon as the calls seen equal its present count. New calls come in front, so
   after each pass such a list is read again from its front, only down to known calls, twice at most.
9. Later passes read one page after the other: read in order, a list that grows in front repeats calls and loses none.
10. A resumed walk begins in the middle and counts the calls in front as seen. If it does not prove its end that way,
    the next pass reads the whole list, and counts only the calls that it meets.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING

from servetel_async.errors import CountDriftError, PagingError

if TYPE_CHECKING:
    from collections.abc import Generator

PASSES = 3
EMPTY_RETRIES = 2
LOOK_AHEAD_SHARE = 40
FRONT_PASSES = 2
BARREN_PAGES = 8

PageFingerprint = tuple[str, str, int]


class Step(enum.Enum):
    """What to do with a received page."""

    DELIVER = "deliver"
    AGAIN = "again"
    PASS_OVER = "pass over"  # noqa: S105 - no password


class Paginator:
    """The walk over one window's pages; knows numbers only, neither requests nor records.

    A pass reads the list from its front: a whole pass to its end, a ``front`` pass down to known calls. Calls seen are
    counted twice: ``distinct`` from the beginning, ``pass_distinct`` since the last whole pass began.

    Args:
        asked: the requested page size.
        believed: whether the count of this server is already known to be a total.
        before: calls in front of the first page, in a resumed walk.
        first: number of the first page to request.
        size: the real page size, if known already.
        of_size: the real page size of the list that contains this one, if its end was seen: then one empty page
            behind a first page that was not full agrees with that end.
    """

    def __init__(
        self,
        asked: int,
        *,
        believed: bool = False,
        before: int = 0,
        first: int = 1,
        size: int = 0,
        of_size: int = 0,
    ) -> None:
        self.asked = asked
        self.believed: bool | None = believed or None
        self.count: int | None = None
        self.size = size
        self.distinct = before
        self.passes = 0
        self._before = before
        self._of_size = of_size
        self.is_uneven = False  # a page had more rows than one in front of it: rows between them may be missing
        self.pass_distinct = before
        self._never_shrank = True  # in the passes before this one
        self._first_count = 0
        self._front_passes = 0
        self._in_a_row = 0  # front passes since the last whole one
        self._previous_pass: tuple[int, int | None] | None = None
        self.says_nothing = False  # the only sign of an empty list is a page without a count
        self._begin(first)

    def _begin(self, first: int, *, front: bool = False) -> None:
        if self.passes:
            self._never_shrank = self._never_shrank and self._only_grew and (self.count or 0) >= self._first_count
        if front:
            self._grew_before, self._count_before = self._only_grew, self.count
        else:
            self._grew_before, self._count_before = True, None
            self.pass_distinct = self._before
        self.passes += 1
        self.front = front
        self._pages: dict[int, tuple[int, int | None]] = {}  # rows and count of each accepted page
        self._distinct_before = self.distinct
        self._next = first
        self._accepted = 0
        self._rows = (first - 1) * self.size  # of this pass, including those in front of its first page
        self._highest = 0  # the highest page that held rows, and its number of rows
        self._highest_rows = 0
        self._fewest: float = self.size if first > 1 else inf  # rows of a page of this pass
        self._empties = 0
        self._lowest_empty: int | None = None
        self._barren = 0
        self._ended = False
        self._moved = False
        self._edges: dict[PageFingerprint, int | None] = {}
        self._again: dict[int, int] = {}

    # Requests

    @property
    def has_read_last_page(self) -> bool:
        """Whether this pass reached the end of the list, as far as known."""
        return self._highest >= self.last_page

    @property
    def last_page(self) -> int:
        """The last page, as far as known; the first before anything is known."""
        if not self.believed or not self.count or not self.size:
            return self._highest
        return -(-self.count // self.size)

    def next_page(self, outstanding: int) -> int | None:
        """Take the number of the next page to request; None if no page is to be requested now."""
        if self._ended or (outstanding and self.passes > 1) or self._next > self._reach(outstanding):
            return None
        self._next += 1
        return self._next - 1

    def _reach(self, outstanding: int) -> int:
        """Return the highest page that may be requested now."""
        if not self._accepted:
            return self._next if not outstanding else 0
        if self.believed:
            if outstanding or self._next <= self.last_page:
                return self.last_page
            return 0 if self._at_end() else self._next
        if self._agrees_with_whole():
            ahead = 1
        else:
            ahead = max(2, self._accepted // LOOK_AHEAD_SHARE) if self.believed is False else 1
        return 0 if self._at_end() else self._highest + ahead

    def _at_end(self) -> bool:
        """Whether the count proves the end of the list in this pass."""
        if not self.believed or self.count is None or self.pass_distinct < self.count or self._moved:
            return False
        full = self.asked if self._accepted == 1 else self.size
        return self._highest_rows < full

    # Replies

    def accept(self, number: int, *, rows: int, count: int | None, echo: int | None, edges: PageFingerprint) -> Step:
        """Judge one page before its records are delivered.

        Args:
            number: the requested page.
            rows: number of its records.
            count: its count.
            echo: its own page number.
            edges: first id, last id and rows; they distinguish pages.

        Raises:
            PagingError: if it is not the requested page, twice.
        """
        if rows and self._contradicts(number, count, echo, edges):
            if self._once_more(number, 1):
                return Step.AGAIN
            if self._past_end(number):
                self._ended = True
                return Step.PASS_OVER
            raise _contradiction(number, echo)
        if not rows and self._once_more(number, self._patience(number, count)):
            return Step.AGAIN
        self._accepted += 1
        self._learn(number, rows, count)
        self._pages[number] = (rows, count)
        if not rows:
            self._lowest_empty = number if self._lowest_empty is None else min(number, self._lowest_empty)
        elif self._lowest_empty is not None and number > self._lowest_empty:
            self._ended = False  # the supposed end was not one
        if not rows:
            self._empties += 1
            self._ended = self._ended or self._empties > 1 or not self._should_hold_rows(number, count)
            return Step.PASS_OVER
        self._empties = 0
        self._edges[edges] = count
        return Step.DELIVER

    def sifted(self, *, new: int, new_in_pass: int, number: int) -> None:
        """Count records of an accepted page: those never seen before, and those not yet seen in this pass."""
        self.distinct += new
        self.pass_distinct += new_in_pass
        if self.passes > 1 and self.believed and self._has_all():
            self._ended = True
        if self.front and not new:
            self._ended = True  # known ground
        if new_in_pass:
            self._barren = 0
            return
        self._barren += 1
        if self._barren >= BARREN_PAGES and not self.believed:
            raise _contradiction(number, None)
        self._ended = self._ended or (self._barren >= BARREN_PAGES and number > self.last_page)

    def _is_holed(self) -> bool:
        """Whether rows came behind a page that was not full: without a count, the only sign that rows are missing."""
        return any(rows < self.size for page, (rows, _) in self._pages.items() if page < self._highest)

    @property
    def _only_grew(self) -> bool:
        """Whether no count was below an earlier one since this whole pass began, in the order of the requests."""
        last = self._count_before or 0
        for _, (_, count) in sorted(self._pages.items()):
            if count is not None and count < last:
                return False
            last = last if count is None else count
        return self._grew_before

    def _learn(self, number: int, rows: int, count: int | None) -> None:
        if self._accepted == 1 and self.passes == 1:
            self._first_count = count or 0
        if self.count is not None and count is not None and count != self.count:
            self._moved = self._moved or self._accepted > 1
        self.size = max(self.size, rows)
        self.is_uneven = self.is_uneven or rows > self._fewest
        self._fewest = min(self._fewest, rows)
        self._rows += rows
        if rows and number > self._highest:
            self._highest, self._highest_rows = number, rows
        self.count = count if count is not None else self.count
        if self.count is None and self.believed and not rows and number == 1:
            self.count, self.says_nothing = 0, True  # requested often enough: this server leaves out a count of 0
        if self.count is None:
            self.believed = False
        elif count is not None and count > rows:
            self.believed = self.believed is not False
        if self.count is not None and self._rows > self.count and not self.has_moved:
            self.believed = False

    @property
    def has_moved(self) -> bool:
        """Whether the list is known to have moved since the walk began."""
        return bool(self.believed) and (self._moved or self.passes > 1)

    def _contradicts(self, number: int, count: int | None, echo: int | None, edges: PageFingerprint) -> bool:
        if echo is not None and echo != number:
            return True
        return edges in self._edges and self._edges[edges] == count

    def _should_hold_rows(self, number: int, count: int | None) -> bool:
        known = count if count is not None else self.count
        return bool(self.believed and known and self.size and number <= -(-known // self.size)) or (
            number == 1 and bool(count) and self.believed is not False
        )

    def _patience(self, number: int, count: int | None) -> int:
        """Return how often to request an empty page again before accepting it."""
        if self._should_hold_rows(number, count):
            return EMPTY_RETRIES
        if count is None and self.believed:  # this server counts, so an empty page without a count is not yet an answer
            return 0 if self.count is not None and self.pass_distinct >= self.count else EMPTY_RETRIES
        if self.believed or count or (number == 1 and count == 0) or self._empties:
            return 0  # a count that exceeds no rows is a total; a first page that says 0 and holds 0 agrees with itself
        return 0 if self._agrees_with_whole() else 1

    def _agrees_with_whole(self) -> bool:
        """Whether this part seems to end with its first page, as the list that contains it did."""
        return self._accepted == 1 and 0 < self._highest_rows < self._of_size

    def _past_end(self, number: int) -> bool:
        """Whether a contradicting page only shows a server that clamps: it was a probe, the count is reached."""
        if number <= self._highest or self.count is None:
            return False
        return bool(self.believed) and self.pass_distinct >= self.count

    def _once_more(self, number: int, times: int) -> bool:
        self._again[number] = self._again.get(number, 0) + 1
        return self._again[number] <= times

    # The end

    def conclude(self) -> bool:
        """Return True if the walk is complete after the last page of a pass, False if another pass begins.

        Raises:
            CountDriftError: if the passes do not agree with the count, or with each other.
        """
        if self._is_complete():
            return True
        if not self._before and self._may_read_front():
            self._front_passes += 1
            self._in_a_row += 1
            self._begin(1, front=True)
            return False
        this_pass = (self.pass_distinct, self.count)
        hopeless = this_pass == self._previous_pass and not self._moved
        if self.passes - self._front_passes >= PASSES or hopeless:
            raise self._drift(hopeless=hopeless)
        self._previous_pass = None if self.front else this_pass
        self._in_a_row = 0
        self.distinct -= self._before  # the next pass also reads the calls in front
        self._before = 0
        self._begin(1)
        return False

    def _drift(self, *, hopeless: bool) -> CountDriftError:
        counted = "and pages in the middle were not full" if not self.believed else f"where the API counts {self.count}"
        if hopeless:
            why = f"the list was read {self.passes} times with the same outcome, so the count or the pages are wrong"
        else:
            why = "calls were added or removed while the list was read, or the count is wrong"
        return CountDriftError(
            f"{self.distinct} calls were found {counted}",
            why=why,
            fix="ask for the range again, or for one that ends in the past",
        )

    def _is_complete(self) -> bool:
        if self.count is None or not self.believed:
            # Only an empty page could end this pass. Rows met twice show that the list moved: read until it is still.
            if self._is_holed() or self.pass_distinct < self.distinct:
                return False
            return self._rows == self.pass_distinct or self._nothing_new()
        if self._before and self._is_holed():
            return False  # the pages in front may be short as well, so their calls may be miscounted
        return self._has_all() or (not self.front and not self._moved and self.pass_distinct == self.count)

    def _has_all(self) -> bool:
        """Whether a list that only grew holds no unseen call, since the walk or this whole pass began."""
        count = self.count or 0
        enough = self.pass_distinct >= count or (self._never_shrank and self.distinct >= count)
        return enough and self._only_grew

    def _may_read_front(self) -> bool:
        """Whether to read the front again: the list grew since it was read, and did nothing else."""
        if not self.believed or not self._only_grew or self._in_a_row >= FRONT_PASSES:
            return False
        return self._moved or (self.front and self.distinct > self._distinct_before)

    def _nothing_new(self) -> bool:
        return self.passes > 1 and self.distinct == self._distinct_before


def patience_with_empty(number: int, count: int | None, *, known: bool) -> int:
    """Return how often to request an empty single page again before accepting it.

    Args:
        number: its page number.
        count: its count.
        known: whether the count of this server is known to be a total.
    """
    if count is None:
        return EMPTY_RETRIES if known else 1
    return EMPTY_RETRIES if number == 1 and count else 0


def _contradiction(number: int, echo: int | None) -> PagingError:
    what = "the same calls came again" if echo in (None, number) else f"page {echo} came instead"
    return PagingError(
        what,
        why="the server, or a cache in front of it, ignores the page number",
        fix="try again; if it stays, ask for shorter ranges",
        page=number,
    )


def find_last_page() -> Generator[int, int, tuple[int, int]]:
    """Find the last page that holds rows, without a count: double, then halve.

    Yields page numbers from 2, receives the number of rows of each, and returns the last page with its rows (page 1 is
    assumed to be full: (1, -1) means that nothing follows it).
    """
    low, low_rows, high = 1, -1, 2
    while (rows := (yield high)) > 0:
        low, low_rows, high = high, rows, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        rows = yield middle
        if rows > 0:
            low, low_rows = middle, rows
        else:
            high = middle
    return low, low_rows
