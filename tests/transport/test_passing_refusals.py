"""A 403 or 404 at an address that has worked is retried, perhaps with another token; before any good reply it is final."""

from __future__ import annotations

import asyncio
import json

import pytest

from servetel_async import (
    AuthenticationError,
    PermissionDeniedError,
    Retry,
    ServerError,
    ServetelError,
    WrongAddressError,
)
from servetel_async.emulator import Fault
from servetel_async.protocol.tokens import Secret
from servetel_async.protocol.verdict import Action, Verdict
from servetel_async.transport.suspicion import Suspicion
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import OK, PATH, reply

EMAIL, PASSWORD = "canary.person@example.com", "canary-password-93f1"
KNOWN = {"email": EMAIL, "password": PASSWORD}
LOGIN = "/v1/auth/login"
MAY = ("2024-05-01", "2024-05-31")
ATTEMPTS = 4

BLOCKS = {
    "authorizer": reply(b'{"Message": "User is not authorized to access this resource with an explicit deny"}', 403),
    "gateway": reply(b'{"message": "Forbidden"}', 403),
    "with success": reply(b'{"success": false, "message": "Forbidden"}', 403),
    "web page": reply(b"<html>Access Denied</html>", 403, content_type="text/html"),
    "empty": reply(b"", 403),
    "unauthorized": reply(b'{"message": "Unauthorized"}', 403),
    "404": reply(b"<html>Not Found</html>", 404),
    "404 json": reply(b'{"success": false, "message": "Not Found"}', 404),
}
BLOCK = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)


def issued(token: str):
    return reply(json.dumps({"success": True, "access_token": token, "expires_in": 3600}).encode())


def logins(server) -> int:
    return sum(request.path == LOGIN for request in server.requests)


@BLOCK
async def test_a_block_that_passes_costs_nothing_but_time(block, serve, connect):
    """One such reply in the middle is retried with the same token, and the page comes."""
    server = await serve([OK, block, OK])
    client = connect(server)
    await client.fetch_page()

    assert len((await client.fetch_page()).records) == 1

    assert server.asked == 3
    assert len({request.header("Authorization") for request in server.requests}) == 1


@BLOCK
async def test_a_block_that_stays_is_an_error_of_the_servers(block, serve, connect):
    """After the retries the error is retryable and says that the address had worked, never "not authorised"."""
    server = await serve([OK, block])
    client = connect(server)
    await client.fetch_page()

    error = await failure_of(client.fetch_page())

    assert type(error) is ServerError
    assert (error.retryable, error.attempts, error.stopped_by) == (True, ATTEMPTS, "attempts")
    assert error.status in (403, 404)
    assert "has given good replies" in error.why
    assert_clean(error)


@BLOCK
async def test_the_first_reply_of_an_address_is_final(block, serve, connect):
    """Before any good reply it means a wrong address or missing rights, after one request."""
    server = await serve(block)

    error = await failure_of(connect(server).fetch_page())

    assert type(error) in (WrongAddressError, PermissionDeniedError)
    assert (server.asked, error.retryable) == (1, False)


async def test_a_redirect_in_the_middle_stays_final(serve, connect):
    """A redirect is never followed, even at an address that has worked: it could carry the token to another host."""
    server = await serve([OK, reply(b"", 302)])
    client = connect(server)
    await client.fetch_page()

    assert type(await failure_of(client.fetch_page())) is WrongAddressError
    assert server.asked == 2


@pytest.mark.parametrize("status", [403, 404])
async def test_a_stream_meets_such_a_fault_and_is_whole(status, emulate, connect, month):
    """Every tenth page is refused once: the stream is complete and in order."""
    faults = [Fault("status", status=status, body=b"<html>", nth=number) for number in range(5, 300, 10)]
    api = await emulate(month, faults=faults)

    calls = await connect(api, page_size=20).calls(*MAY).collect()

    assert [call.id for call in calls] == api.truth()


# With a token that can be renewed ---------------------------------------------------------------------------------------


def gateway(block, live: dict[str, str]):
    """A server whose gateway answers dead tokens; a login gives the next token."""

    def script(request):
        if request.path == LOGIN:
            live["token"] = f"token-number-{request.number}"
            return issued(live["token"])
        return OK if request.header("Authorization") == f"Bearer {live.get('token')}" else block

    return script


@BLOCK
async def test_a_login_token_that_ends_behind_a_gateway_is_renewed(block, serve, connect):
    """The second refusal in a row of a token that had worked causes one login, and the page comes with the new token."""
    live: dict[str, str] = {}
    server = await serve(gateway(block, live))
    client = connect(server, **KNOWN)
    await client.fetch_page()
    live["token"] = "another"

    assert len((await client.fetch_page()).records) == 1

    assert [request.path for request in server.requests] == [LOGIN, PATH, PATH, PATH, LOGIN, PATH]


