"""``servetel doctor``: where the settings come from, and whether they work."""

from __future__ import annotations

import base64
import json
import time

import pytest

from servetel_async.emulator import Dataset


def token(end):
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, {"exp": end})
    )
    return f"{head}.{body}.canarysignature"


def told(ended):
    return {line[:11].strip(): line[12:] for line in ended.out.decode().splitlines()}


async def test_it_works(inside, emulate, dataset):
    """``doctor`` shows versions, extras and the sources of the settings, and sends one request."""
    api = await emulate(dataset)
    ended = await inside("doctor", api=api)
    assert (ended.code, ended.err, len(api.requests)) == (0, b"", 1)
    rows = told(ended)
    assert rows["version"].startswith("servetel-async ")
    assert "aiohttp " in rows["needs"]
    assert rows["[cli]"].startswith("click ")
    assert rows["token"] == "from SERVETEL_TOKEN"
    assert rows["address"] == f"{api.base_url} from SERVETEL_BASE_URL"
    assert rows["answers"].startswith("yes, in ")
    assert rows["last day"] == "0 calls"
    assert rows["clock"] == "the server's and this computer's agree"
    assert api.token not in ended.out.decode()


@pytest.mark.parametrize(("seconds", "said"), [(7260, "UTC, in 2 h"), (-7260, "UTC: it ended 2 h")])
async def test_a_tokens_end(inside, emulate, dataset, seconds, said):
    """The token's end is read from the token, which is not shown."""
    mine = token(time.time() + seconds)
    ended = await inside("doctor", api=await emulate(dataset, token=mine), SERVETEL_TOKEN=mine)
    assert said in told(ended)["ends"]
    assert b"canary" not in ended.out + ended.err


async def test_a_token_file_and_a_profile(inside, emulate, dataset, tmp_path):
    """Each source is named; no path of this computer is shown."""
    api = await emulate(dataset)
    profile = f'[profiles.default]\nbase_url = "{api.base_url}"\ntoken_file = "~/token"\n'
    for name, text in (("token", api.token), ("config.toml", profile)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    ended = await inside("doctor", SERVETEL_CONFIG=str(tmp_path / "config.toml"))
    assert ended.code == 0, ended.err
    assert told(ended)["token"] == "from the profile"
    assert told(ended)["address"] == f"{api.base_url} from the profile"
    file = {"SERVETEL_TOKEN_FILE": str(tmp_path / "token")}
    ended = await inside("doctor", SERVETEL_BASE_URL=api.base_url, **file)
    assert told(ended)["token"] == "from the file that SERVETEL_TOKEN_FILE names"
    assert told(ended)["address"] == f"{api.base_url} from SERVETEL_BASE_URL"
    flags = ("--token-file", "token", "--base-url", api.base_url)
    assert told(await inside("doctor", *flags))["token"] == "from --token-file"
    assert told(await inside("doctor", *flags))["address"] == f"{api.base_url} from --base-url"
    assert str(tmp_path).encode() not in ended.out


async def test_without_a_token(inside):
    """Without a token the installation is still shown; the missing settings are the error."""
    ended = await inside("doctor")
    assert ended.code == 2
    assert told(ended)["token"] == "none"
    assert told(ended)["address"] == "https://api.servetel.in from the default"
    assert "set SERVETEL_TOKEN, or give --token-file" in ended.lines[-1]


async def test_the_probe(inside, emulate):
    """The probe finds the server's behaviour in few requests."""
    api = await emulate(Dataset.month("2024-05", calls=300), limit_cap=50)
    ended = await inside("doctor", "--probe", "--rate", "0", api=api)
    assert ended.code == 0, ended.err
    assert b"50 calls at most" in ended.out
    assert b"the total: 300 calls" in ended.out
    assert len(api.requests) <= 12


async def test_a_dead_server(inside, unused_tcp_port_factory):
    """The known facts are shown; the exit code is that of any command."""
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    ended = await inside("doctor", SERVETEL_TOKEN="canary-token-123", SERVETEL_BASE_URL=url)
    assert ended.code == 5
    assert told(ended)["address"].startswith(url)
    assert ended.lines[0].startswith("Error: the connection was refused")
