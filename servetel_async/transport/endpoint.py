"""The transport of one client: takes a path and parameters, returns a value read from a good reply.

Each attempt takes, in this order: the token (no slot is held during a login), the slot and the gate (admission), then
the clock and the wire, then the verdict. Errors are raised outside of ``except`` blocks, so that they carry nothing of
aiohttp as a context.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from yarl import URL

from servetel_async.errors import (
    CallbackError,
    ConfigurationError,
    OverloadedError,
    ServetelError,
)
from servetel_async.protocol.verdict import Unacceptable, final_error, judge_fault
from servetel_async.settings import LARGEST_PAGE
from servetel_async.transport.accounts import account_pace
from servetel_async.transport.admission import Admission, Ticket
from servetel_async.transport.attempt import WireFault, exchange
from servetel_async.transport.call import Call, Fetched, too_late
from servetel_async.transport.callbacks import Listener
from servetel_async.transport.process_lock import process_lock
from servetel_async.transport.request_headers import HEADERS
from servetel_async.transport.retry import Attempts, History
from servetel_async.transport.retry_budget import RetryBudget
from servetel_async.transport.session import BoundSession
from servetel_async.transport.suspicion import Suspicion
from servetel_async.transport.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from servetel_async.protocol.reply import Reply
    from servetel_async.protocol.tokens import Secret
    from servetel_async.settings import RateLimit, Retry, Timeouts
    from servetel_async.transport.admission import Flow
    from servetel_async.transport.credentials import TokenSource
    from servetel_async.transport.retry import Refused

T = TypeVar("T")
logger = logging.getLogger("servetel_async")


@dataclass(frozen=True, slots=True)
class Event:
    """The argument of ``on_event``; never holds a number, a name, a query or a token.

    Attributes:
        kind: ``"request"`` after each attempt, ``"wait"`` before each backoff.
        page: page number, for a request of a page.
        status: HTTP status; None if no reply came.
        seconds: duration of the attempt, or of the coming wait.
        size: bytes of the reply's body.
        error: class name of the error.
    """

    kind: str
    page: int | None = None
    status: int | None = None
    seconds: float = 0.0
    size: int = 0
    error: str | None = None


class Transport:
    """Sends requests for one client; owns its session, shares its account's pace."""

    def __init__(
        self,
        base_url: str,
        tokens: TokenSource,
        *,
        slots: int,
        rate: RateLimit | None,
        retry: Retry,
        timeouts: Timeouts,
        session: aiohttp.ClientSession | None,
        trace_configs: Sequence[aiohttp.TraceConfig],
        on_event: Callable[[Event], object] | None,
        tasks: Iterable[asyncio.Task[Any]],
    ) -> None:
        self.base_url = base_url
        self.tokens = tokens
        self.closed = False
        self._slots = slots
        self._rate = rate
        self._retry = retry
        self._timeouts = timeouts
        self._given = session
        self._trace_configs = trace_configs
        self._on_event = None if on_event is None else Listener("on_event", on_event)
        self.pace = account_pace((base_url, tokens.account))
        self.traffic = Traffic()
        self._budget = RetryBudget(retry.budget, self.pace)
        self._tasks = tasks
        self._bound: BoundSession | None = None
        self.proved: deque[Secret] = deque(maxlen=16)  # tokens of good replies, the latest last
        self.suspicion = Suspicion(self.proved)
        # We enforce the total: aiohttp checks its own only while it awaits, and sets a timer for each timeout.
        self._clock = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect, sock_read=timeouts.read)

    @property
    def connector(self) -> aiohttp.BaseConnector | None:
        """The connector in use; None before the first request."""
        return self._bound.session.connector if self._bound is not None else None

    def bind(self) -> BoundSession:
        """Return the session of the running loop; make it if there is no session.

        Raises:
            ConfigurationError: if the client is closed, or in use in another loop.
        """
        if self.closed:
            raise ConfigurationError(
                "the client is closed", fix="open it again with 'async with client:', or make another"
            )
        bound = self._bound
        if bound is not None and bound.is_current():
            return bound
        with process_lock():
            if self._bound is not bound:  # another thread bound it first
                return self.bind()
            admission = Admission(self._slots, self.pace, self._rate, self._timeouts, self.traffic)
            self._bound = BoundSession(admission, self._slots, self._given, self._trace_configs, self._tasks)
            return self._bound

    async def aclose(self) -> None:
        """Close the session. No request may be in flight: the client ends its tasks first."""
        self.closed = True
        bound, self._bound = self._bound, None
        if bound is not None:
            await bound.aclose()

    async def get(
        self,
        path: str,
        read: Callable[[Reply, float], T],
        *,
        page: int | None = None,
        deadline_at: float | None = None,
        patient: bool = False,
        flow: Flow | None = None,
        attempts: int | None = None,
        slow_attempts: int | None = None,
        refused: Refused | None = None,
    ) -> Fetched[T]:
        """GET until a reply is good, and read it.

        Args:
            path: below the base URL, with its query, percent-encoded.
            read: makes the value of a good reply; raises ``Unacceptable`` if it cannot.
            page: page number, for errors and events.
            deadline_at: loop time at which everything ends.
            patient: whether to wait for a turn longer than ``Timeouts(acquire=)``.
            flow: the stream or pull that asks for this page; None for a single request, which goes first.
            attempts: in place of ``Retry(attempts=)``.
            slow_attempts: the same for replies that take too long; the caller can ask for a smaller page instead.
            refused: an earlier reply to such a call that later proved unusable; this call continues its history.

        Raises:
            ServetelError: if no good reply came; see ``errors``. Carries page, attempts and what stopped them.
        """
        verdict, history = refused or (None, History())
        # No frame holds the URL: its query holds phone numbers, and tracebacks print local variables.
        ticket = Ticket(flow, deadline_at, patient=patient)
        call = Call(*(self, URL(self.base_url + path, encoded=True), read, page, ticket), history=history)
        policy = self._retry if attempts is None else dataclasses.replace(self._retry, attempts=attempts)
        trying = Attempts(
            *(call.send, call.renew, policy, self.pace, self._budget, deadline_at),
            lambda error, wait: self._tell_wait(page, error, wait),
            history,
            slow_attempts,
        )
        try:
            return await trying.run(verdict)
        except Unacceptable as refusal:
            error = final_error(refusal.verdict, trying.stopped_by)
        except OverloadedError as raised:  # this attempt sent nothing; an earlier one may have
            error = too_late(call) if history.sent and deadline_at is not None else raised
        except ServetelError as raised:
            error = raised
        error.attempts = history.sent
        if history.sent and error.page is None:  # a failed login has no page
            error.page = page
        raise error.with_traceback(None)  # the frames below hold the URL

    async def token(self) -> Secret:
        """Get the token to use now. A failed login is retried like any request.

        Raises:
            ServetelError: if there is no token, or the client is closed.
        """
        self.bind()
        trying = Attempts(
            *(self.tokens.token, None, self._retry, self.pace, self._budget, None),
            lambda error, wait: self._tell_wait(None, error, wait),
            History(),
        )
        try:
            return await trying.run()
        except Unacceptable as refusal:
            error = final_error(refusal.verdict, trying.stopped_by)
        raise error

    async def post(self, path: str, payload: dict[str, str], token: Secret | None) -> Reply:
        """POST once, for logins.

        Raises:
            Unacceptable: if no whole reply came.
        """
        try:
            return await self.exchange("POST", URL(self.base_url + path, encoded=True), token, payload=payload)
        except Unacceptable as refusal:
            verdict = dataclasses.replace(refusal.verdict, retries=1)  # the server may have counted it
        raise Unacceptable(verdict)

    async def exchange(
        self,
        method: str,
        url: URL,
        token: Secret | None,
        *,
        page: int | None = None,
        ticket: Ticket | None = None,
        payload: dict[str, str] | None = None,
        sent: Callable[[], None] | None = None,
    ) -> Reply:
        """Send once: through admission, then under the clock.

        Raises:
            Unacceptable: if no whole reply came.
            OverloadedError: if no slot or turn comes in time.
        """
        bound = self.bind()
        admission, fault = bound.admission, None
        turn_at = await admission.enter(ticket or Ticket())
        self.traffic.in_flight += 1
        try:
            self.traffic.requests += 1
            if sent is not None:
                sent()
            begun = time.perf_counter()
            try:
                reply = await exchange(
                    *(bound.session, method, url, HEADERS, token),
                    given=self._given is not None,
                    total=self._timeouts.total,
                    clock=self._clock,
                    turns=bound.turns,
                    largest=LARGEST_PAGE,
                    json=payload,
                    on_sent=lambda: admission.sent(turn_at),
                )
            except WireFault as error:
                fault = error.fault
                self._tell(page, None, begun, 0, fault.name)
            except CallbackError as error:
                self._tell(page, None, begun, 0, type(error).__name__)
                raise
            else:
                self._tell(page, reply.status, begun, len(reply.body), None)
                return reply
        finally:
            self.traffic.in_flight -= 1
            admission.leave()
        raise Unacceptable(judge_fault(fault))

    def _tell(self, page: int | None, status: int | None, begun: float, size: int, error: str | None) -> None:
        seconds = time.perf_counter() - begun
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("page %s: %s in %.0f ms, %d bytes", page, status or error, seconds * 1e3, size)
        if self._on_event is not None:
            _show(self._on_event, Event("request", page, status, seconds, size, error))

    def _tell_wait(self, page: int | None, error: ServetelError | None, wait: float) -> None:
        name = type(error).__name__
        logger.info("page %s: %s, trying again in %.1f s", page, name, wait)
        if self._on_event is not None:
            event = Event("wait", page, error.status if error is not None else None, wait, 0, name)
            _show(self._on_event, event)


def _show(on_event: Listener[Event], event: Event) -> None:
    try:
        on_event.tell(event)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - also a CancelledError: a plain call cannot be cancelled
        logger.warning("on_event raised %s; the request continues", type(error).__name__)


def check_seconds(name: str, seconds: Any) -> None:
    """Check a length of time that a caller gave; None means no limit.

    Raises:
        ConfigurationError: if it is not a number greater than 0.
    """
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < 10**9):
        raise ConfigurationError(f"{name} must be a number of seconds greater than 0", fix=f"for example {name}=30")


def end_of(deadline: float | None) -> float | None:
    """Return the loop time at which a deadline of that many seconds ends; None without a deadline.

    Raises:
        ConfigurationError: if it is not a number greater than 0.
    """
    check_seconds("deadline", deadline)
    return None if deadline is None else asyncio.get_running_loop().time() + deadline
