"""What to do after an attempt: one decision table, pure.

=====================================  ==========================================================================
what came back                         verdict
=====================================  ==========================================================================
200 with a page                        ok
200 with ``success`` false             by its message: token -> renew; rate -> 429; else retry once, then rejected
200, but no page                       retry (HTML once, anything else up to 3 times), then malformed
204, 206, 304, other 2xx               fail: malformed, never "no calls"
3xx                                    fail: wrong address (a redirect could carry the token elsewhere)
401; 4xx and 5xx that refuse the token renew the token once, then fail: authentication
429                                    retry after what it asks for; the whole account pauses
403, 404 at an address that worked     retry, then server error; the token may be the reason
403 with ``success``; 403 without      fail: permission denied; wrong address (the gateway's answer)
404                                    fail: wrong address
408, 425, 5xx but the next row         retry, then server error
501, 505, 511                          fail: server error
other 4xx                              fail: rejected, with the server's message
not sent, cut, garbled, too slow       see ``FAULTS``
=====================================  ==========================================================================
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servetel_async.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ConnectionFailedError,
    MalformedResponseError,
    PermissionDeniedError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    ServerError,
    ServetelError,
    TLSError,
    WrongAddressError,
)
from servetel_async.protocol.reply import Reply, says_no, server_message
from servetel_async.protocol.token_refusal import refuses_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from servetel_async.errors import StoppedBy

TRANSIENT = frozenset({408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524})
#: An unknown 5xx may pass; these are known not to (511: a captive portal).
FINAL_SERVER = frozenset({501, 505, 511})
#: A gateway waited too long for the server. A 502 is not in the list: often it means that there is no server.
SLOW_STATUSES = frozenset({408, 504, 524})
_TOO_LARGE = 413


class Action(enum.Enum):
    """What to do next."""

    OK = "ok"
    RETRY = "retry"  # counts against attempts, budget and deadline
    FREE = "free"  # one uncounted retry: a kept-alive connection that the server had already closed
    RENEW = "renew"  # a new token, then once more
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, and the final error if retrying ends.

    Attributes:
        retries: most retries for this kind; None leaves that to ``Retry``.
        wait: seconds that the server asks us to wait; None leaves that to the backoff.
        throttled: whether the whole account is asked to slow down, not just this request.
        perhaps_token: whether the token may be the reason, though the reply does not say so.
    """

    action: Action
    error: ServetelError | None = None
    retries: int | None = None
    wait: float | None = None
    throttled: bool = False
    perhaps_token: bool = False


OK = Verdict(Action.OK)


