"""Sync: a database kept current despite late and changed calls, pauses and kills."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from servetel_async import IST, CallQuery, ConfigurationError, OutputLockedError
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from servetel_async.emulator import Dataset
from tests.bulk.living_server import LivingServer, every
from tests.bulk.small_server import HONEST, Answer

WEEK = timedelta(days=7)
EVERYTHING = CallQuery()


def wall(**ago):
    """A past moment of the account's wall clock."""
    return (datetime.now(UTC).astimezone(IST) - timedelta(**ago)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture(scope="module")
def fortnight():
    """Two weeks of calls, up to a few minutes ago."""
    return Dataset.range(wall(days=14), wall(minutes=5), calls=900)


def ids(target):
    with closing(sqlite3.connect(target)) as database:
        return {row[0] for row in database.execute("SELECT id FROM call_records")}


def column(target, name, call):
    with closing(sqlite3.connect(target)) as database:
        return database.execute(f"SELECT {name} FROM call_records WHERE id = ?", (call,)).fetchone()[0]


async def test_the_look_back_is_in_and_nothing_older(connect, fortnight, tmp_path):
    """A sync reads from midnight of its first day up to the server's clock."""
    api, client = await connect(fortnight)
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert receipt.complete
    midnight = wall(days=7)[:10] + " 00:00:00"
    assert receipt.from_date == midnight
    assert ids(tmp_path / "a.db") == set(api.truth(from_date=midnight, to_date=wall()))


@pytest.mark.parametrize("bounds", ["end_exclusive", "start_exclusive"])
async def test_a_late_call_in_the_last_second_of_a_day_is_seen(connect, fortnight, tmp_path, bounds):
    """A new process finds it too, although the server excludes a bound; unchanged windows are not read again."""
    api, client = await connect(fortnight, bounds=bounds)
    for days in (1, 3, 5):
        for second in ("00:00:00", "23:59:59"):
            api.insert(f"{wall(days=days)[:10]} {second}")
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    first = len(api.requests)
    late = {api.insert_late(f"{wall(days=days)[:10]} {time}") for days, time in ((4, "00:00:00"), (5, "23:59:59"))}
    client.conventions = None
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert receipt.complete, receipt.certified
    assert late <= ids(tmp_path / "a.db")
    assert len(api.requests) - first < first


async def test_what_came_late_is_in_after_the_next_run(connect, fortnight, tmp_path):
    """The count of its window shows a late call, old or new, at a fraction of the requests."""
    api, client = await connect(fortnight)
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    first = len(api.requests)
    late = {api.insert_late(wall(days=5)), api.insert_late(wall(days=2)), api.insert(wall(minutes=2))}
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert receipt.complete
    assert late <= ids(tmp_path / "a.db")
    assert len(api.requests) - first < first


async def test_one_gone_and_one_late_of_the_same_day_are_both_seen(connect, fortnight, tmp_path):
    """They cancel out in the total, but not in the counts of their windows."""
    api, client = await connect(fortnight, page_size=1)
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    newer, older = [window for window in receipt.windows if window.records and window.last < wall(days=2)][:2]
    api.delete(api.truth(from_date=newer.first, to_date=newer.last)[0])
    late = api.insert_late(older.first)
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert late in ids(tmp_path / "a.db")


async def test_of_two_readings_of_one_time_the_later_counts(connect, fortnight, tmp_path):
    """A pulled month overlaps the windows of the syncs: its count is the later one, and is compared."""
    api, client = await connect(fortnight, page_size=10)
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    await client.pull(tmp_path / "a.db", wall(days=10)[:10], wall(days=3)[:10])
    before = len(api.requests)
    late = api.insert_late(wall(days=5))
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert receipt.complete
    assert late in ids(tmp_path / "a.db")
    assert len(api.requests) - before < before


async def test_the_last_day_is_read_in_full(connect, fortnight, tmp_path):
    """Notes and recordings come after the call, and no count shows them."""
    api, client = await connect(fortnight)
    call = api.insert(wall(hours=1), status="missed")
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    api.delete(call)
    api.insert(wall(hours=1), id=call, status="answered")
    await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
    assert column(tmp_path / "a.db", "status", call) == "answered"


async def test_an_old_month_does_not_widen_the_range(connect, fortnight, tmp_path):
    """A month that was pulled long after its end does not affect the time since."""
    _, client = await connect(fortnight)
    await client.pull(tmp_path / "a.db", wall(days=13)[:10], wall(days=12)[:10])
    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=timedelta(days=2))
    assert receipt.from_date == wall(days=2)[:10] + " 00:00:00"


