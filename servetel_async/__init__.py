"""Get every call detail record from Servetel, Smartflo and Acefone: async, fast, and none lost silently."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from servetel_async.version import __version__

if TYPE_CHECKING:
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.errors import (
        AuthenticationError,
        BodyTooLargeError,
        CallbackError,
        ConfigurationError,
        ConnectionFailedError,
        CountDriftError,
        DeadlineExceededError,
        MalformedResponseError,
        OutOfWindowError,
        OutputError,
        OutputLockedError,
        OutputUnavailableError,
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
    from servetel_async.streaming.stream import CallStream

__all__ = [
    "IST",
    "AuthenticationError",
    "BodyTooLargeError",
    "Brand",
    "CallPage",
    "CallQuery",
    "CallRecord",
    "CallStream",
    "CallbackError",
    "ConfigurationError",
    "ConnectionFailedError",
    "CountDriftError",
    "DeadlineExceededError",
    "MalformedResponseError",
    "OutOfWindowError",
    "OutputError",
    "OutputLockedError",
    "OutputUnavailableError",
    "OverloadedError",
    "PagingError",
    "PermissionDeniedError",
    "PullReceipt",
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

# A name is imported when it is first used (PEP 562): a command line that only prints its help loads no HTTP client.
_HOMES = {
    "PullReceipt": "bulk.receipt",
    "ServetelClient": "client",
    "IST": "protocol.clock",
    "CallQuery": "protocol.query",
    "CallPage": "protocol.records",
    "CallRecord": "protocol.records",
    "Brand": "settings",
    "RateLimit": "settings",
    "Retry": "settings",
    "Timeouts": "settings",
    "CallStream": "streaming.stream",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
