"""client.pull: a whole range into one destination, certified, resumable, with a receipt."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pickle
import sqlite3
import stat
from contextlib import closing

import anyio
import msgspec
import pytest

from servetel_async import (
    AuthenticationError,
    ConfigurationError,
    CountDriftError,
    OutputError,
    OutputLockedError,
    PullReceipt,
    ResumeMismatchError,
    ServerError,
    ServetelClient,
)
from servetel_async.bulk.receipt import duration
from servetel_async.bulk.windows.certifier import MORE_PAGES, PAGES_PER_PAGE
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.sinks.life import receipt_is_refused


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def table(target, sql="SELECT id FROM call_records ORDER BY id"):
    with closing(sqlite3.connect(target)) as database:
        return [row[0] for row in database.execute(sql)]


async def test_ndjson_is_lossless(connect, rough, query, tmp_path):
    """Every record is in the file, byte for byte, newest first, calls of one second by id."""
    _, client = await connect(rough)
    receipt = await client.pull(tmp_path / "may.ndjson", query=query)
    lines = (tmp_path / "may.ndjson").read_bytes().splitlines()
    assert sorted(lines) == sorted(call.body for call in rough.calls)
    starts = [(record["date"], record["time"]) for record in map(json.loads, lines)]
    assert starts == sorted(starts, reverse=True)
    assert receipt.complete


async def test_a_database_holds_every_call(connect, rough, query, tmp_path):
    """Every id has one row, even after a second pull."""
    _, client = await connect(rough)
    for _ in range(2):
        receipt = await client.pull(tmp_path / "may.db", query=query)
        assert (receipt.records, receipt.counted, receipt.complete) == (400, 400, True)
        assert table(tmp_path / "may.db") == sorted(rough.ids)


async def test_the_receipt_says_what_was_done(connect, dataset, query, tmp_path):
    """Counts, requests, size and digest are those of this pull, and its first line is a plain sentence."""
    api, client = await connect(dataset)
    receipt = await client.pull(tmp_path / "may.ndjson", query=query)
    data = (tmp_path / "may.ndjson").read_bytes()
    assert str(receipt).splitlines()[0] == "250 of the 250 the API counted"
    assert len(str(receipt).splitlines()) == 2
    assert (receipt.destination, receipt.requests) == ("may.ndjson", len(api.requests))
    # And three that show how the server reads dates: two that agree, and one at the end.
    assert receipt.pages == 5 + 3
    assert [(each.counted, each.records) for each in receipt.windows] == [(250, 250)]
    assert (receipt.bytes, receipt.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (receipt.from_date, receipt.to_date) == ("2024-05-01 00:00:00", "2024-05-31 23:59:59")


async def test_the_receipt_is_saved_and_travels(connect, dataset, query, tmp_path):
    """It lies beside the output, private to its owner; it can be pickled but not changed."""
    _, client = await connect(dataset)
    receipt = await client.pull(tmp_path / "may.ndjson", query=query)
    file = tmp_path / "may.ndjson.receipt.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert msgspec.json.decode(file.read_bytes(), type=PullReceipt) == receipt == pickle.loads(pickle.dumps(receipt))
    with pytest.raises(AttributeError):
        receipt.complete = False


async def test_the_receipt_holds_nothing_personal(connect, dataset, tmp_path):
    """For a filter by number it keeps only the filter's name."""
    _, client = await connect(dataset)
    number = next(dataset.records())["client_number"]
    receipt = await client.pull(
        tmp_path / "a.db", "2024-05-01", "2024-05-31", callerid=number, duration=">=0", destination="+91"
    )
    assert receipt.query == "duration=>=0, callerid=..., destination=..."
    assert number[3:] not in (tmp_path / "a.db.receipt.json").read_text()


