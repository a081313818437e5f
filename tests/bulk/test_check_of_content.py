"""Check compares rows, files and bytes; and says what it compared and what it did not."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from servetel_async import CallQuery, ConfigurationError
from servetel_async.bulk.check import check
from servetel_async.bulk.check_report import CheckReport, Recount
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from tests.bulk.living_server import LivingServer, every
from tests.bulk.small_server import HONEST, Answer

NOW = "2024-05-10 12:00:00"
DAYS = CallQuery(from_date="2024-05-05", to_date="2024-05-07")
KINDS = ["a.ndjson", "a.csv", "a.parquet", "days/", "a.db", "a.duckdb"]


@pytest.fixture
async def server():
    async with LivingServer([*every(30, "2024-05-01", NOW)], NOW) as server:
        yield server


def place(tmp_path, name):
    return f"{tmp_path}/{name}"


def run(target, statement):
    if target.endswith(".db"):
        with closing(sqlite3.connect(target)) as database, database:
            database.execute(statement)
        return
    duckdb = pytest.importorskip("duckdb")
    with closing(duckdb.connect(target)) as database:
        database.execute(statement)


def tamper(target, how):
    """Damage the output: delete a call, change a field, or remove a file."""
    if target.endswith("db"):
        statements = {
            "less": "DELETE FROM call_records WHERE id = (SELECT max(id) FROM call_records)",
            "changed": "UPDATE call_records SET status = 'x' WHERE id = (SELECT max(id) FROM call_records)",
            "gone": "DELETE FROM call_records",
        }
        run(target, statements[how])
        return
    path = Path(target)
    if path.is_dir():
        path = min(path.rglob("*.parquet"))
    if how == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-1] if how == "less" else data.replace(data[-9:-8], b"#"))


@pytest.mark.parametrize("name", KINDS)
async def test_what_nothing_has_touched_agrees(server, tmp_path, name):
    """An unchanged output agrees, and the report says what was compared."""
    target = place(tmp_path, name)
    async with server.client() as client:
        await pull(client, target, DAYS)
        report = await check(client, target)
    assert report.agrees
    assert report.differences == report.changed == ()
    assert "compared with" in str(report)
    assert str(report).endswith("all of it agrees")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", ["less", "changed", "gone"])
async def test_what_is_not_there_any_more_shows(server, tmp_path, name, how):
    """A deleted row, a changed field or a removed file is reported with its window or name."""
    target = place(tmp_path, name)
    async with server.client() as client:
        await pull(client, target, DAYS)
        tamper(target, how)
        report = await check(client, target)
    assert not report.agrees
    assert report.differences
    assert "it does not agree" in str(report)


async def test_a_file_that_was_added_to_a_directory_shows(server, tmp_path):
    """A reader of the directory would take its rows for calls."""
    target = place(tmp_path, "days/")
    async with server.client() as client:
        await pull(client, target, DAYS)
        file = min(Path(target).rglob("*.parquet"))
        added = file.with_name("part-1.parquet")
        added.write_bytes(file.read_bytes())
        report = await check(client, target)
    assert [(each.what, each.how) for each in report.differences] == [
        (f"{added.parent.name}/part-1.parquet", "it was not written by the pull")
    ]


@pytest.mark.parametrize("name", KINDS)
async def test_a_late_call_shows(server, tmp_path, name):
    """The output is unchanged, but the count of its window differs."""
    target = place(tmp_path, name)
    async with server.client() as client:
        await pull(client, target, DAYS)
        server.calls.append(("2024-05-06 11:11:11", "late"))
        report = await check(client, target)
    assert [window.counted_now - window.counted_then for window in report.changed] == [1]
    assert report.differences == ()
    assert not report.agrees


async def test_every_pull_in_a_database_is_checked(server, tmp_path):
    """Each pull is checked with its range, and each sync; a replaced reading is not counted again."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await pull(client, target, CallQuery.day("2024-05-01"))
        await pull(client, target, CallQuery(from_date="2024-05-03", to_date="2024-05-05"))
        await sync(client, target, CallQuery())
        server.calls.append(("2024-05-01 11:11:11", "late"))
        report = await check(client, target)
    assert [window.first[:10] for window in report.changed] == ["2024-05-01"]
    firsts = [window.first for window in report.windows]
    assert len(set(firsts)) == len(firsts)
    assert min(firsts) == "2024-05-01 00:00:00"


