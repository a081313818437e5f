"""A login's token is refreshed before it ends; if that fails, one login follows. Hours pass on a fake clock."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from servetel_async import AuthenticationError, RateLimitError, ServerError, ServetelClient, ServetelError, Timeouts
from tests.bulk import fake_clock
from tests.transport.conftest import QUICK
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import ACTS, OK, PATH, WireServer, reply

EMAIL, PASSWORD = "canary.person@example.com", "canary-password-93f1"
LOGIN, REFRESH = "/v1/auth/login", "/v1/auth/refresh"
HOUR = 3600


def issued(token: str, expires_in: object = HOUR, **fields: object):
    answer = {"success": True, "access_token": token, "token_type": "bearer", "expires_in": expires_in, **fields}
    return reply(json.dumps(answer).encode())


class Portal:
    """Logs in, refreshes as the test says, and accepts only its latest token."""

    def __init__(self, refresh=None, login=None, expires_in: object = HOUR) -> None:
        self.refresh = refresh
        self.login = login
        self.expires_in = expires_in
        self.given = 0

    def __call__(self, request):
        if request.path == PATH:
            fits = request.header("Authorization") == f"Bearer token-number-{self.given}"
            return OK if fits else reply(b'{"success": false, "message": "Token has expired"}', 401)
        own = self.refresh if request.path == REFRESH else self.login
        if own is not None and self.given:
            return own
        self.given += 1
        return issued(f"token-number-{self.given}", self.expires_in)


@contextlib.asynccontextmanager
async def logged_in(portal: Portal, **options):
    """A client that has logged in and got a page."""
    async with (
        WireServer(portal) as server,
        ServetelClient(
            **{"email": EMAIL, "password": PASSWORD, "base_url": server.url, "rate": None, "retry": QUICK, **options}
        ) as client,
    ):
        await client.fetch_page()
        yield server, client


def on_clock(work):
    """Run a test on the fake clock."""
    return fake_clock.run(work())


def paths(server) -> list[str]:
    return [request.path for request in server.requests]


def test_a_token_is_refreshed_once_before_it_ends():
    """A token that is about to expire is refreshed once for all requests, before the next request uses it."""

    async def main():
        async with logged_in(Portal(), max_concurrency=8) as (server, client):
            await asyncio.sleep(HOUR - 31)
            await client.fetch_page()
            assert paths(server) == [LOGIN, PATH, PATH]

            await asyncio.sleep(2)
            await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(8)))

            assert paths(server)[3:] == [REFRESH, *[PATH] * 8]
            refresh = server.requests[3]
            assert (refresh.method, refresh.header("Authorization")) == ("POST", "Bearer token-number-1")
            assert {request.header("Authorization") for request in server.requests[4:]} == {"Bearer token-number-2"}

    on_clock(main)


#: Bad answers of a refresh.
FAILING = {
    **{
        name: ACTS[name]
        for name in ("reset before head", "fin before head", "short body, fin", "garbage", "head hangs")
    },
    **{str(status): reply(b"{}", status) for status in (204, 302, 400, 401, 403, 404, 422, 500, 502, 503, 504)},
    "429": reply(b"{}", 429, ("Retry-After", "5000")),
    "web page": reply(b"<html>please log in</html>"),
    "empty": reply(b""),
    "list": reply(b"[]"),
    "text": reply(b'"ok"'),
    "no token": reply(b'{"success": true}'),
    "null": reply(b'{"access_token": null}'),
    "number": reply(b'{"access_token": 12345678}'),
    "masked": reply(b'{"access_token": "********"}'),
    "two words": reply(b'{"access_token": "two words here"}'),
    "line end": reply(b'{"access_token": "abc\\r\\nX-Evil: 1"}'),
    "refused": reply(b'{"success": false, "message": "Token has expired"}'),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_refresh_that_fails_is_followed_by_one_login(name):
    """If the refresh fails, one login follows for all that wait, and no other refresh."""

    async def main():
        portal = Portal(FAILING[name])
        async with logged_in(portal, timeouts=Timeouts(read=5.0)) as (server, client):
            await asyncio.sleep(HOUR)
            await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(6)))

            sent = paths(server)[2:]
            again = [REFRESH] if name == "fin before head" or name == "reset before head" else []
            assert sent in ([REFRESH, LOGIN, *[PATH] * 6], [REFRESH, *again, LOGIN, *[PATH] * 6])
            assert server.requests[-1].header("Authorization") == "Bearer token-number-2"

    on_clock(main)


def test_a_refresh_and_a_login_that_fail_are_no_loop():
    """The login's failure ends the call after two tries; the refresh is not sent again."""

    async def main():
        async with logged_in(Portal(reply(b"", 503), reply(b"", 503))) as (server, client):
            await asyncio.sleep(HOUR)
            error = await failure_of(client.fetch_page())

            assert type(error) is ServerError
            assert paths(server)[2:] == [REFRESH, LOGIN, LOGIN]
            assert_clean(error, EMAIL, PASSWORD)

    on_clock(main)


