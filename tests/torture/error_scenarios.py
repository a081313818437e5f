"""A way to raise each class of error, with the number in every request and a person in every reply.

The canaries are constants, so no frame of this file holds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl

import aiohttp
import trustme

from servetel_async import (
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
    Retry,
    ServerError,
    StreamClosedError,
    Timeouts,
    TLSError,
    WrongAddressError,
)
from tests.bulk.small_server import Answer, SmallServer
from tests.client.test_secrets import EMAIL, NAME, NUMBER, PASSWORD, WAYS, person, said
from tests.transport.leaks import TOKEN
from tests.transport.wire_server import ACTS, OK, closed_port, page, reply

DAYS = ("2024-05-01", "2024-05-31")
QUICK = {
    "timeouts": Timeouts(connect=0.5, read=0.1, total=0.5),
    "retry": Retry(attempts=2, base=0.001, throttled_base=0.001),
}
LOGIN = {"email": EMAIL, "password": PASSWORD}
SAYS_NO = json.dumps({"success": False, "message": f"{NUMBER} {EMAIL} {TOKEN}"}).encode()


def people_at(calls=200):
    return [(f"2024-05-{1 + number % 28:02} 10:{number // 28:02}:00", f"call-{number:04}") for number in range(calls)]


def people(asked):
    """A page of calls of that person; the odd record is undecodable."""
    rows = [person(1, id=key, date=start[:10], time=start[11:]) for start, key in asked.rows]
    return Answer(body=page(*rows, count=len(asked.found), number=asked.page, limit=asked.limit))


def refuse_from(nth, status=503):
    body = said(status).steps[0].data.partition(b"\r\n\r\n")[2]
    return lambda asked: people(asked) if asked.nth < nth else Answer(status=status, body=body)


def asked_of(act, what="count", *, login=False):
    """Call a server that plays this act; each request has the number."""

    async def fail(serve, connect, directory):
        client = connect(await serve(act), **QUICK, **(LOGIN if login else {}))
        await {
            "pull": lambda: client.pull(directory / "calls.csv", *DAYS, callerid=NUMBER),
            "stream": lambda: client.calls(*DAYS, page_size=1, callerid=NUMBER).collect(),
            "count": lambda: client.count(*DAYS, callerid=NUMBER),
        }[what]()

    return fail


def mistaken(what):
    """Make a mistake that is detected before anything is sent."""

    async def fail(serve, connect, directory):
        client = connect(await serve())
        await {
            "number": lambda: client.count(*DAYS, callerid=f"{NUMBER}\n"),
            "kind": lambda: client.count(*DAYS, agents=[NUMBER, f"x|{NAME}"]),
            "name": lambda: client.calls(*DAYS, agent=NAME).collect(),
            "order": lambda: client.count(*DAYS[::-1], callerid=NUMBER),
            "column": lambda: client.pull(directory / "a.csv", *DAYS, columns=["a"], callerid=NUMBER),
            "checkpoint": lambda: client.calls(*DAYS, callerid=NUMBER, start="no").collect(),
            "database": lambda: client.pull(f"mysql://u:{PASSWORD}@127.0.0.1/calls", *DAYS),
        }[what]()

    return fail


def failing_code(whose):
    """Give the client code that raises, with the number and the name in its message."""

    def fail(*_):
        raise KeyError(f"{NUMBER} {NAME} {PASSWORD}")

    async def hook(*_):
        fail()

    class Jar(aiohttp.DummyCookieJar):
        def filter_cookies(self, request_url):
            fail()

    async def ask(serve, connect, directory):
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(hook)
        async with aiohttp.ClientSession(cookie_jar=Jar()) as session:
            options = {"provider": {}, "hook": {"trace_configs": [trace]}, "session": {"session": session}}[whose]
            client = connect(await serve(), *([fail] if whose == "provider" else []), **QUICK, **options)
            await client.count(*DAYS, callerid=NUMBER)

    return ask


async def read_after_close(serve, connect, directory):
    stream = connect(await serve(reply(page(person(1), count=1)))).calls(*DAYS, callerid=NUMBER)
    await anext(stream)
    await stream.aclose()
    await anext(stream)


async def no_slot(serve, connect, directory):
    server = await serve(ACTS["head hangs"])
    client = connect(server, max_concurrency=1, timeouts=Timeouts(acquire=0.05))
    first = asyncio.ensure_future(client.count(*DAYS, callerid=NUMBER))
    await server.until(lambda: server.asked == 1)
    try:
        await client.count(DAYS[0], callerid=NUMBER)
    finally:
        first.cancel()
        await asyncio.wait([first])


async def too_late(serve, connect, directory):
    await connect(await serve(ACTS["head hangs"])).count(*DAYS, callerid=NUMBER, deadline=0.1)


async def untrusted(serve, connect, directory):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    await connect(await serve(tls=context, name="localhost")).count(*DAYS, callerid=NUMBER)


async def nobody_there(serve, connect, directory):
    await connect(f"http://127.0.0.1:{closed_port()}").count(*DAYS, callerid=NUMBER)


async def no_directory(serve, connect, directory):
    await connect(await serve()).pull(directory / "none" / "calls.csv", *DAYS, callerid=NUMBER)


async def no_postgres(serve, connect, directory):
    await connect(await serve()).pull(f"postgresql://someone:{PASSWORD}@127.0.0.1:1/calls", *DAYS, callerid=NUMBER)


def disk_full_at(ending):
    """A file that may not grow beyond some windows, so that writes of calls fail."""

    async def fail(serve, connect, directory):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with SmallServer(people_at(600), people) as api:
            client = connect(api.base_url, page_size=100)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            try:
                await client.pull(directory / f"calls{ending}", *DAYS, callerid=NUMBER)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return fail


async def locked(serve, connect, directory):
    server = await serve(ACTS["head hangs"])
    client = connect(server)
    first = asyncio.ensure_future(client.pull(directory / "calls.csv", *DAYS, callerid=NUMBER))
    await server.until(lambda: server.asked == 1)
    try:
        await client.pull(directory / "calls.csv", *DAYS, callerid=NUMBER)
    finally:
        first.cancel()
        await asyncio.wait([first])


async def of_another_query(serve, connect, directory):
    stream = connect(await serve(reply(page(person(1), count=9)))).calls(*DAYS, callerid=NUMBER)
    await anext(stream)
    await stream.aclose()
    await connect(await serve()).calls(*DAYS, callerid=NUMBER[:-1], start=stream.checkpoint).collect()


async def of_another_pull(serve, connect, directory):
    async with SmallServer(people_at(600), refuse_from(90, 401)) as api:
        client = connect(api.base_url, page_size=5, max_concurrency=1, **QUICK)
        with contextlib.suppress(AuthenticationError):
            await client.pull(directory / "calls.csv", *DAYS, callerid=NUMBER)
        assert list(directory.glob("*.journal"))
        await client.pull(directory / "calls.csv", *DAYS, callerid=NUMBER[:-1])


SCENARIOS = {
    ConfigurationError: [
        *map(mistaken, ("number", "kind", "name", "order", "column", "checkpoint", "database")),
    ],
    StreamClosedError: [read_after_close],
    CallbackError: [failing_code("provider"), failing_code("hook"), failing_code("session")],
    OverloadedError: [no_slot],
    DeadlineExceededError: [too_late],
    AuthenticationError: [asked_of(said(401)), asked_of(said(401), login=True), asked_of(said(401), "pull")],
    PermissionDeniedError: [asked_of(said(403)), asked_of(said(403), "pull")],
    WrongAddressError: [asked_of(WAYS["redirect"]), asked_of(said(404), "stream"), asked_of(WAYS["redirect"], "pull")],
    RequestRejectedError: [asked_of(said(422)), asked_of(reply(SAYS_NO, 400), "pull")],
    RateLimitError: [asked_of(said(429)), asked_of(said(429), "pull"), asked_of(reply(SAYS_NO, 429), login=True)],
    ServerError: [asked_of(said(503)), asked_of(said(500), "pull"), asked_of(said(502), login=True)],
    ConnectionFailedError: [asked_of(WAYS["reset"]), asked_of(WAYS["cut"], "pull"), nobody_there],
    TLSError: [untrusted],
    RequestTimeoutError: [asked_of(WAYS["hang"]), asked_of(WAYS["hang"], "pull")],
    MalformedResponseError: [
        *(asked_of(WAYS[way], what) for way in ("garbled", "not json, header", "html") for what in ("count", "pull")),
        asked_of(WAYS["unreadable record"], "stream"),
        asked_of(OK, login=True),
    ],
    BodyTooLargeError: [asked_of(WAYS["too large"]), asked_of(WAYS["too large"], "pull")],
    PagingError: [asked_of(WAYS["another page"], "stream"), asked_of(WAYS["another page"], "pull")],
    CountDriftError: [asked_of(WAYS["no calls"], "stream")],
    OutOfWindowError: [asked_of(WAYS["out of window"], "stream"), asked_of(WAYS["out of window"], "pull")],
    OutputError: [no_directory, *map(disk_full_at, (".csv", ".ndjson", ".parquet", ".db"))],
    OutputLockedError: [locked],
    OutputUnavailableError: [no_postgres],
    ResumeMismatchError: [of_another_query, of_another_pull],
}
