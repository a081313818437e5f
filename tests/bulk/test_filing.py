"""Filing: a server may compare the dates with a call's start, its end, or the insertion of its record."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import datetime

import pytest

from servetel_async import IST, CallQuery, OutOfWindowError
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.probe import probe
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.emulator import Dataset
from servetel_async.protocol.conventions import Bounds, Conventions, KnownCall
from servetel_async.protocol.windows import Window

WEEK = CallQuery(from_date="2024-05-06", to_date="2024-05-12")
ASKED = {"from_date": "2024-05-06 00:00:00", "to_date": "2024-05-12 23:59:59"}
WHOLE = Window.of(ASKED["from_date"], ASKED["to_date"])
NIGHT = "2024-05-06 00:00:00"
filings = pytest.mark.parametrize("filed_by", ["start", "end", "insertion"])
BOUNDS = {"inclusive": Bounds(0, 0), "end_exclusive": Bounds(0, 1), "start_exclusive": Bounds(1, 0)}


@pytest.fixture(scope="module")
def weeks() -> Dataset:
    """More calls than the week: on both sides of its bounds, and many in one second."""
    return Dataset.range("2024-05-04", "2024-05-14", calls=900)


def crowd(api):
    """Calls that begin, end or are inserted right at the bounds of the week."""
    for second in range(40):
        api.insert(f"2024-05-05 23:58:{second:02}")
        api.insert(f"2024-05-12 23:58:{second:02}")
    for _ in range(30):
        api.insert("2024-05-08 12:00:00")


def ids(path):
    return [str(json.loads(line)["id"]) for line in path.read_bytes().splitlines()]


def truth(api, bounds):
    """The calls that the server files in the week, requested with the bounds that it needs."""
    asked = bounds.widen(WHOLE)
    return api.truth(from_date=asked.first, to_date=asked.last)


@filings
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("order", [None, "start"])
async def test_a_pull_brings_what_the_server_files(filed_by, bounds, order, weeks, connect, tmp_path):
    """Whatever the moment, bounds and order, each call that the server files in the range is there once."""
    api, client = await connect(weeks, page_size=20, filed_by=filed_by, bounds=bounds, order=order)
    crowd(api)
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK)
    found = ids(tmp_path / "a.ndjson")
    assert sorted(found) == sorted(truth(api, BOUNDS[bounds]))
    assert (receipt.complete, receipt.undated, receipt.counted) == (True, 0, len(found)), receipt.certified
    assert client.conventions == Conventions(filed_by, BOUNDS[bounds])


@filings
async def test_ties_and_drift(filed_by, weeks, connect, tmp_path):
    """Calls of one second change places and late calls arrive: every call that was there all the time is written."""
    api, client = await connect(
        weeks, page_size=20, filed_by=filed_by, shuffle_ties=True, late_every=13, insert_every=7
    )
    crowd(api)
    before = truth(api, Bounds())
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK)
    found = ids(tmp_path / "a.ndjson")
    assert set(before) <= set(found) <= set(truth(api, Bounds()))
    assert max(Counter(found).values()) == 1
    assert receipt.complete, receipt.certified


@filings
async def test_an_open_range(filed_by, weeks, connect, tmp_path):
    """The oldest call is found, whatever the moment that it is filed by."""
    _, client = await connect(weeks, filed_by=filed_by)
    receipt = await client.pull(tmp_path / "a.ndjson", query=CallQuery())
    assert sorted(ids(tmp_path / "a.ndjson")) == sorted(weeks.ids)
    assert receipt.complete, receipt.certified


@filings
async def test_a_stream_takes_calls_from_over_the_edge(filed_by, weeks, connect):
    """A call that began before the range but ended in it is filed there, and is no error."""
    api, client = await connect(weeks, filed_by=filed_by)
    crowd(api)
    calls = await client.calls(query=WEEK).collect()
    assert sorted(call.id for call in calls) == sorted(api.truth(ASKED))


@filings
async def test_the_probe_says_which(filed_by, weeks, connect):
    """The probe names the moment after a few requests."""
    api, client = await connect(weeks, filed_by=filed_by)
    found = await probe(client)
    assert found.filed_by == filed_by
    words = {"start": "the start of a call", "end": "the end of a call", "insertion": "the insertion of its record"}
    assert f"filed by    {words[filed_by]}" in str(found)
    assert len(api.requests) <= 14


async def test_calls_that_do_not_tell(connect):
    """Calls without an end or a telling id show the bounds but not the moment."""
    api, client = await connect(Dataset.range(NIGHT, NIGHT, calls=0))
    for number in range(3):
        api.insert(f"2024-05-06 12:00:0{number}", end_stamp=None, id=f"call-{number}")
    found = await probe(client)
    assert (found.filed_by, found.bounds) == (None, Bounds())
    assert "filed by    not known" in str(found)


@pytest.mark.parametrize("filed_by", ["start", "end"])
@pytest.mark.parametrize("first_day", [5, 6])
async def test_a_moment_that_is_learnt_late(filed_by, first_day, connect, tmp_path):
    """The first call that shows the moment is looked up, and earlier windows are read again."""
    api, client = await connect(Dataset.range(NIGHT, NIGHT, calls=0), page_size=10, filed_by=filed_by)
    silent = [api.insert(f"2024-05-12 20:00:{second:02}", id=f"call-{second}") for second in range(59)]
    last_for(api, 0)
    telling = [api.insert(f"2024-05-{day:02} 23:59:50") for day in range(first_day, 12)]
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK)
    filed = api.truth(ASKED)
    assert set(filed) <= {*silent, *telling}
    assert sorted(ids(tmp_path / "a.ndjson")) == sorted(filed)
    assert receipt.complete, receipt.certified
    assert client.conventions == Conventions(filed_by)


@filings
async def test_a_server_that_ignores_the_dates_is_still_an_error(filed_by, weeks, connect, tmp_path):
    """All moments of its calls lie outside the range."""
    api, client = await connect(weeks, filed_by=filed_by)
    calls = list(api._table._calls)
    api._table.matching = lambda _wanted: calls
    with pytest.raises(OutOfWindowError):
        await client.pull(tmp_path / "a.ndjson", query=WEEK)
    with pytest.raises(OutOfWindowError):
        await client.calls(query=WEEK).collect()


# What a ledger remembers, and what counts need


def made(client):
    fetcher = Fetcher(client, CallQuery(), page_size=20, concurrency=2, patience=1)
    return fetcher, DateBoundsProbe(fetcher)


@filings
@pytest.mark.parametrize("bounds", BOUNDS)
async def test_what_was_remembered_is_verified_by_one_look(filed_by, bounds, weeks, connect):
    """A remembered moment is only a hint: one page and one lookup verify it."""
    api, client = await connect(weeks, filed_by=filed_by, bounds=bounds)
    remembered = Conventions(filed_by, BOUNDS[bounds])
    client.conventions = Conventions.of(remembered.text)
    _, calibration = made(client)
    await calibration.ensure(WHOLE, Cost())
    assert (calibration.is_sure, calibration.text, len(api.requests)) == (True, remembered.text, 2)
    await calibration.ensure(WHOLE, Cost())
    assert len(api.requests) == 2


@filings
async def test_what_was_remembered_wrongly_is_found_out_anew(filed_by, weeks, connect):
    """The lookup does not find the call, so the moment is learnt again."""
    _, client = await connect(weeks, filed_by=filed_by, bounds="end_exclusive")
    client.conventions = Conventions("start", Bounds(0, 0))
    _, calibration = made(client)
    await calibration.ensure(WHOLE, Cost())
    assert client.conventions == Conventions(filed_by, Bounds(0, 1))


@filings
@pytest.mark.parametrize("bounds", BOUNDS)
async def test_a_new_process_counts_what_was_pulled(filed_by, bounds, weeks, connect, tmp_path):
    """It learns the server's bounds before it counts."""
    api, client = await connect(weeks, filed_by=filed_by, bounds=bounds)
    crowd(api)
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK)
    client.conventions = None
    fetcher, calibration = made(client)
    await calibration.ensure(WHOLE, Cost())
    counts = [await fetcher.count(Window.of(each.first, each.last), Cost()) for each in receipt.windows]
    assert counts == [each.counted for each in receipt.windows]


