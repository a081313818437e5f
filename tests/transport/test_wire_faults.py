"""Network faults of one request, by the rows of the fault catalogue: the error, and the number of requests.

A raw socket server on loopback plays each row and counts. ``QUICK`` allows four attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import os
import resource
import socket
import tracemalloc

import aiohttp
import pytest
import trustme

from servetel_async import (
    AuthenticationError,
    BodyTooLargeError,
    ConnectionFailedError,
    MalformedResponseError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestRejectedError,
    RequestTimeoutError,
    Retry,
    ServerError,
    ServetelError,
    Timeouts,
    TLSError,
    WrongAddressError,
)
from tests.tls import serving, trusting
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import (
    ACTS,
    OK,
    PAGE,
    Act,
    Fin,
    Reset,
    Send,
    call,
    closed_port,
    http,
    page,
    reply,
)

ATTEMPTS = 4
PATIENCE = Timeouts(connect=0.15, read=0.15, total=0.3)

ROWS: dict[int, str] = {
    1: "test_a_refused_connection_is_tried_again",
    2: "as row 3 for a client: no answer to SYN; a black hole itself needs a packet filter",
    3: "test_a_full_backlog_is_a_timeout_of_the_connection",
    4: "test_a_name_that_does_not_resolve_is_tried_twice_more",
    5: "test_a_dead_address_among_several_costs_no_attempt",
    8: "test_a_stale_connection_is_nobodys_error",
    24: "test_what_must_succeed",
    25: "test_a_reply_nobody_asked_for_is_given_to_nobody",
    32: "test_a_certificate_error_is_final",
    33: "test_a_handshake_that_is_cut_is_tried_again",
    34: "test_plain_http_on_a_tls_port_is_final",
    35: "test_a_handshake_that_hangs_is_a_timeout_of_the_connection",
    36: "test_an_old_protocol_is_final",
    37: "test_a_call_that_finds_no_slot_is_told_so_and_sends_nothing",
    38: "test_no_file_descriptor_left_is_final",
    39: "test_a_dead_address_among_several_costs_no_attempt",
    40: "test_a_dead_connection_is_replaced; a route that vanishes itself needs a packet filter",
}
"""Where each row is tested that is not in ``FAULTS``, and what of it needs more than loopback."""

FAULTS: list[tuple[int, str, type[ServetelError], int]] = [
    (6, "reset before head", ConnectionFailedError, ATTEMPTS),
    (7, "fin before head", ConnectionFailedError, ATTEMPTS),
    (9, "fin mid head", ConnectionFailedError, ATTEMPTS),
    (10, "reset mid head", ConnectionFailedError, ATTEMPTS),
    (11, "short body, fin", ConnectionFailedError, ATTEMPTS),
    (11, "short body, reset", ConnectionFailedError, ATTEMPTS),
    (12, "long body", MalformedResponseError, 2),
    (13, "no length, fin", MalformedResponseError, ATTEMPTS),
    (14, "no length, reset", MalformedResponseError, ATTEMPTS),
    (16, "chunked, cut between", ConnectionFailedError, ATTEMPTS),
    (16, "chunked, cut inside", ConnectionFailedError, ATTEMPTS),
    (17, "bad chunk size", MalformedResponseError, 2),
    (18, "http 1.0 cut", MalformedResponseError, ATTEMPTS),
    (19, "garbage", MalformedResponseError, 2),
    (19, "ssh banner", MalformedResponseError, 2),
    (20, "two lengths", MalformedResponseError, 2),
    (20, "negative length", MalformedResponseError, 2),
    (21, "head hangs", RequestTimeoutError, ATTEMPTS),
    (22, "body hangs", RequestTimeoutError, ATTEMPTS),
    (23, "drip", RequestTimeoutError, ATTEMPTS),
    (26, "huge header", MalformedResponseError, 2),
    (26, "many headers", MalformedResponseError, 2),
    (26, "endless headers", MalformedResponseError, 2),
    (27, "gzip corrupt", ConnectionFailedError, ATTEMPTS),
    (27, "gzip crc", ConnectionFailedError, ATTEMPTS),
    (27, "not gzip", ConnectionFailedError, ATTEMPTS),
    (28, "gzip truncated", MalformedResponseError, ATTEMPTS),
    (29, "unknown encoding", MalformedResponseError, ATTEMPTS),
    (30, "gzip bomb", BodyTooLargeError, 1),
    (30, "gzip bomb, chunked", BodyTooLargeError, 1),
    (31, "giant, announced", BodyTooLargeError, 1),
    (31, "giant, no length", BodyTooLargeError, 1),
    (31, "giant, chunked", BodyTooLargeError, 1),
    (54, "giant error page", ServerError, ATTEMPTS),
]

READ_BY_PYTHON: list[str] = []
"""Where aiohttp's parser that is written in Python finds the whole page, and lets go of what stands behind it."""

