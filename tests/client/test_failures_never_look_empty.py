"""A failure is never an empty list, a zero or a None: the worst bug of the programs in the field.

Each row is a body that a server may send in place of a page, and each method that could read it as "no calls".
"""

from __future__ import annotations

import json

import pytest

from servetel_async import (
    AuthenticationError,
    CountDriftError,
    MalformedResponseError,
    PagingError,
    RateLimitError,
    RequestRejectedError,
    ServerError,
    ServetelError,
)
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import ACTS, call, page, reply

MAY = ("2024-05-01", "2024-05-31")
METHODS = {
    "calls": lambda client: client.calls(*MAY).collect(),
    "pages": lambda client: next_page(client),
    "unordered": lambda client: client.calls(*MAY, ordered=False).collect(),
    "count": lambda client: client.count(*MAY),
    "get_call": lambda client: client.get_call("17146577.1"),
    "get_call, narrowed": lambda client: client.get_call("17146577.1", from_date=MAY[0], to_date=MAY[1]),
    "fetch_page": lambda client: client.fetch_page(),
}


async def next_page(client) -> list[object]:
    return [found async for found in client.calls(*MAY).pages()]


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


NOTHING = {"count": 0, "limit": 20, "size": 0, "page": 1, "results": []}

BODIES: dict[str, tuple[int, bytes, type[ServetelError]]] = {
    "html": (200, b"<!doctype html><html><title>Sign in</title></html>", MalformedResponseError),
    "empty": (200, b"", MalformedResponseError),
    "white space": (200, b" \r\n", MalformedResponseError),
    "truncated": (200, page(call(1))[:-2], MalformedResponseError),
    "truncated in an empty list": (200, b'{"count": 0, "results": [', MalformedResponseError),
    "null": (200, b"null", MalformedResponseError),
    "a list": (200, b"[]", MalformedResponseError),
    "an object": (200, b"{}", MalformedResponseError),
    "a text": (200, b'"OK"', MalformedResponseError),
    "no results": (200, body(count=0, limit=20, size=0, page=1), MalformedResponseError),
    "results under another name": (200, body(count=0, data=[]), MalformedResponseError),
    "results null": (200, body(count=5, limit=20, size=5, page=1, results=None), MalformedResponseError),
    "results null, no count": (200, body(results=None), MalformedResponseError),
    "results a text": (200, body(count=5, results=""), MalformedResponseError),
    "results a number": (200, body(count=5, results=0), MalformedResponseError),
    "results false": (200, body(count=0, results=False), MalformedResponseError),
    "results of texts": (200, body(count=1, limit=20, size=1, page=1, results=["x"]), MalformedResponseError),
    "results of nulls": (200, body(count=1, limit=20, size=1, page=1, results=[None]), MalformedResponseError),
    "results of empty objects": (200, body(count=1, limit=20, size=1, page=1, results=[{}]), MalformedResponseError),
    "success false": (200, body(**NOTHING, success=False), RequestRejectedError),
    "success 'false'": (200, body(**NOTHING, success="false"), RequestRejectedError),
    "success 'False'": (200, body(**NOTHING, success="False"), RequestRejectedError),
    "success 0": (200, body(**NOTHING, success=0), RequestRejectedError),
    "success '0'": (200, body(**NOTHING, success="0"), RequestRejectedError),
    "success false alone": (200, body(success=False), RequestRejectedError),
    "expired": (200, body(**NOTHING, success=False, message="Token has expired"), AuthenticationError),
    "rate": (200, body(**NOTHING, success="false", message="Too many requests."), RateLimitError),
    "error": (200, body(error="database is away"), RequestRejectedError),
    "php warning": (200, b"<b>Warning</b>: Undefined index\n" + json.dumps(NOTHING).encode(), MalformedResponseError),
    "two pages": (200, json.dumps(NOTHING).encode() * 2, MalformedResponseError),
    "binary": (200, bytes(range(256)), MalformedResponseError),
    "204": (204, b"", MalformedResponseError),
    "206": (206, json.dumps(NOTHING).encode(), MalformedResponseError),
    "201": (201, json.dumps(NOTHING).encode(), MalformedResponseError),
    "500 with a page": (500, json.dumps(NOTHING).encode(), ServerError),
    "404 with a page": (404, json.dumps(NOTHING).encode(), ServetelError),
    "304": (304, b"", ServetelError),
}
#: These matter only to readers of records: a count may still be known.
RECORDS_ONLY = {"results of texts", "results of nulls", "results of empty objects"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", BODIES)
async def test_a_failure_is_an_error_in_every_method(case, method, serve, connect):
    """Any reply that is not a page of calls raises an error of the right class."""
    status, sent, kind = BODIES[case]
    server = await serve(reply(sent, status, length=None if status in (204, 304) else True))
    client = connect(server)
    if method == "count" and case in RECORDS_ONLY:
        return

    error = await failure_of(METHODS[method](client))

    assert isinstance(error, kind), error
    assert server.asked > 0
    assert_clean(error)


EMPTY = page(count=5)
"""No calls, where the same page counts five."""


async def test_a_stream_that_was_promised_calls_does_not_end_without(serve, connect):
    """The count is five and no call comes: the stream requests again, then raises."""
    server = await serve(reply(EMPTY))
    for options in ({}, {"ordered": False}, {"max_records": 3}):
        error = await failure_of(connect(server).calls(*MAY, **options).collect())
        assert type(error) is CountDriftError
        assert_clean(error)
    assert server.asked < 60


async def test_a_count_without_calls_is_not_none(serve, connect):
    """The count is five and no call comes: the result is five or an error, never zero."""
    server = await serve(reply(EMPTY))
    try:
        counted = await connect(server).count(*MAY)
    except PagingError as error:
        assert_clean(error)
    else:
        assert counted == 5


async def test_a_page_with_calls_and_a_count_of_none_is_not_no_calls(serve, connect):
    """A page with calls and a count of zero contradicts itself: the result must not be zero."""
    server = await serve(lambda request: reply(page(call(1), count=0, number=int(dict(request.query)["page"]))))
    client = connect(server)
    try:
        counted = await client.count(*MAY)
    except PagingError as error:
        assert_clean(error)
    else:
        assert counted != 0


@pytest.mark.parametrize("method", ["get_call", "get_call, narrowed", "fetch_page"])
async def test_a_page_that_was_promised_calls_is_not_none(method, serve, connect):
    """The count is five and the first page is empty: a call or page of it is an error, never None or empty."""
    server = await serve(reply(EMPTY))

    error = await failure_of(METHODS[method](connect(server)))

    assert isinstance(error, PagingError)
    assert_clean(error)


async def test_a_page_past_the_end_is_empty_and_no_error(serve, connect):
    """Past the last page an empty list is correct."""
    server = await serve(reply(page(count=5, number=3)))

    assert len(await connect(server).fetch_page(page=3)) == 0


@pytest.mark.parametrize("rows", [1, 2, 100])
async def test_a_count_on_a_server_that_does_not_heed_pages_ends(rows, serve, connect):
    """Each page has the same calls and no useful count: an error comes after a few requests."""
    sent = json.dumps({"results": [call(number) for number in range(rows)]}).encode()
    server = await serve(reply(sent))

    error = await failure_of(connect(server).count(*MAY))

    assert type(error) is PagingError
    assert server.asked < 20
    assert_clean(error)


async def test_no_calls_are_no_calls(serve, connect):
    """The opposite case: an honest empty page is empty in every method."""
    server = await serve(lambda request: reply(page(number=int(dict(request.query)["page"]))))
    client = connect(server)

    assert await client.calls(*MAY).collect() == []
    assert [found async for found in client.calls(*MAY).pages()] == []
    assert await client.count(*MAY) == 0
    assert await client.get_call("17146577.1") is None
    assert len(await client.fetch_page()) == 0


@pytest.mark.parametrize("name", ["no length, fin", "gzip truncated", "short body, fin", "reset before head"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_reply_that_did_not_arrive_is_an_error_in_every_method(method, name, serve, connect):
    """A reply that was cut on the way is not empty either."""
    server = await serve(ACTS[name])

    error = await failure_of(METHODS[method](connect(server)))

    assert error.retryable or isinstance(error, MalformedResponseError)
    assert_clean(error)


@pytest.mark.parametrize("case", ["html", "truncated", "results null", "success false", "204", "empty"])
async def test_a_page_in_the_middle_that_fails_leaves_an_exact_prefix(case, serve, connect):
    """If its third page fails, a stream delivers two pages, then raises at each step: it never just ends."""
    status, sent, kind = BODIES[case]
    pages = {n: page(*(call(i) for i in range(n * 10, n * 10 + 10)), count=50, number=n) for n in range(1, 6)}

    def script(request):
        number = int(dict(request.query)["page"])
        if number == 3:
            return reply(sent, status, length=None if status == 204 else True)
        return reply(pages[number])

    server = await serve(script)
    stream = connect(server, page_size=10).calls(*MAY)
    got = []

    async def read() -> None:
        async for found in stream:
            got.append(found)

    error = await failure_of(read())

    assert isinstance(error, kind)
    assert len(got) == 20
    assert error.page == 3
    assert error.checkpoint == stream.checkpoint is not None
    assert await failure_of(anext(stream)) is error
    assert_clean(error)
