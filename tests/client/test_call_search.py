"""``get_call`` searches the range 31 days at a time, newest first, until it finds the call, within one deadline."""

from __future__ import annotations

import pytest

from servetel_async import DeadlineExceededError, OverloadedError, RateLimit, ServetelClient
from servetel_async.emulator import Dataset, Emulator
from tests.transport.leaks import failure_of

QUARTER = {"from_date": "2024-03-01", "to_date": "2024-05-31"}


@pytest.fixture(scope="module")
def quarter() -> Dataset:
    return Dataset.range("2024-03-01", "2024-05-31", calls=90)


def client_of(api, **options):
    return ServetelClient(api.token, base_url=api.base_url, **({"rate": None, "page_size": 10} | options))


@pytest.mark.parametrize("knows_call_id", [True, False])
@pytest.mark.parametrize("place", [0, 45, 89])
async def test_a_call_is_found_in_any_window(place, knows_call_id, quarter):
    """No request spans more than 31 days; the newest window comes first, and the search ends at the call."""
    async with Emulator(quarter, max_range_days=31, knows_call_id=knows_call_id) as api, client_of(api) as client:
        wanted = api.dataset.calls[place]
        found = await client.get_call(wanted.call_id, **QUARTER)
        assert found is not None
        assert found.id == wanted.id
        if knows_call_id:
            assert len(api.requests) == [1, 2, 3][place // 40]


@pytest.mark.parametrize("knows_call_id", [True, False])
async def test_a_call_that_no_window_has_is_none(knows_call_id, quarter):
    """The result is None after every window was requested, or every call of the range was read."""
    async with Emulator(quarter, max_range_days=31, knows_call_id=knows_call_id) as api, client_of(api) as client:
        assert await client.get_call("1.2", **QUARTER) is None
        assert len(api.requests) >= 3


async def test_a_deadline_covers_the_search_and_the_reading(quarter):
    """If the server ignores ``call_id``, the range is read in the time that is left."""
    async with (
        Emulator(quarter, knows_call_id=False, latency=0.25) as api,
        client_of(api, page_size=1, max_concurrency=1) as client,
    ):
        error = await failure_of(client.get_call("1.2", **QUARTER, deadline=0.6))
        assert type(error) is DeadlineExceededError
        assert len(api.requests) <= 3, "0.6 s hold two replies and the beginning of a third"


async def test_a_deadline_that_passes_between_two_requests_is_no_overload(quarter):
    """Requests were sent, so the error must not say otherwise."""
    async with Emulator(quarter) as api, client_of(api, rate=RateLimit(per_second=2)) as client:
        error = await failure_of(client.get_call("1.2", **QUARTER, deadline=0.3))
        assert type(error) is DeadlineExceededError
        assert len(api.requests) == 1
        counted = await failure_of(client.count(QUARTER["from_date"], QUARTER["to_date"], deadline=0.7))
        assert type(counted) is DeadlineExceededError


async def test_a_deadline_before_the_first_request_is_an_overload(quarter):
    """No request was sent, and the error says so."""
    async with Emulator(quarter) as api, client_of(api, rate=RateLimit(per_second=1)) as client:
        await client.fetch_page()
        error = await failure_of(client.get_call("1.2", **QUARTER, deadline=0.05))
        assert type(error) is OverloadedError
        assert len(api.requests) == 1


async def test_a_deadline_that_is_over_before_the_reading_says_so(quarter):
    """The last request of the search used up the deadline."""
    async with Emulator(quarter, knows_call_id=False) as api, client_of(api, rate=RateLimit(per_second=2)) as client:
        error = await failure_of(client.get_call("1.2", **QUARTER, deadline=0.3))
        assert type(error) is DeadlineExceededError
        assert len(api.requests) == 1
