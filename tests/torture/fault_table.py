"""Faults of one reply as data: where in the exchange, and the error if the fault stays.

A fault makes the steps of a wire server from the honest body and a seeded random, which also draws the cuts.
"""

from __future__ import annotations

import enum
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from servetel_async import (
    AuthenticationError,
    ConnectionFailedError,
    CountDriftError,
    MalformedResponseError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    ServerError,
    ServetelError,
)
from tests.transport.wire_server import Abort, Drip, Fin, Flood, Hang, Reset, Send, chunked, http

Step: TypeAlias = Send | Drip | Flood | Fin | Reset | Abort | Hang
Make: TypeAlias = Callable[[Random, bytes], "tuple[Step, ...]"]


class Where(enum.Enum):
    """Where in the exchange it occurs."""

    CONNECTION = "before the request"
    BEFORE_HEAD = "before the head"
    IN_HEAD = "in the head"
    AFTER_HEAD = "between head and body"
    IN_BODY = "in the body"
    AFTER_BODY = "after the body"


class Kind(enum.Enum):
    """How a client classifies it, and the most retries of it in one call."""

    HARMLESS = None, 99
    LOST = ConnectionFailedError, 99
    SLOW = RequestTimeoutError, 1  # as often as others, but it takes time
    SERVER = ServerError, 99
    THROTTLED = RateLimitError, 99
    GARBLED = MalformedResponseError, 1
    NO_PAGE = MalformedResponseError, 3
    REFUSAL = RequestRejectedError, 1
    BLOCKED = ServerError, 98  # only at an address that has worked; its value must differ from SERVER's
    ENDED = AuthenticationError, 1
    EMPTY = CountDriftError, 2

    def __init__(self, error: type[ServetelError] | None, borne: int) -> None:
        self.error = error
        self.borne = borne

    @property
    def needs_a_past(self) -> bool:
        """Whether the fault is temporary only at an address that has worked, or on a server that is known to count."""
        return self in (Kind.BLOCKED, Kind.EMPTY)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``secure`` marks a fault of TLS."""

    name: str
    where: Where
    kind: Kind
    make: Make
    secure: bool = False


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GZIP = ("Content-Encoding", "gzip")
WEB_PAGE = b"<!doctype html><html><title>Maintenance</title></html>"
SHORT = b'{"success": false, "message": "internal"}'


def _always(*steps: Step) -> Make:
    return lambda random, body: steps


def _cut(body: bytes, random: Random) -> bytes:
    """A prefix that is neither empty nor whole."""
    return body[: random.randrange(1, len(body))]


def _with_head(*lines: bytes, end: Step | None = None) -> Make:
    """The honest body behind a head with these lines in place of an honest length."""
    steps = () if end is None else (end,)
    return lambda random, body: (Send(HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body), *steps)


def _cut_head(end: Step) -> Make:
    return lambda random, body: (Send(_cut(http(b"", length=len(body))[:-1], random)), end)


def _bare_head(end: Step) -> Make:
    return lambda random, body: (Send(http(b"", length=len(body))), end)


def _cut_body(end: Step, **options: object) -> Make:
    """A part of the body behind a head that promises all of it, or, with ``length=None``, nothing."""
    return lambda random, body: (Send(http(_cut(body, random), **{"length": len(body), **options})), end)


def _cut_chunks(end: Step) -> Make:
    return lambda random, body: (Send(chunked(_cut(body, random), end=False)), end)


def _zipped(change: Callable[[bytes], bytes]) -> Make:
    return lambda random, body: (Send(http(change(gzip.compress(body, 1)), 200, GZIP)),)


def _instead(body: bytes, status: int = 200, *headers: tuple[str, str], content_type: str = "application/json") -> Make:
    return _always(Send(http(body, status, *headers, content_type=content_type)))


def _and(*steps: Step, headers: tuple[tuple[str, str], ...] = ()) -> Make:
    """The honest reply, and then this."""
    return lambda random, body: (Send(http(body, 200, *headers)), *steps)


def _table(where: Where, *rows: tuple[str, Kind, Make]) -> tuple[Fault, ...]:
    return tuple(Fault(name, where, kind, make) for name, kind, make in rows)


LOST, SLOW, GARBLED, NO_PAGE, HARMLESS = Kind.LOST, Kind.SLOW, Kind.GARBLED, Kind.NO_PAGE, Kind.HARMLESS
#: Poison: a client that reads it as its reply gets a call too many.
POISON = http(
    b'{"count":1,"limit":1,"size":1,"page":1,"results":[{"id":"POISON","date":"2024-05-06","time":"09:00:00"}]}'
)

CONNECTION = _table(
    Where.CONNECTION,
    ("closed when accepted", LOST, _always(Fin())),
    ("reset when accepted", LOST, _always(Reset())),
)
"""These are played before any request was read."""

FAULTS = (
    *_table(
        Where.BEFORE_HEAD,
        ("fin before head", LOST, _always(Fin())),
        ("reset before head", LOST, _always(Reset())),
        ("head hangs", SLOW, _always(Hang())),
        ("garbage", GARBLED, lambda random, body: (Send(b"\x00" + random.randbytes(40) + b"\r\n\r\n"), Fin())),
        ("another protocol", GARBLED, _always(Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Fin())),
        ("an alert of TLS", GARBLED, _always(Send(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"), Fin())),
        ("interim, then fin", LOST, _always(Send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), Fin())),
        ("interim, then the reply", HARMLESS, lambda random, body: (Send(b"HTTP/1.1 100 Continue\r\n\r\n" + http(body)),)),
    ),
    *_table(
        Where.IN_HEAD,
        ("fin in head", LOST, _cut_head(Fin())),
        ("reset in head", LOST, _cut_head(Reset())),
        ("head stops", SLOW, _cut_head(Hang())),
        ("head drips", SLOW, lambda random, body: (Drip(http(body)),)),
        ("bad status line", GARBLED, _always(Send(b"HTTP/1.1 well\r\nContent-Length: 0\r\n\r\n"), Fin())),
        ("two lengths", GARBLED, _with_head(b"Content-Length: 7", b"Content-Length: 9", end=Fin())),
        ("negative length", GARBLED, _with_head(b"Content-Length: -5", end=Fin())),
        ("length of words", GARBLED, _with_head(b"Content-Length: many", end=Fin())),
        ("huge header", GARBLED, _with_head(b"X-Huge: " + b"x" * 20_000, end=Fin())),
        ("many headers", GARBLED, _with_head(*(b"X-%d: y" % number for number in range(400)), end=Fin())),
        ("header without a name", GARBLED, _with_head(b": nobody", end=Fin())),
        ("NUL in a header", GARBLED, _with_head(b"X-Nul: a\0b", end=Fin())),
        ("unknown encoding", NO_PAGE, lambda random, body: (Send(http(zlib.compress(body, 1), 200, ("Content-Encoding", "x-rot"))),)),
        ("408", Kind.SERVER, _instead(b"", 408)),
        ("425", Kind.SERVER, _instead(SHORT, 425)),
        ("429", Kind.THROTTLED, _instead(SHORT, 429)),
        ("429, at once", Kind.THROTTLED, _instead(SHORT, 429, ("Retry-After", "0"))),
        ("500", Kind.SERVER, _instead(SHORT, 500)),
        ("502, a web page", Kind.SERVER, _instead(WEB_PAGE, 502, content_type="text/html")),
        ("503, at once", Kind.SERVER, _instead(SHORT, 503, ("Retry-After", "0"))),
        ("504, empty", Kind.SERVER, _instead(b"", 504)),
        ("520", Kind.SERVER, _instead(WEB_PAGE, 520)),
        ("403 of a gateway", Kind.BLOCKED, _instead(b'{"message": "Forbidden"}', 403)),
        ("403 of an authorizer", Kind.BLOCKED, _instead(b'{"Message": "explicit deny"}', 403)),
        ("403, a web page", Kind.BLOCKED, _instead(WEB_PAGE, 403, content_type="text/html")),
        ("403 of the API", Kind.BLOCKED, _instead(b'{"success": false, "message": "not allowed"}', 403)),
        ("404", Kind.BLOCKED, _instead(b"", 404)),
        ("token ended, 200", Kind.ENDED, _instead(b'{"success": false, "message": "Token has expired"}')),
        ("token ended, 400", Kind.ENDED, _instead(b'{"error": "token_expired"}', 400)),
        ("token ended, 401", Kind.ENDED, _instead(b'{"error": "invalid_token"}', 401)),
        ("token ended, 403", Kind.ENDED, _instead(b'{"message": "Token has expired"}', 403)),
        ("token ended, 422", Kind.ENDED, _instead(b'{"success": false, "message": "Token has expired"}', 422)),
        ("token ended, 500", Kind.ENDED, _instead(b'{"message": "Token has expired"}', 500)),
    ),
    *_table(
        Where.AFTER_HEAD,
        ("fin after head", LOST, _bare_head(Fin())),
        ("reset after head", LOST, _bare_head(Reset())),
        ("body never begins", SLOW, _bare_head(Hang())),
        ("nothing, no length", NO_PAGE, _always(Send(http(b"", length=None)), Fin())),
        ("nothing, of no length", NO_PAGE, _instead(b"")),
        ("nothing, in chunks", NO_PAGE, _always(Send(chunked()))),
        ("no first chunk", LOST, _always(Send(chunked(end=False)), Fin())),
    ),
    *_table(
        Where.IN_BODY,
        ("short body, fin", LOST, _cut_body(Fin())),
        ("short body, reset", LOST, _cut_body(Reset())),
        ("body stops", SLOW, _cut_body(Hang())),
        ("body drips", SLOW, lambda random, body: (Send(http(b"", length=len(body))), Drip(body))),
        ("no length, fin", NO_PAGE, _cut_body(Fin(), length=None)),
        ("no length, reset", NO_PAGE, _cut_body(Reset(), length=None)),
        ("HTTP/1.0, cut", NO_PAGE, _cut_body(Fin(), length=None, version="1.0")),
        ("a length of what is left", NO_PAGE, lambda random, body: (Send(http(_cut(body, random))),)),
        ("a 500 that is cut", Kind.LOST, _cut_body(Fin(), status=500)),
        ("chunks cut between, fin", LOST, _cut_chunks(Fin())),
        ("chunks cut between, reset", LOST, _cut_chunks(Reset())),
        ("chunk cut inside", LOST, lambda random, body: (Send(_cut(chunked(body, end=False), random)), Fin())),
        ("bad chunk size", GARBLED, lambda random, body: (Send(chunked(_cut(body, random), end=False) + b"zz\r\nx\r\n"), Fin())),
        ("chunk longer than it says", GARBLED, lambda random, body: (Send(chunked(end=False) + b"5\r\n" + body), Fin())),
        ("gzip corrupt", LOST, _zipped(lambda data: data[:40] + b"\xff" * 40 + data[80:])),
        ("gzip with another sum", LOST, _zipped(lambda data: data[:-8] + b"\0" * 8)),
        ("gzip cut, of that length", NO_PAGE, _zipped(lambda data: data[: len(data) // 2])),
        ("gzip that is none", LOST, lambda random, body: (Send(http(body, 200, GZIP)),)),
        ("a web page", GARBLED, _instead(WEB_PAGE)),
        ("no list", NO_PAGE, _instead(b"{}")),
        ("a list of nothing", NO_PAGE, _instead(b'{"count":5000,"limit":10,"size":10,"page":1,"results":null}')),
        ("a success that is none", Kind.REFUSAL, _instead(SHORT)),
        ("an empty list, no count", Kind.EMPTY, _instead(b'{"success": true, "results": []}')),
        ("an empty list, bare", Kind.EMPTY, _instead(b'{"results": []}')),
        ("NUL in front", NO_PAGE, lambda random, body: (Send(http(b"\0\0" + body)),)),
    ),
    *_table(
        Where.AFTER_BODY,
        ("more than its length", GARBLED, lambda random, body: (Send(http(body + b"POISON" * 20, length=len(body))), Fin())),
        ("a second reply", HARMLESS, _and(Send(POISON))),
        ("fin, unsaid", HARMLESS, _and(Fin())),
        ("reset, unsaid", HARMLESS, _and(Reset())),
        ("close said, not done", HARMLESS, _and(Hang(), headers=(("Connection", "close"),))),
    ),
    Fault("no length, no goodbye", Where.IN_BODY, NO_PAGE, _cut_body(Abort(), length=None), secure=True),
    Fault("short body, no goodbye", Where.IN_BODY, LOST, _cut_body(Abort()), secure=True),
)  # fmt: skip
"""All that strike a request, in the order of the exchange."""
