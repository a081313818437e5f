"""ServetelClient, the session manager: it opens, lends, owns and closes; one short method per task."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import anyio

from servetel_async.aio.tasks import OwnedTasks
from servetel_async.client_pages import ClientPages
from servetel_async.errors import ConfigurationError
from servetel_async.page_source import PageRequest
from servetel_async.profiles import DEFAULT_ZONE, choose_base_url, choose_zone, read_missing
from servetel_async.protocol.account import check_name
from servetel_async.protocol.path import PagePaths
from servetel_async.protocol.query import ARRAY_STYLES, ArrayStyle, CallQuery, build_query
from servetel_async.protocol.records import CallPage, CallRecord
from servetel_async.protocol.tokens import as_secret
from servetel_async.protocol.window_filter import WindowFilter
from servetel_async.settings import (
    Brand,
    RateLimit,
    Retry,
    Timeouts,
    check_kind,
    choose_range,
    choose_rate,
)
from servetel_async.streaming.call_search import find_call
from servetel_async.streaming.counting import count_range
from servetel_async.streaming.single_pages import Inquiry, check_alone
from servetel_async.streaming.stats import ClientStats
from servetel_async.streaming.stream import CallStream, check_whole
from servetel_async.transport.credentials import choose_tokens
from servetel_async.transport.endpoint import Transport, check_seconds, end_of
from servetel_async.transport.identity import Identity
from servetel_async.transport.session import check_given
from servetel_async.transport.single_flight import SingleFlight

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Callable, Sequence
    from datetime import timedelta, tzinfo
    from types import TracebackType

    import aiohttp

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.counted_range import CountedRange
    from servetel_async.protocol.account import Account
    from servetel_async.protocol.clock import Moment
    from servetel_async.protocol.conventions import Conventions
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.query import Filters
    from servetel_async.protocol.reply import Reply
    from servetel_async.protocol.tokens import Secret
    from servetel_async.transport.call import Fetched
    from servetel_async.transport.credentials import TokenProvider
    from servetel_async.transport.endpoint import Event


class ServetelClient:
    """The calls of one account. Make one, share it among all tasks of an event loop, close it at the end.

    It may be made outside of a loop, used in several ``asyncio.run`` one after another and inherited by a fork. It
    opens its connections when it first needs them, in the running loop.

    Args:
        token: a token from the portal, or an (async) callable that gives one. Without it: ``SERVETEL_TOKEN``, the file
            ``SERVETEL_TOKEN_FILE``, the profile ``SERVETEL_PROFILE``. A profile may hold a login.
        email: the address of a login, used instead of a token; with ``password``.
        password: the password of the login; never shown by ``repr``.
        base_url: the API's address; else ``SERVETEL_BASE_URL``, the profile, ``brand``.
        brand: ``Brand`` or its name; Servetel by default.
        max_concurrency: largest number of concurrent requests.
        rate: requests per second of the whole account in this process; None for no limit.
        retry: number of attempts and delays between them.
        timeouts: seconds for connecting, reading, a whole attempt, and waiting for a slot and the rate.
        page_size: calls to ask for per page; the server may give fewer.
        zone: the account's wall clock: ``IST``, a ``datetime.timezone`` or a ``zoneinfo.ZoneInfo``. Without it:
            ``SERVETEL_ZONE``, the profile, ``IST``. For Acefone UK there is no default.
        array_style: how several agents are encoded: ``"brackets"``, ``"indexed"``, ``"repeat"`` or ``"comma"``.
        max_range: the longest range of one request, from an hour to 31 days. By default it is learnt from the server.
        session: an ``aiohttp.ClientSession`` of yours; it is used and never closed.
        trace_configs: ``aiohttp.TraceConfig`` for the session that this client makes.
        on_event: a plain function, called with an ``Event`` after each request and before each wait.
        account: the account's name, so that one database can hold several. Else ``SERVETEL_ACCOUNT``; else the
            profile's ``account`` or its name, if the token or login is the profile's.

    Raises:
        ConfigurationError: if a setting is known to be wrong before any request.
    """

    def __init__(
        self,
        token: str | TokenProvider | None = None,
        *,
        email: str | None = None,
        password: str | None = None,
        base_url: str | None = None,
        brand: Brand | str | None = None,
        max_concurrency: int = 4,
        rate: RateLimit | float | None = RateLimit(),  # noqa: B008 - frozen
        retry: Retry = Retry(),  # noqa: B008 - frozen
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        page_size: int = 100,
        zone: tzinfo = DEFAULT_ZONE,
        array_style: ArrayStyle = "brackets",
        max_range: timedelta | None = None,
        session: aiohttp.ClientSession | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        on_event: Callable[[Event], object] | None = None,
        account: str | None = None,
    ) -> None:
        token, email, password, base_url = as_secret(token), as_secret(email), as_secret(password), as_secret(base_url)
        check_whole("max_concurrency", max_concurrency)
        check_whole("page_size", page_size)
        if array_style not in ARRAY_STYLES:
            raise ConfigurationError("there is no such array_style", fix=f"use one of {', '.join(ARRAY_STYLES)}")
        check_kind("retry", retry, Retry)
        check_kind("timeouts", timeouts, Timeouts)
        self.max_concurrency = max_concurrency
        self.page_size = page_size
        self.retry = retry
        self.count_is_total = False
        self.page_cap: int | None = None
        self.conventions: Conventions | None = None
        self.longest_range = choose_range(max_range)
        self.counted_range: CountedRange | None = None
        self._tasks = OwnedTasks()
        self.flights = SingleFlight(self._tasks.start, lambda: self.closed)
        sources = read_missing(login=token is None and email is None, address=base_url is None and brand is None)
        name = check_name(sources.account if account is None else account)
        address = choose_base_url(base_url, brand, sources)
        self.zone = choose_zone(zone, address, sources)
        tokens = choose_tokens(token, email, password, sources, self._post, self._tasks.start)
        self._transport = Transport(
            address,
            tokens,
            slots=max_concurrency,
            rate=choose_rate(rate),
            retry=retry,
            timeouts=timeouts,
            session=check_given(session),
            trace_configs=tuple(trace_configs or ()),
            on_event=on_event,
            tasks=self._tasks,
        )
        self.pace = self._transport.pace
        self._pages = ClientPages(self._transport, PagePaths(self.zone, array_style))
        self._identity = Identity(self._transport, self.flights, name)

    # Tasks

    def calls(
        self,
        from_date: Moment | None = None,
        to_date: Moment | None = None,
        *,
        query: CallQuery | None = None,
        page_size: int | None = None,
        max_records: int | None = None,
        ordered: bool = True,
        deadline: float | None = None,
        start: str | None = None,
        **filters: Unpack[Filters],
    ) -> CallStream:
        """Stream the calls of a range, newest first, many pages at once. Nothing is sent before the first ``anext``.

        Args:
            from_date: first moment: an aware ``datetime``, a ``date``, or the account's own wall clock as text.
            to_date: last moment, inclusive; a day without a time means its last second. In the autumn hour that comes
                twice, all calls that may lie in the range come, because no record says which of the two it means.
            query: a ``CallQuery`` in place of, or refined by, dates and filters.
            page_size: calls per page; the client's unless given.
            max_records: number of calls to stop after.
            ordered: False gives pages as they complete: slightly faster, without order or checkpoint.
            deadline: seconds for the whole stream, from the first ``anext``.
            start: the ``checkpoint`` of an earlier stream of the same query. ``page_size`` may differ.
            filters: see ``CallQuery``.

        Raises:
            ConfigurationError: if the API would misread a value; raised here, before anything is sent.
            ResumeMismatchError: if ``start`` belongs to another query.
        """
        asked = build_query(query, from_date, to_date, cast("dict[str, Any]", filters))
        page_size = self._page_size(page_size)
        if max_records is not None:
            check_whole("max_records", max_records)
            page_size = min(page_size, max_records)
        check_seconds("deadline", deadline)
        return CallStream(
            self,
            asked,
            page_size=page_size,
            max_records=max_records,
            ordered=ordered,
            deadline=deadline,
            start=start,
        )

    async def count(
        self,
        from_date: Moment | None = None,
        to_date: Moment | None = None,
        *,
        query: CallQuery | None = None,
        deadline: float | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Count the calls of a range without reading them: one request for each 31 days, two more if a count is round.

        Equal calls in flight share their requests. In an hour that comes twice, it counts what ``calls`` gives.

        Raises:
            CountDriftError: if a count is round, so it may be capped, and the range cannot be made narrower to check.
        """
        asked = build_query(query, from_date, to_date, cast("dict[str, Any]", filters))
        key = ("count", asked)
        return await self.flights.fly(key, lambda until: self._count(asked, until), end_of(deadline))

    async def _count(self, asked: CallQuery, deadline_at: float | None) -> int:
        return await count_range(Inquiry(self, self._get, asked, deadline_at), self.page_size)

    async def get_call(
        self,
        call_id: str,
        *,
        from_date: Moment | None = None,
        to_date: Moment | None = None,
        deadline: float | None = None,
    ) -> CallRecord | None:
        """Get one call by its ``call_id``; None if the API has no call with that id. Never gives another call.

        Args:
            call_id: the id that other systems know.
            from_date: with ``to_date``: the range to search, 31 days at a time, newest first. If the server does not
                know the parameter, the calls of this range are read.
            to_date: see ``from_date``.
            deadline: seconds for the whole search, including that reading.

        Raises:
            OutOfWindowError: if the server ignores ``call_id`` and sent other calls, and no dates narrow it down.
        """
        check_seconds("deadline", deadline)
        if not isinstance(call_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("call_id must be a text", fix='for example get_call("1714657799.11930963")')
        asked = build_query(None, from_date, to_date, {"call_id": call_id})
        key = ("get_call", asked)
        return await self.flights.fly(key, lambda until: self._get_call(asked, until), end_of(deadline))

    async def _get_call(self, asked: CallQuery, deadline_at: float | None) -> CallRecord | None:
        return await find_call(Inquiry(self, self._get, asked, deadline_at), self.page_size)

    async def fetch_page(
        self,
        query: CallQuery | None = None,
        page: int = 1,
        page_size: int | None = None,
        *,
        deadline: float | None = None,
    ) -> CallPage:
        """Fetch one page as it is: no walk, no proof of completeness. A page past the end holds no records.

        Raises:
            PagingError: if the server sent another page, or (``OutOfWindowError``) ignored the dates.
        """
        check_whole("page", page)
        asked = build_query(query, None, None, {})
        size = self._page_size(page_size)
        key = ("fetch_page", asked, page, size)
        return await self.flights.fly(key, lambda until: self._fetch_page(asked, page, size, until), end_of(deadline))

    async def _fetch_page(self, asked: CallQuery, page: int, size: int, deadline_at: float | None) -> CallPage:
        window = asked.window(self.zone)
        body = await self._get(PageRequest(asked, window, page, size, deadline_at))
        check_alone(body, page)
        records = body.records(self.zone)
        WindowFilter(window).sift(records)
        return CallPage(records=tuple(records), number=page, count=body.count, limit=body.limit, raw=body.body)

    async def pull(
        self,
        dest: str | os.PathLike[str],
        from_date: Moment | None = None,
        to_date: Moment | None = None,
        *,
        query: CallQuery | None = None,
        overwrite: bool = False,
        resume: bool = True,
        on_progress: Callable[[PullProgress], object] | None = None,
        strict: bool = False,
        fast: bool = False,
        columns: Sequence[str] | None = None,
        mask: bool = False,
        pseudonyms: str | bytes | None = None,
        **filters: Unpack[Filters],
    ) -> PullReceipt:
        """Pull every call of a range into a file or a database, and prove it. After an interruption, call it again.

        Args:
            dest: ``.ndjson .jsonl .csv`` (each also ``.gz``, ``.zst``), ``.parquet``, a directory that ends in ``/``,
                ``.db .sqlite``, ``.duckdb``, ``postgresql://...``; ``"-"`` is NDJSON on standard output.
            from_date: see ``calls``.
            to_date: see ``calls``.
            query: see ``calls``.
            overwrite: replace a file that exists; databases are always kept current, by account and ``id``.
            resume: continue an interrupted pull of the same query; False discards its state and starts again.
            on_progress: a plain function of a ``PullProgress``, called after each page and each window.
            strict: raise if the receipt would not be complete; then no output is made.
            fast: fewer requests: boundary seconds are not read again as long as the counts agree.
            columns: columns of a CSV or Parquet file; all of them by default.
            mask: write only values known to be harmless; hide numbers, names and everything else.
            pseudonyms: a secret key of at least 16 bytes; masks, and replaces equal numbers and names by equal tokens.

        Raises:
            ConfigurationError: if the query, the destination's kind or the key is wrong, or the range has not begun.
            OutputError: if the destination exists, is locked or cannot be written.
            ResumeMismatchError: if it holds the state of another pull or account, or calls under another mask.
            ServetelError: see ``errors``; what was read is kept, and the same call resumes from it.
        """
        from servetel_async.bulk.pull import pull  # noqa: PLC0415 - a program that only streams needs no sinks
        from servetel_async.protocol.mask import Mask  # noqa: PLC0415

        pseudonyms = as_secret(pseudonyms)
        dest, asked = as_secret(dest), build_query(query, from_date, to_date, cast("dict[str, Any]", filters))
        return await pull(
            self,
            dest,
            asked,
            overwrite=overwrite,
            resume=resume,
            on_progress=on_progress,
            strict=strict,
            fast=fast,
            columns=columns,
            mask=Mask.chosen(mask, pseudonyms),
        )

    async def identify(self) -> Account:
        """Identify the account: address, fingerprint and name. Found once, then remembered.

        It gets a token if it has no token yet: with a login by one request, with a given token by no request.

        Raises:
            ServetelError: if no token can be obtained.
        """
        return await self._identity.account()

    def stats(self) -> ClientStats:
        """Return the figures of this client: totals so far, and its present state."""
        return ClientStats(**dataclasses.asdict(self._transport.traffic), shared=self.flights.shared)

    # Resources

    async def __aenter__(self) -> Self:
        self._transport.closed = False
        self._transport.bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End every request of this client and close its connections. ``async with`` opens it again."""
        self._transport.closed = True
        try:
            await self._tasks.end()
        finally:
            with anyio.CancelScope(shield=True):
                await self._transport.aclose()

    @property
    def closed(self) -> bool:
        """Whether the client was closed. ``async with`` opens it again."""
        return self._transport.closed

    @property
    def window_of_pages(self) -> int:
        """Number of pages that a stream requests ahead: twice the concurrency, which avoids head-of-line blocking."""
        return 2 * self.max_concurrency

    def start_page(self, page: PageRequest) -> asyncio.Task[Fetched[PageBody]]:
        """Start a page's task; this client owns it."""
        return self._tasks.start(self._pages.fetch(page))

    async def _get(self, page: PageRequest) -> PageBody:
        """Get one page in the task of a shared call."""
        return (await self._pages.fetch(page)).value

    async def _post(self, path: str, payload: dict[str, str], token: Secret | None) -> Reply:
        return await self._transport.post(path, payload, token)

    def _page_size(self, given: int | None) -> int:
        if given is not None:
            check_whole("page_size", given)
        return self.page_size if given is None else given

    def __repr__(self) -> str:
        transport: Transport | None = getattr(self, "_transport", None)
        if transport is None:  # a traceback from __init__ reads this property too
            return "<ServetelClient, not made>"
        state = "closed" if transport.closed else f"{transport.traffic.in_flight} in flight"
        return f"<ServetelClient {transport.base_url}, {state}>"

    def __reduce__(self) -> Any:
        """Refuse pickling: a pickled client would carry the token into a queue or a file."""
        raise TypeError("a ServetelClient does not pickle; make one in each process")
