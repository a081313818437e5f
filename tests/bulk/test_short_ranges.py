"""A server that refuses ranges of a month: a pull, a sync, a check and the doctor learn the allowed length."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3

import pytest

from servetel_async import CallQuery, RequestRejectedError, Retry, ServetelClient
from servetel_async.bulk.check import check
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.probe import probe
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from servetel_async.emulator import Dataset, Emulator
from servetel_async.protocol.windows import Window
from tests.bulk.short_ranges import CALLS, DAY, allows, dates, elapsed, exactly, length, refusal, refused
from tests.bulk.small_server import HONEST, Answer, SmallServer

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NOW = "Mon, 01 Jul 2024 12:00:00 GMT"
TWO_MONTHS = CallQuery(from_date="2024-05-01", to_date="2024-06-30")


@contextlib.asynccontextmanager
async def serving(habit, calls=CALLS, *, date=NOW, **options):
    """A server with this habit, and a client that never waits."""
    options = {"rate": None, "page_size": 20, "retry": Retry(attempts=2, base=0.001)} | options
    async with (
        SmallServer(calls, habit, date=date) as server,
        ServetelClient("token-123456", base_url=server.base_url, **options) as client,
    ):
        yield server, client


def ids_in(target):
    return [json.loads(line)["id"] for line in target.read_bytes().splitlines()]


TRUTH = [key for _, key in CALLS]

HABITS = {
    "7 days, said": (allows(7), 1),
    "1 day, said": (allows(1, "The range cannot be more than 24 hours"), 1),
    "1 month, said": (allows(29, "maximum 1 month"), 1),
    "7 days, not said": (allows(7, "Bad request", 400), 2),
    "1 day, not said": (allows(1, "Bad request", 400), 4),
    "7 days, at 200": (allows(7, "No.", 200), 4),
    "7 dates": (allows(7, counts=dates), 1),
    "less than 7 days": (allows(7, counts=exactly), 2),
}


@pytest.mark.parametrize("name", HABITS)
async def test_a_pull_learns_how_long_a_range_may_be(name, tmp_path):
    """Only the first request is refused. Every call is there, each window is certified, and the counts agree."""
    habit, most = HABITS[name]
    async with serving(habit) as (server, client):
        receipt = await client.pull(tmp_path / "a.ndjson", query=TWO_MONTHS)
        assert refused(server.asked, habit) == most
    assert ids_in(tmp_path / "a.ndjson") == TRUTH
    assert (receipt.complete, receipt.records, receipt.counted, receipt.counted_before) == (True, 120, 120, 120)
    assert all(window.proof and not window.flaws for window in receipt.windows)
    assert (receipt.windows[0].last, receipt.windows[-1].first) == ("2024-06-30 23:59:59", "2024-05-01 00:00:00")
    for newer, older in zip(receipt.windows, receipt.windows[1:], strict=False):
        assert dt.datetime.fromisoformat(newer.first) - dt.datetime.fromisoformat(older.last) == dt.timedelta(seconds=1)


@pytest.mark.parametrize("says", ["Date range must not exceed {days:g} days", "Bad request"])
async def test_a_resumed_pull_learns_it_in_its_line(says, tmp_path):
    """The rest is refused, then read in shorter windows. Committed windows are not requested again."""
    habit, target = allows(7, says), tmp_path / "a.ndjson"

    def dies(asked):
        return Answer(status=401) if asked.first < "2024-06-12" else HONEST

    async with serving(allows(7, says, also=dies), max_concurrency=1) as (server, client):
        with pytest.raises(Exception, match="token"):
            await pull(client, target, TWO_MONTHS)
        server.habit = habit
        server.asked.clear()
        seen = []
        async with ServetelClient("token-123456", base_url=server.base_url, rate=None, page_size=20) as another:
            receipt = await pull(another, target, TWO_MONTHS, on_progress=seen.append)
        assert 1 <= refused(server.asked, habit) <= 8
        # Once, for the clock.
        assert sum(asked.first == "2024-06-24 00:00:00" and asked.limit > 1 for asked in server.asked) == 1
    assert ids_in(target) == TRUTH
    assert (receipt.complete, receipt.counted, receipt.counted_before) == (True, 120, 120)
    assert seen[-1].total == 120


async def test_the_audit_counts_in_allowed_ranges(tmp_path):
    """Reconciling finds a call that was removed after its window was read, although no request spans the range."""
    gone = []

    def habit(asked):
        if asked.first <= "2024-05-02" and asked.limit > 1 and not gone:
            gone.append(next(call for call in server.calls if call[0].startswith("2024-06-29 12")))
            server.calls.remove(gone[0])
            asked.found[:] = [call for call in asked.found if call != gone[0]]
        return allows(7)(asked)

    calls = list(CALLS)
    async with serving(habit, calls, max_concurrency=1) as (server, client):
        receipt = await client.pull(tmp_path / "a.ndjson", query=TWO_MONTHS)
        assert refused(server.asked, allows(7)) == 1
    assert gone
    assert (receipt.complete, receipt.records, receipt.counted) == (True, 119, 119)
    assert gone[0][1] not in ids_in(tmp_path / "a.ndjson")


async def test_an_open_end_is_pulled_up_to_now(tmp_path):
    """A pull from a date on works with a server that refuses open ranges."""
    now = dt.datetime.now(IST)
    recent = [(f"{now - dt.timedelta(hours=hours):%Y-%m-%d %H:%M:%S}", f"r{hours:03}") for hours in range(1, 400, 7)]
    async with serving(allows(7), recent, date=None) as (server, client):
        receipt = await client.pull(tmp_path / "a.ndjson", now - dt.timedelta(days=17))
        assert refused(server.asked, lambda asked: refusal("") if length(asked) is None else HONEST) == 1
    assert ids_in(tmp_path / "a.ndjson") == [key for _, key in recent]
    assert receipt.complete


@pytest.mark.parametrize(("status", "requests"), [(422, 5), (200, 10)])
async def test_a_refusal_for_another_reason_ends_a_pull_soon(status, requests, tmp_path):
    """It ends with the first error, after few requests, and leaves no file."""
    async with serving(lambda asked: refusal(f"no, said the {asked.nth}. time", status)) as (server, client):
        with pytest.raises(RequestRejectedError, match="said the"):
            await client.pull(tmp_path / "a.ndjson", query=TWO_MONTHS)
        assert len(server.asked) == requests
        assert client.longest_range == 31 * DAY
    assert list(tmp_path.iterdir()) == []


async def test_a_refusal_of_a_day_in_the_line_ends_it(tmp_path):
    """The server no longer keeps such old calls. Committed windows stay for the next run."""

    def habit(asked):
        return refusal("that is too long ago") if asked.first < "2024-05-20" else HONEST

    async with serving(habit, max_concurrency=1) as (server, client):
        with pytest.raises(RequestRejectedError, match="too long ago"):
            await client.pull(tmp_path / "a.ndjson", query=TWO_MONTHS)
        assert refused(server.asked, habit) <= 12
    assert (tmp_path / "a.ndjson.part").is_file()


@pytest.mark.parametrize("says", ["Date range must not exceed {days:g} days", "Bad request"])
async def test_sync_counts_again_in_allowed_ranges(says, tmp_path):
    """Windows pulled before there was a limit are counted in parts; an unchanged one is not read again."""
    now = dt.datetime.now(IST)
    calls = [(f"{now - dt.timedelta(hours=hours):%Y-%m-%d %H:%M:%S}", f"r{hours:04}") for hours in range(3, 600, 11)]
    target = tmp_path / "a.db"
    async with serving(lambda _: HONEST, calls, date=None) as (_, client):
        await client.pull(target, now - dt.timedelta(days=28), now - dt.timedelta(days=2))
    late = (f"{now - dt.timedelta(days=5):%Y-%m-%d %H:%M:%S}", "late")
    habit = allows(7, says)
    async with serving(habit, sorted([*calls, late], reverse=True), date=None) as (server, client):
        receipt = await sync(client, target, CallQuery(), lookback=dt.timedelta(days=27))
        assert receipt.complete
        assert refused(server.asked, habit) <= 2
    with contextlib.closing(sqlite3.connect(target)) as database:
        found = {key for (key,) in database.execute("SELECT id FROM call_records")}
    assert found == {key for _, key in calls} | {"late"}


async def test_check_counts_again_in_allowed_ranges(tmp_path):
    """A receipt of long windows is checked on a server that has become strict."""
    target = tmp_path / "a.ndjson"
    async with serving(lambda _: HONEST) as (server, client):
        await client.pull(target, query=TWO_MONTHS)
        server.habit = allows(7)
        assert (await check(client, target, TWO_MONTHS)).agrees
        server.calls = CALLS[1:]
        report = await check(client, target, TWO_MONTHS)
        assert [(window.counted_then, window.counted_now) for window in report.changed] == [(60, 59)]


async def test_a_count_in_parts_needs_every_count():
    """If a part has no count, there is no total."""
    habit = allows(7, also=lambda asked: Answer(no_count=asked.first < "2024-05-10"))
    async with serving(habit) as (_, client):
        fetcher = Fetcher(client, CallQuery(), page_size=20, concurrency=4, patience=10)
        assert await fetcher.count(Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59"), Cost()) is None
        assert await fetcher.count(Window.of("2024-05-12 00:00:00", "2024-05-30 23:59:59"), Cost()) == 38


async def test_max_range_is_never_exceeded(tmp_path):
    """Neither the first request nor reconciling exceeds it, and the file is the same."""
    habit = allows(7)
    async with serving(habit, max_range=7 * DAY) as (server, client):
        receipt = await client.pull(tmp_path / "a.ndjson", query=TWO_MONTHS)
        assert not any(elapsed(asked, 7) for asked in server.asked)
    assert receipt.complete
    assert ids_in(tmp_path / "a.ndjson") == TRUTH


@pytest.mark.parametrize("count_mode", ["total", "missing", "page"])
@pytest.mark.parametrize("days", [7, 1])
async def test_the_emulators_month(days, count_mode, tmp_path):
    """A pull of a month is correct, whatever the server's ``count`` means."""
    data = Dataset.month("2024-05", calls=400)
    async with (
        Emulator(data, max_range_days=days, count_mode=count_mode) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=50) as client,
    ):
        receipt = await client.pull(tmp_path / "a.ndjson", query=CallQuery.month("2024-05"))
    assert receipt.complete
    assert sorted(ids_in(tmp_path / "a.ndjson")) == sorted(data.ids)


@pytest.mark.parametrize(("days", "said"), [(7, "7 days at most"), (1, "1 day at most"), (0.5, "12 hours at most")])
async def test_the_doctor_finds_it_out(days, said):
    """It requests the whole history, then a month, then less, and reports the allowed length."""
    now = dt.datetime.now(IST)
    calls = [
        (f"{now - dt.timedelta(minutes=15 * number):%Y-%m-%d %H:%M:%S}", f"r{number:03}") for number in range(1, 40)
    ]
    says = "Date range must not exceed {days:g} days" if days >= 1 else "Date range must not exceed 12 hours"
    async with serving(allows(days, says), calls) as (server, client):
        found = await probe(client)
        assert f"ranges      {said}" in str(found)
        assert (found.calls, found.count_is_total) == (39, True)
        assert len(server.asked) <= 16


async def test_the_doctor_of_a_server_without_a_limit():
    """The first request succeeds."""
    async with serving(lambda _: HONEST) as (_, client):
        assert "ranges      everything at once" in str(await probe(client))
