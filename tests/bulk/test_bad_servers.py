"""Pulls from servers whose pages do not come, or whose replies are wrong."""

from __future__ import annotations

import contextlib
import json

import pytest

from servetel_async import CallQuery, CountDriftError, PagingError, Retry, ServerError, ServetelClient
from servetel_async.bulk.pull import pull
from servetel_async.emulator import Dataset, Emulator, Fault
from servetel_async.settings import LARGEST_PAGE
from tests.bulk import fake_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

DAY = CallQuery(from_date="2024-05-06", to_date="2024-05-06")


# Pulls whose pages do not come


@contextlib.asynccontextmanager
async def serving(calls, habit=None, **options):
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient(
            "token-123456",
            base_url=server.base_url,
            rate=None,
            **{"page_size": 5, "retry": Retry(attempts=1), **options},
        ) as client,
    ):
        yield server, client


SPREAD = calls_at(*(f"2024-05-06 {minute // 60:02}:{minute % 60:02}:30" for minute in range(0, 1440, 20)))


def ids(path):
    return sorted(json.loads(line)["id"] for line in path.read_bytes().splitlines())


def names(directory):
    return sorted(path.name for path in directory.iterdir() if "lock" not in path.name)


def test_a_poisoned_record(tmp_path):
    """Every page that holds it fails: no output is made and the other calls are kept; a later pull completes it."""
    bad = SPREAD[40]
    target = tmp_path / "a.ndjson"

    async def main():
        async with serving(SPREAD, lambda asked: Answer(status=500) if bad in asked.rows else HONEST) as (
            server,
            client,
        ):
            with pytest.raises(ServerError) as caught:
                await pull(client, target, DAY)
            assert "other pages came" in caught.value.why
            assert names(tmp_path) == ["a.ndjson.part", "a.ndjson.part.journal"]
            assert bad[0] in (tmp_path / "a.ndjson.part.journal").read_text()
            assert len(server.asked) < 700
            assert len(set(ids(tmp_path / "a.ndjson.part"))) == len(SPREAD) - 1
            before = len(server.asked)
            server.habit = lambda _: HONEST
            receipt = await pull(client, target, DAY)
            assert (receipt.complete, receipt.records, receipt.counted) == (True, len(SPREAD), len(SPREAD))
            assert len(server.asked) - before < 40

    fake_clock.run(main())
    assert ids(target) == sorted(key for _, key in SPREAD)
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.receipt.json"]


def test_a_page_that_is_poisoned_by_its_number(tmp_path):
    """Its window is cut until that page no longer exists: no call is lost."""
    data = Dataset.range("2024-05-06", "2024-05-06", calls=300)

    async def main():
        async with (
            Emulator(data, faults=[Fault("status", status=500, page=4)]) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=50) as client,
        ):
            receipt = await pull(client, tmp_path / "a.ndjson", DAY)
            assert (receipt.complete, receipt.records) == (True, 300)

    fake_clock.run(main())
    assert ids(tmp_path / "a.ndjson") == sorted(data.ids)


# Page sizes


LARGE = {"slow": Answer(after=3600), "too large": Answer(body=b" " * (LARGEST_PAGE + 1)), "413": Answer(status=413)}


@pytest.mark.parametrize(("kind", "begins"), [("slow", 3), ("too large", 1), ("too large", 3), ("413", 1), ("413", 3)])
def test_pages_that_are_too_large_for_the_server(tmp_path, kind, begins):
    """The server fails on pages of more than fifty calls, at once or later: the pull finishes with smaller pages.

    If the very first request times out, the pull fails: the address may be wrong.
    """
    calls = calls_at(*(f"2024-05-06 {number // 60:02}:{number % 60:02}:30" for number in range(700)))

    async def main():
        def habit(asked):
            return LARGE[kind] if asked.limit > 50 and asked.nth >= begins else HONEST

        async with serving(calls, habit, page_size=200, retry=Retry()) as (_, client):
            receipt = await pull(client, tmp_path / "a.ndjson", DAY)
            assert (receipt.complete, receipt.records, receipt.counted) == (True, 700, 700)

    fake_clock.run(main())
    assert ids(tmp_path / "a.ndjson") == sorted(key for _, key in calls)


def test_large_pages_that_stall(tmp_path):
    """The emulator's own stall, at the first two large pages after the first contact."""
    data = Dataset.range("2024-05-06", "2024-05-06", calls=400)

    async def main():
        async with (
            Emulator(data, faults=[Fault("stall", page=3, times=2)]) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=100) as client,
        ):
            receipt = await pull(client, tmp_path / "a.ndjson", DAY)
            assert (receipt.complete, receipt.records) == (True, 400)
            assert {request.limit for request in api.requests} >= {100, 50}

    fake_clock.run(main())
    assert ids(tmp_path / "a.ndjson") == sorted(data.ids)