if aiohttp.http_parser.HttpResponseParser.__module__ == "aiohttp.http_parser":
    READ_BY_PYTHON += ["long body", "two lengths"]
    FAULTS = [
        # The parser waits for the end of the head.
        (row, name, *((RequestTimeoutError, ATTEMPTS) if name == "ssh banner" else (kind, wire)))
        for row, name, kind, wire in FAULTS
        if name not in READ_BY_PYTHON
    ]

TLS_FAULTS = [
    (15, "no length, abort", MalformedResponseError, ATTEMPTS),
    (15, "no length, fin", MalformedResponseError, ATTEMPTS),
    (6, "fin before head", ConnectionFailedError, ATTEMPTS),
    (11, "short body, fin", ConnectionFailedError, ATTEMPTS),
]


def test_every_row_has_a_test_or_a_reason():
    """Each of the first forty rows of the catalogue has a test here, or a reason why not."""
    played = {row for row, *_ in FAULTS + TLS_FAULTS} | ({12} if READ_BY_PYTHON else set())
    assert set(range(1, 41)) <= played | set(ROWS)
    for where in ROWS.values():
        name = where.partition(";")[0]
        assert name in globals() or name.startswith("as row"), name


# One request, one fault ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "name", "kind", "wire"), FAULTS, ids=[name for _, name, *_ in FAULTS])
async def test_a_fault_becomes_its_error_and_costs_its_attempts(row, name, kind, wire, serve, connect):
    """A fault that stays ends in its error, after exactly the counted requests."""
    server = await serve(ACTS[name])
    client = connect(server, timeouts=PATIENCE)

    error = await failure_of(client.fetch_page())

    assert type(error) is kind, error
    assert server.asked == wire == error.attempts
    assert server.fired[name] == wire
    assert error.page == 1
    assert error.stopped_by == ("attempts" if wire > 1 else "final")
    assert_clean(error)


@pytest.mark.parametrize("name", sorted({name for _, name, kind, wire in FAULTS if wire > 1}))
async def test_a_fault_that_passes_is_not_seen(name, serve, connect):
    """A fault that occurs once costs one more request and nothing else."""
    server = await serve([ACTS[name], OK])

    found = await connect(server, timeouts=PATIENCE).fetch_page()

    assert len(found.records) == 1
    assert server.asked == 2


@pytest.mark.parametrize("name", ["interim", "continue", *READ_BY_PYTHON])
async def test_what_must_succeed(name, serve, connect):
    """Interim replies are skipped; small faults that one of the two parsers accepts are no error."""
    server = await serve(ACTS[name])

    found = await connect(server).fetch_page()

    assert (len(found.records), server.asked) == (1, 1)


async def test_a_reply_nobody_asked_for_is_given_to_nobody(serve, connect):
    """A second reply to one request is dropped with its connection; no other call reads it."""
    server = await serve(ACTS["extra reply"])
    client = connect(server)

    pages = [await client.fetch_page() for _ in range(5)]

    assert [record.call_id for found in pages for record in found.records] == [call(1)["call_id"]] * 5


