"""Where pages come from: what a reading asks of its client, and what it gets for it."""

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
    """One page to ask for.

    Attributes:
        number: from 1; page_size: calls that are asked for.
        deadline_at: loop time at which everything ends.
        patient: wait for a slot as long as the deadline allows, beyond ``Timeouts(acquire=)``.
        attempts: in place of ``Retry(attempts=)``, for whoever decides himself what is tried again.
        slow_attempts: the same for replies that take too long; the caller can ask for a smaller page instead.
        proved: it comes open; else whoever consumes it opens it, and asks again for one that is no page.
        refused: what such a request brought before, and turned out to be no page.
        flow: the stream or pull that asks; None for a single request, which goes before them.
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
    """What is needed of the client, and what it remembers of its server.

    Attributes:
        count_is_total: its ``count`` is known to be the total.
        page_cap: the largest page it gives, where it gave less than was asked for.
        conventions: how it reads the dates; None while that is unknown. A pull verifies what is set here before it
            believes it, so a ledger's text may be put here.
        longest_range: the longest range it takes, as far as is known.
        counted_range: a range in which it counted calls; None until there was one.
        flights: calls under way that equal calls may share.
        pace: the account's; it remembers how many concurrent requests the server bore.
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
        """How often and how patiently a request is tried again."""
        ...

    @property
    def window_of_pages(self) -> int:
        """How many unread pages there may be."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was closed, and every request with it."""
        ...

    def start_page(self, page: PageRequest) -> PageTask:
        """Start a page's task; the client owns it."""
        ...

    async def identify(self) -> Account:
        """Say whose calls it gives."""
        ...
