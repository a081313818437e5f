"""Where the token comes from, how often it is requested, and what the other calls do meanwhile."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import pickle
import time
import traceback

import pytest

from servetel_async import (
    AuthenticationError,
    CallbackError,
    ConfigurationError,
    MalformedResponseError,
    RateLimitError,
    ServerError,
    ServetelError,
    StreamClosedError,
    Timeouts,
)
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import ACTS, OK, PATH, http, reply

EMAIL, PASSWORD = "canary.person@example.com", "canary-password-93f1"
LOGIN = "/v1/auth/login"
KNOWN = {"email": EMAIL, "password": PASSWORD}
EXPIRED = reply(b'{"success": false, "message": "Token has expired"}', 401)
MAY = ("2024-05-01", "2024-05-31")
#: A range of its own for each concurrent call, because equal calls share one request.
DAYS = [f"2024-05-{day:02}" for day in range(1, 21)]


def issued(token: str = "issued-token-1234", **fields: object) -> bytes:
    answer = {"success": True, "access_token": token, "token_type": "bearer", "expires_in": 3600}
    return json.dumps({**answer, **fields}).encode()


def paths(server) -> list[str]:
    return [request.path for request in server.requests]


def bearer(request) -> str:
    return request.header("Authorization").removeprefix("Bearer ")


# A token that is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expiry", ["401", "200"])
async def test_a_wrong_token_costs_one_request(expiry, emulate, connect, small):
    """A refused token that cannot be replaced ends the call at once, and is shown nowhere."""
    api = await emulate(small, token="the-right-token", expiry=expiry)

    error = await failure_of(connect(api).count())

    assert type(error) is AuthenticationError
    assert (len(api.requests), error.attempts, error.stopped_by) == (1, 1, "final")
    assert_clean(error)


@pytest.mark.parametrize("expiry", ["401", "200"])
async def test_a_static_token_that_dies_ends_the_stream_at_an_exact_place(expiry, emulate, connect, small):
    """A stream whose token dies delivers an exact prefix, and its error says where to resume with another token."""
    api = await emulate(small, token_requests=5, expiry=expiry)
    stream = connect(api, page_size=10).calls(*MAY)
    got = []

    async def read() -> None:
        async for call in stream:
            got.append(call.id)

    error = await failure_of(read())

    assert type(error) is AuthenticationError
    assert got == api.truth()[: len(got)]
    twin = await emulate(small)
    rest = await connect(twin, page_size=10).calls(*MAY, start=error.checkpoint).collect()
    assert got + [call.id for call in rest] == twin.truth()


@pytest.mark.parametrize("pasted", ["Bearer {}", "bearer={}", "Authorization: Bearer {}", "{}"])
async def test_a_token_is_sent_as_the_api_wants_it(pasted, serve, connect):
    """The header has the token once, behind ``Bearer``, however it was pasted."""
    server = await serve()

    await connect(server, pasted.format("abcdefgh12345678")).fetch_page()

    assert server.requests[0].header("Authorization") == "Bearer abcdefgh12345678"


# A login -------------------------------------------------------------------------------------------------------------------


async def test_twenty_calls_at_once_log_in_once(emulate, connect, small):
    """One login serves all calls that wait for it, and all later ones."""
    api = await emulate(small, **KNOWN, latency=0.01)
    client = connect(api, **KNOWN)

    counts = await asyncio.gather(*(client.count("2024-05-01", f"2024-05-31 23:59:{40 + n}") for n in range(20)))
    await client.count()

    assert counts == [300] * 20
    assert (api.logins, api.refreshes) == (1, 0)


@pytest.mark.parametrize("expiry", ["401", "200", "400", "403", "422", "500"])
@pytest.mark.parametrize("concurrency", [4, 16])
@pytest.mark.parametrize("seed", range(3))
async def test_a_token_that_dies_every_twenty_requests_is_not_noticed(
    seed, concurrency, expiry, emulate, connect, month
):
    """A stream of 300 pages over tokens of 20 requests each is complete, and logs in about once per token."""
    api = await emulate(month, seed=seed, token=None, **KNOWN, token_requests=20, expiry=expiry, jitter=0.001)
    client = connect(api, **KNOWN, max_concurrency=concurrency, page_size=10)

    calls = await client.calls(*MAY).collect()

    assert [call.id for call in calls] == api.truth()
    assert api.logins <= 300 / 20 + 3


async def test_a_wrong_password_is_tried_once(emulate, connect, small):
    """Ten concurrent calls and ten later ones share one refused login: more tries would lock the account."""
    api = await emulate(small, email=EMAIL, password="another")
    client = connect(api, **KNOWN)

    errors = await asyncio.gather(*(failure_of(client.count(day)) for day in DAYS[:10]))
    errors += [await failure_of(client.count()) for _ in range(10)]

    assert {type(error) for error in errors} == {AuthenticationError}
    assert (api.logins, len(api.requests)) == (1, 1)
    assert len({id(error) for error in errors}) == 20
    for error in errors:
        assert_clean(error, EMAIL, PASSWORD)


async def test_a_refused_login_does_not_grow_with_each_call(emulate, connect, small):
    """The remembered refusal holds no traceback of the calls that raised it, so repeated calls leak no memory."""
    api = await emulate(small, email=EMAIL, password="another")
    client = connect(api, **KNOWN)

    lengths = []
    for _ in range(30):
        await failure_of(client.count())
        lengths.append(len(list(traceback.walk_tb(client._transport.tokens._refused.__traceback__))))

    assert lengths[-1] == lengths[1]


async def test_a_throttled_login_is_not_repeated_before_its_time(serve, connect):
    """All callers get the 429 of a login, and no second login is sent before its time."""
    body = b'{"success": false, "message": "Too many login attempts.", "retry_after": "2030-01-01 05:30:00"}'
    server = await serve(reply(body, 429, ("Date", "Mon, 31 Dec 2029 23:59:00 GMT")))
    client = connect(server, **KNOWN)

    errors = [await failure_of(client.count()) for _ in range(5)]

    assert {type(error) for error in errors} == {RateLimitError}
    assert all(50 < error.retry_after <= 60 for error in errors)
    assert paths(server) == [LOGIN]
    assert_clean(errors[0], EMAIL, PASSWORD)


@pytest.mark.parametrize("status", [200, 401, 422])
async def test_a_throttled_login_is_no_refusal_whatever_its_status(status, serve, connect):
    """A body with a time to wait means too many tries, not a wrong password."""
    body = b'{"success": false, "message": "Too many login attempts.", "retry_after": "2030-01-01 05:30:00"}'
    server = await serve(reply(body, status, ("Date", "Mon, 31 Dec 2029 23:59:00 GMT")))
    client = connect(server, **KNOWN)

    errors = [await failure_of(client.count()) for _ in range(3)]

    assert {type(error) for error in errors} == {RateLimitError}
    assert paths(server) == [LOGIN]


async def test_a_login_is_tried_again_after_its_throttle(serve, connect):
    """After the throttle's time the next call logs in."""
    throttle = reply(b"{}", 429, ("Retry-After", "0.05"))
    answers = {LOGIN: iter([throttle, reply(issued())])}
    server = await serve(lambda request: next(answers[request.path]) if request.path in answers else OK)
    client = connect(server, **KNOWN)
    error = await failure_of(client.fetch_page())
    assert error.retry_after == 0.05
    until = time.monotonic() + error.retry_after
    while time.monotonic() < until:
        await asyncio.sleep(until - time.monotonic())

    assert len((await client.fetch_page()).records) == 1


