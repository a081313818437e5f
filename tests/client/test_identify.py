"""The account of a client: identified once, by what outlives a renewal of the token."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from servetel_async import AuthenticationError, ConfigurationError, ServerError, ServetelClient, StreamClosedError
from servetel_async.emulator import Dataset
from servetel_async.protocol.account import Account
from servetel_async.protocol.tokens import claims
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import ACTS, OK, reply

EMAIL, PASSWORD, SUBJECT = "canary.person@example.com", "canary-password-93f1", "canary-subject-20417"
KNOWN = {"email": EMAIL, "password": PASSWORD}
URL = "https://api.servetel.in"
EXPIRED = reply(b'{"success": false, "message": "Token has expired"}', 401)


def jwt(subject: str = SUBJECT, signature: str = "first", **claims: object) -> str:
    body = json.dumps({"sub": subject, **claims}).encode()
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.{signature}"


def issued(token: str) -> bytes:
    return reply(json.dumps({"success": True, "access_token": token, "expires_in": 3600}).encode())


@pytest.fixture
def made(stack):
    """Clients of an address to which no request is sent."""

    def make(token: object = None, **options) -> ServetelClient:
        client = ServetelClient(token, **{"base_url": URL, "rate": None, **options})
        stack.push_async_callback(client.aclose)
        return client

    return make


# What identifies it -------------------------------------------------------------------------------------------------------


async def test_a_token_that_is_given_costs_no_request(serve, connect):
    """The token names the account, or is its identity."""
    server = await serve(OK)

    account = await connect(server).identify()

    assert (account.origin, account.known_by, account.name) == (server.url, "token", None)
    assert account.label == account.fingerprint
    assert server.requests == []


async def test_two_tokens_of_one_subject_are_one_account(made):
    """A token renewed in the portal is of the same account; another subject is another account."""
    first, second, other = [
        await made(token).identify()
        for token in (jwt(exp=1, jti="a"), jwt(signature="second", exp=2, jti="b"), jwt("another-subject"))
    ]

    assert first == second
    assert first.fingerprint != other.fingerprint


async def test_a_login_costs_one_login_and_its_refresh_changes_nothing(emulate, connect, small):
    """One login brings the token, also for the calls. The refreshed token gives the same account."""
    api = await emulate(small, **KNOWN, expires_in=1)
    client = connect(api, **KNOWN)

    account = await client.identify()
    before = api.logins
    await asyncio.sleep(1)
    await client.count()
    again = await connect(api, **KNOWN).identify()

    assert (before, account.known_by) == (1, "subject")
    assert api.refreshes == 1
    assert account == again


async def test_a_login_and_the_token_of_the_portal_are_one_account(emulate, connect, small):
    """Both tokens name the subject."""
    api = await emulate(small, token=None, **KNOWN)

    assert await connect(api, **KNOWN).identify() == await connect(api, api.token).identify()


async def test_two_emulated_accounts_are_two(emulate, connect, small):
    """The emulator's tokens name the account of its records, so another data set is another account."""
    other = Dataset.month("2024-05", calls=10, seed=7)
    tokens = [(await emulate(data, token=None)).token for data in (small, small, other)]

    subjects = [claims(token)["sub"] for token in tokens]

    assert subjects == [small.centre.account, small.centre.account, other.centre.account]
    assert len(set(subjects)) == 2


async def test_a_login_with_an_opaque_token_is_its_address(serve, connect):
    """The token has no claims, so the e-mail address identifies the account, in any case."""
    server = await serve(lambda request: issued(f"opaque-token-{len(server.requests)}"))

    first = await connect(server, **KNOWN).identify()
    second = await connect(server, email=EMAIL.title(), password=PASSWORD).identify()

    assert first == second
    assert first.known_by == "login"


async def test_a_provider_and_a_file_are_asked_for_their_token(made, tmp_path, monkeypatch):
    """Their token identifies the account; the provider is asked once."""
    asked = []

    async def provide() -> str:
        asked.append(1)
        return jwt()

    (tmp_path / "token").write_text(jwt(signature="of the file".replace(" ", "-")))
    (tmp_path / "token").chmod(0o600)
    client = made(provide)
    accounts = [await client.identify(), await client.identify()]
    monkeypatch.setenv("SERVETEL_TOKEN_FILE", str(tmp_path / "token"))
    accounts.append(await made().identify())

    assert len(set(accounts)) == 1
    assert asked == [1]


