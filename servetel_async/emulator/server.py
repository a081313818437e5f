"""The API on loopback: one account, one table, every habit of the real API as a setting."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from random import Random
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from aiohttp import web

from servetel_async.emulator.account import Account, Expiry
from servetel_async.emulator.churn import Churn
from servetel_async.emulator.dataset import Dataset
from servetel_async.emulator.delivery import NO_ANSWER, deliver
from servetel_async.emulator.faults import PAGE_FAULTS, Fault, FaultPlan, too_many_requests
from servetel_async.emulator.filters import Bounds, FiledBy, decimal
from servetel_async.emulator.limiter import TokenBucket
from servetel_async.emulator.records import CountMode, LimitEcho, PageRequest, RecordsRoute, SizeMode
from servetel_async.emulator.reply import Reply
from servetel_async.emulator.table import Table

__all__ = ["Emulator", "ServedRequest"]

_Param: TypeAlias = str | int | Sequence[str]


@dataclass(slots=True)
class ServedRequest:
    """One request as it arrived, and its outcome; the bearer token is not kept.

    `at` is a second of the event loop's monotonic clock. `status` is None until an answer is sent, perhaps for ever.
    """

    method: str
    path: str
    query: list[tuple[str, str]]
    page: int | None
    limit: int | None
    at: float
    status: int | None = None
    fault: str | None = None


class Emulator:
    """Serve a dataset as the telephony API would, on 127.0.0.1.

    ```python
    async with Emulator(Dataset.month("2024-05", calls=1_000)) as api:
        client = ServetelClient(api.token, base_url=api.base_url)
    ```

    Args:
        dataset: the calls; never changed, because each emulator has its own table.
        port: the port; 0 takes a free one.
        seed: seed of everything random here: jitter, ties, probabilities, inserted calls, tokens.
        faults: the faults; if several are due, the first one strikes.
        token: the bearer token of the portal; by default a made-up one that looks like a JWT.
        email: with `password`, the login that `POST /v1/auth/login` accepts; without them no login succeeds.
        password: see `email`.
        expires_in: seconds until a token from login or refresh expires.
        token_requests: authorised requests after which a token expires; a login or a refresh gives another.
        expiry: the answer to an expired token: `"401"`, or `"200"`, `"400"`, `"403"`, `"422"`, `"500"` with
            the same body, or `"gateway"` for a 403 that does not name the token.
        login_lock: seconds for which logins are refused after five failures.
        default_limit: rows of a page if the query names no limit.
        limit_cap: most rows of a page, regardless of the request; the reply does not mention it.
        echo_limit: the limit that a capped page shows: `"asked"` or `"served"`.
        count_mode: whether `count` is the `"total"`, the rows of the `"page"`, or `"missing"`.
        size_mode: whether `size` is the `"rows"` of the page or the `"limit"`.
        knows_call_id: whether the parameter `call_id` is a filter, or ignored.
        max_range_days: longest range that is accepted, else 422; None accepts all.
        bounds: how `from_date` and `to_date` are read: `"inclusive"`, or one of them left out, `"end_exclusive"` or
            `"start_exclusive"`; `truth` reads them in the same way.
        filed_by: the moment of a call that `from_date` and `to_date` are compared with: its `"start"`, its `"end"`, or
            the `"insertion"` of its record. `truth` compares the same moment.
        order: the moment that the list is sorted by, newest first; by default that of `filed_by`.
        now: the `Date` header of every answer, as `YYYY-MM-DD HH:MM:SS` on the account's wall clock, or a function that
            returns one; by default this computer's clock. Nothing else here uses it.
        latency: seconds before each answer.
        jitter: mean of additional, exponentially distributed seconds.
        offset_cost: additional seconds for every 1,000 rows that a page skips.
        rate_limit: authorised requests a second, of all routes together; None for no limit.
        burst: requests that a rested account may send at once; by default a second's worth, because a limit without
            slack would refuse a client that is a millisecond early.
        retry_after: value of the `Retry-After` header of a 429; None sends none.
        insert_every: a brand-new newest call appears before every N-th page.
        late_every: a late call appears in the middle of the requested range, before every N-th page.
        delete_every: one of the requested calls disappears before every N-th page.
        shuffle_ties: whether calls that start in the same second come in another order each time.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        port: int = 0,
        seed: int = 1,
        faults: Iterable[Fault] = (),
        token: str | None = None,
        email: str | None = None,
        password: str | None = None,
        expires_in: int = 3_600,
        token_requests: int | None = None,
        expiry: Expiry = "401",
        login_lock: float = 60.0,
        default_limit: int = 20,
        limit_cap: int | None = None,
        echo_limit: LimitEcho = "asked",
        count_mode: CountMode = "total",
        size_mode: SizeMode = "rows",
        knows_call_id: bool = True,
        max_range_days: float | None = None,
        bounds: Bounds = "inclusive",
        filed_by: FiledBy = "start",
        order: FiledBy | None = None,
        now: str | Callable[[], str] | None = None,
        latency: float = 0.0,
        jitter: float = 0.0,
        offset_cost: float = 0.0,
        rate_limit: float | None = None,
        burst: float | None = None,
        retry_after: float | str | None = None,
        insert_every: int | None = None,
        late_every: int | None = None,
        delete_every: int | None = None,
        shuffle_ties: bool = False,
    ) -> None:
        self.dataset: Final = dataset
        #: Every request, in the order of arrival.
        self.requests: list[ServedRequest] = []
        #: Largest number of requests answered at one time.
        self.peak_in_flight = 0
        self._port = port
        self._now = now
        if isinstance(now, str):
            dataset.clock.parse(now)  # an unreadable value fails here, not at the first request
        self._latency = latency
        self._jitter = jitter
        self._offset_cost = offset_cost
        self._retry_after = retry_after
        self._bucket = None if rate_limit is None else TokenBucket(rate_limit, burst or max(rate_limit, 1))
        self._delays = Random(f"delays {seed}")
        self._plan = FaultPlan(faults, seed)
        self._account = Account(
            subject=dataset.centre.account,
            seed=seed,
            clock=dataset.clock,
            token=token,
            token_requests=token_requests,
            expiry=expiry,
            expires_in=expires_in,
            email=email,
            password=password,
            lock_seconds=login_lock,
        )
        self._table = Table(dataset.calls, filed_by=filed_by, order=order or filed_by)
        self._churn = Churn(
            self._table,
            dataset,
            seed=seed,
            insert_every=insert_every,
            late_every=late_every,
            delete_every=delete_every,
        )
        self._route = RecordsRoute(
            self._table,
            self._churn,
            dataset.clock,
            default_limit=default_limit,
            limit_cap=limit_cap,
            echo_limit=echo_limit,
            count_mode=count_mode,
            size_mode=size_mode,
            knows_call_id=knows_call_id,
            max_range_days=max_range_days,
            bounds=bounds,
            ties=Random(f"ties {seed}") if shuffle_ties else None,
        )
        self._in_flight = 0
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = self.base_url if self._runner else "stopped"
        return f"<Emulator {state}, {len(self._table)} calls, {len(self.requests)} requests>"

    async def start(self) -> None:
        """Listen; from now on `base_url` is known."""
        if self._runner is not None:
            raise RuntimeError("the emulator is running already")
        # If a client disconnects, cancelling the handler ends a stalled answer.
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close every connection; answers in progress are cut off."""
        runner, self._runner, self._server = self._runner, None, None
        if runner is not None:
            await runner.cleanup()

    async def run_forever(self, ready: Callable[[Self], None] | None = None) -> None:
        """Serve until cancelled; `ready` is called once `base_url` is known."""
        async with self:
            if ready is not None:
                ready(self)
            await asyncio.Event().wait()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def token(self) -> str:
        """The newest bearer token."""
        return self._account.token

    @property
    def logins(self) -> int:
        """Number of logins tried."""
        return self._account.logins

    @property
    def refreshes(self) -> int:
        """Number of refreshes tried."""
        return self._account.refreshes

    @property
    def fired(self) -> Counter[str]:
        """Number of times that each kind of fault took effect."""
        return self._plan.fired

    @property
    def deleted(self) -> list[str]:
        """The ids of the deleted calls, in order of deletion."""
        return [call.id for call in self._table.deleted]

    @property
    def connections_open(self) -> int:
        """Connections accepted and not closed yet."""
        return len(self._server.connections) if self._server else 0

    def truth(self, query: Mapping[str, _Param] | None = None, /, **params: _Param) -> list[str]:
        """Return the ids, newest first, that a query would match now.

        Give parameters by name, or in a mapping if the name is not valid in Python (`agents[]`); a list means a
        parameter that is sent repeatedly.
        """
        pairs: list[tuple[str, str]] = []
        for name, value in {**(query or {}), **params}.items():
            pairs += [(name, str(value))] if isinstance(value, str | int) else [(name, item) for item in value]
        return [call.id for call in self._table.matching(self._route.filter(pairs))]

    def insert(self, start: str | None = None, **fields: Any) -> str:
        """Insert a call, by default the newest by one second; return its id.

        Args:
            start: its `YYYY-MM-DD HH:MM:SS` on the account's wall clock.
            **fields: keys of the record to serve with these values.
        """
        return self._churn.insert(start, **fields)

    def insert_late(self, start: str | None = None, **fields: Any) -> str:
        """Insert a call that began long ago, by default in mid-table, but is recorded only now; return its id."""
        return self._churn.insert_late(start, **fields)

    def delete(self, record_id: str) -> None:
        """Delete the record with this `id`; KeyError if there is no such record."""
        self._table.delete(record_id)

    def expire_tokens(self) -> None:
        """Expire every token issued so far."""
        self._account.expire()

    def add_fault(self, fault: Fault) -> None:
        """Add a fault behind the others; requests are numbered from the start."""
        self._plan.add(fault)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        query = list(request.query.items())
        scalars = dict(query)
        entry = ServedRequest(
            method=request.method,
            path=request.path,
            query=query,
            page=decimal(scalars.get("page", "")),
            limit=decimal(scalars.get("limit", "")),
            at=asyncio.get_running_loop().time(),
        )
        self.requests.append(entry)
        self._in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        try:
            reply, fault = await self._answer(request, entry)
            return await deliver(request, self._dated(reply), fault)
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.BaseRequest, entry: ServedRequest) -> tuple[Reply, Fault | None]:
        """Find the reply and its fault.

        Nothing is awaited between choosing the fault and counting it, so that `times` holds among concurrent requests.
        """
        number = self._plan.arrive(entry.path)
        prepared = self._prepare(entry, request.headers.get("Authorization"), await request.read())
        delay = self._latency
        if self._jitter:
            delay += self._delays.expovariate(1 / self._jitter)
        if isinstance(prepared, PageRequest):
            delay += self._offset_cost * prepared.offset / 1_000
        if delay:
            await asyncio.sleep(delay)

        fault = self._plan.choose(entry.path, number, 1 if entry.page is None else entry.page)
        if isinstance(prepared, PageRequest):
            reply, is_distorted = self._route.serve(prepared, fault)
        else:
            reply, is_distorted = prepared, False
        if fault is not None and fault.kind in PAGE_FAULTS and not is_distorted:
            fault = None
        if fault is not None:
            self._plan.strike(fault)
            entry.fault = fault.kind
            reply = fault.instead_of(reply)
        entry.status = None if entry.fault in NO_ANSWER else reply.status
        return reply, fault

    def _prepare(self, entry: ServedRequest, header: str | None, body: bytes) -> PageRequest | Reply:
        """Decide on arrival everything that needs no rows: the route, the token, the rate, the parameters."""
        match entry.method, entry.path:
            case "GET", "/v1/call/records":
                refusal = self._account.authorise(header) or self._throttle(entry.at)
                return refusal or self._route.read(entry.query)
            case "POST", "/v1/auth/login":
                return self._account.log_in(body)
            case "POST", "/v1/auth/refresh":
                return self._throttle(entry.at) or self._account.refresh(header)
            case _:
                # The gateway in front of the API answers: hence no `success`.
                return Reply.json(403, {"message": "Missing Authentication Token"})

    def _dated(self, reply: Reply) -> Reply:
        """Show the clock of `now`; a fault with its own `Date` keeps it."""
        if self._now is None:
            return reply
        instant = self.dataset.clock.parse(self._now if isinstance(self._now, str) else self._now())
        return replace(reply, headers={"Date": formatdate(instant, usegmt=True), **reply.headers})

    def _throttle(self, now: float) -> Reply | None:
        if self._bucket is None or self._bucket.admit(now):
            return None
        return too_many_requests(self._retry_after)