async def test_one_block_of_a_login_is_no_reason_to_log_in(serve, connect):
    """A block that passes at once causes no login, because logins are throttled."""
    pages = iter([OK, BLOCKS["gateway"], OK, BLOCKS["404"], OK])
    server = await serve(lambda request: issued("token-number-1") if request.path == LOGIN else next(pages))
    client = connect(server, **KNOWN)

    for _ in range(3):
        await client.fetch_page()

    assert logins(server) == 1


async def test_a_block_that_stays_costs_one_login(serve, connect):
    """A lasting block costs one login for any number of calls, because a token that has not worked yet is not suspected."""
    blocked = {"": False}
    names = iter(range(100))

    def script(request):
        if request.path == LOGIN:
            return issued(f"token-number-{next(names)}")
        return BLOCKS["gateway"] if blocked[""] else OK

    server = await serve(script)
    client = connect(server, **KNOWN)
    await client.fetch_page()
    blocked[""] = True

    errors = [await failure_of(client.fetch_page()) for _ in range(5)]
    errors += await asyncio.gather(*(failure_of(client.fetch_page()) for _ in range(5)))

    assert {type(error) for error in errors} == {ServerError}
    assert logins(server) == 2
    blocked[""] = False
    assert len((await client.fetch_page()).records) == 1
    assert logins(server) == 2


async def test_a_block_of_the_login_too_keeps_the_old_token(serve, connect):
    """If the login is blocked too, the old token stays in use, and works when the block ends."""
    blocked = {"": False}

    def script(request):
        if blocked[""]:
            return BLOCKS["web page"]
        return issued("token-number-1") if request.path == LOGIN else OK

    server = await serve(script)
    client = connect(server, **KNOWN)
    await client.fetch_page()
    blocked[""] = True
    for _ in range(3):
        error = await failure_of(client.fetch_page())
        assert (type(error), error.retryable) == (ServerError, True)
    assert logins(server) == 2
    blocked[""] = False

    assert len((await client.fetch_page()).records) == 1
    assert logins(server) == 2


async def test_a_wrong_password_is_not_learnt_from_a_block(serve, connect):
    """A login that is refused while the old token is only suspected is no error, because the old token may be good."""
    pages = iter([OK, BLOCKS["gateway"], BLOCKS["gateway"], OK])
    first = iter([issued("token-number-1")])
    refused = reply(b'{"success": false, "message": "Invalid credentials"}', 401)
    server = await serve(lambda request: next(first, refused) if request.path == LOGIN else next(pages))
    client = connect(server, **KNOWN)
    await client.fetch_page()

    assert len((await client.fetch_page()).records) == 1


@pytest.mark.parametrize("gives", ["another", "the same"])
async def test_a_provider_is_asked_once(gives, serve, connect):
    """A provider is asked once when its token is suspected; the call continues with or without another token."""
    tokens = iter(["token-number-1", "token-number-2" if gives == "another" else "token-number-1"])
    dead = {"": False}

    def script(request):
        live = "token-number-2" if dead[""] and gives == "another" else "token-number-1"
        wrong = request.header("Authorization") != f"Bearer {live}" or (gives != "another" and request.number in (2, 3))
        return BLOCKS["authorizer"] if wrong else OK

    server = await serve(script)
    client = connect(server, lambda: next(tokens))
    await client.fetch_page()
    dead[""] = True

    assert len((await client.fetch_page()).records) == 1
    assert server.asked == 4


@pytest.mark.parametrize("seed", range(3))
async def test_a_stream_over_tokens_that_end_without_a_word_is_whole(seed, emulate, connect, month):
    """A stream over tokens of 40 requests each, which end in a bare 403, is complete with about one login per token."""
    api = await emulate(month, seed=seed, token=None, **KNOWN, token_requests=40, expiry="gateway", jitter=0.001)
    client = connect(api, **KNOWN, page_size=10, retry=Retry(attempts=8, base=0.001, cap=0.01))

    calls = await client.calls(*MAY).collect()

    assert [call.id for call in calls] == api.truth()
    assert api.logins <= 300 / 40 + 3


