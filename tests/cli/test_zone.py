"""Accounts outside India on the command line: the flag, the variable, the profile, and the brand that needs one."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from servetel_async.emulator import Dataset
from tests.bulk.small_server import SmallServer
from tests.cli.conftest import MONTH, SLOW, failing

LONDON = ZoneInfo("Europe/London")
#: Two zones whose calendars never show the same day.
EAST, WEST = "Pacific/Kiritimati", "-12:00"


def told(ended):
    return [line.strip() for line in ended.lines]


def offsets_of(target):
    with target.open(newline="") as file:
        return {row["started_at"][-6:] for row in csv.DictReader(file)}


async def test_the_last_hours(inside):
    """The 35 calls of an account in London in the last three hours are pulled in its zone; in India's zone none are."""
    now = datetime.now(UTC)
    calls = [
        (f"{now.astimezone(LONDON) - timedelta(minutes=5 * n + 7):%Y-%m-%d %H:%M:%S}", f"id{n}") for n in range(60)
    ]
    async with SmallServer(calls) as api:
        where = {"SERVETEL_BASE_URL": api.base_url, "SERVETEL_TOKEN": "token-123456"}
        last = ("pull", "-", "--last", "3h", "--rate", "0")
        found = [
            await inside(*last, "--zone", "Europe/London", **where),
            await inside(*last, SERVETEL_ZONE="Europe/London", **where),
        ]
        assert [ended.code for ended in found] == [0, 0], found[0].err
        ids = [{json.loads(line)["id"] for line in ended.out.splitlines()} for ended in found]
        assert ids == [{f"id{n}" for n in range(35)}] * 2
        assert (await inside(*last, **where)).out == b""


async def test_yesterday(inside, emulate, dataset):
    """Yesterday is a day of the account's calendar."""
    api = await emulate(dataset)
    for name in (EAST, WEST):
        before = datetime.now(UTC)
        ended = await inside("pull", "a.ndjson", "--yesterday", "--dry-run", "--zone", name, api=api)
        assert ended.code == 0, ended.err
        offset = timedelta(hours=14 if name == EAST else -12)
        days = {f"{moment + offset - timedelta(days=1):%Y-%m-%d}" for moment in (before, datetime.now(UTC))}
        asked = dict(api.requests[-1].query)
        assert {asked["from_date"][:10], asked["to_date"][:10]} <= days


async def test_the_zone_of_what_is_written(inside, emulate, dataset, tmp_path):
    """The moments of a CSV file have the zone's offset."""
    api = await emulate(dataset)
    ended = await inside("pull", "may.csv", *MONTH, "--zone", "Europe/London", api=api)
    assert ended.code == 0, ended.err
    assert offsets_of(tmp_path / "may.csv") == {"+01:00"}


@pytest.mark.parametrize("name", ["may.ndjson", "may.db"])
async def test_an_interrupted_pull(inside, emulate, large, name):
    """An interrupted pull is resumed in the account's zone, and not by a pull in another zone."""
    api = await emulate(large, faults=failing(times=1))
    ended = await inside("pull", name, *SLOW, "--patience", "0s", "--zone", "Europe/London", api=api)
    assert ended.code == 3
    assert "calls are kept; resume with: servetel pull" in ended.lines[-1]
    assert "--zone Europe/London" in ended.lines[-1]
    api = await emulate(large)
    assert b"interrupted pull of something else" in (await inside("pull", name, *MONTH, api=api)).err
    again = await inside("pull", name, *SLOW, "--zone", "Europe/London", api=api)
    assert (again.code, again.lines[-2]) == (0, "600 of the 600 the API counted")


async def test_an_interrupted_sync(inside, emulate):
    """An interrupted sync is resumed in the account's zone."""
    now = datetime.now(LONDON)
    recent = Dataset.range(f"{now - timedelta(days=6):%Y-%m-%d}", f"{now:%Y-%m-%d %H:%M:%S}", calls=300)
    api = await emulate(recent, faults=failing(times=1))
    one_by_one = (
        "--rate",
        "0",
        "--page-size",
        "2",
        "--concurrency",
        "1",
        "--patience",
        "0s",
        "--zone",
        "Europe/London",
    )
    ended = await inside("sync", "a.db", *one_by_one, api=api)
    assert ended.code == 3, ended.err
    assert "calls are kept" in ended.lines[-1]


