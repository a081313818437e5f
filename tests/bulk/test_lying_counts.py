"""Counts that do not follow the dates: the pull ends soon, has every call, and is never reported as complete."""

from __future__ import annotations

import json

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.windows.lying_counts import find_lie
from servetel_async.protocol.windows import Window
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, capped

MONTH = CallQuery.month("2024-05")
WHOLE = Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59")
#: Ten calls a day in May, and as many on one day of April.
MAY = [f"2024-05-{day:02} {hour:02}:10:00" for day in range(1, 32) for hour in range(8, 18)]
CALLS = calls_at(*MAY, *(f"2024-04-10 {hour:02}:00:00" for hour in range(10)))
KINDS = {
    "always 3,000": lambda _: Answer(count=3_000),
    "always 5,000": lambda _: Answer(count=5_000),
    "always 50,000": lambda _: Answer(count=50_000),
    "always 1,234,567": lambda _: Answer(count=1_234_567),
    "the whole history": lambda _: Answer(count=len(CALLS)),
    "twice the truth": lambda asked: Answer(count=2 * len(asked.found)),
    "ten times the truth": lambda asked: Answer(count=10 * len(asked.found)),
    "more with each request": lambda asked: Answer(count=len(asked.found) + asked.nth),
    "much more with each request": lambda asked: Answer(count=len(asked.found) + 1_000 * asked.nth),
}


def client_of(server, **knobs):
    return ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=Retry(attempts=1), **knobs)


def written(path):
    return sorted(json.loads(line)["id"] for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fast", [False, True])
async def test_a_pull_ends_soon_with_every_call_and_is_not_complete(kind, fast, tmp_path):
    """It takes a few hundred requests for 310 calls; the receipt names what could not be proved."""
    async with (
        SmallServer(CALLS, KINDS[kind], date="Tue, 11 Jun 2024 12:00:00 GMT") as server,
        client_of(server) as client,
    ):
        receipt = await client.pull(tmp_path / "may.ndjson", query=MONTH, fast=fast)
    assert written(tmp_path / "may.ndjson") == sorted(key for start, key in CALLS if start >= "2024-05")
    assert not receipt.complete
    assert "could not be proved" in receipt.certified
    assert len(server.asked) <= 500


async def test_the_receipt_says_why(tmp_path):
    """It gives the count, and the sum of the counts of its halves."""
    async with SmallServer(CALLS, KINDS["always 5,000"]) as server, client_of(server) as client:
        receipt = await client.pull(tmp_path / "may.ndjson", query=MONTH)
    why = "the API counts 5,000, and 10,000 in its two halves: its counts do not follow the dates"
    assert {flaw[42:].removeprefix(": ") for window in receipt.windows for flaw in window.flaws} == {why}
    assert receipt.counted is None


async def looked(server, counted, window=WHOLE):
    async with client_of(server) as client:
        fetcher = Fetcher(client, CallQuery(), page_size=20, concurrency=2, patience=1)
        return await find_lie(fetcher, window, counted, Cost())


async def test_an_honest_count_costs_one_request():
    """The newest half counts far less than the range, so the counts follow the dates."""
    async with SmallServer(CALLS) as server:
        assert await looked(server, 310) is None
        assert len(server.asked) == 1


async def test_where_the_newest_half_holds_all_calls_the_other_one_is_counted():
    """The two halves add up to the total."""
    newest = [call for call in CALLS if call[0] >= "2024-05-16 12:00:00"]
    async with SmallServer(newest) as server:
        assert await looked(server, len(newest)) is None
        assert len(server.asked) == 2


async def test_a_list_that_has_grown_is_no_lie():
    """A few more calls are new calls."""
    async with SmallServer(CALLS) as server:
        assert await looked(server, 280) is None
        assert len(server.asked) == 1


async def test_a_count_that_ends_at_a_limit_is_no_lie():
    """Each half counts up to the limit, and its page at the limit holds calls."""
    async with SmallServer(CALLS, capped(100)) as server:
        assert await looked(server, 100) is None
        assert server.asked[-1].page == 5


async def test_the_page_at_a_limit_is_looked_for_in_the_half_that_has_it():
    """The newest half has nearly as many calls as the limit, but none on that page."""
    calls = [call for call in CALLS if "2024-05-01" <= call[0] < "2024-05-16" or "2024-05-17" <= call[0] < "2024-05-27"]
    async with SmallServer(calls, capped(102)) as server:
        assert await looked(server, 102) is None
        assert server.asked[-1].page == 6


async def test_one_empty_page_is_no_proof():
    """The last page is empty once; requested again, it holds calls."""
    lied = []

    def habit(asked):
        if asked.page > 1 and not lied:
            lied.append(asked)
            return Answer(rows=[], count=100)
        return capped(100)(asked)

    async with SmallServer(CALLS, habit) as server:
        assert await looked(server, 100) is None
        assert lied


async def test_a_refused_page_is_no_proof():
    """The server may refuse it because it is too deep."""

    def habit(asked):
        too_deep = Answer(status=400, body=b'{"success": false, "message": "too deep"}')
        return too_deep if asked.page > 2 else Answer(count=1_000)

    async with SmallServer(CALLS, habit) as server:
        assert await looked(server, 1_000) is None


async def test_a_page_that_is_too_slow_is_asked_for_in_a_smaller_size():
    """The smaller page shows it."""

    def habit(asked):
        return Answer(status=504) if asked.page > 1 and asked.limit > 10 else Answer(count=1_000)

    async with SmallServer(CALLS, habit) as server:
        assert "do not follow the dates" in await looked(server, 1_000)
        assert server.asked[-1].limit == 10


SECOND = Window.of("2024-05-01 08:10:00", "2024-05-01 08:10:00")


async def test_a_second_is_counted_with_its_neighbours():
    """A second has no halves. If the counts follow the dates, its own count is accepted."""
    async with SmallServer(CALLS, lambda _: HONEST) as server:
        assert await looked(server, 1_000, SECOND) is None
        assert {asked.window for asked in server.asked} <= {
            ("2024-05-01 08:09:59", "2024-05-01 08:10:01"),
            ("2024-05-01 08:10:00", "2024-05-01 08:10:01"),
            ("2024-05-01 08:09:59", "2024-05-01 08:09:59"),
        }


async def test_the_count_of_a_second_that_is_the_whole_history_is_a_lie():
    """Otherwise the second would be read again and again, each time up to its count."""
    async with SmallServer(CALLS, KINDS["the whole history"]) as server:
        assert "do not follow the dates" in await looked(server, len(CALLS), SECOND)
        assert len(server.asked) <= 5


async def test_the_first_and_the_last_second_of_the_calendar_have_one_neighbour():
    """A window there works like any other."""
    for first in ("0001-01-01 00:00:00", "9999-12-31 23:59:59"):
        async with SmallServer(CALLS) as server:
            assert await looked(server, 1, Window.of(first, first)) is None
