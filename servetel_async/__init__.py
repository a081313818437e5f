"""Every call detail record out of Servetel, Smartflo and Acefone: async, fast, and never one silently lost."""

from servetel_async.client import ServetelClient
from servetel_async.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ConfigurationError,
    ConnectionFailedError,
    CountDriftError,
    DeadlineExceededError,
    MalformedResponseError,
    OutOfWindowError,
    OutputError,
    OutputLockedError,
    OverloadedError,
    PagingError,
    PermissionDeniedError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    ResumeMismatchError,
    ServerError,
    ServetelError,
    StreamClosedError,
    TLSError,
    WrongAddressError,
)
from servetel_async.protocol.clock import IST
from servetel_async.protocol.query import CallQuery
from servetel_async.protocol.records import CallPage, CallRecord
from servetel_async.settings import Brand, RateLimit, Retry, Timeouts
from servetel_async.stream import CallStream
from servetel_async.version import __version__

__all__ = [
    "IST",
    "AuthenticationError",
    "BodyTooLargeError",
    "Brand",
    "CallPage",
    "CallQuery",
    "CallRecord",
    "CallStream",
    "ConfigurationError",
    "ConnectionFailedError",
    "CountDriftError",
    "DeadlineExceededError",
    "MalformedResponseError",
    "OutOfWindowError",
    "OutputError",
    "OutputLockedError",
    "OverloadedError",
    "PagingError",
    "PermissionDeniedError",
    "RateLimit",
    "RateLimitError",
    "RequestRejectedError",
    "RequestTimeoutError",
    "ResumeMismatchError",
    "Retry",
    "ServerError",
    "ServetelClient",
    "ServetelError",
    "StreamClosedError",
    "TLSError",
    "Timeouts",
    "WrongAddressError",
    "__version__",
]