# Servers that reply wrongly


def ghost(asked):
    return Answer(count=len(asked.found) + (asked.first <= "2024-05-06 12:34:56" <= asked.last))


async def test_a_ghost_is_named_and_the_output_is_written(tmp_path):
    """The count is always one too high: all calls are written, and the receipt names the second."""
    async with serving(SPREAD, ghost) as (server, client):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
        assert (receipt.records, receipt.counted, receipt.complete) == (len(SPREAD), len(SPREAD) + 1, False)
        assert "2024-05-06 12:34:56" in receipt.certified
        assert ids(tmp_path / "a.ndjson") == sorted(key for _, key in SPREAD)
        assert len(server.asked) < 400


def arriving(calls, most):
    """Add a late call in the oldest second with each of the first ``most`` counts of the whole range."""
    late = []

    def habit(asked):
        if asked.limit == 1 and asked.first == "2024-05-06 00:00:00" and len(late) < most:
            late.append((asked.first, f"late-{len(late)}"))
            calls.append(late[-1])
            asked.found.append(late[-1])
        return HONEST

    return habit


@pytest.mark.parametrize("most", [1, 10**6])
async def test_a_list_that_changes_after_it_was_read(tmp_path, most):
    """Reconciling finds the window, and it is read again; a list that keeps changing is not called complete."""
    calls = calls_at(*(f"2024-05-{day:02} {hour:02}:30:00" for day in range(6, 16) for hour in range(24)))
    days = CallQuery(from_date="2024-05-06", to_date="2024-05-15")
    async with serving(calls, arriving(calls, most), page_size=2) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", days)
    assert receipt.complete is (most == 1)
    assert ("did not stop changing" in receipt.certified) is (most > 1)
    assert "late-0" in ids(tmp_path / "a.ndjson")
    assert len(receipt.windows) > 1


async def test_strict_makes_no_output_of_a_ghost(tmp_path):
    """The pull raises, and keeps the calls it read."""
    async with serving(SPREAD, ghost) as (_, client):
        with pytest.raises(CountDriftError, match="would not be complete"):
            await pull(client, tmp_path / "a.ndjson", DAY, strict=True)
    assert names(tmp_path) == ["a.ndjson.part", "a.ndjson.part.journal"]


async def test_strict_without_a_count(tmp_path):
    """The pages contradict each other, on a server that sends no count."""

    def habit(asked):
        return Answer(no_count=True, rows=asked.rows[:2] if asked.page == 1 and len(asked.rows) > 2 else None)

    calls = calls_at(*["2024-05-06 12:00:00"] * 12)
    second = CallQuery(from_date="2024-05-06 12:00:00", to_date="2024-05-06 12:00:00")
    async with serving(calls, habit) as (_, client):
        with pytest.raises(PagingError, match="would not be complete") as caught:
            await pull(client, tmp_path / "a.ndjson", second, strict=True)
        assert type(caught.value) is PagingError


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"shuffle_ties": True},
        {"limit_cap": 20},
        {"limit_cap": 20, "echo_limit": "served"},
        {"count_mode": "page"},
        {"count_mode": "missing"},
        {"size_mode": "limit"},
        {"max_range_days": 31},
    ],
    ids=str,
)
async def test_every_habit_of_the_api(tmp_path, knobs, fast):
    """Whatever the server's habits, a dense hour gives all calls and a complete receipt."""
    data = Dataset.range("2024-05-06 11:00:00", "2024-05-06 11:04:59", calls=400)
    async with (
        Emulator(data, **knobs) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=50) as client,
    ):
        if fast and "shuffle_ties" in knobs:
            return  # fast leaves this out
        receipt = await pull(client, tmp_path / "a.ndjson", DAY, fast=fast)
        assert ids(tmp_path / "a.ndjson") == sorted(data.ids)
        assert receipt.complete


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_progress_never_goes_back(tmp_path, concurrency):
    """The number of calls read only grows, up to the total, over many windows and pages."""
    data = Dataset.range("2024-05-06", "2024-05-06", calls=1000)
    told = []
    async with (
        Emulator(data) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=5, max_concurrency=concurrency) as client,
    ):
        await pull(client, tmp_path / "a.ndjson", DAY, on_progress=told.append)
    records = [each.records for each in told]
    assert records == sorted(records)
    assert records[-1] == 1000
    assert [each.windows for each in told] == sorted(each.windows for each in told)