async def test_a_sync_in_another_zone(inside, tmp_path):
    """A sync reads up to the account's present, which is in the future or in the past in India's zone."""
    now = datetime.now(UTC)
    calls = [
        (f"{now.astimezone(LONDON) - timedelta(minutes=5 * n + 7):%Y-%m-%d %H:%M:%S}", f"id{n}") for n in range(20)
    ]
    async with SmallServer(calls) as api:
        where = {"SERVETEL_BASE_URL": api.base_url, "SERVETEL_TOKEN": "token-123456"}
        ended = await inside("sync", "a.db", "--rate", "0", "--zone", "Europe/London", "--json", **where)
    assert ended.code == 0, ended.err
    receipt = json.loads(ended.out.splitlines()[-1])
    assert receipt["records"] == 20
    assert f"{now.astimezone(LONDON) - timedelta(minutes=1):%Y-%m-%d %H:%M:%S}" <= receipt["to_date"]


COMMANDS = {
    "pull": ("pull", "a.ndjson", *MONTH),
    "sync": ("sync", "a.db"),
    "check": ("check", "a.db"),
    "doctor": ("doctor",),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_acefone_uk_needs_a_zone(inside, command, tmp_path):
    """Without a zone, every command that calls the API is refused with code 2 and the flag to set; nothing is sent."""
    ended = await inside(*command, "--brand", "acefone-uk", SERVETEL_TOKEN="token-123456")
    assert ended.code == 2
    assert told(ended) == [
        "Error: the account's zone is not given",
        "Why: Acefone UK is not in India, and in a wrong zone a pull misses the newest hours",
        "Fix: give --zone Europe/London, or set SERVETEL_ZONE or 'zone' in the profile",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_a_zone_that_does_not_exist(inside, emulate, dataset, command, tmp_path):
    """An unknown zone is refused with code 2 before anything is sent, whatever its source."""
    api = await emulate(dataset)
    for ended in (
        await inside(*command, "--zone", "Europe/Lodnon", api=api),
        await inside(*command, "--zone", "", api=api),
        await inside(*command, api=api, SERVETEL_ZONE="Europe/Lodnon"),
    ):
        assert (ended.code, api.requests) == (2, [])
        assert told(ended)[0] == "Error: there is no such zone"
        assert "Europe/London or +05:30" in told(ended)[2]
    assert list(tmp_path.iterdir()) == []


async def test_a_profile(inside, emulate, dataset, tmp_path):
    """The profile's zone holds for an address and a token from flags too, and ``doctor`` names its source."""
    api = await emulate(dataset)
    text = f'[profiles.default]\ntoken = "{api.token}"\nbase_url = "{api.base_url}"\nzone = "Europe/London"\n'
    for name, content in (("config.toml", text), ("token", api.token)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    config = {"SERVETEL_CONFIG": str(tmp_path / "config.toml")}
    flags = ("--token-file", "token", "--base-url", api.base_url)
    for arguments, more, zone in (
        ((), {}, "Europe/London from the profile"),
        (flags, {}, "Europe/London from the profile"),
        ((), {"SERVETEL_ZONE": "+01:00"}, "UTC+01:00 from SERVETEL_ZONE"),
        (("--zone", "+05:30"), {"SERVETEL_ZONE": "+01:00"}, "IST from --zone"),
    ):
        ended = await inside("doctor", *arguments, **config, **more)
        assert ended.code == 0, ended.err
        assert f"zone        {zone}" in ended.out.decode().splitlines()
    ended = await inside("pull", "may.csv", *MONTH, *flags, **config)
    assert ended.code == 0, ended.err
    assert offsets_of(tmp_path / "may.csv") == {"+01:00"}
    ended = await inside("doctor", api=api)
    assert "zone        IST from the default" in ended.out.decode().splitlines()
    assert "+01:00" not in ended.out.decode()
