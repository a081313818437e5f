"""``--mask`` and ``--pseudonyms``: what a command hides, where the key comes from, and that the key is never shown."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.conftest import MONTH, SLOW, failing

KEY = "canary-key-of-24-letters"
TOKEN = re.compile("p_[a-z2-7]{12}").fullmatch


@pytest.fixture
def key_file(tmp_path):
    """A private file with the key and a line break."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


def numbers(path):
    return [json.loads(line)["client_number"] for line in sorted(path.read_bytes().splitlines())]


async def test_a_masked_month(inside, emulate, dataset, tmp_path):
    """Masked numbers keep three digits; masked names keep nothing."""
    ended = await inside("pull", "may.ndjson", *MONTH, "--mask", api=await emulate(dataset))
    assert ended.code == 0
    assert all(re.fullmatch(r"\*+[0-9]{3}", number) for number in numbers(tmp_path / "may.ndjson"))


async def test_pseudonyms_from_a_file_or_the_environment(inside, emulate, dataset, tmp_path, key_file):
    """The same key gives the same file from every source, and is in no output."""
    api = await emulate(dataset)
    by_file = await inside("pull", "file.ndjson", *MONTH, "--pseudonyms", str(key_file), api=api)
    by_name = await inside("pull", "both.ndjson", *MONTH, "--mask", f"--pseudonyms={key_file}", api=api)
    environment = {"SERVETEL_PSEUDONYMS_KEY": KEY}
    by_variable = await inside("pull", "variable.ndjson", *MONTH, "--pseudonyms", api=api, **environment)
    assert (by_file.code, by_name.code, by_variable.code) == (0, 0, 0), by_variable.err
    outputs = [tmp_path / name for name in ("file.ndjson", "both.ndjson", "variable.ndjson")]
    assert all(map(TOKEN, numbers(outputs[0])))
    assert len({path.read_bytes() for path in outputs}) == 1
    said = b"".join((by_file.err, by_file.out, by_variable.err, by_variable.out))
    assert KEY.encode() not in said + b"".join(path.read_bytes() for path in tmp_path.glob("*.ndjson*"))


async def test_the_variable_alone_changes_nothing(inside, emulate, dataset, tmp_path):
    """A key in the environment makes no pseudonyms without the flag."""
    ended = await inside(
        "pull", "may.ndjson", *MONTH, "--mask", api=await emulate(dataset), SERVETEL_PSEUDONYMS_KEY=KEY
    )
    assert ended.code == 0
    assert not any(map(TOKEN, numbers(tmp_path / "may.ndjson")))


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0o600, "the file with the key for pseudonyms cannot be read"),
        ("", 0o600, "the file with the key for pseudonyms is empty"),
        ("fifteen-letters\n", 0o600, "key for pseudonyms is too short"),
        (KEY, 0o644, "the file with the key for pseudonyms may be read by other users"),
    ],
    ids=["missing", "empty", "short", "readable by others"],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["pull", "dry run"])
async def test_a_file_that_is_no_key(inside, emulate, dataset, tmp_path, content, mode, said, more):
    """A file that is no key is refused with code 2 before any request, and its content is not quoted."""
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    api = await emulate(dataset)
    ended = await inside("pull", "may.ndjson", *MONTH, *more, "--pseudonyms", str(file), api=api)
    assert (ended.code, api.requests) == (2, [])
    assert said.casefold() in ended.err.decode().casefold()
    assert not content or content.strip() not in ended.err.decode()
    assert not list(tmp_path.glob("may*"))


@pytest.mark.parametrize("environment", [{}, {"SERVETEL_PSEUDONYMS_KEY": ""}, {"SERVETEL_PSEUDONYMS_KEY": "short"}])
async def test_no_key_in_the_environment(inside, emulate, dataset, tmp_path, environment):
    """Without a key in the environment the error says how to make one."""
    api = await emulate(dataset)
    ended = await inside("pull", "may.ndjson", *MONTH, "--pseudonyms", api=api, **environment)
    assert (ended.code, api.requests) == (2, [])
    assert "openssl rand -hex 32" in ended.err.decode()
    assert not list(tmp_path.glob("may*"))


async def test_another_mask_is_another_pull(inside, emulate, large, tmp_path, key_file):
    """A pull is resumed only with the mask and the key that it began with."""
    api = await emulate(large, faults=failing())
    pulled = ("pull", "may.ndjson", *SLOW, "--patience", "0s", "--pseudonyms")
    assert (await inside(*pulled, str(key_file), api=api)).code == 3
    other = tmp_path / "other"
    other.write_text("another-key-of-30-letters-here")
    other.chmod(0o600)
    begun = (tmp_path / "may.ndjson.part").read_bytes()
    for flags in ((), ("--mask",), ("--pseudonyms", str(other))):
        ended = await inside("pull", "may.ndjson", *SLOW, "--patience", "0s", *flags, api=api)
        assert ended.code == 2, ended.err
        assert (tmp_path / "may.ndjson.part").read_bytes() == begun
    assert (await inside(*pulled, str(key_file), api=await emulate(large))).code == 0
    assert all(map(TOKEN, numbers(tmp_path / "may.ndjson")))