async def test_a_renewal_does_not_change_the_account(serve, connect):
    """A client whose opaque token was replaced keeps its account."""
    tokens = iter(["opaque-token-1", "opaque-token-2"])
    server = await serve(lambda request: OK if request.header("Authorization") == "Bearer opaque-token-2" else EXPIRED)
    client = connect(server, lambda: next(tokens))
    before = await client.identify()

    await client.fetch_page()

    assert await client.identify() == before


# Once, for all, under cancellation ------------------------------------------------------------------------------------------


async def test_callers_at_once_share_one_login(emulate, connect, small):
    """Twenty callers get one account and cause one login."""
    api = await emulate(small, **KNOWN, latency=0.01)
    client = connect(api, **KNOWN)

    accounts = await asyncio.gather(*(client.identify() for _ in range(20)))

    assert len(set(accounts)) == 1
    assert api.logins == 1


async def test_a_cancelled_caller_takes_it_from_no_other(serve, connect):
    """The first caller is cancelled during the login; the second gets the account of that same login."""
    server = await serve(issued(jwt()))
    client = connect(server, **KNOWN)
    first, second = asyncio.create_task(client.identify()), asyncio.create_task(client.identify())
    await asyncio.sleep(0)
    first.cancel()

    account = await second

    assert first.cancelled()
    assert isinstance(account, Account)
    assert len(server.requests) == 1


async def test_cancelling_it_at_any_step_leaves_nothing(emulate, connect, small):
    """Cancelled after each number of loop iterations, it leaves no task, and the next caller gets the account."""
    api = await emulate(small, **KNOWN)
    for steps in range(12):
        client = connect(api, **KNOWN)
        task = asyncio.create_task(client.identify())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(client._tasks) <= 1  # a login under way is finished for the next caller
        assert (await client.identify()).known_by == "subject"
        assert len(client._tasks) == 0


async def test_closing_the_client_ends_it(serve, connect):
    """A login that hangs ends with the client; the error says so."""
    server = await serve(ACTS["head hangs"])
    client = connect(server, **KNOWN)
    task = asyncio.create_task(client.identify())
    while not server.requests:
        await asyncio.sleep(0.001)

    await client.aclose()

    assert isinstance(await failure_of(task), StreamClosedError)


async def test_a_closed_client_identifies_nothing_new(made):
    """It raises that it is closed, like every other method; an account already found stays."""
    client, other = made(TOKEN), made(TOKEN)
    account = await client.identify()
    await client.aclose()
    await other.aclose()

    assert await client.identify() == account
    assert "closed" in str(await failure_of(other.identify()))


async def test_the_loop_runs_on_meanwhile(made):
    """A thread computes the slow hash, so the event loop is not blocked."""
    client, ticks = made(TOKEN), 0
    task = asyncio.create_task(client.identify())
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1

    assert ticks > 20


# Failures -----------------------------------------------------------------------------------------------------------------


async def test_a_login_that_fails_for_a_moment_is_tried_again(serve, connect):
    """A 503 of the login is retried like any request."""
    server = await serve([reply(b"", 503), issued(jwt())])

    assert (await connect(server, **KNOWN).identify()).known_by == "subject"
    assert len(server.requests) == 2


async def test_an_outage_of_the_login_is_an_error_of_ours(serve, connect):
    """The error says what happened and holds no secret; the next call tries again."""
    server = await serve([reply(b"", 503)] * 2 + [issued(jwt())])
    client = connect(server, **KNOWN)

    error = await failure_of(client.identify())

    assert type(error) is ServerError
    assert_clean(error, EMAIL, PASSWORD)
    assert (await client.identify()).known_by == "subject"


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_login_that_is_refused_is_sent_once(status, serve, connect):
    """At any status: no token was sent, so "Token has expired" refuses the login itself."""
    server = await serve(reply(b'{"success": false, "message": "Token has expired"}', status))
    client = connect(server, **KNOWN)

    errors = [await failure_of(client.identify()), await failure_of(client.fetch_page())]

    assert [type(error) for error in errors] == [AuthenticationError] * 2
    assert len(server.requests) == 1
    for error in errors:
        assert_clean(error, EMAIL, PASSWORD)


