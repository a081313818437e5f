"""Pulls from a server that never counts beyond a limit, or refuses deep pages: every call, and a correct receipt."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError
from servetel_async.bulk.check import check
from servetel_async.bulk.probe import probe
from tests.bulk.small_server import SmallServer, calls_at, capped, hiding, shallow

_NEWEST = dt.datetime(2024, 5, 31, 23, 0)  # noqa: DTZ001 - the account's wall clock
MAY = ("2024-05-01", "2024-05-31")
DATE = "Sat, 01 Jun 2024 12:00:00 GMT"


def some(number, *, apart):
    """So many calls, newest first, at a fixed distance in seconds."""
    return calls_at(*[str(_NEWEST - dt.timedelta(seconds=apart * index)) for index in range(number)])


def client_of(server, page_size):
    return ServetelClient(
        "token-123456", base_url=server.base_url, rate=None, page_size=page_size, retry=Retry(attempts=2, base=0.001)
    )


@pytest.mark.parametrize("dates", [MAY, (None, "2024-05-31")], ids=["closed", "open"])
@pytest.mark.parametrize("page_size", [100, 1_000])
@pytest.mark.parametrize("habit", [capped(1_000), capped(2_000), shallow(2_000)], ids=["1000", "2000", "refuses"])
async def test_a_limit_costs_no_call(habit, page_size, dates, tmp_path):
    """Windows are cut until no count can be a limit; the receipt counts all calls, and a check agrees."""
    calls, target = some(4_502, apart=300), tmp_path / "may.ndjson"
    async with SmallServer(calls, habit, date=DATE) as server, client_of(server, page_size) as client:
        receipt = await client.pull(target, *dates)
        query = CallQuery(from_date=dates[0], to_date=dates[1])
        assert (await check(client, target, query)).agrees
    assert (receipt.complete, receipt.records, receipt.counted) == (True, 4_502, 4_502), receipt.certified
    lines = target.read_bytes().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(key for _, key in calls)


async def test_a_long_history_behind_a_limit_has_its_start(tmp_path):
    """A capped count reaches only part of the history: the search continues behind it, as often as needed."""
    calls, target = some(10_500, apart=3_600), tmp_path / "all.ndjson"
    async with SmallServer(calls, capped(1_000), date=DATE) as server, client_of(server, 500) as client:
        receipt = await client.pull(target)
    assert (receipt.complete, receipt.records) == (True, 10_500), receipt.certified
    assert receipt.from_date == f"{calls[-1][0][:10]} 00:00:00"


async def test_a_limit_without_any_count_costs_no_call(tmp_path):
    """Without a count, a window that ends at a round number of calls is cut."""
    calls, target = some(2_502, apart=30), tmp_path / "may.ndjson"
    async with SmallServer(calls, hiding(1_000), date=DATE) as server, client_of(server, 100) as client:
        receipt = await client.pull(target, *MAY)
    assert receipt.records == 2_502, receipt.certified
    lines = target.read_bytes().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(key for _, key in calls)


async def test_an_honest_round_count_is_certified(tmp_path):
    """A round count costs only a few more requests than another count."""
    target = tmp_path / "may.ndjson"
    async with SmallServer(some(1_000, apart=2_000), date=DATE) as server, client_of(server, 100) as client:
        receipt = await client.pull(target, *MAY)
        assert (receipt.complete, receipt.records) == (True, 1_000)
        assert len(server.asked) <= 18  # three of them find out how the server reads dates


async def test_a_second_behind_a_limit_is_not_certified(tmp_path):
    """The calls that come are delivered. The receipt is not complete and says why."""
    target = tmp_path / "may.ndjson"
    calls = calls_at(*["2024-05-06 09:00:00"] * 1_500)
    async with SmallServer(calls, capped(1_000), date=DATE) as server, client_of(server, 100) as client:
        receipt = await client.pull(target, *MAY)
    assert (receipt.complete, receipt.records) == (False, 1_000)
    assert "round number" in receipt.certified


@pytest.mark.parametrize("raised", [asyncio.CancelledError, StopAsyncIteration, GeneratorExit, StopIteration])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
async def test_what_on_progress_raises_ends_a_pull_as_an_error(nth, raised, tmp_path):
    """The error may be raised in any task of the pull. It never counts as a cancellation or an end."""
    seen = 0

    def on_progress(_progress):
        nonlocal seen
        seen += 1
        if seen == nth:
            raise raised

    async with SmallServer(some(30, apart=3_600), date=DATE) as server, client_of(server, 10) as client:
        task = asyncio.ensure_future(client.pull(tmp_path / "may.ndjson", *MAY, on_progress=on_progress))
        await asyncio.wait({task})
        assert not task.cancelled()
        assert isinstance(task.exception(), ServetelError)


@pytest.mark.parametrize(("number", "said"), [(1_203, "1,203 calls\n"), (1_500, "1,000 calls or more: a round number")])
async def test_the_probe_says_that_a_count_may_be_a_limit(number, said):
    """``doctor --probe`` reports it before a pull."""
    habit = capped(1_000) if number == 1_500 else None
    async with SmallServer(some(number, apart=60), habit, date=DATE) as server, client_of(server, 100) as client:
        assert said in str(await probe(client))