async def test_a_call_is_cancelled_while_its_token_is_renewed(serve, connect):
    """If the caller of the renewal is cancelled, it continues for the others, and nothing is left behind."""
    live: dict[str, str] = {}
    script = gateway(BLOCKS["gateway"], live)
    waiting = asyncio.Event()

    async def provider() -> str:
        if not live:
            live["token"] = "token-number-1"
            return live["token"]
        waiting.set()
        await asyncio.sleep(0)
        live["token"] = "token-number-2"
        return live["token"]

    server = await serve(script)
    client = connect(server, provider)
    await client.fetch_page()
    server.script = lambda request: (
        BLOCKS["gateway"] if request.header("Authorization") == "Bearer token-number-1" else OK
    )
    call = asyncio.ensure_future(client.fetch_page())
    await waiting.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert call.cancelled()
    assert len((await client.fetch_page()).records) == 1


async def test_a_refusal_that_names_the_token_is_still_an_authentication_error(serve, connect):
    """A 403 with "Token has expired" is not a block: with a fixed token it is an ``AuthenticationError``."""
    server = await serve([OK, reply(b'{"message": "The incoming token has expired"}', 403)])
    client = connect(server)
    await client.fetch_page()

    error = await failure_of(client.fetch_page())

    assert type(error) is AuthenticationError
    assert server.asked == 2


async def test_the_header_of_oauth_is_read_off_the_wire(serve, connect):
    """A 400 with an empty body renews the token if its ``WWW-Authenticate`` header refuses it."""
    challenge = ("WWW-Authenticate", 'Bearer realm="api", error="invalid_token"')
    tokens = iter(["token-number-1", "token-number-2"])
    server = await serve([reply(b"", 400, challenge), OK])

    assert len((await connect(server, lambda: next(tokens)).fetch_page()).records) == 1
    assert server.requests[1].header("Authorization") == "Bearer token-number-2"


# The rule, alone --------------------------------------------------------------------------------------------------------

PERHAPS = Verdict(Action.RETRY, ServetelError("x"), perhaps_token=True)
OTHER = Verdict(Action.RETRY, ServetelError("x"))
A, B = Secret("token-a-1"), Secret("token-b-2")


class Source:
    """Gives the token A until it is renewed, then the given one; counts the renewals."""

    account = None

    def __init__(self, then: Secret | ServetelError = B) -> None:
        self.now, self.then, self.renewals = A, then, 0

    async def token(self) -> Secret:
        return self.now

    async def renew(self, rejected: Secret, *, sure: bool = True) -> bool:
        assert not sure
        assert rejected == self.now
        self.renewals += 1
        if isinstance(self.then, ServetelError):
            raise self.then
        self.now = self.then
        return True


@pytest.mark.parametrize(
    ("proved", "notes", "renewals"),
    [
        ([A], [], 0),
        ([A], [(A, PERHAPS)], 0),
        ([A], [(A, PERHAPS)] * 2, 1),
        ([A], [(A, PERHAPS)] * 9, 1),
        ([], [(A, PERHAPS)] * 9, 0),
        ([B], [(A, PERHAPS)] * 9, 0),
        ([A], [(A, OTHER)] * 9, 0),
        ([A], [(A, PERHAPS), (A, OTHER), (A, PERHAPS)], 1),
        ([A], [(A, PERHAPS), None, (A, PERHAPS)], 0),
        ([A], [(A, PERHAPS), None, (A, PERHAPS), (A, PERHAPS)], 1),
        ([A, B], [(A, PERHAPS), (B, PERHAPS), (A, PERHAPS)], 0),
        ([A, B], [(B, PERHAPS)] * 9, 0),
    ],
)
async def test_when_a_token_is_suspected(proved, notes, renewals):
    """Two such replies in a row to a token that has worked, with no good reply between; None is a good reply."""
    suspicion, source = Suspicion(proved), Source()
    for note in notes:
        if note is None:
            suspicion.clear(A)
        else:
            suspicion.note(*note)

    tokens = [await suspicion.token(source) for _ in range(3)]

    assert source.renewals == renewals
    assert tokens == [B if renewals else A] * 3


async def test_a_renewal_that_fails_is_not_repeated_before_a_good_reply():
    """The old token stays in use, and is suspected again only after a good reply."""
    suspicion, source = Suspicion([A]), Source(ServetelError("the login is blocked too"))
    for _ in range(3):
        suspicion.note(A, PERHAPS)
        assert await suspicion.token(source) == A
    assert source.renewals == 1

    suspicion.clear(B)
    suspicion.note(A, PERHAPS)
    assert (await suspicion.token(source), source.renewals) == (A, 1)

    suspicion.clear(A)
    for _ in range(2):
        suspicion.note(A, PERHAPS)
    assert (await suspicion.token(source), source.renewals) == (A, 2)