GARBAGE = [
    (200, b"<html>please log in</html>", MalformedResponseError),
    (200, b"", MalformedResponseError),
    (200, b"[]", MalformedResponseError),
    (200, b'"ok"', MalformedResponseError),
    (200, b'{"success": true}', MalformedResponseError),
    (200, b'{"access_token": null}', MalformedResponseError),
    (200, b'{"access_token": 12345678}', MalformedResponseError),
    (200, b'{"access_token": "********"}', MalformedResponseError),
    (200, b'{"access_token": "two words here"}', MalformedResponseError),
    (200, b'{"access_token": "abc\\r\\nX-Evil: 1"}', MalformedResponseError),
    (204, b"", MalformedResponseError),
    (500, b"<html>", ServerError),
    (503, b"", ServerError),
    (302, b"", ServetelError),
    (403, b'{"message": "Missing Authentication Token"}', ServetelError),
    (404, b"nothing here", ServetelError),
]


@pytest.mark.parametrize(("status", "body", "kind"), GARBAGE, ids=[f"{row[0]} {n}" for n, row in enumerate(GARBAGE)])
async def test_a_login_answered_with_garbage_is_an_error_of_ours(status, body, kind, serve, connect):
    """Any bad reply of the login route becomes one of our errors, after two tries at most, and shows no password."""
    server = await serve(reply(body, status, length=None if status == 204 else True))
    client = connect(server, **KNOWN)

    error = await failure_of(client.count())

    assert isinstance(error, kind), error
    assert set(paths(server)) == {LOGIN}
    assert server.asked <= 2
    assert_clean(error, EMAIL, PASSWORD)


