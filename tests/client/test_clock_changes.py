"""Accounts whose clock is set back in autumn and forward in spring: streams, counts, pulls and a sync over the change."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.bulk.sync import sync
from tests.bulk.small_server import HONEST, Answer, SmallServer

HOUR = timedelta(hours=1)

#: A zone, and the moment at which its clock is set back.
CHANGES = {
    "London": (ZoneInfo("Europe/London"), datetime(2024, 10, 27, 1, tzinfo=UTC)),
    "New York": (ZoneInfo("America/New_York"), datetime(2024, 11, 3, 6, tzinfo=UTC)),
    "Lord Howe": (ZoneInfo("Australia/Lord_Howe"), datetime(2024, 4, 6, 15, tzinfo=UTC)),
}
#: From and to, in minutes after the change.
RANGES = {
    "an hour up to the middle of the second time": (-30, 30),
    "all but the first and last ten minutes": (-50, 50),
    "twenty minutes around the change": (-10, 10),
    "the first time": (-60, -1),
    "the second time": (0, 59),
    "three hours": (-90, 90),
}
PLACES = pytest.mark.parametrize("place", CHANGES)
SPANS = pytest.mark.parametrize("span", RANGES.values(), ids=RANGES)


def wall(moment, zone):
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def calls_around(change, zone):
    """A call every five minutes, for three hours on both sides: its stamp, and an id that names its moment."""
    moments = [change + timedelta(minutes=minutes) for minutes in range(-180, 185, 5)]
    return sorted(((wall(moment, zone), f"{moment:%d %H:%M}Z") for moment in moments), reverse=True)


def expected(change, zone, span):
    """Ids of the calls whose stamp the clock shows in the range."""
    minutes = range(span[0], span[1] + 1)
    shown = {wall(change + timedelta(minutes=minute), zone) for minute in minutes}
    return sorted(key for stamp, key in calls_around(change, zone) if stamp in shown)


def query_of(change, span):
    return CallQuery(from_date=change + timedelta(minutes=span[0]), to_date=change + timedelta(minutes=span[1]))


def client_of(api, zone, **options):
    retry = Retry(attempts=2, base=0.001)
    return ServetelClient(
        "token-123456", base_url=api.base_url, rate=None, zone=zone, page_size=7, retry=retry, **options
    )


@PLACES
@SPANS
async def test_a_stream_and_a_count(place, span):
    """Every call of the range comes once; any other call has a stamp of the range; the count agrees."""
    zone, change = CHANGES[place]
    query = query_of(change, span)
    async with SmallServer(calls_around(change, zone)) as api, client_of(api, zone) as client:
        ids = [call.id async for call in client.calls(query=query)]
        assert await client.count(query=query) == len(ids)
    assert sorted(ids) == expected(change, zone, span)
    minutes = range(-(-span[0] // 5) * 5, span[1] + 1, 5)
    assert {f"{change + timedelta(minutes=minute):%d %H:%M}Z" for minute in minutes} <= set(ids)


@PLACES
async def test_the_last_hour(place):
    """Half an hour after the change, it has the thirteen calls of the last 60 minutes, and more with their stamps."""
    zone, change = CHANGES[place]
    now = change + timedelta(minutes=30)
    async with SmallServer(calls_around(change, zone)) as api, client_of(api, zone) as client:
        calls = await client.calls(query=CallQuery.last(hours=1, now=now)).collect()
    inside = {f"{now - timedelta(minutes=minutes):%d %H:%M}Z" for minutes in range(0, 65, 5)}
    assert inside <= {call.id for call in calls}
    assert sorted(call.id for call in calls) == expected(change, zone, (-30, 30))


@SPANS
async def test_short_windows(span):
    """Windows of an hour, which may cut the doubled hour, lose no call and bring none twice."""
    zone, change = CHANGES["London"]
    options = {"max_range": timedelta(hours=1)}
    async with SmallServer(calls_around(change, zone)) as api, client_of(api, zone, **options) as client:
        ids = [call.id async for call in client.calls(query=query_of(change, span))]
    assert sorted(ids) == expected(change, zone, span)


@PLACES
@pytest.mark.parametrize("span", [(-10, 10), (-90, 90)], ids=["twenty minutes", "three hours"])
async def test_every_checkpoint(place, span):
    """A stream that stops after any call continues with the next one."""
    zone, change = CHANGES[place]
    query = query_of(change, span)
    async with SmallServer(calls_around(change, zone)) as api, client_of(api, zone) as client:
        stream, ids, checkpoints = client.calls(query=query), [], []
        async for call in stream:
            ids.append(call.id)
            checkpoints.append(stream.checkpoint)
        for number, checkpoint in enumerate(checkpoints, start=1):
            rest = [call.id async for call in client.calls(query=query, start=checkpoint)]
            assert rest == ids[number:]
    assert sorted(ids) == expected(change, zone, span)


@SPANS
async def test_a_pull(span, tmp_path):
    """The file holds the same calls as the stream, and the pull is complete."""
    zone, change = CHANGES["London"]
    async with SmallServer(calls_around(change, zone)) as api, client_of(api, zone) as client:
        receipt = await client.pull(tmp_path / "calls.ndjson", query=query_of(change, span))
    ids = [json.loads(line)["id"] for line in (tmp_path / "calls.ndjson").read_text().splitlines()]
    assert sorted(ids) == expected(change, zone, span)
    assert (receipt.complete, receipt.records) == (True, len(ids))


@SPANS
async def test_a_server_that_sorts_by_moment(span, tmp_path):
    """Its stamps jump back an hour in the middle of the list. A stream, its checkpoints and a pull lose no call."""
    zone, change = CHANGES["London"]
    moments = [change + timedelta(minutes=minutes) for minutes in range(180, -185, -5)]
    calls = [(wall(moment, zone), f"{moment:%d %H:%M}Z") for moment in moments]
    query = query_of(change, span)
    async with SmallServer(calls) as api, client_of(api, zone) as client:
        stream = client.calls(query=query)
        found = [(call.id, stream.checkpoint) async for call in stream]
        ids = [key for key, _ in found]
        for number in range(1, len(found), 5):
            assert [call.id async for call in client.calls(query=query, start=found[number][1])] == ids[number + 1 :]
        receipt = await client.pull(tmp_path / "calls.ndjson", query=query)
    assert sorted(ids) == expected(change, zone, span)
    pulled = [json.loads(line)["id"] for line in (tmp_path / "calls.ndjson").read_text().splitlines()]
    assert (receipt.complete, sorted(pulled)) == (True, sorted(ids))


async def test_an_open_end_in_the_second_time(tmp_path):
    """A pull up to now holds the calls of the first time, whose stamps are later than the clock; none of them is final."""
    zone, change = CHANGES["London"]
    calls = [call for call in calls_around(change, zone) if call[1] <= "27 01:10Z"]
    async with (
        SmallServer(calls, date="Sun, 27 Oct 2024 01:10:00 GMT") as api,
        client_of(api, zone) as client,
    ):
        receipt = await client.pull(tmp_path / "calls.ndjson", query=CallQuery(from_date=change - timedelta(hours=1)))
    ids = [json.loads(line)["id"] for line in (tmp_path / "calls.ndjson").read_text().splitlines()]
    assert sorted(ids) == [f"27 {hour:02}:{minute:02}Z" for hour in (0, 1) for minute in range(0, 60, 5)][:15]
    assert (receipt.from_date, receipt.to_date) == ("2024-10-27 01:00:00", "2024-10-27 01:59:59")
    assert receipt.final_until == "2024-10-27 00:10:00"


async def test_a_sync_right_after_the_gap_of_spring(tmp_path):
    """It reaches the server's now, although two hours ago the clock showed three hours less."""
    zone, change = ZoneInfo("Europe/London"), datetime(2024, 3, 31, 1, tzinfo=UTC)
    calls = [call for call in calls_around(change, zone) if call[1] <= "31 01:30Z"]
    async with (
        SmallServer(calls, date="Sun, 31 Mar 2024 01:30:00 GMT") as api,
        client_of(api, zone) as client,
    ):
        receipt = await sync(client, tmp_path / "calls.db", CallQuery())
    with closing(sqlite3.connect(tmp_path / "calls.db")) as database:
        ids = {key for (key,) in database.execute("SELECT id FROM call_records")}
    assert ids == {key for _, key in calls}
    assert (receipt.to_date, receipt.final_until) == ("2024-03-31 02:30:00", "2024-03-30 23:30:00")


