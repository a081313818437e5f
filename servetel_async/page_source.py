"""Where pages come from: what a reading asks of its client, and what it gets for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from datetime import tzinfo

    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window
    from servetel_async.transport.transport import Fetched

PageTask: TypeAlias = "asyncio.Task[Fetched[PageBody]]"


class PageRequest(NamedTuple):
    """One page to ask for.

    Attributes:
        number: from 1; page_size: calls that are asked for.
        deadline_at: loop time at which everything ends.
        patient: wait for a slot as long as the deadline allows, beyond ``Timeouts(acquire=)``.
    """

    query: CallQuery
    window: Window
    number: int
    page_size: int
    deadline_at: float | None
    patient: bool = False


class PageSource(Protocol):
    """What is needed of the client."""

    count_is_total: bool

    @property
    def zone(self) -> tzinfo:
        """The account's wall clock."""
        ...

    @property
    def window_of_pages(self) -> int:
        """How many unread pages there may be."""
        ...

    def start_page(self, page: PageRequest) -> PageTask:
        """Start a page's task; the client owns it."""
        ...
