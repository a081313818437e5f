"""The source of pages: what a reader requests from its client, and what it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from datetime import timedelta, tzinfo

    from servetel_async.counted_range import CountedRange
    from servetel_async.protocol.account import Account
    from servetel_async.protocol.conventions import Conventions
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.windows import Window
    from servetel_async.settings import Retry
    from servetel_async.transport.admission import Flow
    from servetel_async.transport.call import Fetched
    from servetel_async.transport.retry import Refused
    from servetel_async.transport.single_flight import SingleFlight
    from servetel_async.transport.throttle import AccountPace

PageTask: TypeAlias = "asyncio.Task[Fetched[PageBody]]"


class PageRequest(NamedTuple):
    """A request for one page.

    Attributes:
        number: page number from 1; page_size: calls to ask for.
        deadline_at: loop time at which everything ends.
        patient: whether to wait for a slot as long as the deadline allows, beyond ``Timeouts(acquire=)``.
        attempts: in place of ``Retry(attempts=)``, for a caller with its own retry rules.
        slow_attempts: the same for replies that take too long; the caller can ask for a smaller page instead.
        proved: whether the page comes open; else its consumer opens it, and requests it again if it is not a page.
        refused: an earlier reply to this request that turned out not to be a page.
        flow: the stream or pull that asks; None for a single request, which has priority.
    """

    query: CallQuery
    window: Window
    number: int
    page_size: int
    deadline_at: float | None
    patient: bool = False
    attempts: int | None = None
    slow_attempts: int | None = None
    proved: bool = True
    refused: Refused | None = None
    flow: Flow | None = None


class PageSource(Protocol):
    """The client as a reader sees it, and what it remembers of its server.

    Attributes:
        count_is_total: whether the server's ``count`` is known to be the total.
        page_cap: the largest page that the server gives, if it gave less than was asked for.
        conventions: how the server reads the dates; None if unknown. A pull verifies this value before it uses it, so
            the text of a ledger may be put here.
        longest_range: the longest range that the server accepts, as far as known.
        counted_range: a range with a nonzero count; None before the first.
        flights: calls in flight that equal calls may share.
        pace: the account's pace; it remembers how many concurrent requests the server tolerated.
    """

    count_is_total: bool
    page_cap: int | None
    conventions: Conventions | None
    longest_range: timedelta
    counted_range: CountedRange | None
    flights: SingleFlight
    pace: AccountPace

    @property
    def zone(self) -> tzinfo:
        """The account's wall clock."""
        ...

    @property
    def retry(self) -> Retry:
        """Number of attempts and delays between them."""
        ...

    @property
    def window_of_pages(self) -> int:
        """Largest number of unread pages."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the client was closed, and every request with it."""
        ...

    def start_page(self, page: PageRequest) -> PageTask:
        """Start a page's task; the client owns it."""
        ...

    async def identify(self) -> Account:
        """Identify the account of the calls."""
        ...