class SetBack(tzinfo):
    """A zone whose clock was just set back by an hour, to UTC."""

    key = "Test/Set_Back"

    def __init__(self, change):
        self._change = change.replace(tzinfo=None)

    def utcoffset(self, time):
        shown = time.replace(tzinfo=None, fold=0)
        is_first = shown < self._change or (shown < self._change + HOUR and not time.fold)
        return HOUR if is_first else timedelta(0)

    def dst(self, time):
        return self.utcoffset(time)

    def fromutc(self, time):
        shown = time.replace(tzinfo=None)
        if shown < self._change:
            return time + HOUR
        return time.replace(fold=shown < self._change + HOUR)


async def test_an_open_end_that_the_server_refuses():
    """In the hour's second time, a stream ends at the end of that hour: stamps of its first time go up to there."""
    change = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    zone = SetBack(change)
    calls = [(wall(change - timedelta(minutes=n), zone), f"{n} minutes before") for n in range(0, 95, 5)]

    def short_ranges_only(asked):
        return HONEST if asked.last != "~" else Answer(status=400, body=b'{"message": "give a to_date"}')

    async with (
        SmallServer(sorted(calls, reverse=True), short_ranges_only) as api,
        client_of(api, zone) as client,
    ):
        ids = [call.id async for call in client.calls(change - timedelta(minutes=90))]
    assert sorted(ids) == sorted(key for _, key in calls)
