"""Read one window: the walk over its pages, the filter for its calls, and calls that a capped count may hide.

If the count of a window may be capped, the window is complete only when a narrower part of it brings no new call. So
after the walk its parts are walked too, with the same filter: no call is delivered twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.errors import CountDriftError
from servetel_async.protocol.capping import cannot_narrow, crosses_limit, may_be_capped, remainder
from servetel_async.protocol.pages import Paginator
from servetel_async.protocol.window_filter import WindowFilter
from servetel_async.streaming.resume import anchor_is_gone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.protocol.after_anchor import AfterAnchor
    from servetel_async.protocol.capping import Ends
    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window
    from servetel_async.streaming.stats import StreamStats


class WindowReading:
    """Reads one window of a stream.

    Attributes:
        window: the part of it that is walked now.
        walk: the walk over the pages of that part.
        after: picks the calls behind a checkpoint, in the part that holds its call.
        is_part: whether only a part of the window is walked.
    """

    def __init__(self, window: Window, walk: Paginator, stats: StreamStats) -> None:
        self.window = window
        self.walk = walk
        self.after: AfterAnchor | None = None
        self.is_part = False
        self._filter = WindowFilter(window)
        self._stats = stats
        self._before = (stats.duplicates, stats.reused_ids, stats.undated, stats.count)
        self._ends: dict[int, Ends] = {}
        self._parts: list[Window] = []
        self._found = 0  # distinct calls of the parts that are done
        self._counted = 0  # the API's count of the whole window, before there were parts
        self._is_halved = False

    @property
    def has_places(self) -> bool:
        """Whether a checkpoint can name a place in this list, because everything before it was delivered.

        False after the list moved or its pages changed their size, and in a half of a window.
        """
        return not (self.walk.has_moved or self.walk.is_uneven or self._is_halved)

    def sift(self, records: Sequence[CallRecord], number: int) -> list[CallRecord]:
        """Return the calls of a page's slice that were not delivered yet."""
        sieve, stats = self._filter, self._stats
        fresh, new_in_pass = sieve.sift(records)
        self._note_ends(records, number)
        self.walk.sifted(new=len(fresh), new_in_pass=new_in_pass, number=number)
        duplicates, reused_ids, undated, _ = self._before
        stats.duplicates = duplicates + sieve.duplicates
        stats.reused_ids = reused_ids + sieve.reused_ids
        stats.undated = undated + sieve.undated
        if self._found:
            self.note_count()
        return fresh if self.after is None else self.after.pick(records, fresh)

    def note_count(self) -> None:
        """Update the count of the statistics."""
        walk, counted = self.walk, self._before[3]
        total = walk.count if walk.believed or walk.count == 0 else None
        if self._found:  # a part's count is not the window's
            total = max(self._counted, self._found + walk.distinct)
        self._stats.count = None if total is None or counted is None else counted + total

    def conclude(self) -> bool:
        """See ``Paginator.conclude``.

        Raises:
            ResumeMismatchError: if the walk is complete, but did not meet the call of the checkpoint.
        """
        walk, after = self.walk, self.after
        if after is not None and not walk.front:
            after.missed = not after.reached and walk.has_read_last_page
        complete = walk.conclude()
        if complete and after is not None and after.missed:
            raise anchor_is_gone()
        return complete

    def read_again(self) -> None:
        """Begin another pass."""
        if not self.walk.front:
            self._filter.begin_pass()
        if self.after is not None:
            self.after.begin_pass()
        self._stats.rereadings += 1

    def begin_part(self, page_size: int) -> bool:
        """After a walk's proved end, begin a part whose calls a capped count may hide; False if the window is complete.

        Raises:
            CountDriftError: if the count may be capped, and the window cannot be made narrower.
        """
        of_size = 0
        # Without a count the calls themselves may end at a limit.
        if may_be_capped(self.walk.count if self.walk.believed else self.walk.pass_distinct):
            parts = remainder(self.window, self._ends)
            if len(parts) > 1:
                if self.after is not None:  # calls in front of the checkpoint would come again
                    raise cannot_narrow(self.window)
                self._is_halved = True
            else:
                of_size = self.walk.size
            self._parts = parts + self._parts
        if not self._parts:
            return False
        self._begin(self._parts.pop(0), page_size, of_size=of_size)
        return True

    def begin_shorter(self, parts: list[Window], page_size: int) -> None:
        """Begin the first of shorter parts, in place of a part that the server found too long."""
        self._parts = parts + self._parts
        self._begin(self._parts.pop(0), page_size)

    def may_begin_behind(self, number: int) -> bool:
        """Whether a server may refuse this page only for its depth."""
        return self.walk.passes == 1 and crosses_limit(number, self.walk.size)

    def begin_behind(self, number: int, page_size: int) -> bool:
        """After a page was refused as too deep, begin the rest of the window; False if the rest is unknown.

        Deeper pages may have come before it, in any order: the rest begins behind the pages in front of it.
        """
        in_front = {page: ends for page, ends in self._ends.items() if page < number}
        try:
            parts = remainder(self.window, in_front)
        except CountDriftError:
            return False
        if len(parts) > 1 or (self.after is not None and not self.after.reached):
            return False
        self._begin(parts[0], page_size)
        return True

    def _begin(self, part: Window, page_size: int, *, of_size: int = 0) -> None:
        walk = self.walk
        self._counted = self._counted or walk.count or 0
        self._found += walk.distinct
        self.window, self.is_part = part, True
        self.walk = Paginator(page_size, believed=bool(walk.believed), of_size=of_size)
        self.after = None  # all of the part is behind the checkpoint
        self._ends = {}
        self._filter.narrow(part)

    def _note_ends(self, records: Sequence[CallRecord], number: int) -> None:
        first, last = (f"{record.date} {record.time}" for record in (records[0], records[-1]))
        self._ends[number] = (self._ends.get(number, (first, last))[0], last)
