"""The command line gets its token from a file that is rotated, or by a login; never from an argument."""

from __future__ import annotations

import aiohttp
import pytest

from servetel_async.emulator import Fault
from tests.cli.conftest import LATE, MONTH, SLOW, failing, struck

EMAIL, PASSWORD = "canary.person@example.com", "canary pass word 93f1"
KNOWN = {"email": EMAIL, "password": PASSWORD}


def private(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def portal(emulate, dataset):
    """An emulator that accepts a login; the command does not know its first token."""
    return lambda **knobs: emulate(dataset, **{**KNOWN, **knobs})


async def test_a_login_of_the_flags(inside, portal, tmp_path):
    """``--email`` with ``--password-file`` logs in once; it wins over the environment's token, and is never printed."""
    private(tmp_path / "password", f"{PASSWORD}\n")
    api = await portal()
    flags = ("--email", EMAIL, "--password-file", "password")
    ended = await inside("pull", "a.db", *MONTH, *flags, api=api, SERVETEL_TOKEN="canary-token-123")
    assert ended.code == 0, ended.err
    assert api.logins == 1
    assert b"canary" not in ended.out + ended.err


@pytest.mark.parametrize("line", [f'password = "{PASSWORD}"', 'password_file = "~/password"'])
@pytest.mark.parametrize("command", ["pull", "sync", "doctor"])
async def test_a_login_of_the_profile(inside, portal, tmp_path, command, line):
    """A profile may hold a login in place of a token."""
    private(tmp_path / "password", PASSWORD)
    api = await portal()
    text = f'[profiles.work]\nbase_url = "{api.base_url}"\nemail = "{EMAIL}"\n{line}\n'
    private(tmp_path / "config.toml", text)
    arguments = {"pull": ("a.db", *MONTH), "sync": ("a.db", "--rate", "0"), "doctor": ()}[command]
    ended = await inside(command, *arguments, SERVETEL_CONFIG=str(tmp_path / "config.toml"), SERVETEL_PROFILE="work")
    assert ended.code == 0, ended.err
    assert api.logins == 1
    assert b"canary" not in ended.out + ended.err


async def test_a_wrong_password_is_tried_once(inside, portal, tmp_path):
    """A wrong password ends the command as not authorised after one login, because more would lock the account."""
    private(tmp_path / "password", "another password")
    api = await portal()
    ended = await inside("pull", "a.db", *MONTH, "--email", EMAIL, "--password-file", "password", api=api)
    assert ended.code == 4, ended.err
    assert (len(api.requests), api.logins) == (1, 1)
    assert b"canary" not in ended.out + ended.err


async def test_a_login_whose_token_ends_on_the_way(inside, portal, tmp_path):
    """A pull over tokens of forty requests each is complete, whatever the answer to an expired token is."""
    private(tmp_path / "password", PASSWORD)
    for expiry in ("401", "500", "gateway"):
        api = await portal(token_requests=40, expiry=expiry)
        flags = ("--email", EMAIL, "--password-file", "password", "--no-resume", "--overwrite")
        ended = await inside("pull", "a.ndjson", *SLOW, *flags, api=api)
        assert ended.code == 0, ended.err
        assert api.logins > 1


async def test_doctor_says_where_the_login_comes_from(inside, portal, tmp_path):
    """``doctor`` names the login's source, and shows neither the address nor the password."""
    private(tmp_path / "password", PASSWORD)
    api = await portal()
    ended = await inside("doctor", "--email", EMAIL, "--password-file", "password", api=api)
    assert (ended.code, b"login       from the flags" in ended.out) == (0, True)
    text = f'[profiles.default]\nbase_url = "{api.base_url}"\nemail = "{EMAIL}"\npassword_file = "~/password"\n'
    config = private(tmp_path / "config.toml", text)
    ended = await inside("doctor", SERVETEL_CONFIG=str(config))
    assert (ended.code, b"login       from the profile" in ended.out) == (0, True)
    assert b"canary" not in ended.out + ended.err


@pytest.mark.parametrize("way", ["flag", "variable", "profile"])
async def test_a_token_file_that_is_rotated_on_the_way(way, launch, emulate, large, tmp_path):
    """If the token ends in the middle and the file holds the next one, the pull is complete."""
    api = await emulate(large, **KNOWN, faults=[Fault("stall", seconds=1, nth=LATE, times=1)])
    private(tmp_path / "token", f"{api.token}\n")
    profile = f'[profiles.default]\nbase_url = "{api.base_url}"\ntoken_file = "~/token"\n'
    private(tmp_path / "config.toml", profile)
    flags = ("--token-file", "token") if way == "flag" else ()
    environment = {
        "flag": {"SERVETEL_TOKEN": "canary-token-123", "SERVETEL_BASE_URL": api.base_url},
        "variable": {"SERVETEL_TOKEN_FILE": str(tmp_path / "token"), "SERVETEL_BASE_URL": api.base_url},
        "profile": {"SERVETEL_CONFIG": str(tmp_path / "config.toml")},
    }[way]
    running = await launch("pull", "a.ndjson", *SLOW, *flags, **environment)
    await struck(api, "stall")
    api.expire_tokens()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{api.base_url}/v1/auth/login", json=KNOWN) as answer,
    ):
        (tmp_path / "token").write_text((await answer.json())["access_token"])

    ended = await running.end()

    assert ended.code == 0, ended.err
    assert ended.lines[-2] == "600 of the 600 the API counted"


async def test_a_token_file_that_is_not_rotated(inside, emulate, large, tmp_path):
    """Without a new token in the file the command ends as not authorised, and says what is kept and what to do."""
    api = await emulate(large, token_requests=LATE)
    private(tmp_path / "token", api.token)
    ended = await inside("pull", "a.ndjson", *SLOW, "--token-file", "token", SERVETEL_BASE_URL=api.base_url)
    assert ended.code == 4
    assert "  Why: the file was read again and still holds the refused token" in ended.lines
    assert "  Fix: write a new token into token" in ended.lines
    assert "are kept; resume with: " in ended.lines[-1]


async def test_the_command_that_goes_on_hides_the_address(inside, emulate, large, tmp_path):
    """The suggested command does not show the e-mail address."""
    private(tmp_path / "password", PASSWORD)
    api = await emulate(large, **KNOWN, faults=failing())
    flags = ("--email", EMAIL, "--password-file", "password", "--patience", "0s")
    ended = await inside("pull", "a.ndjson", *SLOW, *flags, api=api)
    assert ended.code == 3, ended.err
    assert "--email ... --password-file password" in ended.lines[-1]
    assert b"canary" not in ended.out + ended.err