async def test_one_retry_is_counted_as_one(connect, dataset, query, tmp_path):
    """The receipt counts requests that repeated another."""
    api, client = await connect(dataset, faults=[Fault("status", status=503, page=3, times=1)])
    receipt = await client.pull(tmp_path / "a.db", query=query)
    assert api.fired["status"] == 1
    assert (receipt.retries, receipt.requests) == (1, len(api.requests))


@pytest.mark.parametrize("mode", ["page", "missing"])
async def test_a_server_without_a_count(connect, dataset, query, tmp_path, mode):
    """If the API sends no count, the receipt claims none, and an empty page proves the end."""
    _, client = await connect(dataset, count_mode=mode)
    receipt = await client.pull(tmp_path / "a.ndjson", query=query)
    assert (receipt.counted, receipt.records, receipt.complete) == (None, 250, True)
    assert str(receipt).startswith("250 calls; the API sent no usable count")


async def test_no_calls_at_all(connect, dataset, tmp_path):
    """An empty range gives a complete pull of 0 calls."""
    _, client = await connect(dataset)
    receipt = await client.pull(tmp_path / "a.ndjson", "2023-01-01", "2023-01-02")
    assert (tmp_path / "a.ndjson").read_bytes() == b""
    assert str(receipt).startswith("0 of the 0 the API counted")


async def test_a_year_is_one_file(connect, tmp_path):
    """Ranges over 31 days are read in windows, and their counts are added."""
    year = Dataset.range("2023-06-01", "2024-05-31", calls=300)
    _, client = await connect(year)
    receipt = await client.pull(tmp_path / "a.ndjson", "2023-06-01", "2024-05-31")
    assert (receipt.records, receipt.counted) == (300, 300)


async def test_progress_is_told_page_by_page(connect, dataset, query, tmp_path):
    """It grows up to the total, which is known after the first pages."""
    api, client = await connect(dataset)
    told = []
    await client.pull(tmp_path / "a.db", query=query, on_progress=told.append)
    records = [each.records for each in told]
    assert records == sorted(records)
    assert (told[-1].records, told[-1].total, told[-1].windows) == (250, 250, 1)
    assert told[-1].requests == told[-1].pages == len(api.requests)


