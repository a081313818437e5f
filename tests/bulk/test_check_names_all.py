"""Check names every part that was incomplete, that no pull wrote, or that cannot be compared."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from servetel_async import CallQuery
from servetel_async.bulk.check import check
from servetel_async.bulk.pull import pull
from tests.bulk.living_server import LivingServer, every
from tests.bulk.small_server import HONEST, Answer

NOW = "2024-05-10 12:00:00"
CALLS = [*every(30, "2024-05-05", "2024-05-07 23:30:00")]
DAYS = CallQuery(from_date="2024-05-05", to_date="2024-05-07")
HOUR = CallQuery(from_date="2024-05-05 12:00:00", to_date="2024-05-05 13:00:00")
IN_HOUR = ("2024-05-05 12:30:00", "call-20240505123000")


def run(target, statement):
    with closing(sqlite3.connect(target)) as database, database:
        database.execute(statement)


def one_too_many(asked):
    """Send a count that is one too high."""
    inside = asked.first <= IN_HOUR[0] <= asked.last
    return Answer(count=len(asked.found) + 1) if inside else HONEST


@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
async def test_what_was_not_complete_does_not_agree(tmp_path, name):
    """The API's count is unchanged, and still higher than the number of calls written."""
    async with LivingServer(list(CALLS), NOW, one_too_many) as server, server.client() as client:
        assert not (await pull(client, tmp_path / name, DAYS)).complete
        report = await check(client, tmp_path / name)
    assert report.changed == ()
    assert not report.agrees
    assert "the API counts 2 and gave a first page of 1" in str(report)


@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
async def test_a_record_that_could_not_be_read_does_not_agree(tmp_path, name):
    """It was counted, but is not among the calls."""
    body = b'{"count":1,"page":1,"results":[{"foreign":1}]}'
    async with (
        LivingServer([], NOW, lambda asked: Answer(body=body) if asked.page == 1 else HONEST) as server,
        server.client() as client,
    ):
        assert (await pull(client, tmp_path / name, DAYS)).quarantined == 1
        report = await check(client, tmp_path / name)
    assert not report.agrees


async def test_a_row_that_no_pull_wrote_does_not_agree(tmp_path):
    """Another program added it."""
    target = tmp_path / "a.db"
    async with LivingServer(list(CALLS), NOW) as server, server.client() as client:
        await pull(client, target, DAYS)
        run(target, "INSERT INTO call_records (account, id) SELECT account, 'forged' FROM call_records LIMIT 1")
        report = await check(client, target)
    assert [str(each.how) for each in report.differences] == ["1 row of no reading: another program wrote them"]


async def test_a_row_that_was_not_brought_again_is_named(tmp_path):
    """The account deleted the call between two pulls: its row stays, and only the others are compared."""
    target = tmp_path / "a.db"
    async with LivingServer(list(CALLS), NOW) as server, server.client() as client:
        await pull(client, target, DAYS)
        server.calls.remove(IN_HOUR)
        await pull(client, target, DAYS)
        report = await check(client, target)
    assert report.agrees
    assert f"{len(CALLS) - 1} rows of 1 reading compared" in str(report)
    assert "not looked at: 1 row that a later reading of the window did not bring again" in str(report)


async def test_a_call_that_left_the_replaced_part_of_a_window_raises_no_alarm(tmp_path):
    """Its row is counted with the rest, so the rows cannot be compared with the count."""
    target = tmp_path / "a.db"
    async with LivingServer(list(CALLS), NOW) as server, server.client() as client:
        await pull(client, target, DAYS)
        server.calls.remove(IN_HOUR)
        await pull(client, target, HOUR)
        report = await check(client, target)
    assert report.agrees
    assert "not looked at: counts of 1 window of which a later run read a part" in str(report)


async def test_a_call_that_left_the_replaced_part_hides_no_late_call_of_the_rest(tmp_path):
    """The two would cancel out, and the check would wrongly agree."""
    target = tmp_path / "a.db"
    async with LivingServer(list(CALLS), NOW) as server, server.client() as client:
        await pull(client, target, DAYS)
        server.calls.remove(IN_HOUR)
        await pull(client, target, HOUR)
        server.calls.append(("2024-05-05 11:11:11", "late"))
        report = await check(client, target)
    assert str(report).endswith("all that was looked at agrees")


async def test_windows_of_which_no_total_comes_now_are_named(tmp_path):
    """A missing count is not a count of 0: no difference is reported, and the other windows are compared."""
    target = tmp_path / "a.db"
    silent = False

    def habit(asked):
        return Answer(no_count=True) if silent and asked.last < "2024-05-06" else HONEST

    async with LivingServer(list(CALLS), NOW, habit) as server, server.client() as client:
        for day in ("2024-05-05", "2024-05-06"):
            await pull(client, target, CallQuery.day(day))
        silent = True
        report = await check(client, target)
    assert report.agrees
    assert "48 calls now, 48 when it was pulled, in 1 window" in str(report)
    assert "not looked at: counts of 1 window of which the API sent no total" in str(report)
    assert str(report).endswith("all that was looked at agrees")


async def test_readings_that_cannot_be_read_are_named(tmp_path):
    """Their rows are not compared, and the report does not claim that they were."""
    target = tmp_path / "a.db"
    async with LivingServer(list(CALLS), NOW) as server, server.client() as client:
        for day in ("2024-05-05", "2024-05-06"):
            await pull(client, target, CallQuery.day(day))
        run(target, "UPDATE servetel_ledger SET fact = json_set(fact, '$.format', 3) WHERE reading = 1")
        report = await check(client, target)
    assert report.agrees
    assert "48 rows of 1 reading compared" in str(report)
    assert "not looked at: rows and counts of 1 reading that this version cannot read" in str(report)


class _StopError(Exception):
    """Kills the process here."""


def stop_at_a_window(progress):
    if progress.windows:
        raise _StopError


async def test_what_an_interrupted_pull_has_not_read_is_named(tmp_path):
    """The windows that it read agree, but they are not the whole range."""
    target = tmp_path / "a.db"
    quarter = CallQuery(from_date="2024-02-01", to_date="2024-04-30")
    calls = [*every(300, "2024-02-01", "2024-05-07")]
    async with LivingServer(calls, NOW) as server, server.client(max_concurrency=1) as client:
        await pull(client, target, CallQuery.day("2024-05-05"))
        with pytest.raises(_StopError):
            await pull(client, target, quarter, on_progress=stop_at_a_window)
        report = await check(client, target)
        assert report.agrees
        assert "not looked at: 2024-02-01 00:00:00 to 2024-0" in str(report)
        assert str(report).endswith("all that was looked at agrees")
        await pull(client, target, quarter)
        assert str(await check(client, target)).endswith("\nall of it agrees")