# The last lookup


@filings
async def test_what_holds_is_confirmed_by_one_look(filed_by, weeks, connect):
    """One call that was read is looked up."""
    api, client = await connect(weeks, filed_by=filed_by)
    fetcher, calibration = made(client)
    await calibration.check(WHOLE, rows := await fetcher.rows(await fetcher.page(WHOLE, 1, Cost())), Cost())
    await calibration.note(rows, Cost())
    before = len(api.requests)
    assert await calibration.confirm(Cost())
    assert len(api.requests) - before == 1


async def test_a_moment_that_no_call_shows_is_not_looked_for_for_ever(connect, weeks):
    """Calls of three windows are looked up; after that no further window costs requests."""
    api, client = await connect(weeks, filed_by="end")
    fetcher, calibration = made(client)
    rows = await fetcher.rows(await fetcher.page(WHOLE, 1, Cost()))
    for row in rows:
        api.delete(row.id)
    costs = []
    for _ in range(4):
        before = len(api.requests)
        await calibration.note(rows, Cost())
        costs.append(len(api.requests) - before)
    assert all(costs[:3])
    assert costs[3] == 0


async def test_without_calls_there_is_nothing_to_confirm(connect):
    """An empty range is read under no conventions at all."""
    api, client = await connect(Dataset.range(NIGHT, NIGHT, calls=0))
    _, calibration = made(client)
    assert await calibration.confirm(Cost())
    assert (client.conventions, api.requests) == (None, [])