async def test_a_provider_that_gives_no_token(made):
    """The error is the same as for any other method."""
    assert type(await failure_of(made(lambda: "").identify())) is ConfigurationError


# What it is called --------------------------------------------------------------------------------------------------------

PROFILES = """
[profiles.default]
token = "token-of-default"
[profiles.delhi]
token = "token-of-delhi"
[profiles.mumbai]
account = "Mumbai office"
email = "person@example.com"
password = "x"
[profiles.address]
base_url = "https://work.example"
"""


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    file.write_text(PROFILES)
    file.chmod(0o600)
    monkeypatch.setenv("SERVETEL_CONFIG", str(file))


NAMES = [
    ({}, {}, None),
    ({"account": " delhi "}, {}, "delhi"),
    ({"account": "delhi"}, {"SERVETEL_ACCOUNT": "mumbai"}, "delhi"),
    ({}, {"SERVETEL_ACCOUNT": "mumbai"}, "mumbai"),
    ({}, {"SERVETEL_ACCOUNT": ""}, None),
    ({}, {"SERVETEL_PROFILE": "delhi"}, "delhi"),
    ({}, {"SERVETEL_PROFILE": "mumbai"}, "Mumbai office"),
    ({}, {"SERVETEL_PROFILE": "mumbai", "SERVETEL_ACCOUNT": "bombay"}, "bombay"),
    ({"account": "pune"}, {"SERVETEL_PROFILE": "mumbai", "SERVETEL_ACCOUNT": "bombay"}, "pune"),
    # a token from elsewhere is not the profile's, and the profile does not name its account
    ({"token": TOKEN}, {"SERVETEL_PROFILE": "delhi"}, None),
    ({"token": TOKEN, "base_url": URL}, {"SERVETEL_PROFILE": "delhi"}, None),
    ({"token": TOKEN, "base_url": URL}, {"SERVETEL_ACCOUNT": "pune"}, "pune"),
    ({}, {"SERVETEL_PROFILE": "mumbai", "SERVETEL_TOKEN": TOKEN}, None),
    ({"base_url": URL}, {"SERVETEL_PROFILE": "address", "SERVETEL_TOKEN": TOKEN}, None),
    ({}, {"SERVETEL_PROFILE": "mumbai", "SERVETEL_TOKEN": TOKEN, "SERVETEL_ACCOUNT": "pune"}, "pune"),
]


@pytest.mark.parametrize(("options", "environment", "name"), NAMES)
def test_what_an_account_is_called(options, environment, name, profiles, monkeypatch):
    """The argument, the environment, the profile's key, the profile's name; ``default`` is no name."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert ServetelClient(**options)._identity._name == name


async def test_the_name_is_in_the_account(made):
    """It is the label of the rows; the fingerprint is the same without a name."""
    named, plain = await made(TOKEN, account="delhi").identify(), await made(TOKEN).identify()

    assert (named.name, named.label) == ("delhi", "delhi")
    assert named._replace(name=None) == plain


@pytest.mark.parametrize("account", ["", " ", "x" * 65, "a\tb", 5])
def test_a_name_that_cannot_be_used_is_refused(account):
    """No request is sent, and the error does not hold the token."""
    with pytest.raises(ConfigurationError, match="name of the account") as caught:
        ServetelClient(TOKEN, account=account)
    caught.value.__traceback__ = None  # the frame of this test holds the constant's value
    assert_clean(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"token": jwt()}, {"token": None, **KNOWN}, {"token": "canary-opaque-token"}],
    ids=["jwt", "login", "opaque"],
)
async def test_nothing_of_the_identity_is_shown(options, emulate, connect, small, caplog):
    """Neither the account nor the log, at any level, shows a token, an address or a subject."""
    caplog.set_level(0)
    api = await emulate(small, **KNOWN)
    token = options.pop("token")

    account = await connect(api, token, **options).identify()

    for text in (repr(account), str(account), json.dumps(account), caplog.text):
        assert "canary" not in text