async def test_a_server_that_speaks_first_is_not_http(serve, connect):
    """A banner before the request is refused after one more try, and the token is not sent."""
    server = await serve(greeting=ACTS["ssh banner"])

    error = await failure_of(connect(server, timeouts=PATIENCE).fetch_page())

    assert isinstance(error, MalformedResponseError | ConnectionFailedError | RequestTimeoutError)
    assert server.connections <= ATTEMPTS
    assert_clean(error)


# Connections ---------------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_is_tried_again(connect):
    """A refused connection is retried up to the allowed attempts, then the error says so."""
    error = await failure_of(connect(f"http://127.0.0.1:{closed_port()}").fetch_page())

    assert type(error) is ConnectionFailedError
    assert (error.attempts, error.stopped_by, error.retryable) == (ATTEMPTS, "attempts", True)
    assert_clean(error)


async def test_a_full_backlog_is_a_timeout_of_the_connection(stack, connect):
    """A server with a full backlog is a timeout of the connection, not a hang."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address = listener.getsockname()
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting.connect(address)

    error = await failure_of(connect(f"http://127.0.0.1:{address[1]}", timeouts=PATIENCE).fetch_page())

    assert type(error) is RequestTimeoutError
    assert error.attempts == ATTEMPTS
    assert_clean(error)


class Resolver(aiohttp.abc.AbstractResolver):
    """Resolves every name to the same addresses, or fails."""

    def __init__(self, *addresses: tuple[str, int], error: int | None = None) -> None:
        self.asked = 0
        self._addresses = addresses
        self._error = error

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked += 1
        if self._error is not None:
            raise OSError(self._error, "no such name")
        return [
            {
                "hostname": host,
                "host": address,
                "port": number,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address, number in self._addresses
        ]

    async def close(self) -> None:
        pass


async def session_of(stack, **options) -> aiohttp.ClientSession:
    return await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(**options)))


@pytest.mark.parametrize("number", [socket.EAI_AGAIN, socket.EAI_NONAME])
async def test_a_name_that_does_not_resolve_is_tried_twice_more(number, stack, connect):
    """An unknown name is retried twice, then the error says to check base_url."""
    resolver = Resolver(error=number)
    session = await session_of(stack, resolver=resolver)

    error = await failure_of(connect("https://api.example.invalid", session=session).fetch_page())

    assert type(error) is ConnectionFailedError
    assert (error.attempts, resolver.asked) == (3, 3)
    assert "base_url" in error.fix
    assert_clean(error)


@pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2", "::1", "localhost"])
@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
async def test_a_dead_address_among_several_costs_no_attempt(dead, stack, serve, connect):
    """If the first address of a host is dead, the second one is used without an error."""
    server = await serve()
    session = await session_of(stack, resolver=Resolver((dead, server.port), ("127.0.0.1", server.port)))

    found = await connect(f"http://localhost:{server.port}", session=session, retry=Retry(attempts=1)).fetch_page()

    assert len(found.records) == 1
    assert server.asked == 1


@pytest.mark.parametrize("end", [Fin(), Reset()], ids=["fin", "reset"])
async def test_a_stale_connection_is_nobodys_error(end, serve, connect):
    """A server that closes each kept-alive connection at its second request costs one more request, and no error."""
    stale = Act("stale", (end,))
    server = await serve(lambda request: stale if request.on_connection == 2 else OK)
    client = connect(server, retry=Retry(attempts=1))

    calls = 40
    for _ in range(calls):
        assert len((await client.fetch_page()).records) == 1

    assert server.fired["stale"] > 0
    assert server.asked == calls + server.fired["stale"]


async def test_a_connection_that_is_always_stale_is_an_error_at_last(serve, connect):
    """The free retry is given once per call: a server that always disconnects is an error after the counted attempts."""
    server = await serve(lambda request: OK if request.number == 1 else ACTS["fin before head"])
    client = connect(server)
    await client.fetch_page()

    error = await failure_of(client.fetch_page())

    assert type(error) is ConnectionFailedError
    assert server.asked <= 1 + 1 + ATTEMPTS
    assert error.attempts == server.asked - 1


async def test_a_reset_in_a_head_cannot_be_told_from_a_stale_connection(serve, connect):
    """A reset in the head of a kept-alive connection gets the free retry, because bytes before a reset are not visible."""
    server = await serve(lambda request: ACTS["reset mid head"] if request.on_connection == 2 else OK)
    client = connect(server, retry=Retry(attempts=1))
    await client.fetch_page()

    await client.fetch_page()

    assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_a_head_that_is_cut_cleanly_is_no_stale_connection(serve, connect):
    """Bytes of a reply came before the end, so the failure counts: with one attempt it is an error."""
    server = await serve(lambda request: ACTS["fin mid head"] if request.on_connection == 2 else OK)
    client = connect(server, retry=Retry(attempts=1))
    await client.fetch_page()

    error = await failure_of(client.fetch_page())

    assert type(error) is ConnectionFailedError
    assert "cut short" in str(error).lower()
    assert [request.connection for request in server.requests] == [1, 1]


async def test_a_dead_connection_is_replaced(serve, connect):
    """A kept-alive connection that falls silent is given up for a new one."""
    server = await serve(lambda request: ACTS["head hangs"] if request.on_connection == 2 else OK)
    client = connect(server, timeouts=PATIENCE, retry=Retry(attempts=2, base=0.001))
    await client.fetch_page()

    await client.fetch_page()

    assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_no_file_descriptor_left_is_final(serve, connect):
    """A process without free descriptors gets the error at once, without retries."""
    server = await serve()
    client = connect(server)
    held = [os.dup(0) for _ in range(40)]  # lower numbers that were free would still serve
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for descriptor in held[:3]:
        os.close(descriptor)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(held[:1]), hard))
        error = await failure_of(client.fetch_page())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held[3:]:
            os.close(descriptor)

    assert type(error) is ConnectionFailedError
    assert (error.attempts, error.stopped_by) == (1, "final")
    assert "ulimit" in error.fix
    assert_clean(error)


async def test_a_call_that_finds_no_slot_is_told_so_and_sends_nothing(serve, connect):
    """With every slot taken, a call fails as overloaded in time, and its error says that nothing was sent."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=2, timeouts=Timeouts(acquire=0.05))
    busy = [asyncio.ensure_future(client.fetch_page(page_size=n)) for n in (1, 2)]
    await server.until(lambda: server.asked == 2)

    errors = await asyncio.gather(*(failure_of(client.fetch_page(page_size=n)) for n in range(3, 23)))

    assert {type(error) for error in errors} == {OverloadedError}
    assert {error.attempts for error in errors} == {0}
    assert server.asked == 2
    assert_clean(errors[0])
    server.release()
    assert [len((await task).records) for task in busy] == [1, 1]


