"""Several accounts on the command line: ``--profile`` chooses one, ``--account`` names it."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import MONTH


@pytest.fixture
async def accounts(emulate, dataset, tmp_path):
    """Two accounts, each with an address and a token of its own, as two profiles."""
    apis = {
        name: await emulate(dataset, seed=seed, token=None, beside=True)
        for seed, name in enumerate(("delhi", "mumbai"))
    }
    lines = [f'[profiles.{name}]\nbase_url = "{api.base_url}"\ntoken_file = "~/{name}"\n' for name, api in apis.items()]
    lines += [
        '[profiles.default]\ntoken = "token-of-default"\n',
        '[profiles.bare]\n[profiles.home]\naccount = "Home"\n',
    ]
    lines[-1] += f'base_url = "{apis["delhi"].base_url}"\ntoken_file = "~/delhi"\n'
    files = {"config.toml": "".join(lines), **{name: api.token for name, api in apis.items()}}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return apis


@pytest.fixture
def told(inside, tmp_path):
    """The rows of ``doctor``."""

    async def ask(*flags: str, code: int = 0, **environment: str) -> dict[str, str]:
        ended = await inside("doctor", *flags, **{"SERVETEL_CONFIG": str(tmp_path / "config.toml"), **environment})
        assert ended.code == code, ended.err
        return dict(line.split(maxsplit=1) for line in ended.out.decode().splitlines() if " " in line)

    return ask


async def test_a_profile_is_chosen_by_a_flag(inside, accounts, tmp_path):
    """``--profile`` chooses the account that is pulled; the other one gets no request."""
    environment = {"SERVETEL_CONFIG": str(tmp_path / "config.toml")}

    ended = await inside("pull", "a.ndjson", *MONTH, "--profile", "mumbai", **environment)

    assert ended.code == 0, ended.err
    assert accounts["mumbai"].requests
    assert not accounts["delhi"].requests


async def test_a_profile_of_a_flag_comes_before_the_environment(accounts, told):
    """An exported token, address or name does not replace that of the profile that ``--profile`` chose."""
    exported = {
        "SERVETEL_TOKEN": "canary-token-of-another-account",
        "SERVETEL_BASE_URL": accounts["mumbai"].base_url,
        "SERVETEL_PROFILE": "mumbai",
        "SERVETEL_ACCOUNT": "mumbai",
    }

    rows = await told("--profile", "delhi", **exported)

    assert rows["token"] == "from the profile"
    assert rows["address"] == f"{accounts['delhi'].base_url} from the profile"
    assert rows["account"].startswith("delhi, fingerprint ")


async def test_a_profile_of_a_flag_takes_what_it_lacks_from_the_environment(accounts, told):
    """A profile without a token takes it from the environment, but does not name that token's account."""
    api = accounts["delhi"]

    rows = await told("--profile", "bare", SERVETEL_TOKEN=api.token, SERVETEL_BASE_URL=api.base_url)

    assert (rows["token"], rows["address"]) == ("from SERVETEL_TOKEN", f"{api.base_url} from SERVETEL_BASE_URL")
    assert rows["account"].startswith("fingerprint ")


async def test_a_profile_without_a_token_does_not_borrow_that_of_the_default_profile(inside, accounts, tmp_path):
    """It is refused before anything is sent, because another account's calls would come."""
    environment = {"SERVETEL_CONFIG": str(tmp_path / "config.toml")}
    base = ("--base-url", accounts["delhi"].base_url)

    ended = await inside("pull", "a.ndjson", *MONTH, "--profile", "bare", *base, **environment)

    assert ended.code == 2
    assert b"here is no token" in ended.err
    assert not accounts["delhi"].requests


@pytest.mark.parametrize(("name", "known"), [("wrong", "delhi, mumbai"), ("", "delhi, mumbai")])
async def test_a_profile_that_is_not_there(inside, accounts, tmp_path, name, known):
    """A missing profile or an empty name is refused, and the error names the existing profiles."""
    environment = {"SERVETEL_CONFIG": str(tmp_path / "config.toml"), "SERVETEL_PROFILE": "delhi"}

    ended = await inside("pull", "a.ndjson", *MONTH, "--profile", name, **environment)

    assert ended.code == 2
    assert f"set --profile to one of: {known}" in ended.err.decode()


async def test_a_flag_without_a_file_of_profiles(inside):
    """``--profile`` is refused if there is no file of profiles."""
    ended = await inside("pull", "a.ndjson", *MONTH, "--profile", "delhi")

    assert ended.code == 2
    assert "file does not exist" in ended.err.decode()


@pytest.mark.parametrize(
    ("flags", "environment", "name"),
    [
        (("--profile", "delhi"), {}, "delhi"),
        (("--profile", "home"), {}, "Home"),
        ((), {"SERVETEL_PROFILE": "delhi"}, "delhi"),
        ((), {"SERVETEL_PROFILE": "delhi", "SERVETEL_ACCOUNT": "pune"}, "pune"),
        (("--account", "goa"), {"SERVETEL_PROFILE": "delhi", "SERVETEL_ACCOUNT": "pune"}, "goa"),
        (("--profile", "delhi", "--account", "goa"), {}, "goa"),
        (("--profile", "delhi", "--token-file", "delhi"), {}, None),
        (("--profile", "delhi", "--token-file", "delhi"), {"SERVETEL_ACCOUNT": "pune"}, "pune"),
    ],
)
async def test_what_the_account_is_called(accounts, told, flags, environment, name):
    """The account's name comes from the flag, its profile, the environment, or another profile, in this order."""
    rows = await told(*flags, **environment)

    assert re.sub("fingerprint [0-9a-f]{12} of .*", "", rows["account"]) == ("" if name is None else f"{name}, ")


async def test_doctor_says_what_identifies_the_account(accounts, told, tmp_path, emulate, dataset):
    """``doctor`` names the token's subject, or the token alone; then the account of a renewed token needs a name."""
    api = await emulate(dataset, token="canary-opaque-token")

    assert (await told("--profile", "delhi"))["account"].endswith("of the subject that the token names")
    rows = await told(SERVETEL_TOKEN="canary-opaque-token", SERVETEL_BASE_URL=api.base_url)

    assert rows["account"].endswith("of the token itself, so a renewed token looks like another account")
    assert "canary" not in str(rows)


async def test_an_empty_name_is_refused(inside, accounts, tmp_path):
    """An empty name is refused as a mistake of a script; the fix names flags."""
    environment = {"SERVETEL_CONFIG": str(tmp_path / "config.toml")}

    ended = await inside("pull", "a.ndjson", *MONTH, "--profile", "delhi", "--account", "", **environment)

    assert ended.code == 2
    assert "name of the account" in ended.err.decode()
    assert "--account 'delhi'" in ended.err.decode()
    assert not accounts["delhi"].requests