async def test_a_belief_that_does_not_hold_is_put_right(weeks, connect):
    """The lookup fails: the conventions are learnt again, and earlier windows are read again."""
    _, client = await connect(weeks, filed_by="end", bounds="start_exclusive")
    fetcher, calibration = made(client)
    await calibration.check(WHOLE, rows := await fetcher.rows(await fetcher.page(WHOLE, 1, Cost())), Cost())
    await calibration.note(rows, Cost())
    client.conventions = Conventions("start", Bounds(0, 0))
    assert not await calibration.confirm(Cost())
    assert client.conventions == Conventions("end", Bounds(1, 0))
    assert await calibration.confirm(Cost())


async def test_calls_that_are_gone_neither_confirm_nor_refute(weeks, connect):
    """Deleted calls change no known convention, and confirm no unknown one."""
    api, client = await connect(weeks)
    fetcher, calibration = made(client)
    await calibration.check(WHOLE, rows := await fetcher.rows(await fetcher.page(WHOLE, 1, Cost())), Cost())
    await calibration.note(rows, Cost())
    for row in rows:
        api.delete(row.id)
    assert await calibration.confirm(Cost())
    client.conventions = None
    assert not await calibration.confirm(Cost())


async def test_a_pull_that_could_not_establish_how_dates_are_read_is_not_complete(weeks, connect, tmp_path):
    """Every range of a few seconds is empty on this server, so the window edges are unknown."""
    api, client = await connect(weeks)
    search = api._table.matching

    def matching(wanted):
        is_short = wanted.since is not None and wanted.until is not None and wanted.until - wanted.since < 5
        return () if is_short else search(wanted)

    api._table.matching = matching
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK, fast=True)
    assert not receipt.complete
    assert "how the API reads dates could not be established" in receipt.certified