async def test_an_error_in_on_progress_ends_the_pull(connect, dataset, query, tmp_path):
    """The caller gets its own error unchanged, and no state is left."""
    _, client = await connect(dataset)

    def fail(_progress):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await client.pull(tmp_path / "a.db", query=query, on_progress=fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv.gz", "a.db"])
async def test_a_pull_that_fails_before_its_first_window_leaves_nothing(connect, dataset, query, tmp_path, name):
    """The server never sends a page: no output, part, receipt or lock is left."""
    _, client = await connect(dataset, faults=[Fault("status", status=503)])
    with pytest.raises(ServerError):
        await client.pull(tmp_path / name, query=query)
    assert names(tmp_path) == []


async def test_a_pull_that_fails_later_keeps_what_it_has_and_goes_on(connect, query, tmp_path):
    """The old file stays and no partial output is made; the same call requests only the missing calls."""
    month = Dataset.month("2024-05", calls=600)
    (tmp_path / "a.ndjson").write_text("old")
    api, client = await connect(month, page_size=5)
    kept = []

    def cut_off(progress):
        if progress.windows == 2 and not kept:
            kept.append(progress.records)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await client.pull(tmp_path / "a.ndjson", query=query, overwrite=True, on_progress=cut_off)
    assert (tmp_path / "a.ndjson").read_text() == "old"
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.part", "a.ndjson.part.journal"]
    asked = len(api.requests)
    receipt = await client.pull(tmp_path / "a.ndjson", query=query, overwrite=True)
    assert (receipt.records, receipt.complete) == (600, True)
    assert len(api.requests) - asked < 600 / 5
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.receipt.json"]


async def test_the_state_of_another_pull_is_not_touched(connect, query, tmp_path):
    """Another range, filter or shape is refused with a reason; resume=False drops the state."""
    month = Dataset.month("2024-05", calls=600)
    _, client = await connect(month, page_size=5)

    def cut_off(progress):
        if progress.windows == 2:
            raise ConnectionError

    target = tmp_path / "a.ndjson"
    with pytest.raises(ConnectionError):
        await client.pull(target, query=query, on_progress=cut_off)
    before = (tmp_path / "a.ndjson.part").read_bytes()
    for other in ({"to_date": "2024-05-30"}, {"direction": "inbound"}, {"mask": True}):
        with pytest.raises(ResumeMismatchError, match="all calls, 2024-05-01"):
            await client.pull(target, query=query, **other)
        assert (tmp_path / "a.ndjson.part").read_bytes() == before
    receipt = await client.pull(target, query=query, direction="inbound", resume=False)
    assert receipt.complete
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.receipt.json"]


@pytest.mark.parametrize("dest", ["a.ndjson", "none/a.ndjson", "none/a.db", "a.txt", "wrong.db", "dir.ndjson"])
async def test_a_bad_destination_costs_no_request(connect, dataset, query, tmp_path, dest):
    """It exists, has no directory, or is of an unknown or wrong kind: the error comes before any request."""
    api, client = await connect(dataset)
    (tmp_path / "a.ndjson").write_text("mine")
    (tmp_path / "wrong.db").write_text("no database" * 100)
    (tmp_path / "dir.ndjson").mkdir()
    before = names(tmp_path)
    with pytest.raises((OutputError, ConfigurationError)):
        await client.pull(tmp_path / dest, query=query)
    assert api.requests == []
    assert names(tmp_path) == before


async def test_two_pulls_into_one_output(connect, dataset, query, tmp_path):
    """The second fails at once, and does not disturb the first."""
    _, client = await connect(dataset, latency=0.02)
    told = asyncio.Event()
    first = asyncio.create_task(client.pull(tmp_path / "a.ndjson", query=query, on_progress=lambda _: told.set()))
    await told.wait()
    with pytest.raises(OutputLockedError):
        await client.pull(tmp_path / "a.ndjson", query=query)
    assert (await first).complete
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.receipt.json"]


@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
@pytest.mark.parametrize("pages", [0, 1, 3])
async def test_a_pull_that_is_cancelled_in_its_first_window_leaves_nothing(
    connect, dataset, query, tmp_path, name, pages
):
    """After cancel() at any page, files, tasks and requests are gone when the await ends."""
    _, client = await connect(dataset, latency=0.005)
    seen = asyncio.Event()
    count = 0

    def on_progress(_progress):
        nonlocal count
        count += 1
        if count == pages:
            seen.set()

    task = asyncio.create_task(client.pull(tmp_path / name, query=query, on_progress=on_progress))
    if pages:
        await seen.wait()
    else:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []
    assert not client._tasks


async def test_a_timed_out_pull_leaves_nothing(connect, dataset, query, tmp_path):
    """An anyio cancel scope ends it just as cleanly."""
    _, client = await connect(dataset, latency=30)
    with anyio.move_on_after(0.05) as scope:
        await client.pull(tmp_path / "a.db", query=query)
    assert scope.cancelled_caught
    assert names(tmp_path) == []


async def test_ids_that_are_used_twice_are_told(connect, tmp_path):
    """A file keeps both calls; a table keyed by id cannot, so its receipt is not complete, and strict refuses."""
    day = Dataset.range("2024-05-06", "2024-05-06", calls=20)
    api, client = await connect(day)
    twin = day.ids[5]
    api.insert("2024-05-06 23:59:59", id=twin)
    file = await client.pull(tmp_path / "a.ndjson", "2024-05-06", "2024-05-06")
    assert (file.records, file.reused_ids, file.complete) == (21, 1, True)
    with pytest.raises(CountDriftError, match="not be complete"):
        await client.pull(tmp_path / "strict.db", "2024-05-06", "2024-05-06", strict=True)
    base = await client.pull(tmp_path / "a.db", "2024-05-06", "2024-05-06")
    assert not base.complete
    assert "NOT COMPLETE" in str(base)
    assert len(table(tmp_path / "a.db")) == 20
    assert "strict.db" not in names(tmp_path)  # its state is kept for another try


async def test_calls_without_a_readable_start_are_told(connect, tmp_path):
    """They are written, and the receipt says how many have no known window."""
    api, client = await connect(Dataset.range("2024-05-06", "2024-05-06", calls=20))
    api.insert("2024-05-06 23:59:59", time="99:99:99")
    receipt = await client.pull(tmp_path / "a.ndjson", "2024-05-06", "2024-05-06")
    assert (receipt.records, receipt.undated) == (21, 1)


async def test_a_list_that_grows_is_read_to_its_new_end(connect, dataset, query, tmp_path):
    """Calls that arrive during the read are in the output, and the receipt is still complete."""
    api, client = await connect(dataset, latency=0.001)
    late = []

    def on_progress(progress):
        if progress.records >= 100 and not late:
            late.append(api.insert_late("2024-05-20 12:00:00"))

    receipt = await client.pull(tmp_path / "a.db", query=query, on_progress=on_progress)
    assert (receipt.complete, receipt.records, receipt.counted) == (True, 251, 251)
    assert table(tmp_path / "a.db") == sorted([*dataset.ids, *late])


async def test_a_wrong_token_writes_nothing(connect, dataset, query, tmp_path):
    """The client's error is raised, and the directory is unchanged."""
    api, _ = await connect(dataset)
    async with ServetelClient("wrong-token-123456", base_url=api.base_url, rate=None) as client:
        with pytest.raises(AuthenticationError):
            await client.pull(tmp_path / "a.db", query=query)
    assert names(tmp_path) == []


async def test_standard_output_gets_the_lines_and_no_receipt_file(connect, dataset, query, tmp_path, capfdbinary):
    """``-`` prints NDJSON; the receipt is returned but not saved."""
    _, client = await connect(dataset)
    receipt = await client.pull("-", query=query)
    assert sorted(json.loads(line)["id"] for line in capfdbinary.readouterr().out.splitlines()) == sorted(dataset.ids)
    assert receipt.complete
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["may.db", "may.ndjson"])
async def test_an_output_gets_no_name_before_its_receipt_has_a_place(connect, dataset, query, tmp_path, name):
    """The calls are kept; once the receipt's path is free, the same command completes the pull."""
    _, client = await connect(dataset)
    place = tmp_path / f"{name}.receipt.json"

    def take_its_place(progress):
        if progress.pages == 1:
            place.mkdir()

    with pytest.raises(OutputError, match=r"Is a directory"):
        await client.pull(tmp_path / name, query=query, on_progress=take_its_place)
    assert not (tmp_path / name).exists()
    place.rmdir()
    assert (await client.pull(tmp_path / name, query=query)).complete


