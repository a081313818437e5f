"""A token from a file: read when the client is made, and again when the API refuses it."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from servetel_async import AuthenticationError, ServetelClient
from servetel_async.secret_files import SecretFile
from tests.transport.conftest import QUICK
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import OK, reply

FIRST, SECOND, THIRD = "canary-token-first-1", "canary-token-second-2", "canary-token-third-3"
EXPIRED = reply(b'{"success": false, "message": "Token has expired"}', 401)
FORBIDDEN = reply(b'{"message": "Forbidden"}', 403)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A private file that ``SERVETEL_TOKEN_FILE`` names."""
    path = tmp_path / "token"
    path.write_text(f"{FIRST}\n")
    path.chmod(0o600)
    monkeypatch.setenv("SERVETEL_TOKEN_FILE", str(path))
    return path


def only(live: dict[str, str], refusal=EXPIRED):
    """A server that accepts one token."""
    return lambda request: OK if request.header("Authorization") == f"Bearer {live['token']}" else refusal


@pytest.fixture
def connect_file(connect, stack):
    """A client of a server, with the token file of the environment."""

    def make(server, **options):
        client = ServetelClient(**{"base_url": server.url, "rate": None, "retry": QUICK, **options})
        stack.push_async_callback(client.aclose)
        return client

    return make


@pytest.mark.parametrize("refusal", [EXPIRED, FORBIDDEN], ids=["401", "a gateway's 403"])
async def test_a_token_that_was_rotated_is_read_again(refusal, file, serve, connect_file):
    """Eight calls at once meet the refusal, the file is read, and every call succeeds with the new token."""
    live = {"token": FIRST}
    server = await serve(only(live, refusal))
    client = connect_file(server, max_concurrency=8)
    await client.fetch_page()

    for token in (SECOND, THIRD):
        live["token"] = token
        file.write_text(token)
        pages = await asyncio.gather(*(client.fetch_page() for _ in range(8)))
        assert [len(page.records) for page in pages] == [1] * 8
    assert server.requests[-1].header("Authorization") == f"Bearer {THIRD}"


async def test_a_file_is_not_read_before_its_token_is_refused(file, serve, connect_file):
    """The file is not read again before the API refuses the token."""
    server = await serve(OK)
    client = connect_file(server)
    file.write_text(SECOND)

    await client.fetch_page()

    assert server.requests[0].header("Authorization") == f"Bearer {FIRST}"


async def test_a_file_that_still_holds_the_refused_token_says_so(file, serve, connect_file):
    """If the file still holds the refused token, the error says so after one request."""
    server = await serve(EXPIRED)

    error = await failure_of(connect_file(server).fetch_page())

    assert type(error) is AuthenticationError
    assert "still holds the refused token" in error.why
    assert str(file) in error.fix
    assert (server.asked, error.attempts, error.stopped_by) == (1, 1, "final")
    assert_clean(error, FIRST)


async def test_a_new_token_that_is_refused_too_is_final(file, serve, connect_file):
    """If the new token is refused too, the file is not read again."""
    server = await serve(lambda _: (file.write_text(SECOND), EXPIRED)[1])

    error = await failure_of(connect_file(server).fetch_page())

    assert type(error) is AuthenticationError
    assert server.asked == 2


def gone(file):
    file.unlink()


def emptied(file):
    file.write_text("")


def masked(file):
    file.write_text("********************")


def opened(file):
    file.write_text(SECOND)
    file.chmod(0o644)


def piped(file):
    file.unlink()
    os.mkfifo(file, 0o600)


def binary(file):
    file.write_bytes(b"canary\xff\xfe")


@pytest.mark.skipif(sys.platform == "win32", reason="modes and pipes are POSIX's")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (gone, "cannot be read"),
        (emptied, "is empty"),
        (masked, "masked"),
        (opened, "other users"),
        (piped, "cannot be read"),
        (binary, "cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_read_again_says_why(change, why, file, serve, connect_file):
    """The error says that the token was refused and that the file could not be read; nothing hangs."""
    live = {"token": FIRST}
    server = await serve(only(live))
    client = connect_file(server)
    await client.fetch_page()
    live["token"] = SECOND
    change(file)

    async with asyncio.timeout(10):
        error = await failure_of(client.fetch_page())

    assert type(error) is AuthenticationError
    assert why in error.why
    assert str(file) in error.fix
    assert_clean(error, FIRST, SECOND)


@pytest.mark.parametrize("change", [lambda file: None, gone], ids=["unchanged", "gone"])
async def test_a_block_with_a_file_that_has_nothing_new_passes(change, file, serve, connect_file):
    """After a 403 without a new token in the file, the old token stays in use and works when the block ends."""
    server = await serve([OK, FORBIDDEN, FORBIDDEN, OK])
    client = connect_file(server)
    await client.fetch_page()
    change(file)

    assert len((await client.fetch_page()).records) == 1
    assert server.asked == 4


async def test_the_file_of_a_profile_is_read_again(file, serve, connect_file, monkeypatch, tmp_path):
    """``token_file`` of a profile is read again in the same way."""
    monkeypatch.delenv("SERVETEL_TOKEN_FILE")
    config = tmp_path / "config.toml"
    config.write_text(f'[profiles.default]\ntoken_file = "{file}"\n')
    config.chmod(0o600)
    monkeypatch.setenv("SERVETEL_CONFIG", str(config))
    live = {"token": FIRST}
    server = await serve(only(live))
    client = connect_file(server)
    await client.fetch_page()
    live["token"] = SECOND
    file.write_text(SECOND)

    assert len((await client.fetch_page()).records) == 1


async def test_a_call_is_cancelled_while_the_file_is_read(file, serve, connect_file):
    """If a call is cancelled while the file is read, the read continues for the others; nothing is left behind."""
    live = {"token": FIRST}
    server = await serve(only(live))
    client = connect_file(server)
    await client.fetch_page()
    live["token"] = SECOND
    file.write_text(SECOND)
    calls = [asyncio.ensure_future(client.fetch_page()) for _ in range(4)]
    await server.until(lambda: server.asked == 2)
    calls[0].cancel()

    results = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert [len(result.records) for result in results[1:]] == [1] * 3


async def test_a_secret_file_is_a_provider(file, serve, connect):
    """A secret file can be given in place of a token; the account stays the same when the token changes."""
    live = {"token": FIRST}
    server = await serve(only(live))
    client = connect(server, SecretFile(file))
    account = client._transport.tokens.account
    await client.fetch_page()
    live["token"] = SECOND
    file.write_text(SECOND)
    await client.fetch_page()

    assert client._transport.tokens.account == account
    assert str.__eq__(SecretFile(file)(), SECOND)
    assert {SecretFile(file), SecretFile(str(file))} == {SecretFile(file)}
    assert SecretFile(file) != str(file)


async def test_a_late_refusal_of_the_token_before_reads_nothing(file, serve, connect_file):
    """A late reply that refuses the old token causes no read, because the new token is already in use."""
    live = {"token": SECOND}
    server = await serve(only(live))
    client = connect_file(server)
    tokens = client._transport.tokens
    old = await tokens.token()
    file.write_text(SECOND)
    await client.fetch_page()
    file.unlink()

    assert await tokens.renew(old)
    assert str.__eq__(await tokens.token(), SECOND)
