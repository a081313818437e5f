"""Reconciling: the windows' counts against the count of the range; halving finds the windows that differ."""

from __future__ import annotations

import contextlib

import pytest

from servetel_async import CallQuery, Retry, ServerError, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.windows.reconcile import find_changed
from tests.bulk.facts import reading
from tests.bulk.small_server import Answer, SmallServer, calls_at

DAYS = [f"2024-{month:02}-{day:02}" for month in (4, 5, 6) for day in range(1, 31)]
CALLS = calls_at(*(f"{day} {hour:02}:00:00" for day in DAYS for hour in (0, 12)))


def entries(days=DAYS, counted=2):
    """One entry for each day, newest first, each with a count of two."""
    return [reading(f"{day} 00:00:00", f"{day} 23:59:59", counted=counted, records=2) for day in reversed(days)]


@contextlib.asynccontextmanager
async def serving(calls=CALLS, habit=None):
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=Retry(attempts=1)) as client,
    ):
        yield server, Fetcher(client, CallQuery(), page_size=50, concurrency=4, patience=1)


def days_of(changed):
    return sorted(entry.first[:10] for entry in changed)


async def test_no_windows():
    """Without windows no request is sent."""
    async with serving() as (server, fetcher):
        assert await find_changed(fetcher, [], Cost()) == []
        assert server.asked == []


async def test_all_agree():
    """Reconciling costs one request for one record per 31 days, and no request spans more."""
    cost = Cost()
    month = [day for day in DAYS if day.startswith("2024-05")]
    async with serving() as (server, fetcher):
        assert await find_changed(fetcher, entries(month), cost) == []
        assert [(asked.first, asked.last, asked.limit) for asked in server.asked] == [
            ("2024-05-01 00:00:00", "2024-05-30 23:59:59", 1)
        ]
        assert cost.requests == 1


async def test_long_ranges_are_counted_in_months():
    """No request is longer than 31 days, and each window lies within one of them."""
    gapless = [f"2024-05-{day:02}" for day in range(1, 32)] + [f"2024-06-{day:02}" for day in range(1, 31)]
    calls = calls_at(*(f"{day} {hour:02}:00:00" for day in gapless for hour in (0, 12)))
    async with serving(calls) as (server, fetcher):
        assert await find_changed(fetcher, entries(gapless), Cost()) == []
        assert sorted(asked.window for asked in server.asked) == [
            ("2024-05-01 00:00:00", "2024-05-30 23:59:59"),
            ("2024-05-31 00:00:00", "2024-06-30 23:59:59"),
        ]


@pytest.mark.parametrize(
    "changed",
    [["2024-05-30"], ["2024-05-01"], ["2024-05-13"], ["2024-05-02", "2024-05-29"], ["2024-05-07", "2024-05-08"]],
)
@pytest.mark.parametrize("more", [1, -1])
async def test_what_differs_is_found_by_halving(changed, more):
    """Exactly the windows with more or fewer calls are found, in about two requests for each halving."""
    month = [day for day in DAYS if day.startswith("2024-05")]
    calls = [call for call in CALLS if call[0].startswith("2024-05")]
    for day in changed:
        if more > 0:
            calls.append((f"{day} 18:00:00", f"late-{day}"))
        else:
            calls = [call for call in calls if call[0] != f"{day} 12:00:00"]
    async with serving(calls) as (server, fetcher):
        found = await find_changed(fetcher, entries(month), Cost())
        assert days_of(found) == changed
        assert len(server.asked) <= 1 + 2 * 5 * len(changed)


async def test_one_window():
    """A single window is compared by itself."""
    async with serving() as (_, fetcher):
        assert await find_changed(fetcher, entries(["2024-05-01"]), Cost()) == []
        assert days_of(await find_changed(fetcher, entries(["2024-05-01"], counted=3), Cost())) == ["2024-05-01"]


async def test_a_window_longer_than_a_month():
    """Such a window is counted on its own, in parts of at most 31 days."""
    long = reading("2024-04-01 00:00:00", "2024-05-30 23:59:59", counted=120, records=120)
    async with serving() as (server, fetcher):
        assert await find_changed(fetcher, [long], Cost()) == []
        assert [asked.window for asked in server.asked] == [
            ("2024-04-30 00:00:00", "2024-05-30 23:59:59"),
            ("2024-04-01 00:00:00", "2024-04-29 23:59:59"),
        ]


async def test_a_count_that_is_missing_differs():
    """A window that cannot be compared is not called equal."""
    async with serving(habit=lambda _: Answer(no_count=True)) as (_, fetcher):
        assert days_of(await find_changed(fetcher, entries(["2024-05-01", "2024-05-02"]), Cost())) == [
            "2024-05-01",
            "2024-05-02",
        ]


async def test_an_uncounted_entry_is_counted_as_nothing():
    """It differs only if the API now counts a call in it."""
    async with serving() as (_, fetcher):
        assert await find_changed(fetcher, entries(["2024-07-01"], counted=None), Cost()) == []
        assert days_of(await find_changed(fetcher, entries(["2024-05-01"], counted=None), Cost())) == ["2024-05-01"]


async def test_a_failure_ends_it():
    """The other requests have ended when the error is raised."""
    async with serving(habit=lambda _: Answer(status=500)) as (_, fetcher):
        with pytest.raises(ServerError):
            await find_changed(fetcher, entries(), Cost())
        assert not fetcher.source._tasks
