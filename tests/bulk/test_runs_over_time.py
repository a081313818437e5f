"""Pulls and syncs over days and months: the state that one run leaves, and its use by the next."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from servetel_async import IST, AuthenticationError, CallQuery, ConfigurationError, OutputError
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from tests.bulk.living_server import LivingServer, every
from tests.bulk.small_server import HONEST, Answer
from tests.sinks.life import receipt_is_refused

DAY = CallQuery.day("2024-05-10")
MAY = CallQuery.month("2024-05")
NOON = "2024-05-10 12:00:00"
ALL = CallQuery()


def ids(path):
    if path.suffix == ".ndjson":
        return [json.loads(line)["id"] for line in path.read_text().splitlines()]
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("SELECT id FROM call_records")]


def listed(server, first="", last="~"):
    return sorted(key for start, key in server.calls if first <= start <= min(last, server.now))


@pytest.fixture(params=["a.ndjson", "a.db"])
def target(request, tmp_path):
    return tmp_path / request.param


# A range that is not over


async def test_a_range_that_is_not_over_is_complete_up_to_the_clock(target):
    """Neither the receipt nor its text mentions later calls."""
    async with (
        LivingServer([*every(10, "2024-05-10", "2024-05-10 23:59:00")], NOON) as server,
        server.client() as client,
    ):
        receipt = await pull(client, target, DAY)
        assert (receipt.to_date, receipt.asked_to, receipt.complete) == (NOON, "2024-05-10 23:59:59", True)
        assert f"complete up to {NOON}: " in str(receipt)
        assert sorted(ids(target)) == listed(server)


async def test_a_range_that_is_over_is_complete(target):
    """Its receipt names the requested range."""
    calls = [*every(10, "2024-05-10", "2024-05-10 23:59:00")]
    async with LivingServer(calls, "2024-05-11 00:00:00") as server, server.client() as client:
        receipt = await pull(client, target, DAY)
        assert (receipt.to_date, receipt.asked_to) == ("2024-05-10 23:59:59", None)
        assert "; complete: " in str(receipt)


async def test_a_window_is_final_up_to_its_last_second(target):
    """Here no late call is expected up to its last second."""
    calls = [*every(10, "2024-05-10", "2024-05-10 23:59:00")]
    async with LivingServer(calls, NOON) as server, server.client() as client:
        receipt = await pull(client, target, DAY)
    assert receipt.final_until == "2024-05-10 10:00:00"
    finals = {window.last: window.final for window in receipt.windows}
    assert (finals["2024-05-10 10:00:00"], finals[NOON]) == (True, False)


async def test_a_late_call_in_the_newest_final_window_is_found(target):
    """It came after its window was read, so the range counts more than its windows."""
    calls, now = [*every(120, "2024-01-01", "2024-03-31 12:00:00")], "2024-03-31 12:00:00"
    late = ("2024-03-31 09:30:01", "late")

    def habit(asked):
        length = datetime.fromisoformat(asked.last) - datetime.fromisoformat(asked.first)
        if asked.limit == 1 and length > timedelta(days=20) and late not in calls:  # after all windows were read
            calls.append(late)
            asked.found[:] = [call for call in calls if asked.first <= call[0] <= asked.last]
        return HONEST

    async with LivingServer(calls, now, habit) as server, server.client() as client:
        receipt = await pull(client, target, CallQuery(from_date="2024-01-01", to_date="2024-03-31"))
    assert receipt.complete
    assert "late" in ids(target)


@pytest.mark.parametrize(
    "query", [CallQuery.day("2024-05-11"), CallQuery(from_date="2024-05-10 12:00:01"), CallQuery.month("2024-06")]
)
async def test_a_range_that_has_not_begun_is_refused(target, query):
    """No file is written."""
    async with LivingServer([*every(10, "2024-05-10", NOON)], NOON) as server, server.client() as client:
        with pytest.raises(ConfigurationError, match="has not begun"):
            await pull(client, target, query)
        assert list(target.parent.iterdir()) == []


async def test_a_range_up_to_the_end_of_time_is_read_up_to_now(target):
    """Future months cost no request."""
    query = CallQuery(from_date="2024-05-01", to_date="9999-12-31")
    async with LivingServer([*every(60, "2024-05-01", NOON)], NOON) as server, server.client(page_size=50) as client:
        receipt = await pull(client, target, query)
        assert receipt.to_date == NOON
        assert sorted(ids(target)) == listed(server)
        assert len(server.asked) < 40


async def test_a_day_that_was_read_at_noon_is_resumed_the_next_day(target):
    """The next run reads noon to midnight."""
    calls = [*every(1, "2024-05-10", "2024-05-10 23:59:00")]
    async with LivingServer(calls, NOON) as server, server.client(max_concurrency=1) as client:
        server.refuse_after(20)
        with pytest.raises(AuthenticationError):
            await pull(client, target, DAY)
        server.refuses_from, server.now = None, "2024-05-11 12:00:00"
        receipt = await pull(client, target, DAY)
        assert (receipt.complete, receipt.asked_to, receipt.records) == (True, None, 1440)
        assert sorted(ids(target)) == listed(server)


async def test_a_month_that_was_begun_in_may_is_resumed_in_june(target):
    """The days since are read, and the receipt names the whole month."""
    calls = [*every(60, "2024-05-01", "2024-06-10")]
    async with LivingServer(calls, NOON) as server, server.client(max_concurrency=1) as client:
        server.refuse_after(20)
        with pytest.raises(AuthenticationError):
            await pull(client, target, MAY)
        server.refuses_from, server.now = None, "2024-06-02 12:00:00"
        receipt = await pull(client, target, MAY)
        assert (receipt.to_date, receipt.asked_to) == ("2024-05-31 23:59:59", None)
        assert sorted(ids(target)) == listed(server, "2024-05-01", "2024-05-31 23:59:59")


async def test_a_resumed_range_of_the_last_day_reaches_from_the_first_run_to_now(target):
    """No time between the two runs is left out."""
    calls = [*every(5, "2024-05-01", "2024-05-31")]
    async with LivingServer(calls, NOON) as server, server.client(max_concurrency=1) as client:
        server.refuse_after(20)
        day = {"range_name": "last 24h"}
        with pytest.raises(AuthenticationError):
            await pull(client, target, CallQuery(from_date="2024-05-09 12:00:00"), **day)
        server.refuses_from, server.now = None, "2024-05-12 12:00:00"
        receipt = await pull(client, target, CallQuery(from_date="2024-05-11 12:00:00"), **day)
        assert (receipt.from_date, receipt.to_date) == ("2024-05-09 12:00:00", "2024-05-12 12:00:00")
        assert sorted(ids(target)) == listed(server, "2024-05-09 12:00:00")


async def test_a_run_that_committed_nothing_decides_nothing(target):
    """The next run has its own range."""
    calls = [*every(5, "2024-05-01", "2024-05-31")]
    async with LivingServer(calls, NOON) as server, server.client() as client:
        server.refuse_after(2)
        day = {"range_name": "last 24h"}
        with pytest.raises(AuthenticationError):
            await pull(client, target, CallQuery(from_date="2024-05-09 12:00:00"), **day)
        server.refuses_from, server.now = None, "2024-05-12 12:00:00"
        receipt = await pull(client, target, CallQuery(from_date="2024-05-11 12:00:00"), **day)
        assert receipt.from_date == "2024-05-11 12:00:00"


class _StopError(Exception):
    """Kills the process here."""


def stop_at(windows):
    def stop(progress):
        if progress.windows >= windows:
            raise _StopError

    return stop


async def test_what_a_run_with_a_clock_of_the_future_has_read_is_not_there_twice_when_it_is_resumed(target):
    """Its windows prove nothing, so the same windows are read again."""
    calls = [*every(60, "2024-05-01", NOON)]
    async with LivingServer(calls, "2025-05-10 12:00:00") as server, server.client() as client:
        with pytest.raises(_StopError):
            await pull(client, target, MAY, on_progress=stop_at(3))
        server.calls[:0] = every(60, "2024-05-10 13:00:00", "2024-05-20")
        server.now = "2024-05-20 12:00:00"
        receipt = await pull(client, target, MAY)
        assert sorted(ids(target)) == listed(server)
        assert (receipt.complete, receipt.records) == (True, len(listed(server)))


async def test_the_hour_of_autumn_that_comes_twice_is_not_there_twice_when_a_pull_is_resumed(target):
    """A window that ends in that hour is read again as the same window."""
    sunday = "2024-11-03"
    calls = [*every(10, f"{sunday} 00:00:00", f"{sunday} 01:50:00")]
    indian = {"first": f"{sunday} 11:50:00", "second": "2024-11-04 12:00:00"}  # 01:20 in New York, for the second time
    async with (
        LivingServer(calls, indian["first"]) as server,
        server.client(zone=ZoneInfo("America/New_York")) as client,
    ):
        with pytest.raises(_StopError):
            await pull(client, target, CallQuery.day(sunday), on_progress=stop_at(1))
        server.calls[:0] = every(10, f"{sunday} 02:00:00", f"{sunday} 23:50:00")
        server.now = indian["second"]
        receipt = await pull(client, target, CallQuery.day(sunday))
        assert sorted(ids(target)) == sorted(key for _, key in server.calls)
        assert (receipt.complete, receipt.records) == (True, len(server.calls))


# Verdicts


async def test_a_resume_with_nothing_left_to_read_counts_again(target):
    """A call that came meanwhile is found and read."""
    calls = [*every(30, "2024-05-01", "2024-05-31 23:30:00")]
    async with LivingServer(calls, "2024-06-10") as server, server.client() as client:
        probe = await pull(client, target.with_name("probe.ndjson"), MAY)
        with pytest.raises(_StopError):
            await pull(client, target, MAY, on_progress=stop_at(len(probe.windows)))
        server.calls.append(("2024-05-13 00:00:01", "late"))
        receipt = await pull(client, target, MAY)
        assert receipt.complete
        assert receipt.counted == receipt.records == len(calls) - 0
        assert "late" in ids(target)


async def test_a_resume_of_windows_without_calls_counts_again(target):
    """Calls may have come since."""
    day = CallQuery.day("2024-05-13")
    async with LivingServer([("2024-05-01 00:00:01", "older")], "2024-06-10") as server, server.client() as client:
        with pytest.raises(_StopError):
            await pull(client, target, day, on_progress=stop_at(1))
        server.calls.append(("2024-05-13 00:00:01", "late"))
        receipt = await pull(client, target, day)
        assert (receipt.complete, receipt.records) == (True, 1)
        assert ids(target) == ["late"]


async def test_a_resume_reads_again_what_it_cannot_count_again(target):
    """Without a count, the windows that the interrupted run walked are walked again."""
    calls = [*every(30, "2024-05-01", "2024-05-31 12:00:00")]
    silent = lambda _asked: Answer(no_count=True)  # noqa: E731
    async with LivingServer(calls, "2024-05-31 12:00:00", silent) as server, server.client() as client:
        with pytest.raises(_StopError):
            await pull(client, target, MAY, on_progress=stop_at(1))
        server.calls.append(("2024-05-31 11:00:01", "late"))
        receipt = await pull(client, target, MAY)
        assert receipt.complete
        assert sorted(ids(target)) == sorted(key for _, key in server.calls)


async def test_a_resumed_pull_may_cost_what_all_of_it_may_cost(target):
    """Its budget includes the earlier windows, so the list is not reported as changing too fast."""
    few = [*every(60, "2024-05-01 10:00:00", "2024-05-01 20:00:00")]
    many = [*every(3, "2024-05-16", "2024-05-28")]
    async with LivingServer([*many, *few], "2024-06-10") as server, server.client(page_size=10) as client:
        probe = await pull(client, target.with_name("probe.ndjson"), MAY)
        with pytest.raises(_StopError):
            await pull(client, target, MAY, on_progress=stop_at(len(probe.windows) - 1))
        server.calls += [
            (f"2024-05-{16 + each // 12:02} {2 * (each % 12):02}:00:33", f"late-{each}") for each in range(140)
        ]
        receipt = await pull(client, target, MAY)
        assert (receipt.complete, receipt.records) == (True, len(server.calls))


async def test_a_resumed_pull_costs_what_its_windows_have_cost(target):
    """Its receipt counts no retry if no request was repeated, and the bytes of all replies."""
    calls = [*every(1, "2024-05-10", "2024-05-10 23:59:00")]
    async with LivingServer(calls, "2024-05-11 12:00:00") as server, server.client() as client:
        whole = await pull(client, target.with_name("whole.ndjson"), DAY)
        with pytest.raises(_StopError):
            await pull(client, target, DAY, on_progress=stop_at(len(whole.windows) - 1))
        receipt = await pull(client, target, DAY)
    assert receipt.retries == whole.retries == 0
    assert receipt.received > whole.received // 2


async def test_the_verdict_outlives_a_receipt_that_could_not_be_saved(tmp_path):
    """The output has its name but no receipt; the next run counts again and reports the verdict."""
    target = tmp_path / "a.ndjson"
    calls = [*every(30, "2024-05-01", "2024-05-31 23:30:00")]
    async with LivingServer(calls, "2024-06-10") as server, server.client() as client:
        with receipt_is_refused(target), pytest.raises(OutputError, match="written, but its receipt cannot be saved"):
            await pull(client, target, MAY)
        server.calls.append(("2024-05-13 00:00:01", "late"))
        before = target.read_bytes()
        receipt = await pull(client, target, MAY)
        assert (receipt.complete, receipt.reason) == (False, "moved")
        assert "changed after the output was written" in receipt.certified
        assert target.read_bytes() == before
        assert {path.name for path in tmp_path.iterdir()} == {"a.ndjson", "a.ndjson.receipt.json"}


# Syncs


async def synced(server, target, now, **options):
    server.now = now
    async with server.client() as client:
        return await sync(client, target, ALL, **options)


YEAR = [*every(240, "2024-04-01", "2024-12-31")]
SETTLES = pytest.mark.parametrize("settle", [0.0, 7200.0])


@SETTLES
async def test_a_pause_of_months_leaves_no_gap(tmp_path, settle):
    """All calls since are read, even in windows that are final by now."""
    target = tmp_path / "a.db"
    async with LivingServer(YEAR, NOON) as server:
        first = await synced(server, target, NOON, settle=settle)
        receipt = await synced(server, target, "2024-07-10 12:00:00", settle=settle)
        assert receipt.complete
        assert sorted(ids(target)) == listed(server, first.from_date)


@SETTLES
async def test_a_pull_of_another_range_leaves_no_gap(tmp_path, settle):
    """The next sync starts where the last sync ended, not at the newest reading."""
    target = tmp_path / "a.db"
    async with LivingServer(YEAR, NOON) as server:
        first = await synced(server, target, NOON, settle=settle)
        server.now = "2024-07-10 12:00:00"
        async with server.client() as client:
            await pull(client, target, CallQuery(from_date="2024-07-10"), settle=settle)
        await synced(server, target, "2024-07-10 12:00:00", settle=settle)
        assert sorted(ids(target)) == listed(server, first.from_date)


async def test_a_month_that_was_pulled_on_its_second_day_is_completed(tmp_path):
    """The pull read up to its own clock, so the sync begins there."""
    target = tmp_path / "a.db"
    async with LivingServer(YEAR, "2024-05-02 12:00:00") as server:
        async with server.client() as client:
            await pull(client, target, MAY)
        await synced(server, target, "2024-05-20 12:00:00")
        assert sorted(ids(target)) == listed(server, "2024-05-01")
        await synced(server, target, "2024-06-20 12:00:00")
        assert sorted(ids(target)) == listed(server, "2024-05-01")


@pytest.mark.parametrize("wrong", ["2025-05-20 12:00:00", "2023-05-20 12:00:00"])
@pytest.mark.parametrize("replies", [1, 1000])
async def test_a_wrong_clock_leaves_no_gap(tmp_path, wrong, replies):
    """The clock is a year ahead or behind, in one reply or in all replies of a run."""
    target = tmp_path / "a.db"
    async with LivingServer(YEAR, NOON) as server:
        first = await synced(server, target, NOON)
        server.wrong_dates = [wrong] * replies
        await synced(server, target, "2024-05-20 12:00:00")
        server.wrong_dates = []
        receipt = await synced(server, target, "2024-06-20 12:00:00")
        assert (receipt.complete, receipt.to_date) == (True, "2024-06-20 12:00:00")
        assert set(listed(server, first.from_date)) <= set(ids(target))


async def test_a_run_whose_clock_was_far_ahead_leaves_no_gap_later(tmp_path):
    """This computer's clock of then counts, even if the server's clock has passed the wrong one."""
    target = tmp_path / "a.db"
    begun = datetime.now(IST).replace(tzinfo=None, microsecond=0)

    def after(days):
        return (begun + timedelta(days=days)).isoformat(sep=" ")

    async with LivingServer([*every(240, after(-10), after(100))], after(0)) as server:
        first = await synced(server, target, after(0))
        server.wrong_dates = [after(40)] * 1000
        await synced(server, target, after(0))
        server.wrong_dates = []
        await synced(server, target, after(60))
        assert set(listed(server, first.from_date)) <= set(ids(target))


async def test_a_sync_that_was_stopped_is_completed_by_the_next(tmp_path):
    """This also holds after a long pause."""
    target = tmp_path / "a.db"
    async with LivingServer(YEAR, NOON) as server:
        first = await synced(server, target, NOON)
        server.now = "2024-07-10 12:00:00"
        async with server.client() as client:
            with pytest.raises(_StopError):
                await sync(client, target, ALL, on_progress=stop_at(4))
        receipt = await synced(server, target, "2024-07-11 12:00:00", lookback=timedelta(days=1))
        assert receipt.complete
        assert sorted(ids(target)) == listed(server, first.from_date)


async def test_a_late_call_before_a_pause_is_found_after_it(tmp_path):
    """Windows that were read within the look-back are counted again."""
    target = tmp_path / "a.db"
    async with LivingServer(list(YEAR), NOON) as server:
        await synced(server, target, NOON)
        server.calls += [("2024-05-06 00:00:07", "late"), ("2024-05-09 23:59:59", "late too")]
        await synced(server, target, "2024-07-10 12:00:00")
        assert {"late", "late too"} <= set(ids(target))


async def test_where_no_count_comes_any_more_a_sync_reads(tmp_path):
    """Windows that cannot be counted are read again, so a late call is found."""
    target, silent = tmp_path / "a.db", []
    habit = lambda _asked: Answer(no_count=True) if silent else HONEST  # noqa: E731
    async with LivingServer([*every(60, "2024-05-01", "2024-05-11 12:00:00")], NOON, habit) as server:
        await synced(server, target, NOON)
        silent.append(True)
        server.calls.append(("2024-05-06 00:00:01", "late"))
        await synced(server, target, "2024-05-11 12:00:00")
    assert "late" in ids(target)
