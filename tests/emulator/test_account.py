"""Tokens that die and logins that lock."""

import asyncio
import base64
import json
import re
import time

import pytest

CREDENTIALS = {"email": "desk@example.invalid", "password": "correct horse"}
LOGIN = "/v1/auth/login"
REFRESH = "/v1/auth/refresh"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nobody", "Basic abc", "bearer=x"])
async def test_a_wrong_token_is_401(emulate, ask, dataset, header):
    """Any wrong token is a 401."""
    api = await emulate(dataset)
    async with ask.session.get(api.base_url + "/v1/call/records", headers={"Authorization": header}) as reply:
        assert reply.status == 401
        assert (await reply.json())["success"] is False


async def test_a_token_may_be_given(emulate, ask, dataset):
    """A given token is the one that is accepted."""
    api = await emulate(dataset, token="portal-token")
    assert api.token == "portal-token"
    assert (await ask(api, token="portal-token"))[0] == 200


async def test_a_forged_token_follows_the_seed(emulate, dataset):
    """A generated token looks like a JWT and is the same for equal seeds."""
    first, second, other = [await emulate(dataset, seed=seed) for seed in (1, 1, 2)]
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", first.token)
    assert first.token == second.token != other.token


async def test_a_token_dies_after_its_requests(emulate, ask, dataset):
    """A token dies after its requests and stays dead."""
    api = await emulate(dataset, token_requests=2)
    assert [(await ask(api))[0] for _ in range(4)] == [200, 200, 401, 401]
    assert (await ask(api))[1] == {"success": False, "message": "Token has expired"}


async def test_an_expiry_may_hide_behind_200(emulate, ask, dataset):
    """An expiry can be a 200 with an error in its body."""
    api = await emulate(dataset, expiry="200")
    api.expire_tokens()
    assert await ask(api) == (200, {"success": False, "message": "Token has expired"})


async def test_a_login_brings_a_token(emulate, ask, dataset):
    """A login answers as in the sample, with a token whose expiry can be read."""
    api = await emulate(dataset, **CREDENTIALS, expires_in=600)
    status, body = await ask.post(api, LOGIN, CREDENTIALS)
    token = body.pop("access_token")
    assert (status, body) == (
        200,
        {"success": True, "token_type": "bearer", "expires_in": 600, "number_of_days_left": 30},
    )
    assert api.token == token
    assert (await ask(api))[0] == 200
    assert api.logins == 1
    claims = token.split(".")[1]
    assert 0 < json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"] - time.time() <= 600


async def test_a_token_from_a_login_dies_in_time(emulate, ask, dataset):
    """A token from a login dies after its announced seconds."""
    api = await emulate(dataset, **CREDENTIALS, expires_in=0)
    await ask.post(api, LOGIN, CREDENTIALS)
    assert (await ask(api))[0] == 401


@pytest.mark.parametrize(
    ("sent", "status", "message"),
    [
        ({**CREDENTIALS, "password": "wrong"}, 401, "The username or password is incorrect."),
        ({**CREDENTIALS, "email": "else@example.invalid"}, 401, "Invalid credentials"),
        ({"email": "only"}, 422, {"email": ["The email field is required."]}),
        (None, 422, {"email": ["The email field is required."]}),
    ],
)
async def test_a_login_fails_as_in_the_samples(emulate, ask, dataset, sent, status, message):
    """Each failed login says `success: false` and why."""
    api = await emulate(dataset, **CREDENTIALS)
    got, body = await ask.post(api, LOGIN, sent)
    assert (got, body["success"], body["message"]) == (status, False, message)


async def test_a_login_in_bad_utf8_lacks_its_credentials(emulate, ask, dataset):
    """A body that cannot be decoded is answered like one without an e-mail address."""
    api = await emulate(dataset, **CREDENTIALS)
    async with ask.session.post(f"{api.base_url}{LOGIN}", data=b'{"email":"\xff"}') as reply:
        assert reply.status == 422


async def test_nobody_logs_in_without_credentials_set(emulate, ask, dataset):
    """An emulator without credentials accepts no login."""
    assert (await ask.post(await emulate(dataset), LOGIN, CREDENTIALS))[0] == 401


async def test_five_failures_lock_the_account(emulate, ask, dataset):
    """After five failures even the right password is refused, until a wall-clock time in the body."""
    api = await emulate(dataset, **CREDENTIALS)
    counts = [(await ask.post(api, LOGIN, {**CREDENTIALS, "password": "x"}))[1]["login_failed_count"] for _ in range(5)]
    assert counts == [1, 2, 3, 4, 5]
    status, body = await ask.post(api, LOGIN, CREDENTIALS)
    assert (status, body["success"]) == (429, False)
    until = dataset.clock.parse(body["retry_after"])
    assert 50 < until - time.time() <= 61
    assert api.logins == 6


async def test_a_lock_opens_in_time(emulate, ask, dataset):
    """After `login_lock` seconds the account can be used again."""
    api = await emulate(dataset, **CREDENTIALS, login_lock=0)
    for _ in range(5):
        await ask.post(api, LOGIN, {**CREDENTIALS, "password": "x"})
    assert (await ask.post(api, LOGIN, CREDENTIALS))[0] == 200


async def test_a_refresh_answers_like_a_login(emulate, ask, dataset):
    """A refresh exchanges the current token, even an expired one, for another."""
    api = await emulate(dataset, token_requests=1)
    old = api.token
    await ask(api)
    assert (await ask(api))[0] == 401
    status, body = await ask.post(api, REFRESH, token=old)
    assert (status, body["access_token"]) == (200, api.token)
    assert api.token != old
    assert (await ask(api))[0] == 200
    assert api.refreshes == 1


async def test_a_wrong_token_is_not_refreshed(emulate, ask, dataset):
    """Only a token of this account can be refreshed."""
    assert (await ask.post(await emulate(dataset), REFRESH, token="nobody"))[0] == 401


async def test_a_refresh_counts_against_the_rate(emulate, ask, dataset):
    """A refresh counts against the rate limit of the account."""
    api = await emulate(dataset, rate_limit=0.001)
    await ask(api)
    assert (await ask.post(api, REFRESH, token=api.token))[0] == 429


async def test_a_refresh_lets_concurrent_requests_finish(emulate, ask, dataset):
    """After a refresh the older tokens stay valid."""
    api = await emulate(dataset)
    old = api.token
    await ask.post(api, REFRESH, token=old)
    assert [status for status, _ in await asyncio.gather(ask(api, token=old), ask(api))] == [200, 200]