@pytest.mark.parametrize(
    ("login", "kind"),
    [
        (reply(b'{"success": false, "message": "Invalid credentials"}', 401), AuthenticationError),
        (reply(b"{}", 429, ("Retry-After", "600")), RateLimitError),
    ],
)
def test_a_login_that_is_refused_after_a_refresh_is_made_once(login, kind):
    """Later calls get the first login's refusal, because more logins would lock the account."""

    async def main():
        async with logged_in(Portal(reply(b"", 404), login)) as (server, client):
            await asyncio.sleep(HOUR)
            errors = [await failure_of(client.fetch_page()) for _ in range(5)]

            assert {type(error) for error in errors} == {kind}
            assert paths(server)[2:] == [REFRESH, LOGIN]

    on_clock(main)


@pytest.mark.parametrize("status", [403, 404])
def test_a_login_behind_a_firewall_that_passes_is_temporary(status):
    """A 403 or 404 of a login route that has worked is a retryable error."""

    async def main():
        portal = Portal(reply(b"", 404), reply(b"<html>Forbidden</html>", status))
        async with logged_in(portal) as (server, client):
            await asyncio.sleep(HOUR)
            error = await failure_of(client.fetch_page())
            assert (type(error), error.retryable) == (ServerError, True)
            assert paths(server).count(LOGIN) <= 3

            portal.login = None
            assert len((await client.fetch_page()).records) == 1

    on_clock(main)


@pytest.mark.parametrize(
    "expires_in",
    [int("1" + "0" * 400), "1" + "0" * 400, -1, 0, "soon", "", True, None, [], {}, 10**30],
    ids=["400 digits", "400 digits as text", "-1", "0", "word", "empty", "true", "null", "list", "object", "30 digits"],
)
def test_a_lifetime_that_is_none_breaks_nothing(expires_in):
    """A token with an unusable lifetime is used, and is not refreshed within the hour."""

    async def main():
        async with logged_in(Portal(expires_in=expires_in)) as (server, client):
            await asyncio.sleep(HOUR / 2)
            await client.fetch_page()
            assert paths(server) == [LOGIN, PATH, PATH]

    on_clock(main)


@pytest.mark.parametrize("written", ["NaN", "1e400", "-1e400", "Infinity", "1" * 5000])
def test_a_lifetime_that_is_no_number_of_json_hides_no_token(written):
    """A lifetime that cannot be decoded does not lose the token next to it."""

    async def main():
        body = f'{{"access_token": "token-number-1", "expires_in": {written}}}'.encode()
        script = lambda request: reply(body) if request.path == LOGIN else OK  # noqa: E731
        async with WireServer(script) as server:
            async with ServetelClient(
                email=EMAIL, password=PASSWORD, base_url=server.url, rate=None, retry=QUICK
            ) as client:
                await client.fetch_page()
                await asyncio.sleep(HOUR / 2)
                await client.fetch_page()
            assert paths(server) == [LOGIN, PATH, PATH]

    on_clock(main)


@pytest.mark.parametrize("blank", [" {} ", "{}\n", "\t{}\r\n"])
def test_blanks_around_a_logins_token_go(blank):
    """Blanks around the token are removed."""

    async def main():
        script = lambda request: issued(blank.format("token-number-1")) if request.path == LOGIN else OK  # noqa: E731
        async with WireServer(script) as server:
            async with ServetelClient(email=EMAIL, password=PASSWORD, base_url=server.url, rate=None) as client:
                await client.fetch_page()
            assert server.requests[-1].header("Authorization") == "Bearer token-number-1"

    on_clock(main)


def test_a_refresh_that_hangs_is_cancelled_with_its_client():
    """Closing the client during a refresh ends the refresh and all calls that wait for it."""

    async def main():
        async with logged_in(Portal(ACTS["head hangs"])) as (server, client):
            await asyncio.sleep(HOUR)
            call = asyncio.ensure_future(client.fetch_page())
            await server.until(lambda: REFRESH in paths(server))
            await client.aclose()
            assert isinstance(await failure_of(call), ServetelError)

    on_clock(main)