# Size ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gzip bomb", "gzip bomb, chunked", "giant, no length", "giant, chunked"])
async def test_a_body_beyond_the_cap_never_gets_into_memory(name, serve, connect):
    """A reply of hundreds of megabytes is aborted at the cap; memory grows by a few times the cap at most."""
    server = await serve(ACTS[name])
    client = connect(server)
    gc.collect()
    tracemalloc.start()
    try:
        error = await failure_of(client.fetch_page())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert type(error) is BodyTooLargeError
    assert peak < 48 << 20


async def test_a_body_just_below_the_cap_is_read(serve, connect):
    """A page just below the cap is read."""
    padding = " " * (16 * 1024 * 1024 - len(PAGE))
    server = await serve(reply(PAGE + padding.encode()))

    assert len((await connect(server).fetch_page()).records) == 1


# TLS -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def session(stack, authority) -> aiohttp.ClientSession:
    """A session that trusts the tests' authority."""
    return await session_of(stack, ssl=trusting(authority))


@pytest.mark.parametrize(("row", "name", "kind", "wire"), TLS_FAULTS, ids=[name for _, name, *_ in TLS_FAULTS])
async def test_a_fault_behind_tls_is_the_same_fault(row, name, kind, wire, serve, connect, authority, session):
    """Faults behind TLS are the same; a connection without a proper TLS end is no complete body."""
    server = await serve(ACTS[name], tls=serving(authority.issue_cert("127.0.0.1")))

    error = await failure_of(connect(server, session=session, timeouts=Timeouts(read=1)).fetch_page())

    assert type(error) is kind, error
    assert server.asked == wire == error.attempts
    assert_clean(error)


