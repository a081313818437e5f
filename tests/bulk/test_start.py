"""The start of an open range: the day of the oldest call, whatever one page says, or a reported flaw."""

from __future__ import annotations

import json

import pytest

from servetel_async import CallQuery, Retry, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.windows.earliest import count_before, find_start
from servetel_async.protocol.windows import Window
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

#: Four calls on each of three days: pages of five, the last one of two.
CALLS = calls_at(*(f"2024-05-0{day} 1{hour}:00:00" for day in (4, 5, 6) for hour in range(4)))
OPEN, SIZE = ("", "~"), 5


class Once:
    """A habit: the first matching request gets this answer, all others an honest one."""

    def __init__(self, matches, answer):
        self._matches, self._answer = matches, answer
        self.fired = False

    def __call__(self, asked):
        if self.fired or not self._matches(asked):
            return HONEST
        self.fired = True
        return self._answer(asked)


def page_of_history(number):
    return lambda asked: asked.window == OPEN and asked.page == number


#: Which page of the whole history is wrong, and how.
LIES = {
    "the last page is empty": (3, lambda _: Answer(rows=[])),
    "the page before comes in place of the last": (3, lambda asked: Answer(rows=asked.found[5:10])),
    "the page after comes in place of the last": (3, lambda _: Answer(rows=[], page=4)),
    "the first page is empty": (1, lambda _: Answer(rows=[])),
    "the first page is empty, and counts nothing": (1, lambda _: Answer(rows=[], count=0)),
    "the count is far too large": (1, lambda _: Answer(count=1000)),
    "the count lacks a page": (1, lambda _: Answer(count=10)),
}


async def pull(habit, directory):
    """Pull the whole history; returns the receipt, the ids, and the server."""
    target = directory / "all.ndjson"
    async with (
        SmallServer(CALLS, habit, date="Tue, 07 May 2024 12:00:00 GMT") as api,
        ServetelClient(
            "token-123456", base_url=api.base_url, rate=None, page_size=SIZE, retry=Retry(attempts=2, base=0.001)
        ) as client,
    ):
        receipt = await client.pull(target)
    return receipt, [json.loads(line)["id"] for line in target.read_bytes().splitlines()], api


@pytest.mark.parametrize("lie", LIES)
async def test_one_page_that_lies_moves_no_start(tmp_path, lie):
    """Whatever one page says, the range begins on the day of the oldest call, and every call is there."""
    number, answer = LIES[lie]
    habit = Once(page_of_history(number), answer)
    receipt, ids, _ = await pull(habit, tmp_path)
    assert habit.fired
    assert (receipt.from_date, receipt.complete) == ("2024-05-04 00:00:00", True)
    assert sorted(ids) == sorted(key for _, key in CALLS)


@pytest.mark.parametrize("counts", ["of all", "of the page"])
async def test_a_start_is_found_by_any_count(tmp_path, counts):
    """A total gives it at once; otherwise the last page is searched for."""
    habit = (lambda _: HONEST) if counts == "of all" else (lambda asked: Answer(count=len(asked.rows)))
    receipt, ids, _ = await pull(habit, tmp_path)
    assert (receipt.from_date, receipt.complete) == ("2024-05-04 00:00:00", True)
    assert sorted(ids) == sorted(key for _, key in CALLS)


@pytest.mark.parametrize("page", [2, 3, 4])
async def test_without_counts_an_empty_page_moves_no_start_either(tmp_path, page):
    """It misleads the search for the last page; reading before the found start corrects it."""
    lie = Once(page_of_history(page), lambda _: Answer(rows=[], no_count=True))

    def habit(asked):
        answer = lie(asked)
        return Answer(no_count=True) if answer is HONEST else answer

    receipt, ids, _ = await pull(habit, tmp_path)
    assert lie.fired
    assert (receipt.from_date, receipt.complete) == ("2024-05-04 00:00:00", True)
    assert sorted(ids) == sorted(key for _, key in CALLS)


@pytest.mark.parametrize(("no_count", "said"), [(False, "counts 4 calls"), (True, "counts 1 calls")])
async def test_what_lies_before_the_start_is_told_at_the_end(tmp_path, no_count, said):
    """Calls that stay hidden until the end are not found, and the receipt says that they are there."""

    def habit(asked):
        if asked.window == OPEN:  # the list of two days out of three
            begin = (asked.page - 1) * asked.limit
            return Answer(rows=asked.found[:8][begin : begin + asked.limit], count=8, no_count=no_count)
        hidden = asked.window == ("", "2024-05-04 23:59:59") and asked.limit > 1
        return Answer(rows=[] if hidden else None, count=0 if hidden else None, no_count=no_count)

    receipt, ids, _ = await pull(habit, tmp_path)
    assert (receipt.from_date, len(ids), receipt.complete) == ("2024-05-05 00:00:00", 8, False)
    assert said in receipt.certified


async def test_a_start_that_cannot_be_found_is_not_looked_for_for_ever(tmp_path):
    """A server that counts calls it never sends gets a bounded number of requests; the receipt says so."""

    def habit(asked):
        return Answer(rows=[], count=7) if asked.first == "" else HONEST

    receipt, ids, api = await pull(habit, tmp_path)
    assert (ids, receipt.complete) == ([], False)
    assert "counts 7 calls before" in receipt.certified
    assert len(api.asked) < 40


async def test_a_call_in_the_first_second_of_the_calendar_is_the_oldest():
    """No call can be before it, so no request is sent. A server may write a missing date as year 1."""
    calls = calls_at("0001-01-01 00:00:00", "2024-05-06 10:00:00")
    async with (
        SmallServer(calls, lambda _: HONEST, date="Tue, 07 May 2024 12:00:00 GMT") as api,
        ServetelClient("token-123456", base_url=api.base_url, rate=None) as client,
    ):
        fetcher, cost, asked = (
            Fetcher(client, CallQuery(), page_size=SIZE, concurrency=1, patience=60.0),
            Cost(),
            Window(None, None),
        )
        first = await fetcher.sure_page(asked, 1, cost)
        found = await find_start(fetcher, asked, first, "2024-05-07 12:00:00", cost)
        before = await count_before(fetcher, found.start, cost)

    assert (found.first, before) == ("0001-01-01 00:00:00", 0)
    assert [asked.window for asked in api.asked] == [OPEN]