async def test_a_run_that_was_killed_is_made_good_by_the_next(connect, fortnight, tmp_path):
    """The killed run's commits are kept, and in the end no call is missing."""
    api, client = await connect(fortnight)

    def kill(progress):
        if progress.windows == 3:
            raise KeyError

    with pytest.raises(KeyError):
        await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK, on_progress=kill)
    for _ in range(2):
        receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
        assert receipt.complete
    assert ids(tmp_path / "a.db") == set(api.truth(from_date=receipt.from_date, to_date=wall()))


async def test_two_runs_at_once_are_safe(connect, fortnight, tmp_path):
    """The second run fails at once with a clear error, and the first is not disturbed."""
    _, client = await connect(fortnight)
    told = []

    async def second():
        with pytest.raises(OutputLockedError):
            await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK)
        told.append(True)

    import asyncio

    running = []

    def start(_progress):
        if not running:
            running.append(asyncio.ensure_future(second()))

    receipt = await sync(client, tmp_path / "a.db", EVERYTHING, lookback=WEEK, on_progress=start)
    await running[0]
    assert told
    assert receipt.complete


@pytest.mark.parametrize("dest", ["a.ndjson", "a.csv", "-", "a.parquet"])
async def test_only_a_database_can_be_kept_current(connect, fortnight, tmp_path, dest):
    """A file is written once: the error comes before any request."""
    api, client = await connect(fortnight)
    with pytest.raises(ConfigurationError, match="Only a database"):
        await sync(client, dest if dest == "-" else tmp_path / dest, EVERYTHING)
    assert api.requests == []


@pytest.mark.parametrize(
    ("query", "lookback", "said"),
    [
        (CallQuery(from_date="2024-05-01"), WEEK, "no dates"),
        (EVERYTHING, timedelta(0), "longer than nothing"),
    ],
)
async def test_what_makes_no_sense_is_refused(connect, fortnight, tmp_path, query, lookback, said):
    """Dates are refused, and so is a sync without a look-back."""
    _, client = await connect(fortnight)
    with pytest.raises(ConfigurationError, match=said):
        await sync(client, tmp_path / "a.db", query, lookback=lookback)


async def test_a_day_of_an_older_range_that_could_not_be_proved_is_read_again(tmp_path):
    """This holds even if the reading that made it part of the sync is replaced."""
    ill = [True]

    def habit(asked):
        if not (ill[0] and asked.first[:10] <= "2024-05-03" <= asked.last[:10] and asked.last > "2024-05-03 14"):
            return HONEST
        return Answer(rows=[row for row in asked.rows if row[0][:13] != "2024-05-03 15"], count=len(asked.found))

    target = tmp_path / "a.db"
    calls = [*every(60, "2024-05-01", "2024-06-20 23:59:00")]
    async with LivingServer(calls, "2024-05-03 11:00:00", habit) as server, server.client() as client:
        await pull(client, target, CallQuery.day("2024-05-03"))
        server.now = "2024-06-20 12:00:00"
        assert not (await sync(client, target, EVERYTHING)).complete
        ill[0] = False
        assert (await sync(client, target, EVERYTHING)).complete
        assert {key for start, key in calls if start[:10] == "2024-05-03"} <= ids(target)
