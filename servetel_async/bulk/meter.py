"""Counts what a stream asks of its client: a client may serve others meanwhile, and a receipt is about one pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

    from servetel_async.page_source import PageRequest, PageSource, PageTask


class Meter:
    """Stands between a stream and its client.

    Attributes:
        count_is_total: whether this server's ``count`` is known to be the total; what a pull learns, its client learns.
        requests: on the wire, of the pages that came or failed.
        retries: those of them that repeated another.
    """

    def __init__(self, source: PageSource) -> None:
        self._source = source
        self.count_is_total = source.count_is_total
        self.requests = 0
        self.retries = 0

    @property
    def zone(self) -> tzinfo:
        """The account's wall clock."""
        return self._source.zone

    @property
    def window_of_pages(self) -> int:
        """How many unread pages there may be."""
        return self._source.window_of_pages

    def start_page(self, page: PageRequest) -> PageTask:
        """Start a page's task; the client owns it."""
        self._source.count_is_total |= self.count_is_total
        task = self._source.start_page(page)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: PageTask) -> None:
        if task.cancelled():
            return
        error = task.exception()
        sent = task.result().requests if error is None else int(getattr(error, "attempts", 0))
        self.requests += sent
        self.retries += max(0, sent - 1)
