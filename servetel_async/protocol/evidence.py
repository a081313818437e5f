"""Evidence: the pages of one window, and whether they prove that every call of it was read.

A window of several pages is proved if the count before, the count after, the rows and the distinct calls are one
number, and if every boundary second was read again on its own. A server need not keep an order among calls of one
second, so it may give one of them twice and another never, even on a still list.

A call belongs to the second of the moment under which the server files it (``conventions.py``).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from servetel_async.errors import OutOfWindowError
from servetel_async.protocol.clock import IST, is_wall_stamp
from servetel_async.protocol.conventions import lies_inside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from servetel_async.protocol.rows import RawRecord
    from servetel_async.protocol.windows import Window

Key = tuple[str, str]


class MisfiledError(Exception):
    """A call's filing moment lies outside of the window, but another of its moments lies inside.

    Perhaps the server files calls under another moment than was assumed. Never leaves the pull.

    Attributes:
        row: the call.
    """

    def __init__(self, row: RawRecord) -> None:
        super().__init__()
        self.row = row


class Evidence:
    """The pages of one window.

    Args:
        window: the window that was read.
        zone: the account's wall clock.

    Attributes:
        counts: the server's counts, one per page.
    """

    def __init__(self, window: Window, zone: tzinfo = IST) -> None:
        self.counts: set[int | None] = set()
        self._window = window
        self._zone = zone
        self._pages: dict[int, list[RawRecord]] = {}
        self._seconds: dict[str, list[RawRecord]] = {}

    def add(self, number: int, rows: list[RawRecord], count: int | None) -> None:
        """Add a page; a page that was requested again replaces its first answer.

        Raises:
            OutOfWindowError: if all moments of a call lie outside of the window.
            MisfiledError: if only its filing moment lies outside.
        """
        check_inside(self._window, rows, self._zone)
        self._pages[number] = rows
        self.counts.add(count)

    def __len__(self) -> int:
        """Return the number of records on the pages."""
        return sum(map(len, self._pages.values()))

    def has(self, number: int) -> bool:
        """Whether that page was read."""
        return number in self._pages

    @property
    def duplicates(self) -> int:
        """Number of records that repeat a record of the pages."""
        keys = [(row.id, row.start) for rows in self._pages.values() for row in rows]
        return len(keys) - len(set(keys))

    def duplicates_left(self) -> bool:
        """Whether calls came twice outside of the seconds that were read on their own."""
        keys = [(row.id, row.start) for rows in self._pages.values() for row in rows if row.moment not in self._seconds]
        return len(keys) > len(set(keys))

    def has_hole(self) -> bool:
        """Whether a page before the last had fewer records than another page."""
        sizes = [len(rows) for _, rows in sorted(self._pages.items())]
        return any(size < max(sizes) for size in sizes[:-1])

    def in_order(self) -> bool:
        """Whether the pages come newest first, so that a page edge can only cut a second."""
        moments = [row.moment for _, rows in sorted(self._pages.items()) for row in rows if row.moment]
        return moments == sorted(moments, reverse=True)

    def cut_seconds(self) -> list[str]:
        """The boundary seconds."""
        pages = [rows for _, rows in sorted(self._pages.items()) if rows]
        edges = pairwise(pages)
        return sorted({former[-1].moment for former, latter in edges if former[-1].moment == latter[0].moment} - {""})

    def replace(self, second: str, rows: Iterable[RawRecord]) -> None:
        """Replace the records of one second by those of its own reading."""
        self._seconds[second] = list(rows)

    def calls(self) -> list[RawRecord]:
        """Return every call once, newest first, calls of one second by id: every reading gives the same order."""
        found: dict[Key, RawRecord] = {}
        for _, rows in sorted(self._pages.items()):
            found.update(((row.id, row.start), row) for row in rows if row.moment not in self._seconds)
        for rows in self._seconds.values():
            found.update(((row.id, row.start), row) for row in rows)
        return ordered(found.values())

    def flaw(self, calls: int) -> str | None:
        """Say why it proves nothing; None if the server counts ``calls`` distinct calls."""
        if len(self.counts) > 1:
            known = sorted(count for count in self.counts if count is not None)
            return f"the count moved from {known[0]:,} to {known[-1]:,}" if len(known) > 1 else "a page had no count"
        count = next(iter(self.counts), None)
        if count != calls:
            return f"the API counts {count:,} and gave {calls:,} different calls" if count is not None else "no count"
        return None


def ordered(rows: Iterable[RawRecord]) -> list[RawRecord]:
    """Sort newest first, calls of one second by id; those without a moment come last."""
    by_id = sorted(rows, key=_id)
    by_id.sort(key=_moment, reverse=True)
    return by_id


def _id(row: RawRecord) -> str:
    return row.id


def _moment(row: RawRecord) -> str:
    return row.moment


def check_inside(window: Window, rows: Iterable[RawRecord], zone: tzinfo = IST) -> None:
    """Check that every call lies in the window. A call without a readable moment passes.

    Raises:
        OutOfWindowError: if all moments of a call lie outside.
        MisfiledError: if only the moment under which the server is assumed to file it lies outside.
    """
    first, last = window.first, window.last
    misfiled: RawRecord | None = None
    for row in rows:
        if first <= row.moment <= last or not is_wall_stamp(row.moment):
            continue
        if not lies_inside(window, row.id, row.start, row.end, zone):
            raise out_of_window(window, row.start)
        misfiled = misfiled or row
    if misfiled is not None:
        raise MisfiledError(misfiled)


def out_of_window(window: Window, start: str) -> OutOfWindowError:
    """Make the error for a call outside of the requested range."""
    return OutOfWindowError(
        f"a call that started {start} came for {window}",
        why="the server ignored the dates, or this account's clock runs in another zone",
        fix="check zone= and array_style=; a proxy that drops query parameters would show the same",
    )