@pytest.mark.parametrize("name", ["reset before head", "fin before head", "short body, fin", "garbage", "head hangs"])
async def test_a_login_that_is_lost_on_the_wire_is_an_error_of_ours(name, serve, connect):
    """A login without a reply is repeated less often than a page, because the server may have counted it."""
    server = await serve(ACTS[name])
    client = connect(server, **KNOWN, timeouts=Timeouts(read=0.1))

    error = await failure_of(client.count())

    assert isinstance(error, ServetelError)
    assert not isinstance(error, AuthenticationError)
    assert server.asked <= 2, "a login must not be looped"
    assert_clean(error, EMAIL, PASSWORD)


async def test_an_outage_of_the_login_is_no_storm_of_logins(serve, connect):
    """Twenty calls that wait for a login that fails with 503 do not send twenty logins."""
    server = await serve(reply(b"", 503))
    client = connect(server, **KNOWN, max_concurrency=20)

    errors = await asyncio.gather(*(failure_of(client.count(day)) for day in DAYS))

    assert {type(error) for error in errors} == {ServerError}
    assert server.asked <= 5
    assert len({id(error) for error in errors}) == 20


async def test_who_is_cancelled_while_leading_takes_the_login_from_nobody(serve, connect):
    """If the call that began the login is cancelled, the login continues, and the others get its token."""
    server = await serve(lambda request: ACTS["head hangs"] if request.path == LOGIN else OK)
    client = connect(server, **KNOWN)
    leader, *others = [asyncio.ensure_future(client.fetch_page(page_size=1 + n)) for n in range(6)]
    await server.until(lambda: server.asked == 1)

    leader.cancel()
    others.pop().cancel()
    server.release(http(issued()))
    pages = await asyncio.gather(*others)

    assert leader.cancelled()
    assert len(pages) == 4
    assert paths(server).count(LOGIN) == 1


async def test_closing_ends_a_login_that_is_under_way(serve, connect):
    """Closing the client during a login ends the login and all calls that wait for it, and logs nothing."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, **KNOWN)
    calls = [asyncio.ensure_future(client.fetch_page(page_size=1 + n)) for n in range(3)]
    await server.until(lambda: server.asked == 1)

    async with asyncio.timeout(5):
        await client.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(result) for result in results} == {StreamClosedError}
    await server.until(lambda: not server.open)


async def test_a_client_that_was_closed_during_a_login_logs_in_again(serve, connect):
    """A client that is opened again sends a new login."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, **KNOWN)
    call = asyncio.ensure_future(failure_of(client.fetch_page()))
    await server.until(lambda: server.asked == 1)
    await client.aclose()
    await call
    server.script = lambda request: reply(issued()) if request.path == LOGIN else OK

    async with client:
        assert len((await client.fetch_page()).records) == 1