async def test_what_was_read_with_other_filters_is_named(server, tmp_path):
    """Its rows are compared; its counts need the filters."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await pull(client, target, DAYS)
        await pull(client, target, CallQuery(from_date="2024-05-05", to_date="2024-05-07", direction="inbound"))
        report = await check(client, target)
    assert report.agrees
    assert "not looked at: counts of 1 pull with other filters" in str(report)
    assert str(report).endswith("all that was looked at agrees")


PART = CallQuery(from_date="2024-05-05 12:00:00", to_date="2024-05-05 13:00:00")


async def test_what_a_later_pull_has_left_of_a_window_is_counted_too(server, tmp_path):
    """The rest has two parts here; its rows are compared with the sum of their counts."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await pull(client, target, DAYS)
        await pull(client, target, PART)
        report = await check(client, target)
        assert [window.rest for window in report.windows].count(True) == 1
        assert str(report).endswith("\nall of it agrees")
        server.calls.append(("2024-05-05 11:11:11", "late"))
        report = await check(client, target)
    [changed] = report.changed
    assert (changed.rest, changed.counted_now - changed.counted_then) == (True, 1)
    assert ", what later runs have left of it: " in str(report)
    assert not report.agrees


async def test_what_is_left_of_a_window_that_was_counted_again_is_compared_with_the_rows_of_its_reading(
    server, tmp_path
):
    """A sync that only counts writes no row; the rows of the earlier pull stay."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await sync(client, target, CallQuery())
        server.now = "2024-05-11 12:00:00"
        await sync(client, target, CallQuery())
        await pull(client, target, PART)
        assert (await check(client, target)).agrees
        server.calls.append(("2024-05-05 11:11:11", "late"))
        report = await check(client, target)
    assert [window.rest for window in report.changed] == [True]


@pytest.mark.parametrize("last", ["2024-05-07", "2024-05-05 05:00:00"], ids=["all of it", "one of its two parts"])
async def test_the_rest_of_a_window_is_named_where_its_rows_say_nothing_of_its_count(server, tmp_path, last):
    """A pull with other filters has taken some of its rows. The report says that its count was not compared."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await pull(client, target, DAYS)
        await pull(client, target, PART)
        await pull(client, target, CallQuery(from_date="2024-05-05", to_date=last, direction="inbound"))
        report = await check(client, target)
    assert report.agrees
    assert "not looked at: counts of 1 window of which a later run read a part" in str(report)
    assert str(report).endswith("all that was looked at agrees")


async def test_the_rest_of_a_window_is_named_where_the_api_sends_no_count_of_it(tmp_path):
    """Its rows cannot be compared with any count."""
    calls = [*every(30, "2024-05-05", "2024-05-07")]
    async with LivingServer(calls, NOW, lambda _: Answer(no_count=True)) as server, server.client() as client:
        await pull(client, place(tmp_path, "a.db"), DAYS)
        await pull(client, place(tmp_path, "a.db"), PART)
        report = await check(client, place(tmp_path, "a.db"))
    assert report.agrees
    assert "not looked at: counts of 1 window of which a later run read a part" in str(report)


