"""The reading of one window: the walk over its pages, and the sieve for its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.protocol.pages import PageWalk
    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window
    from servetel_async.stats import StreamStats


class WindowReading:
    """See the module.

    Attributes:
        window: the one that is walked.
        walk: over its pages.
        resumed: the walk began behind a checkpoint, so it cannot be repeated from the front.
    """

    def __init__(self, window: Window, walk: PageWalk, stats: StreamStats) -> None:
        self.window = window
        self.walk = walk
        self.resumed = False
        self._sieve = Sieve(window)
        self._stats = stats
        self._before = (stats.duplicates, stats.reused_ids, stats.undated, stats.count)

    def sift(self, records: Sequence[CallRecord], number: int) -> list[CallRecord]:
        """Give the calls of a page's slice that were never given out."""
        sieve, stats = self._sieve, self._stats
        fresh, new_in_pass = sieve.sift(records)
        self.walk.sifted(new=len(fresh), new_in_pass=new_in_pass, number=number)
        duplicates, reused_ids, undated, _ = self._before
        stats.duplicates = duplicates + sieve.duplicates
        stats.reused_ids = reused_ids + sieve.reused_ids
        stats.undated = undated + sieve.undated
        return fresh

    def note_count(self) -> None:
        """Bring the count of the statistics up to date."""
        walk, counted = self.walk, self._before[3]
        total = walk.count if walk.believed or walk.count == 0 else None
        self._stats.count = None if total is None or counted is None else counted + total

    def read_again(self) -> None:
        """Begin another pass."""
        if not self.walk.front:
            self._sieve.begin_pass()
        self._stats.rereadings += 1