async def test_a_login_sends_the_credentials_and_no_token(serve, connect):
    """The login is a POST of JSON, to its own route, without an Authorization header; the page then bears its token."""
    server = await serve(lambda request: reply(issued("fresh-token-4321")) if request.path == LOGIN else OK)

    await connect(server, **KNOWN).fetch_page()

    login, records = server.requests
    assert (login.method, login.path, login.header("Authorization")) == ("POST", LOGIN, None)
    assert json.loads(login.body) == KNOWN
    assert login.header("Content-Type").startswith("application/json")
    assert (records.method, records.path, bearer(records)) == ("GET", PATH, "fresh-token-4321")


async def test_a_token_that_is_refused_though_fresh_is_final(serve, connect):
    """If the API refuses the fresh token of a login, the call fails; it does not log in for ever."""
    server = await serve(lambda request: reply(issued()) if request.path == LOGIN else EXPIRED)

    error = await failure_of(connect(server, **KNOWN).count())

    assert type(error) is AuthenticationError
    assert paths(server).count(LOGIN) <= 2
    assert paths(server).count(PATH) == error.attempts <= 2


# A provider ----------------------------------------------------------------------------------------------------------------


def forged(end: float, name: str = "x") -> str:
    parts = ({"alg": "none"}, {"exp": end, "sub": name})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*texts, "c2lnbmF0dXJl"])


def provider_of(tokens, style: str, asked: list[int]):
    """A provider in one of the accepted styles."""

    def plain() -> str:
        asked.append(1)
        return next(tokens)

    async def coroutine() -> str:
        asked.append(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        return next(tokens)

    class Callable:
        def __call__(self) -> object:
            return coroutine()

    return {"sync": plain, "async": coroutine, "object": Callable()}[style]


@pytest.mark.parametrize("style", ["sync", "async", "object"])
async def test_a_provider_is_asked_once_for_many_calls(style, serve, connect):
    """Calls that start together wait for one answer; later ones use it."""
    server = await serve()
    asked: list[int] = []
    client = connect(server, provider_of(iter(["first-token-1"]), style, asked))

    await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(10)))
    await client.fetch_page()

    assert len(asked) == 1


@pytest.mark.parametrize("style", ["sync", "async", "object"])
@pytest.mark.parametrize(
    "refusal", [EXPIRED, reply(b'{"success": false, "message": "Token has expired"}')], ids=["401", "200"]
)
async def test_a_provider_is_asked_once_per_expiry(refusal, style, serve, connect):
    """When a token dies under many calls, the provider is asked once, and every call succeeds with the new token."""
    live = {"token": "first-token-1"}
    server = await serve(lambda request: OK if bearer(request) == live["token"] else refusal)
    asked: list[int] = []
    client = connect(
        server, provider_of(iter(["first-token-1", "second-token-2", "third-token-3"]), style, asked), max_concurrency=8
    )
    await client.fetch_page()

    for number, token in enumerate(("second-token-2", "third-token-3"), 2):
        live["token"] = token
        pages = await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(8)))
        assert [len(page.records) for page in pages] == [1] * 8
        assert len(asked) == number


async def test_a_provider_with_nothing_new_ends_the_call(serve, connect):
    """A provider that gives the refused token again is asked once more; then the call fails."""
    server = await serve(EXPIRED)
    asked: list[int] = []
    client = connect(server, provider_of(itertools.repeat("same-token-1"), "async", asked))

    error = await failure_of(client.fetch_page())

    assert type(error) is AuthenticationError
    assert (len(asked), server.asked, error.attempts) == (2, 1, 1)
    assert "token provider" in error.why
    assert "token provider" in error.fix


async def test_a_token_that_says_when_it_ends_is_replaced_before(serve, connect):
    """Shortly before the ``exp`` of a JWT, the provider is asked for another token."""
    server = await serve()
    asked: list[int] = []
    tokens = [forged(time.time() + 5, "old"), forged(time.time() + 3600, "new")]
    client = connect(server, provider_of(iter(tokens), "async", asked))

    for _ in range(3):
        await client.fetch_page()

    assert [bearer(request) for request in server.requests] == [tokens[0], tokens[1], tokens[1]]
    assert len(asked) == 2