class Unacceptable(Exception):  # noqa: N818 - a judgement on its way to the caller; never leaves the library
    """A reply that was read and cannot be used; carries its verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__()
        self.verdict = verdict


def malformed(what: str, *, retries: int = 3, why: str = "") -> Verdict:
    """Return the verdict on a wrong body: retried, because a cut body looks the same."""
    error = MalformedResponseError(
        what, why=why, fix="try again; if it fails again, check base_url and the proxies on the way"
    )
    return Verdict(Action.RETRY if retries else Action.FAIL, error, retries=retries)


def too_large(why: str) -> Verdict:
    """Return the verdict on a body that would take too much memory to read."""
    return Verdict(Action.FAIL, BodyTooLargeError("the reply is too large to be read", why=why, fix="lower page_size"))


def judge(reply: Reply, now: float, *, proved: bool = False) -> Verdict:
    """Judge a reply by its status and, for an error, by its body. A 200 is ok until its body is read.

    Args:
        reply: the reply.
        now: epoch seconds of this computer.
        proved: this address has given a good reply before, so its 403 or 404 is temporary.
    """
    status = reply.status
    if status == 200:  # noqa: PLR2004 - HTTP's own numbers read better than names for them
        return OK
    payload = reply.payload()
    verdict = _by_status(status, payload, reply, now, proved=proved)
    assert verdict.error is not None  # noqa: S101 - for the type checker: only a 200 has none
    verdict.error.status = status
    return verdict


def judge_refusal(reply: Reply, payload: Any, now: float) -> Verdict:
    """Judge a 200 whose ``success`` is false: an error sent as a success is still an error."""
    said = server_message(payload)
    text = said.lower()
    if refuses_token(reply, payload):
        verdict = _unauthenticated(said)
    elif "too many" in text or "rate limit" in text:
        verdict = _throttled(reply, now)
    else:
        verdict = Verdict(Action.RETRY, _rejected(200, said), retries=1)
    assert verdict.error is not None  # noqa: S101 - for the type checker: every refusal has one
    verdict.error.status = reply.status
    return verdict


def _by_status(  # noqa: PLR0911 - a table
    status: int, payload: Any, reply: Reply, now: float, *, proved: bool
) -> Verdict:
    said = server_message(payload)
    if status == 429:  # noqa: PLR2004
        return _throttled(reply, now)
    if status == 401 or (status >= 400 and refuses_token(reply, payload)):  # noqa: PLR2004
        return _unauthenticated(said)
    if status in (403, 404) and proved:
        return _passing(status, said, reply, now)
    if status == 403 and (says_no(payload) or (isinstance(payload, dict) and "success" in payload)):  # noqa: PLR2004
        denied = PermissionDeniedError(
            f"the API refuses this to this account (HTTP 403{_quoted(said)})",
            fix="ask the account's administrator for the right to read call records",
        )
        return Verdict(Action.FAIL, denied)
    if status in (403, 404) or (300 <= status < 400 and status != 304):  # noqa: PLR2004
        return _wrong_address(status)
    if status in FINAL_SERVER:
        why, fix = "", "check base_url, and the proxies on the way"
        if status == 511:  # noqa: PLR2004
            why, fix = "something on the way wants a login first (a captive portal)", "log in to that network"
        return Verdict(Action.FAIL, ServerError(f"the server cannot do this (HTTP {status})", why=why, fix=fix))
    if status in TRANSIENT or status >= 500:  # noqa: PLR2004
        error = ServerError(f"the server failed (HTTP {status}{_quoted(said)})", fix="try again later")
        return Verdict(Action.RETRY, error, wait=reply.retry_after(now))
    if status < 400:  # noqa: PLR2004
        return malformed(
            f"HTTP {status} instead of a page",
            retries=0,
            why="only a 200 holds calls; this one must not pass for 'no calls'",
        )
    return Verdict(Action.FAIL, _rejected(status, said))


def _passing(status: int, said: str, reply: Reply, now: float) -> Verdict:
    """Judge a 403 or 404 of an address that worked: a firewall, a deployment or a gateway; it will work again."""
    error = ServerError(
        f"the server refuses what it allowed before (HTTP {status}{_quoted(said)})",
        why="this address has given good replies, so probably a gateway or firewall refuses requests for a time",
        fix="try again later; if it stays, check the token and the account's rights",
    )
    return Verdict(Action.RETRY, error, wait=reply.retry_after(now), perhaps_token=True)


def _throttled(reply: Reply, now: float) -> Verdict:
    wait = reply.retry_after(now)
    error = RateLimitError(
        "the account's rate limit is reached",
        retry_after=wait,
        why="the limit is shared by everything that uses the account, also by the API that places calls",
        fix="lower the rate, for example rate=RateLimit(per_second=1), or try again later",
    )
    return Verdict(Action.RETRY, error, wait=wait, throttled=True)


def _unauthenticated(said: str) -> Verdict:
    error = AuthenticationError(
        f"the API does not accept the token{_quoted(said)}",
        why="it is wrong, expired or revoked",
        fix="make a new token in the portal and give it as token= or SERVETEL_TOKEN",
    )
    return Verdict(Action.RENEW, error)


def _rejected(status: int, said: str) -> RequestRejectedError:
    return RequestRejectedError(
        f"the API refuses the request (HTTP {status}{_quoted(said)})", fix="check the filters and the dates"
    )


def _wrong_address(status: int) -> Verdict:
    if 300 <= status < 400:  # noqa: PLR2004
        why = "it answers with a redirect; following it could carry the token to another host"
    elif status == 403:  # noqa: PLR2004
        why = "a gateway in front of the API answers so for a route that it does not know; it is not the token"
    else:
        why = "there is nothing at this path"
    return Verdict(
        Action.FAIL,
        WrongAddressError(f"this address is not the API (HTTP {status})", why=why, fix="check base_url or brand"),
    )


def _quoted(said: str) -> str:
    return f': "{said}"' if said else ""


class Fault(enum.Enum):
    """A failure before there is a whole reply."""

    REFUSED = enum.auto()
    UNRESOLVED = enum.auto()
    CONNECT_TIMEOUT = enum.auto()
    STALE = enum.auto()
    RESET = enum.auto()
    CUT = enum.auto()
    GARBLED = enum.auto()
    TLS = enum.auto()
    TIMEOUT = enum.auto()
    TOO_LARGE = enum.auto()
    NO_FILES = enum.auto()


def _connection(
    what: str, fix: str = "try again; if it stays, check the network and base_url"
) -> Callable[[], ServetelError]:
    return lambda: ConnectionFailedError(what, fix=fix)


def _no_connection_in_time() -> ServetelError:
    error = RequestTimeoutError("no connection in time", fix="check the network, or raise Timeouts(connect=)")
    error.connected = False
    return error


FAULTS: dict[Fault, tuple[Action, int | None, Callable[[], ServetelError]]] = {
    Fault.REFUSED: (Action.RETRY, None, _connection("the connection was refused")),
    Fault.UNRESOLVED: (Action.RETRY, 2, _connection("the host name cannot be resolved", "check base_url and the DNS")),
    Fault.CONNECT_TIMEOUT: (
        Action.RETRY,
        None,
        _no_connection_in_time,
    ),
    Fault.STALE: (Action.FREE, None, _connection("the server had closed the kept-alive connection")),
    Fault.RESET: (Action.RETRY, None, _connection("the connection was lost before the reply")),
    Fault.CUT: (Action.RETRY, None, _connection("the reply was cut short")),
    Fault.GARBLED: (
        Action.RETRY,
        1,
        lambda: MalformedResponseError(
            "what came back is not HTTP", fix="check base_url: is it the right port and scheme?"
        ),
    ),
    Fault.TLS: (
        Action.FAIL,
        None,
        lambda: TLSError(
            "the TLS connection cannot be trusted",
            why="the certificate is expired, for another host or of an unknown issuer, or the port does not speak TLS",
            fix="check base_url and this computer's clock and certificates",
        ),
    ),
    Fault.TIMEOUT: (
        Action.RETRY,
        None,
        lambda: RequestTimeoutError("no whole reply in time", fix="lower page_size, or raise Timeouts(read=, total=)"),
    ),
    Fault.TOO_LARGE: (
        Action.FAIL,
        None,
        lambda: BodyTooLargeError("the reply is larger than the cap", fix="lower page_size"),
    ),
    Fault.NO_FILES: (
        Action.FAIL,
        None,
        _connection("this process may open no more files", "raise its limit (ulimit -n), or close what is open"),
    ),
}


def judge_fault(fault: Fault) -> Verdict:
    """Judge an attempt without a whole reply. Each call makes a new error, because an error has one story."""
    action, retries, error = FAULTS[fault]
    return Verdict(action, error(), retries=retries)


def is_slow(error: ServetelError | None) -> bool:
    """Whether the reply took too long, so that a smaller page may come in time."""
    if isinstance(error, RequestTimeoutError):
        return error.connected
    return isinstance(error, ServerError) and error.status in SLOW_STATUSES


def is_too_large(error: ServetelError) -> bool:
    """Whether the server may give a smaller page though it did not give this one."""
    return isinstance(error, BodyTooLargeError) or error.status == _TOO_LARGE


def final_error(verdict: Verdict, stopped_by: StoppedBy) -> ServetelError:
    """Return the final error of a verdict."""
    error = verdict.error
    assert error is not None  # noqa: S101 - for the type checker: only OK has none, and OK ends in no error
    error.stopped_by = stopped_by
    if isinstance(error, RateLimitError) and error.retry_after is None:
        error.retry_after = verdict.wait
    return error