@pytest.mark.parametrize("name", ["may.db", "may.ndjson"])
async def test_a_pull_that_ended_but_for_its_receipt_is_concluded(connect, dataset, query, tmp_path, name):
    """The same command reads no window again: it checks how dates are read, counts, and writes the receipt."""
    api, client = await connect(dataset)
    with receipt_is_refused(tmp_path / name), pytest.raises(OutputError, match="its receipt cannot be saved"):
        await client.pull(tmp_path / name, query=query)
    assert (tmp_path / name).exists()
    whole = (tmp_path / "may.ndjson").read_bytes() if name == "may.ndjson" else b""
    api.requests.clear()
    receipt = await client.pull(tmp_path / name, query=query)
    assert (receipt.complete, receipt.records) == (True, 250)
    looks = [request for request in api.requests[1:] if request.limit != 1]  # the first one asks for the clock
    assert len(looks) <= 2
    assert names(tmp_path) == [name, f"{name}.receipt.json"]
    if name == "may.ndjson":
        assert (tmp_path / name).read_bytes() == whole


@pytest.mark.parametrize("taken", ["may.db.receipt.json", "may.db.receipt.json.part"])
async def test_a_receipt_without_a_place_is_found_out_before_any_request(connect, dataset, query, tmp_path, taken):
    """Its path is a directory: no request is sent, and no file is left."""
    api, client = await connect(dataset)
    (tmp_path / taken).mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        await client.pull(tmp_path / "may.db", query=query)
    assert api.requests == []
    assert names(tmp_path) == [taken]


