"""Servers that refuse long ranges, from the command line."""

from __future__ import annotations

import pytest

from servetel_async.emulator import Dataset
from tests.cli.conftest import MONTH


@pytest.mark.parametrize("command", ["pull", "dry run"])
@pytest.mark.parametrize("days", [7, 1])
async def test_a_month_from_a_server_of_short_ranges(command, days, inside, emulate, dataset, tmp_path):
    """The limit is learnt from the first refusal; the month is complete."""
    api = await emulate(dataset, max_range_days=days)
    ended = await inside("pull", "may.ndjson", *MONTH, *(["--dry-run"] if command == "dry run" else []), api=api)
    assert ended.code == 0, ended.err
    if command == "pull":
        assert "250 of the 250 the API counted" in ended.lines
        assert len((tmp_path / "may.ndjson").read_bytes().splitlines()) == 250
    else:
        assert ended.out.startswith(b"250 calls")
    assert sum(request.status == 422 for request in api.requests) == 1


async def test_max_range_is_never_exceeded(inside, emulate, dataset):
    """With --max-range no request of a pull or a check is refused."""
    api = await emulate(dataset, max_range_days=7)
    for arguments in (("pull", "may.ndjson", *MONTH), ("check", "may.ndjson", "--rate", "0")):
        ended = await inside(*arguments, "--max-range", "7d", api=api)
        assert ended.code == 0, ended.err
    assert {request.status for request in api.requests} == {200}


async def test_sync_takes_it_too(inside, emulate):
    """``sync`` with ``--max-range 12h`` requests twelve hours at a time."""
    api = await emulate(Dataset.month("2024-05", calls=10), max_range_days=0.5)
    ended = await inside("sync", "may.db", "--rate", "0", "--lookback", "2d", "--max-range", "12h", api=api)
    assert ended.code == 0, ended.err
    assert {request.status for request in api.requests} == {200}


async def test_doctor_names_the_limit(inside, emulate, dataset):
    """``doctor`` names the limit. The emulator accepts an open range although it refuses a month."""
    api = await emulate(dataset)
    ended = await inside("doctor", "--probe", "--rate", "0", api=api)
    assert b"ranges      everything at once" in ended.out
