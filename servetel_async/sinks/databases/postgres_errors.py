"""Errors of PostgreSQL, its driver or the network in our words: the cause and the fix, without the address.

An address that cannot be read may hold a password in any part, so no part is repeated.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from servetel_async.errors import OutputError, OutputUnavailableError

#: One host of an address: a name or a number, an IPv6 address in brackets, and its port.
_is_host = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?").fullmatch
_ENCODE = "percent-encode user and password (/ is %2F, # is %23, ? is %3F, @ is %40, % is %25), or set PGPASSWORD"
#: Errors that pass by themselves: the class of asyncpg's errors, and what it means.
_PASSING = (
    ("TooManyConnectionsError", "its server has no connection left"),
    ("CannotConnectNowError", "its server is starting, stopping or recovering"),
    ("AdminShutdownError", "its server is shutting down"),
    ("CrashShutdownError", "its server is restarting after a crash"),
    ("LockNotAvailableError", "another program has locked a table"),
    ("DeadlockDetectedError", "another program writes the same tables"),
    ("SerializationError", "another program writes the same rows"),
    ("OutOfMemoryError", "its server has no memory left"),
    ("TargetServerAttributeNotMatched", "no server of the address is of the kind that it asks for just now"),
)
#: Errors that pass only after a person acts.
_LASTING = (
    ("InvalidPasswordError", "refuses the login", "user or password is wrong", f"check the address; {_ENCODE}"),
    (
        "InvalidAuthorizationSpecificationError",
        "refuses the login",
        "user or password is wrong, or its server refuses this user, this computer, or connections without TLS",
        "check the address and the server's pg_hba.conf",
    ),
    ("InvalidCatalogNameError", "does not exist", "", "make it (createdb), or check the address"),
    ("InsufficientPrivilegeError", "cannot be written", "this user may not", "grant it, or name another user"),
    (
        "ReadOnlySQLTransactionError",
        "cannot be written",
        "its server is read-only: a standby, or set so",
        "give the address of the primary server",
    ),
    ("DiskFullError", "cannot be written", "its disk is full", "make space, then run it again"),
    (
        "ProgramLimitExceededError",
        "cannot take a call",
        "its id or another value of it is longer than PostgreSQL allows",
        "pull into another kind of destination",
    ),
)


def is_readable(address: str) -> bool:
    """Whether an address can be split into its parts; a password that is not percent-encoded cuts it in two."""
    try:
        parts = urlsplit(address)
    except ValueError:  # a bracket without its other half
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    is_bare_query = "@" in parts.query and "=" not in parts.query.partition("@")[0]
    return all(map(_is_host, hosts)) and "@" not in parts.path + parts.fragment and not is_bare_query


def unreadable(name: str) -> OutputError:
    """Return the error for an address that cannot be read. It takes no address: tracebacks may show arguments."""
    return OutputError(
        f"the address of {name} cannot be read",
        why="its host or port is not valid: user or password may hold a character that must be percent-encoded",
        fix=_ENCODE,
    )


def refuse_other_encoding(encoding: str, name: str) -> None:
    """Refuse a database that cannot hold every letter.

    Raises:
        OutputError: if its encoding is not UTF-8.
    """
    if encoding != "UTF8":
        raise OutputError(
            f"{name} holds its texts in {encoding}",
            why="names and notes of calls may have letters that it cannot hold",
            fix="make one that can: createdb -E UTF8 -T template0 NAME",
        )


def explain(error: Exception, library: Any, name: str, *, connected: bool) -> OutputError:
    """Return our error for an error of asyncpg, the system or the network.

    Args:
        error: the error that was raised.
        library: asyncpg.
        name: name of the database.
        connected: whether there was a connection before.
    """
    for kind, why in _PASSING:
        if isinstance(error, getattr(library, kind, ())):
            return OutputUnavailableError(
                f"{name} is busy or not ready", why=why, fix="run the same command again later"
            )
    for kind, what, why, fix in _LASTING:
        if isinstance(error, getattr(library, kind)):
            return OutputError(f"{name} {what}", why=why, fix=fix)
    lost = (library.PostgresConnectionError, library.OperatorInterventionError, library.InterfaceError, OSError)
    if not isinstance(error, lost):
        return OutputError(
            f"{name} cannot be written",
            why=f"PostgreSQL or its driver says {type(error).__name__}",
            fix="look into its log, then run it again: what was committed is kept",
        )
    if connected:
        return OutputUnavailableError(
            f"the connection to {name} was lost",
            why="its server, or the network, has closed it",
            fix="run the same command again: it continues after what was committed",
        )
    return _unreachable(error, library, name)


def _unreachable(error: Exception, library: Any, name: str) -> OutputError:
    what = f"{name} cannot be reached"
    if isinstance(error, library.InterfaceError):
        return OutputError(
            f"the address of {name} cannot be used",
            why="its options contradict each other, or do not exist",
            fix="check the address",
        )
    if type(error) is ConnectionError:  # asyncpg's own; the system raises narrower classes
        return OutputError(
            what,
            why="its server offers no TLS, and the address asks for it (sslmode)",
            fix="turn TLS on at the server, or change sslmode if the network can be trusted",
        )
    if isinstance(error, ssl.SSLError):
        return OutputError(
            what, why="the TLS handshake failed, or the certificate is not trusted", fix="check sslmode and sslrootcert"
        )
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        return OutputError(what, why="its host name is not known", fix="check the address")
    if isinstance(error, TimeoutError):
        why = "its server did not answer in time"
    elif isinstance(error, ConnectionRefusedError | FileNotFoundError):
        why = "no server listens there now"
    else:
        why = "the network, or its server, ended the connection"
    return OutputUnavailableError(what, why=why, fix="check the address and the server, or run it again later")
