"""Every error this library raises, and who is to blame.

::

    ServetelError
    ├── ConfigurationError (ValueError)   you: refused before anything was sent
    ├── StreamClosedError                 you: the stream was closed, then read
    ├── CallbackError                     you: your code inside a request raised
    ├── OverloadedError                   no slot or turn in time; nothing was sent (``waited_for``)
    ├── DeadlineExceededError             you: the deadline you set has passed
    ├── AuthenticationError               the token or the login is not accepted
    ├── PermissionDeniedError             the token is good, but not for this
    ├── WrongAddressError                 this host or path is not the API
    ├── RequestRejectedError              the API refuses these parameters
    ├── RateLimitError                    429 outlasted the retries (``retry_after``)
    ├── ServerError                       5xx outlasted the retries
    ├── ConnectionFailedError             refused, reset, cut, unresolvable
    │   └── TLSError                      the certificate or the handshake: final
    ├── RequestTimeoutError               one attempt took too long
    ├── MalformedResponseError            not HTTP, not JSON, not a page
    │   └── BodyTooLargeError             a body beyond the cap
    ├── PagingError                       pages that contradict each other
    │   ├── CountDriftError               the list moved and did not settle
    │   └── OutOfWindowError              records outside the dates asked for
    └── OutputError                       the destination cannot be written
        ├── OutputLockedError             another run or program holds it
        ├── OutputUnavailableError        its server is not reachable, or is busy, just now
        └── ResumeMismatchError           saved state belongs to another query

All of them pickle, so they cross process pools and task queues. None of them holds an object of aiohttp, msgspec or
ssl: those carry the token or the body.
"""

from __future__ import annotations

from typing import Any, Literal

StoppedBy = Literal["attempts", "budget", "deadline", "retry_after", "final"]
WaitedFor = Literal["slots", "rate", "pause"]


class ServetelError(Exception):
    """The root of the tree: ``except ServetelError`` catches everything that this library raises on purpose.

    Attributes:
        what: the event, in one sentence.
        why: the reason for this diagnosis; may be empty.
        fix: the next step; may be empty.
        attempts: requests that were sent for this operation.
        stopped_by: the reason for ending the retries; None if no retry was possible.
        page: number of the requested page.
        status: HTTP status of the last reply.
        checkpoint: position of a stream; give it to ``calls(..., start=)`` to resume.
        retryable: whether the same call may succeed later, unchanged.
    """

    retryable: bool = False

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        fix: str = "",
        attempts: int = 0,
        stopped_by: StoppedBy | None = None,
        page: int | None = None,
        status: int | None = None,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.attempts = attempts
        self.stopped_by = stopped_by
        self.page = page
        self.status = status
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        text = self.what
        if self.page is not None:
            text = f"page {self.page}: {text}"
        if self.attempts > 1:
            stopped = f", stopped by {self.stopped_by}" if self.stopped_by else ""
            text = f"{text} (after {self.attempts} attempts{stopped})"
        return " ".join(_sentence(part) for part in (text, self.why, self.fix) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the message and the state: keyword-only constructors do not pickle by themselves."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _sentence(text: str) -> str:
    """Make a sentence of one part of the message; a first letter that is a name (``from_date``) stays small."""
    end = "" if text.endswith((".", "!", "?")) else "."
    first = text.split(" ", 1)[0]
    return f"{text}{end}" if "_" in first or "=" in first or "." in first else f"{text[0].upper()}{text[1:]}{end}"


def _rebuild(kind: type[ServetelError], args: tuple[Any, ...], state: dict[str, Any]) -> ServetelError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(ServetelError, ValueError):
    """The caller's own mistake, found before anything was sent."""


class StreamClosedError(ServetelError):
    """The stream was closed before its end and then read."""


class CallbackError(ServetelError):
    """Your code inside a request raised: a token provider, a trace hook, or the given session.

    It names the class of the exception, never its message, which may hold a secret. It is final: nothing is retried.
    """


class OverloadedError(ServetelError):
    """No request could be sent in time: a limit of this client, or a pause of the server. Nothing was sent.

    Attributes:
        waited_for: ``"slots"``: all of ``max_concurrency`` were busy; ``"rate"``: the account's rate allowed no request
            in time; ``"pause"``: the server answered 429 and asked the account to pause; None: not known.
        retry_after: seconds after which the call could have been sent; None if unknown.
    """

    retryable = True

    def __init__(
        self, what: str, *, waited_for: WaitedFor | None = None, retry_after: float | None = None, **state: Any
    ) -> None:
        super().__init__(what, **state)
        self.waited_for = waited_for
        self.retry_after = retry_after


class DeadlineExceededError(ServetelError):
    """The ``deadline=`` of this call has passed: it covers queueing, attempts, backoff and pages."""

    retryable = True


class AuthenticationError(ServetelError):
    """The API refused the token (401, or "Token has expired" at any status) or the login."""


class PermissionDeniedError(ServetelError):
    """The API knows the token and refuses the request: 403 with a ``success`` key, before any good reply."""


class WrongAddressError(ServetelError):
    """The host or path is not the API: a redirect; or a gateway's 403 or a 404, before any good reply."""


class RequestRejectedError(ServetelError):
    """The API refuses the parameters (400, 413, 422, or ``success: false``)."""


class RateLimitError(ServetelError):
    """Too many requests, and waiting was no longer possible.

    Attributes:
        retry_after: seconds that the server asked us to wait, or None.
    """

    retryable = True

    def __init__(self, what: str, *, retry_after: float | None = None, **state: Any) -> None:
        super().__init__(what, **state)
        self.retry_after = retry_after


class ServerError(ServetelError):
    """The server or a gateway failed: 408, 425 or 5xx; or 403 or 404 at an address that had worked."""

    retryable = True


class ConnectionFailedError(ServetelError):
    """No usable connection: refused, reset, cut, unresolvable, or a body shorter than announced."""

    retryable = True


class TLSError(ConnectionFailedError):
    """The certificate or the handshake failed. Final: trying again cannot make a certificate right."""

    retryable = False


class RequestTimeoutError(ServetelError):
    """One attempt took longer than ``Timeouts`` allows.

    Attributes:
        connected: False if the time ran out before there was a connection; then the page size is not the cause.
    """

    retryable = True
    connected: bool = True


class MalformedResponseError(ServetelError):
    """The reply is not HTTP, not JSON, or not a page of calls."""


class BodyTooLargeError(MalformedResponseError):
    """The body is larger than the limit for a page."""


class PagingError(ServetelError):
    """Pages contradict each other: the same page again, or another page than the requested one."""


class CountDriftError(PagingError):
    """The list moved while it was read and did not settle; the result would not be complete."""

    retryable = True


class OutOfWindowError(PagingError):
    """A record lies outside of the requested range: the server ignored a filter."""


class OutputError(ServetelError):
    """The destination cannot be written."""


class OutputLockedError(OutputError):
    """Another run is writing this destination."""

    retryable = True


class OutputUnavailableError(OutputError):
    """The destination's server is not reachable, starts, stops, or is busy: the same call may work later."""

    retryable = True


class ResumeMismatchError(OutputError):
    """Saved state (a checkpoint, a journal, a database) belongs to another query, account, mask or version."""