async def test_a_database_of_other_filters_alone_is_not_checked(server, tmp_path):
    """Filter values are not stored, so the error says which filters were used."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        await pull(client, target, CallQuery(from_date="2024-05-05", to_date="2024-05-07", direction="inbound"))
        with pytest.raises(ConfigurationError, match="only pulls with other filters") as failure:
            await check(client, target)
    assert "direction" in str(failure.value)


async def test_a_receipt_without_windows_leaves_nothing_to_count(server, tmp_path):
    """Its file is compared, and the report says nothing more."""
    target = tmp_path / "a.ndjson"
    async with server.client() as client:
        await pull(client, target, DAYS)
        path = tmp_path / "a.ndjson.receipt.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"windows": []}))
        report = await check(client, target)
    assert report.windows == ()
    assert "calls now" not in str(report)


def test_a_report_without_windows_says_only_what_was_looked_at():
    """No window was counted again, so the report mentions no counts."""
    assert str(CheckReport((), (), ("2 files compared",), ())).splitlines()[0] == "2 files compared"
    assert "count" not in str(CheckReport((), (), ("2 files compared",), ()))


def test_one_window_without_a_count_does_not_silence_the_others():
    """The report says how many calls the other windows count."""
    first = Recount("2024-05-02 00:00:00", "2024-05-02 23:59:59", 7, 7)
    second = Recount("2024-05-01 00:00:00", "2024-05-01 23:59:59", None, 5)
    said = str(CheckReport((first, second), ()))
    assert "7 calls now, 7 when it was pulled, in 1 window" in said
    assert "not looked at: counts of 1 window of which the API sent no total" in said
    assert "sends no count" not in said


async def test_a_receipt_is_given_when_the_output_is_final(server, tmp_path):
    """``on_receipt`` gets the same receipt as the caller."""
    taken = []
    async with server.client() as client:
        receipt = await pull(client, place(tmp_path, "a.ndjson"), DAYS, on_receipt=taken.append)
    assert taken == [receipt]


async def test_a_table_that_was_dropped_leaves_nothing_to_check(server, tmp_path):
    """Its ledger is dropped too, so the next sync reads everything again."""
    target = place(tmp_path, "a.db")
    async with server.client() as client:
        first = await sync(client, target, CallQuery())
        run(target, "DROP TABLE call_records")
        with pytest.raises(ConfigurationError, match="no receipt"):
            await check(client, target)
        assert (await sync(client, target, CallQuery())).records == first.records


async def test_one_id_in_two_windows_is_not_complete(tmp_path):
    """A database keeps only one of the two rows, and the receipt says so; a file keeps both."""
    calls = [*every(300, "2024-01-01", "2024-03-31")]
    calls[5] = (calls[5][0], calls[-5][1])
    quarter = CallQuery(from_date="2024-01-01", to_date="2024-03-31")
    async with LivingServer(calls, NOW) as server, server.client() as client:
        receipt = await pull(client, place(tmp_path, "a.db"), quarter)
        assert (receipt.complete, receipt.reason) == (False, "reused_ids")
        assert "1 calls an id that another call has" in receipt.certified
        assert (await pull(client, place(tmp_path, "a.ndjson"), quarter)).complete


async def test_a_row_that_went_to_a_call_of_another_pull_shows(tmp_path):
    """One id is in two months: the second pull reports it, and a check finds the lost call of the first."""
    calls = [*every(300, "2024-01-01", "2024-02-28")]
    calls[5] = (calls[5][0], calls[-5][1])
    async with LivingServer(calls, NOW) as server, server.client() as client:
        for month in ("2024-01", "2024-02"):
            await pull(client, place(tmp_path, "a.db"), CallQuery.month(month))
        report = await check(client, place(tmp_path, "a.db"))
    assert not report.agrees
    assert [each.how for each in report.differences] == ["1 row went to calls of the same id in other windows"]


async def test_a_call_whose_row_another_window_took_is_told_where_an_older_reading_has_rows_left(tmp_path):
    """The row of a deleted call does not make up for the lost one."""
    calls = [*every(300, "2024-01-01", "2024-03-31")]
    quarter = CallQuery(from_date="2024-01-01", to_date="2024-03-31")
    async with LivingServer(calls, NOW) as server, server.client() as client:
        assert (await pull(client, place(tmp_path, "a.db"), quarter)).complete
        calls[5] = (calls[5][0], calls[-5][1])
        receipt = await pull(client, place(tmp_path, "a.db"), quarter)
    assert (receipt.complete, receipt.reason) == (False, "reused_ids")


async def test_a_window_without_calls_agrees_where_a_count_of_0_is_left_out(tmp_path):
    """An empty page without a count means no calls."""

    def habit(asked):
        return HONEST if asked.found else Answer(no_count=True)

    calls = [*every(600, "2024-05-01", "2024-05-03")]
    async with LivingServer(calls, NOW, habit) as server, server.client() as client:
        for _ in range(2):
            receipt = await sync(client, place(tmp_path, "a.db"), CallQuery())
        assert receipt.complete
        assert (await check(client, place(tmp_path, "a.db"))).agrees


def is_count_of_many_days(asked):
    length = datetime.fromisoformat(asked.last) - datetime.fromisoformat(asked.first)
    return asked.limit == 1 and length > timedelta(days=20)


async def test_a_window_that_is_read_again_is_printed_once(tmp_path, capfdbinary):
    """When a window is read again, only its late call is printed."""
    calls = [*every(120, "2024-01-01", "2024-03-31")]
    late = ("2024-01-13 10:30:01", "late")

    def habit(asked):
        if is_count_of_many_days(asked) and late not in calls:  # after all windows were read
            calls.append(late)
            asked.found[:] = [call for call in calls if asked.first <= call[0] <= asked.last]
        return HONEST

    quarter = CallQuery(from_date="2024-01-01", to_date="2024-03-31")
    async with LivingServer(calls, NOW, habit) as server, server.client() as client:
        receipt = await pull(client, "-", quarter)
    printed = [json.loads(line)["id"] for line in capfdbinary.readouterr().out.splitlines()]
    assert sorted(printed) == sorted(key for _, key in calls)
    assert (receipt.complete, receipt.records) == (True, len(calls))


async def test_a_printed_call_that_left_the_list_makes_it_incomplete(tmp_path, capfdbinary):
    """A printed call cannot be taken back."""
    calls = [*every(120, "2024-01-01", "2024-03-31")]
    gone = calls[-9]

    def habit(asked):
        if is_count_of_many_days(asked) and gone in calls:
            calls.remove(gone)
            asked.found[:] = [call for call in calls if asked.first <= call[0] <= asked.last]
        return HONEST

    quarter = CallQuery(from_date="2024-01-01", to_date="2024-03-31")
    async with LivingServer(calls, NOW, habit) as server, server.client() as client:
        receipt = await pull(client, "-", quarter)
    assert (receipt.complete, receipt.reason) == (False, "unproved")
    assert "1 printed call left the list since" in receipt.certified
