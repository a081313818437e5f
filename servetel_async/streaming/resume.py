"""Resuming: the way from a checkpoint to the page on which a stream continues.

The window's first page is read alone, as in every walk: it shows the present page length. Then the search looks for
the last delivered call (``protocol/anchor_search.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servetel_async.errors import PagingError, ResumeMismatchError
from servetel_async.protocol.anchor_search import AnchorSearch
from servetel_async.protocol.checkpoint import readable_start
from servetel_async.protocol.pages import Paginator, Step
from servetel_async.protocol.rows import rows_of

if TYPE_CHECKING:
    from servetel_async.protocol.checkpoint import Checkpoint
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.transport.call import Fetched

#: Most searches of a window, if its count changes during the search.
SEARCHES = 3


class Found(NamedTuple):
    """The place where a stream continues.

    Attributes:
        number: the first page to read.
        size: calls on a page; 0 if the first page to read is page 1, which shows the size itself.
        fetched: that page, if fetched already.
    """

    number: int
    size: int
    fetched: Fetched[PageBody] | None


class Resumption:
    """Look for the call of a checkpoint, a page at a time.

    Args:
        checkpoint: the checkpoint.
        page_size: calls per page to ask for.
        count_is_total: whether this server's count is known to be the total.
    """

    def __init__(self, checkpoint: Checkpoint, page_size: int, *, count_is_total: bool) -> None:
        self.checkpoint = checkpoint
        self._page_size = page_size
        self._searches = 0
        self._begin(count_is_total=count_is_total)

    def _begin(self, *, count_is_total: bool) -> None:
        self._searches += 1
        self._walk = Paginator(self._page_size, believed=count_is_total)  # judges each page and learns the page size
        self._search = AnchorSearch(self.checkpoint.rank, self.checkpoint.start)
        self._counts: set[int | None] = set()
        self._doubted: set[int] = set()  # pages that were requested again
        self._starts: dict[int, tuple[str, str]] = {}  # starts of the first and the last call of each page
        self._next: int | None = None  # the page to request, unless the search chooses it
        self._held: tuple[int, Fetched[PageBody]] | None = None  # the page with the call

    @property
    def count_is_total(self) -> bool:
        """Whether a page has shown that the server's count is the total."""
        return bool(self._walk.believed)

    def next_page(self) -> int:
        """Return the page to request next.

        Raises:
            ResumeMismatchError: if the call is on no page of the window.
        """
        if self._next is not None:
            return self._next
        last = self._walk.last_page if self.count_is_total else None
        number = self._search.next_page(self._walk.size or self._page_size, last)
        moved = self.count_is_total and len(self._counts) > 1
        if number is None and moved and self._searches < SEARCHES:
            self._begin(count_is_total=True)  # the call may have moved to a page that was looked at before
            number = 1
        if number is None:
            raise anchor_is_gone()
        return number

    def take(self, number: int, fetched: Fetched[PageBody]) -> Found | None:
        """Accept a page. Return where to continue as soon as that is known.

        Raises:
            PagingError: if another page than the requested one came twice.
        """
        page = fetched.value
        edges = page.open()
        try:
            step = self._walk.accept(number, rows=edges[2], count=page.count, echo=page.page, edges=edges)
        except PagingError:
            if not self.count_is_total or number <= self._walk.last_page:
                raise
            step = Step.PASS_OVER  # this server sends its last page in place of pages past the end
        if step is Step.PASS_OVER and not edges[2] and number not in self._doubted:
            step = Step.AGAIN  # one empty reply must not end the search: a call behind it would be reported as gone
        if step is Step.AGAIN:
            self._doubted.add(number)
            self._next = number
            return None
        self._next = None
        self._counts.add(page.count)
        rows = [] if step is Step.PASS_OVER else [(row.id, readable_start(row.start)) for row in rows_of(page)]
        self._starts[number] = newest, oldest = (rows[0][1], rows[-1][1]) if rows else ("", "")
        if (self.checkpoint.id, self.checkpoint.start) in rows:
            self._held = number, fetched
        elif self._held is None and not rows and number > self._walk.last_page and not (number == 1 and page.count):
            self._search.ended(number)
        elif self._held is None:
            self._search.looked(number, newest, oldest)
        return None if self._held is None else self._read_on(*self._held)

    def _read_on(self, number: int, fetched: Fetched[PageBody]) -> Found | None:
        """Find the first page to read: calls of the same second may now be in front, even on the page before."""
        start, first = self.checkpoint.start, number
        while first > 1 and start and self._starts[first][0] == start:
            if first - 1 not in self._starts:
                self._next = first - 1
                return None
            if self._starts[first - 1][1] != start:
                break
            first -= 1
        return Found(first, self._walk.size if first > 1 else 0, fetched if first == number else None)


def anchor_is_gone() -> ResumeMismatchError:
    """Make the error for a checkpoint whose call is no longer in the list."""
    return ResumeMismatchError(
        "the last call that was delivered is no longer in the list",
        why="it was removed, so the place to resume from is unknown",
        fix="start again without start=; calls that come twice have the same id",
    )