async def test_a_trusted_server_is_spoken_to(serve, connect, authority, session):
    """The counterpart of the tests below: a good certificate is accepted."""
    server = await serve(tls=serving(authority.issue_cert("127.0.0.1")))

    assert len((await connect(server, session=session).fetch_page()).records) == 1


def certificates(authority: trustme.CA) -> dict[str, trustme.LeafCert]:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    return {
        "expired": authority.issue_cert("127.0.0.1", not_before=past, not_after=past + dt.timedelta(days=1)),
        "wrong host": authority.issue_cert("api.example.com"),
        "untrusted": trustme.CA().issue_cert("127.0.0.1"),
    }


@pytest.mark.parametrize("which", ["expired", "wrong host", "untrusted"])
async def test_a_certificate_error_is_final(which, serve, connect, authority, session):
    """A certificate error is not retried: one connection, no request, no token sent."""
    server = await serve(tls=serving(certificates(authority)[which]))

    error = await failure_of(connect(server, session=session).fetch_page())

    assert type(error) is TLSError
    assert (error.stopped_by, error.retryable, error.attempts) == ("final", False, 1)
    assert (server.connections, server.asked) == (1, 0)
    assert_clean(error)


async def test_an_untrusted_server_is_refused_by_our_own_session_as_well(serve, connect, authority):
    """The client's own session checks certificates too, and this cannot be turned off."""
    server = await serve(tls=serving(authority.issue_cert("127.0.0.1")))

    error = await failure_of(connect(server).fetch_page())

    assert type(error) is TLSError
    assert (server.connections, server.asked) == (1, 0)
    assert_clean(error)


async def test_a_handshake_that_is_cut_is_tried_again(serve, connect, session):
    """A connection that ends within the handshake is retried, because it says nothing about the certificate."""
    server = await serve(greeting=Act("cut", (Fin(),)))

    error = await failure_of(connect(server.url.replace("http:", "https:"), session=session).fetch_page())

    assert type(error) is ConnectionFailedError
    assert server.connections == ATTEMPTS == error.attempts
    assert_clean(error)


async def test_plain_http_on_a_tls_port_is_final(serve, connect, session):
    """A server that answers the handshake with HTTP is a wrong port or scheme, and is not retried."""
    server = await serve(greeting=Act("plain", (Send(http(b"400", 400)),)))

    error = await failure_of(connect(server.url.replace("http:", "https:"), session=session).fetch_page())

    assert type(error) is TLSError
    assert server.connections == 1
    assert_clean(error)


async def test_a_handshake_that_hangs_is_a_timeout_of_the_connection(serve, connect, session):
    """The connect timeout covers the TLS handshake."""
    server = await serve(greeting=ACTS["head hangs"])
    client = connect(server.url.replace("http:", "https:"), session=session, timeouts=Timeouts(connect=0.1))

    error = await failure_of(client.fetch_page())

    assert type(error) is RequestTimeoutError
    assert server.connections == ATTEMPTS
    assert_clean(error)