async def test_a_name_that_is_no_text_is_spelt_out_in_the_receipt(connect, dataset, query, tmp_path):
    """The file keeps the bytes of its name; the receipt can be saved and read."""
    _, client = await connect(dataset)
    odd = os.fsdecode(b"b\xff.ndjson")
    receipt = await client.pull(tmp_path / odd, query=query)
    assert receipt.destination == "b\\xff.ndjson"
    assert names(tmp_path) == [odd, f"{odd}.receipt.json"]


async def test_a_list_that_shrinks_is_read_again(connect, dataset, query, tmp_path):
    """The window holds the calls of one moment, without a call that left before."""
    api, client = await connect(dataset)
    doomed = dataset.ids[0]

    def on_progress(progress):
        if progress.pages == 1:
            api.delete(doomed)

    receipt = await client.pull(tmp_path / "may.ndjson", query=query, on_progress=on_progress)
    assert receipt.complete
    assert (receipt.records, receipt.counted) == (249, 249)
    assert doomed not in (tmp_path / "may.ndjson").read_text()


@pytest.mark.parametrize(("seconds", "said"), [(4.24, "4.2 s"), (192, "3 min 12 s"), (7500, "2 h 5 min")])
def test_a_length_of_time_is_told_for_people(seconds, said):
    """It is in seconds below a minute, minutes below an hour, then hours."""
    assert duration(seconds) == said


async def test_calls_later_than_the_server_s_own_clock_turn_no_range_round(connect, tmp_path):
    """An open range ends at that clock, and never before its start, even if its oldest call is later."""
    _, client = await connect(Dataset.range("2024-05-06", "2024-05-06", calls=3), now="2024-05-04 12:00:00")
    receipt = await client.pull(tmp_path / "all.ndjson")
    assert (receipt.from_date, receipt.to_date, receipt.records) == ("2024-05-04 00:00:00", "2024-05-04 12:00:00", 0)
    assert (receipt.windows[-1].first, receipt.windows[0].last) == (receipt.from_date, receipt.to_date)


@pytest.mark.parametrize("slots", [2, 4, 8])
async def test_a_list_that_grows_as_it_is_read_is_not_chased(tmp_path, slots):
    """The first count of the range bounds the cost, and unproved windows are reported."""
    moments = ("10:00:58", "10:01:08", "11:01:10", "11:01:11", "12:00:00")
    api = Emulator(Dataset.range("2024-05-01", "2024-05-02", calls=0), late_every=3, now="2024-06-15 12:00:00")
    before = {api.insert(f"2024-05-06 {moment}") for moment in moments for _ in range(9)}
    options = {"rate": None, "page_size": 1, "max_concurrency": slots}
    async with api, ServetelClient(api.token, base_url=api.base_url, **options) as client:
        receipt = await client.pull(tmp_path / "day.ndjson", "2024-05-06", "2024-05-06")
    assert not receipt.complete
    assert {flaw for window in receipt.windows for flaw in window.flaws}
    assert before <= {json.loads(line)["id"] for line in (tmp_path / "day.ndjson").read_bytes().splitlines()}
    assert receipt.requests < 2 * (PAGES_PER_PAGE * len(before) + MORE_PAGES)