async def test_a_call_whose_moments_are_neighbours(connect, tmp_path):
    """A call of one second is looked up by its exact seconds: a wider range would hold both its moments."""
    api, client = await connect(Dataset.range(NIGHT, NIGHT, calls=0), filed_by="end")
    for number in range(4):
        api.insert(f"2024-05-07 12:00:0{number}", id=f"call-{number}")
    last_for(api, 1)
    receipt = await client.pull(tmp_path / "a.ndjson", query=CallQuery(from_date="2024-05-07 12:00:02"))
    assert sorted(ids(tmp_path / "a.ndjson")) == ["call-1", "call-2", "call-3"]
    assert receipt.complete, receipt.certified
    assert client.conventions == Conventions("end")


@filings
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("edge", ["2024-05-06 00:00:00", "2024-05-08 12:00:00", "2024-05-12 23:59:59"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("lasts", [1, 60])
async def test_few_calls_with_neighbouring_moments(filed_by, bounds, edge, number, lasts, connect, tmp_path):
    """Each record is inserted a second after its call ends: moment and bounds are guessed together."""
    api, client = await connect(Dataset.range(NIGHT, NIGHT, calls=0), page_size=1, filed_by=filed_by, bounds=bounds)
    for index in range(number):
        api.insert(edge, id=f"{_inserted(api, edge, lasts + 1):08x}{index:016x}")
    last_for(api, lasts, inserted=lasts + 1)
    receipt = await client.pull(tmp_path / "a.ndjson", query=WEEK)
    found, filed = sorted(ids(tmp_path / "a.ndjson")), sorted(truth(api, BOUNDS[bounds]))
    assert receipt.complete, receipt.certified
    if (filed_by, bounds, lasts) == ("end", "start_exclusive", 1):
        # For such calls no request distinguishes this server from one that files by start and excludes the end.
        assert set(found) >= set(filed)
    else:
        assert found == filed


def _inserted(api, second, later):
    """Seconds since 1970 at which a record is inserted, given its delay."""
    return int(datetime.fromisoformat(second).replace(tzinfo=IST).timestamp()) + later


async def test_a_call_that_is_gone_changes_nothing(weeks, connect):
    """This holds for neighbouring moments too, and if the call lacks the moment that another has shown."""
    api, client = await connect(weeks, filed_by="end")
    fetcher, calibration = made(client)
    gone = KnownCall({"start": "2024-05-03 12:00:00", "end": "2024-05-03 12:00:01"})
    await calibration.doubt([gone], Cost())
    assert client.conventions is None
    page = await fetcher.rows(await fetcher.page(WHOLE, 1, Cost()))
    silent = KnownCall({"start": "2024-05-03 12:00:00"})
    await calibration.doubt([calibration.known(page[0]), silent], Cost())
    assert client.conventions == Conventions("end")
    before = len(api.requests)
    await calibration.doubt([silent], Cost())
    assert client.conventions == Conventions("end")
    assert len(api.requests) - before <= 4


def last_for(api, seconds, inserted=None):
    """Give each call of the emulator this duration and this delay from its start to its insertion."""
    clock = api.dataset.clock
    for index, call in enumerate(api._table._calls):
        fields = {name: getattr(call, name) for name in call.__struct_fields__}
        body = json.dumps(json.loads(call.body) | {"end_stamp": clock.stamp(call.start + seconds)}).encode()
        late = call.inserted if inserted is None else call.start + inserted
        changed = {"end": call.start + seconds, "inserted": late, "body": body}
        api._table._calls[index] = type(call)(**fields | changed)
    api._table._calls.sort(key=api._table._order)


async def test_several_that_doubt_wait_for_each_other(weeks, connect):
    """Lookups run one at a time: the second uses the result of the first."""
    _, client = await connect(weeks, filed_by="end")
    fetcher, calibration = made(client)
    rows = await fetcher.rows(await fetcher.page(WHOLE, 1, Cost()))
    calls = [calibration.known(row) for row in rows[:2]]
    await asyncio.gather(*(calibration.doubt(calls, Cost()) for _ in range(2)))
    assert client.conventions == Conventions("end")