async def test_an_old_protocol_is_final(serve, connect, session):
    """A server with only old TLS versions is refused; there is no fallback to a weaker one."""
    alert = Act("fatal alert: protocol version", (Send(bytes([21, 3, 1, 0, 2, 2, 70])),))
    server = await serve(greeting=alert)

    error = await failure_of(connect(server.url.replace("http:", "https:"), session=session).fetch_page())

    assert type(error) is TLSError
    assert (server.connections, error.attempts) == (1, 1)
    assert_clean(error)


# What HTTP says ------------------------------------------------------------------------------------------------------------

NO = b'{"success": false, "message": "no"}'

STATUSES: list[tuple[int, bytes, type[ServetelError], int]] = [
    (401, NO, AuthenticationError, 1),
    (403, NO, PermissionDeniedError, 1),
    (403, b'{"message": "Missing Authentication Token"}', WrongAddressError, 1),
    (403, b"<html>Forbidden</html>", WrongAddressError, 1),
    (404, NO, WrongAddressError, 1),
    (400, NO, RequestRejectedError, 1),
    (413, NO, RequestRejectedError, 1),
    (414, b"", RequestRejectedError, 1),
    (422, b'{"success": false, "errors": {"limit": ["too much"]}}', RequestRejectedError, 1),
    *(
        (status, b"<html>", ServerError, ATTEMPTS)
        for status in (408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 599)
    ),
    *((status, b"", ServerError, 1) for status in (501, 505, 511)),
    *((status, b"", MalformedResponseError, 1) for status in (201, 202, 204, 206, 304)),
    *((status, b"", WrongAddressError, 1) for status in (300, 301, 302, 303, 307, 308)),
    (429, NO, RateLimitError, ATTEMPTS),
    (200, b"<!doctype html><title>Log in</title>", MalformedResponseError, 2),
    (200, b"", MalformedResponseError, ATTEMPTS),
    (200, PAGE[:-20], MalformedResponseError, ATTEMPTS),
    (200, PAGE + PAGE, MalformedResponseError, ATTEMPTS),
    (200, NO, RequestRejectedError, 2),
    (200, b'{"success": "false", "message": "Too many requests."}', RateLimitError, ATTEMPTS),
    (200, b'{"success": false, "message": "Token has expired"}', AuthenticationError, 1),
    (200, b'{"error": "oops"}', RequestRejectedError, 2),
    (200, b'{"results": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", MalformedResponseError, 1),
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "wire"), STATUSES, ids=[f"{row[0]} {number}" for number, row in enumerate(STATUSES)]
)
async def test_a_status_becomes_its_error_and_costs_its_attempts(status, body, kind, wire, serve, connect):
    """The reply decides the error and the number of requests, and the error names the status."""
    server = await serve(reply(body, status, length=None if status in (204, 304) else True))

    error = await failure_of(connect(server).fetch_page())

    assert type(error) is kind, error
    assert server.asked == wire == error.attempts
    assert error.status == status
    assert_clean(error)


@pytest.mark.parametrize(
    "body",
    [b"\xef\xbb\xbf" + PAGE, PAGE.decode().encode("utf-16"), b"\n\t " + PAGE + b"\n"],
    ids=["bom", "utf-16", "white space"],
)
async def test_a_page_in_another_dress_is_read(body, serve, connect):
    """A page with a byte-order mark, another encoding or surrounding white space is read."""
    server = await serve(reply(body, content_type="text/plain"))

    assert len((await connect(server).fetch_page()).records) == 1


async def test_what_the_server_says_is_shown_cut_and_masked(serve, connect):
    """A server's message is shown on one line, without control characters, numbers, addresses or tokens."""
    said = f"\x1b[31mbad\nfield for +910000012345, mail a.person@example.com, token {TOKEN} " + "blah " * 200
    server = await serve(reply(page(success=False, message=said), 400))

    error = await failure_of(connect(server).fetch_page())

    assert "bad field" in str(error)
    assert len(str(error)) < 400
    assert str(error).isprintable()
    assert_clean(error, "910000012345", "a.person@example")
