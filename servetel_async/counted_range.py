"""A range in which this server counted calls. It is requested again to check an empty reply without a count.

Some servers leave out the count if there is nothing to count. A server in trouble sends the same empty list for
everything. Repeating the request does not distinguish them, but a range that is known to hold calls does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from servetel_async.errors import MalformedResponseError
from servetel_async.page_source import PageRequest

if TYPE_CHECKING:
    from servetel_async.page_source import PageSource
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window
    from servetel_async.transport.admission import Flow


class CountedRange(NamedTuple):
    """A query and a window with a nonzero count."""

    query: CallQuery
    window: Window

    def request(self, deadline_at: float | None = None, flow: Flow | None = None) -> PageRequest:
        """Make the request for a single call of the range."""
        return PageRequest(self.query, self.window, 1, 1, deadline_at, patient=True, flow=flow)


def note_counted(source: PageSource, query: CallQuery, window: Window, page: PageBody) -> None:
    """Remember the range of a page that has calls and a count."""
    if page.count and page.open()[2]:
        source.counted_range = CountedRange(query, window)


def says_nothing(page: PageBody) -> bool:
    """Whether a page has neither calls nor a count."""
    return not page.open()[2] and page.count is None


def check_still_counts(page: PageBody) -> None:
    """Check the answer to ``CountedRange.request``.

    Raises:
        MalformedResponseError: if it has neither calls nor a count.
    """
    if not says_nothing(page):
        return
    error = MalformedResponseError(
        "the API sends an empty list without a count",
        why="it sends the same for a range in which it counted calls before, so the list does not mean 'no calls'",
        fix="try again later; if it stays, report it",
    )
    error.retryable = True
    raise error
