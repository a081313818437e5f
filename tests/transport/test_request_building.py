"""Requests as they are built, seen by ``aioresponses``, which mocks above the socket: quick, but sees nothing below it.

aioresponses 0.7.9 makes a ``ClientResponse`` as aiohttp did before 3.14. ``Response`` gives it what is missing since.
"""

from __future__ import annotations

import contextlib
import re
from types import SimpleNamespace

import aiohttp
import pytest
from aioresponses import aioresponses
from yarl import URL

from servetel_async import AuthenticationError, CallQuery, RateLimitError, ServerError, ServetelClient
from tests.transport.conftest import QUICK
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import PAGE, PATH, call, page

BASE = "https://api.example.invalid"
ANY = re.compile(re.escape(BASE + PATH))


class Response(aiohttp.ClientResponse):
    """A response that can be made without a ``stream_writer``, because nothing is written to a mock."""

    def __init__(self, *args: object, **options: object) -> None:
        options.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **options)


@pytest.fixture
async def client(stack):
    """A client over a session of our own, which aioresponses has patched."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return ServetelClient(TOKEN, base_url=BASE, session=session, rate=None, retry=QUICK)


@pytest.fixture
def api():
    with aioresponses() as mocked:
        yield mocked


def answer(api: aioresponses, url: re.Pattern[str] = ANY, **reply: object) -> None:
    """Answer a GET, through the shim."""
    api.get(url, response_class=Response, **reply)


def sent(api: aioresponses) -> list[tuple[str, URL, dict[str, object]]]:
    """Every request: method, URL and arguments."""
    return [(method, url, made.kwargs) for (method, url), calls in api.requests.items() for made in calls]


async def test_a_page_is_one_get_with_the_token_and_without_redirects(client, api):
    """A page is one GET with the address, the token, and the options that keep the token from other hosts."""
    answer(api, body=PAGE)

    await client.fetch_page(CallQuery(callerid="+910000012345"), page_size=7)

    ((method, url, made),) = sent(api)
    assert method == "GET"
    assert url.path == PATH
    assert dict(url.query) == {"callerid": "+910000012345", "page": "1", "limit": "7"}
    assert made["headers"]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(made["headers"])
    assert made["allow_redirects"] is False
    assert made["timeout"].total is None  # the client itself ends an attempt, whatever it awaits
    assert made["timeout"].sock_connect == 10.0
    assert made["timeout"].sock_read == 30.0


async def test_a_stream_asks_for_each_page_once(client, api):
    """Two pages are two requests that differ in ``page`` alone."""
    records = [call(number) for number in range(15)]
    for number, part in ((1, records[:10]), (2, records[10:])):
        answer(api, re.compile(rf".*[?&]page={number}&.*"), body=page(*part, count=15, number=number))

    calls = await client.calls("2024-05-01", "2024-05-31", page_size=10).collect()

    assert len(calls) == 15
    assert sorted(url.query["page"] for _, url, _ in sent(api)) == ["1", "2"]


@pytest.mark.parametrize(
    ("status", "kind", "requests"), [(401, AuthenticationError, 1), (429, RateLimitError, 4), (503, ServerError, 4)]
)
async def test_a_status_is_judged_above_the_socket_too(status, kind, requests, client, api):
    """The verdict needs no socket."""
    answer(api, status=status, body=b"{}", repeat=True)

    error = await failure_of(client.fetch_page())

    assert type(error) is kind
    assert len(sent(api)) == requests == error.attempts
    assert_clean(error)


async def test_plain_aioresponses_still_needs_the_shim(stack, api):
    """When this fails, aioresponses supports aiohttp 3.14 and the shim can be removed."""
    session = await stack.enter_async_context(aiohttp.ClientSession())
    api.get(ANY, body=PAGE)

    with contextlib.suppress(TypeError):
        async with session.get(f"{BASE}{PATH}?page=1"):
            pytest.fail("the shim can go")