@pytest.mark.parametrize("given", ["********", "two words", "", "short", None, 7, "abcdefgh\r\nX: y", "टोकन-abcdefgh"])
async def test_a_provider_that_gives_no_token_is_told_so(given, serve, connect):
    """A provider's token is checked like a given token; nothing is sent."""
    server = await serve()

    error = await failure_of(connect(server, lambda: given).fetch_page())

    assert type(error) is ConfigurationError
    assert server.asked == 0
    assert_clean(error)


class VaultError(Exception):
    """An exception with a constructor of its own."""

    def __init__(self, code: int, secret: str) -> None:
        super().__init__(f"vault says {code}")
        self.code = code


@pytest.mark.parametrize(
    "error", [VaultError(7, "x"), OSError(5, "vault"), KeyError("k")], ids=lambda error: type(error).__name__
)
async def test_a_provider_that_raises_is_heard(error, serve, connect):
    """Each waiting call gets the class of the provider's error, and the next call asks again."""
    server = await serve()
    failing = iter([True])

    async def provider() -> str:
        await asyncio.sleep(0)
        if next(failing, False):
            raise error
        return "good-token-123"

    client = connect(server, provider)
    results = await asyncio.gather(*(client.fetch_page(page_size=1 + n) for n in range(3)), return_exceptions=True)

    assert {type(result) for result in results} == {CallbackError}
    assert {result.what for result in results} == {f"the token provider raised {type(error).__name__}"}
    assert server.asked == 0
    assert len((await client.fetch_page()).records) == 1


async def test_a_providers_own_timeout_is_not_the_deadline(serve, connect):
    """A ``TimeoutError`` of the provider is not reported as the call's deadline."""
    server = await serve()

    async def provider() -> str:
        raise TimeoutError("the vault")

    with pytest.raises(CallbackError, match="TimeoutError"):
        await connect(server, provider).fetch_page(deadline=60)
    assert server.asked == 0


async def test_a_provider_outlives_its_first_asker(serve, connect):
    """If the first caller is cancelled while the provider works, the others still get the token."""
    server = await serve()
    answer = asyncio.Event()
    asked = []

    async def provider() -> str:
        asked.append(1)
        await answer.wait()
        return "good-token-123"

    client = connect(server, provider)
    leader, *others = [asyncio.ensure_future(client.fetch_page(page_size=1 + n)) for n in range(4)]
    while not asked:
        await asyncio.sleep(0)
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    answer.set()

    assert len(await asyncio.gather(*others)) == 3
    assert len(asked) == 1


async def test_no_secret_is_in_what_a_client_shows(serve, connect):
    """Neither the client nor its token source prints a secret, and neither can be pickled."""
    server = await serve()
    for client in (connect(server), connect(server, **KNOWN), connect(server, lambda: TOKEN)):
        seen = (
            repr(client)
            + str(client)
            + repr(vars(client))
            + repr(vars(client._transport.tokens))
            + repr(vars(client._transport))
        )
        for canary in (TOKEN, EMAIL, PASSWORD):
            assert canary not in seen
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(client)


async def test_a_login_behind_a_full_house_is_not_locked_out(emulate, connect, small):
    """The login gets through even if all slots are busy and all tokens dead: no call holds a slot while it waits for it."""
    api = await emulate(small, token=None, **KNOWN, token_requests=1, latency=0.002)
    client = connect(api, **KNOWN, max_concurrency=1, page_size=50)

    async with asyncio.timeout(10):
        calls = await client.calls(*MAY).collect()

    assert [call.id for call in calls] == api.truth()


async def test_a_login_that_resets_on_a_stale_connection_is_made_again(serve, connect):
    """A login on a stale connection is sent again."""

    def script(request):
        if request.on_connection > 1:
            return ACTS["fin before head"]
        return reply(issued(f"token-number-{request.number}")) if request.path == LOGIN else OK

    server = await serve(script)
    client = connect(server, **KNOWN)

    assert len((await client.fetch_page()).records) == 1
