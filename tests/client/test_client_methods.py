"""The result of each method of the client, checked against a known account."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import Counter
from zoneinfo import ZoneInfo

import pytest

from servetel_async import (
    IST,
    CallPage,
    CallQuery,
    CallRecord,
    CountDriftError,
    DeadlineExceededError,
    OutOfWindowError,
    PagingError,
    ResumeMismatchError,
    StreamClosedError,
)
from servetel_async.emulator import Dataset, Fault
from tests.transport.conftest import settled
from tests.transport.leaks import assert_clean, failure_of
from tests.transport.wire_server import ACTS, call, page, reply

MAY = ("2024-05-01", "2024-05-31")
QUARTER = ("2024-04-01", "2024-06-30")


@pytest.fixture(scope="session")
def quarter() -> Dataset:
    """500 calls of three months: three windows."""
    return settled(Dataset.range("2024-04-01", "2024-06-30", calls=500))


@pytest.fixture(scope="session")
def rough() -> Dataset:
    """800 calls in every odd form."""
    return settled(Dataset.month("2024-05", calls=800, php_quirks=True))


@pytest.fixture(scope="session")
def large() -> Dataset:
    """20,000 calls of one month."""
    return settled(Dataset.month("2024-05", calls=20_000))


def ids(calls) -> list[str]:
    return [call.id for call in calls]


# count ---------------------------------------------------------------------------------------------------------------------


async def test_counting_a_month_is_one_request(emulate, connect):
    """The count is the API's own, requested with a page of one call."""
    api = await emulate(Dataset.month("2024-05", calls=3_001))

    assert await connect(api).count(*MAY) == 3_001
    assert [request.limit for request in api.requests] == [1]


async def test_counting_a_round_number_is_three_requests(emulate, connect, month):
    """A round count may be a limit of the server, so the two halves of the range are counted too."""
    api = await emulate(month)

    assert await connect(api).count(*MAY) == 3_000
    assert [request.limit for request in api.requests] == [1, 1, 1]


async def test_counting_with_filters_counts_what_matches(emulate, connect, month):
    """Filters narrow the count as they narrow the stream."""
    api = await emulate(month)
    client = connect(api)

    for filters, params in (
        ({"direction": "inbound"}, {"direction": "inbound"}),
        ({"call_type": "missed"}, {"call_type": "m"}),
        ({"duration": ">=60"}, {"duration": 60, "operator": ">="}),
    ):
        truth = api.truth(from_date="2024-05-01 00:00:00", to_date="2024-05-31 23:59:59", **params)
        assert await client.count(*MAY, **filters) == len(truth)


async def test_a_range_over_31_days_is_counted_window_by_window(emulate, connect, quarter):
    """No request spans more than 31 days; the sum is right, and no call at a border counts twice."""
    api = await emulate(quarter, max_range_days=31)

    assert await connect(api).count(*QUARTER) == 500
    assert len(api.requests) == 3


@pytest.mark.parametrize("mode", ["page", "missing"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 10, 11, 95, 300])
async def test_counting_works_where_the_server_does_not_count(number, mode, emulate, connect):
    """If ``count`` is missing or counts only the page, a few requests find the end."""
    api = await emulate(Dataset.month("2024-05", calls=number), count_mode=mode)

    assert await connect(api, page_size=10).count(*MAY) == number
    asked = Counter((request.page, request.limit) for request in api.requests)
    assert len(asked) <= 5 + 2 * math.log2(number / 10 + 2)
    assert max(asked.values()) <= 2, "an empty page without a count is asked for once more, and no other"


@pytest.mark.parametrize("cap", [3, 10, 50])
async def test_counting_sees_through_a_silent_cap(cap, emulate, connect):
    """If a server gives smaller pages than requested, the count uses their real size."""
    api = await emulate(Dataset.month("2024-05", calls=95), count_mode="page", limit_cap=cap)

    assert await connect(api, page_size=100).count(*MAY) == 95


async def test_an_open_range_is_counted_in_one_request(emulate, connect, small):
    """Without dates there is nothing to cut into windows."""
    api = await emulate(small)

    assert await connect(api).count() == 300
    assert await connect(api).count("2024-05-10") < 300
    assert await connect(api).count(to_date="2024-05-10") < 300


async def test_a_deadline_ends_a_count(emulate, connect, small):
    """Its own deadline ends a count that hangs."""
    api = await emulate(small, faults=[Fault("stall")])

    error = await failure_of(connect(api).count(deadline=0.1))

    assert type(error) is DeadlineExceededError
    assert_clean(error)


# get_call ------------------------------------------------------------------------------------------------------------------


async def test_a_known_call_is_found_in_one_request(emulate, connect, small):
    """The result is the call with that id, and no other."""
    api = await emulate(small)
    wanted = small.calls[123]

    found = await connect(api).get_call(wanted.call_id)

    assert isinstance(found, CallRecord)
    assert (found.id, found.call_id) == (wanted.id, wanted.call_id)
    assert len(api.requests) == 1


async def test_an_unknown_call_is_none(emulate, connect, small):
    """None means that there is no such call."""
    api = await emulate(small)

    assert await connect(api).get_call("1.2") is None
    assert await connect(api).get_call("1.2", from_date=MAY[0], to_date=MAY[1]) is None


@pytest.mark.parametrize("dates", [{}, {"from_date": MAY[0]}, {"to_date": MAY[1]}])
async def test_a_server_that_ignores_call_id_is_caught(dates, emulate, connect, small):
    """If the newest calls come instead, none is returned: the error names the cause and the fix."""
    api = await emulate(small, knows_call_id=False)

    error = await failure_of(connect(api).get_call(small.calls[123].call_id, **dates))

    assert type(error) is OutOfWindowError
    assert "from_date" in error.fix
    assert_clean(error)


async def test_dates_narrow_the_search_where_call_id_is_ignored(emulate, connect, small):
    """With dates, the range is read until the call is found; a missing call is None."""
    api = await emulate(small, knows_call_id=False)
    client = connect(api, page_size=10)
    dates = {"from_date": MAY[0], "to_date": MAY[1]}
    wanted = small.calls[123]

    assert (await client.get_call(wanted.call_id, **dates)).id == wanted.id
    assert await client.get_call("1.2", **dates) is None


async def test_the_newest_call_is_not_taken_for_the_wanted_one(serve, connect):
    """A page whose calls have other ids, or none, is never the answer."""
    server = await serve(reply(page(call(1, call_id=None), call(2), call(3, call_id=17146577.1), count=3)))

    error = await failure_of(connect(server).get_call("17146577"))

    assert type(error) is OutOfWindowError


async def test_a_call_id_is_compared_as_text(serve, connect):
    """A numeric id is compared digit by digit, not as a float."""
    server = await serve(reply(page(call(1)).replace(b'"17146577.1"', b"1714657799.11930963")))

    found = await connect(server).get_call("1714657799.11930963")

    assert found.call_id == "1714657799.11930963"
    assert isinstance(await failure_of(connect(server).get_call("1714657799.1193097")), OutOfWindowError)


# fetch_page ----------------------------------------------------------------------------------------------------------------


async def test_a_page_is_given_as_it_is(emulate, connect, month):
    """Records, number, count, limit and the raw bytes; no other request is sent."""
    api = await emulate(month)
    query = CallQuery(from_date=MAY[0], to_date=MAY[1])

    found = await connect(api).fetch_page(query, page=3, page_size=7)

    assert isinstance(found, CallPage)
    assert ids(found.records) == month.ids[14:21]
    assert (found.number, found.count, found.limit) == (3, 3_000, 7)
    assert found.raw.startswith(b"{")
    assert len(api.requests) == 1


async def test_a_page_past_the_end_holds_nothing(emulate, connect, small):
    """A page past the end is an empty page."""
    api = await emulate(small)

    assert len(await connect(api).fetch_page(page=99)) == 0


async def test_another_page_than_asked_for_is_an_error(emulate, connect, small):
    """The page number in the reply shows that the server sent another page."""
    api = await emulate(small, faults=[Fault("wrong_page")])

    error = await failure_of(connect(api).fetch_page(page=2))

    assert type(error) is PagingError
    assert error.page == 2


async def test_a_page_outside_of_its_dates_is_an_error(serve, connect):
    """The first call outside the dates shows that the server ignores them."""
    server = await serve(reply(page(call(1, date="2019-01-01"), count=1)))

    error = await failure_of(connect(server).fetch_page(CallQuery(from_date=MAY[0], to_date=MAY[1])))

    assert type(error) is OutOfWindowError
    assert_clean(error)


# calls ---------------------------------------------------------------------------------------------------------------------


async def test_making_a_stream_sends_nothing(emulate, connect, small):
    """The first ``anext`` is the first request."""
    api = await emulate(small)
    stream = connect(api).calls(*MAY)
    await asyncio.sleep(0)
    assert api.requests == []
    await stream.aclose()


@pytest.mark.parametrize("limit", [1, 7, 100, 101, 299, 300, 999])
async def test_collect_takes_so_many_and_asks_for_no_needless_page(limit, emulate, connect, small):
    """``collect(limit)`` returns that many newest calls, in no more pages than they fill."""
    api = await emulate(small)

    calls = await connect(api, page_size=50).calls(*MAY).collect(limit=limit)

    assert ids(calls) == small.ids[:limit]
    assert len(api.requests) <= max(1, math.ceil(min(limit, 300) / 50)) + (limit >= 300)


@pytest.mark.parametrize("most", [1, 7, 49, 50, 51, 100, 299, 300, 999])
async def test_max_records_asks_for_no_needless_page(most, emulate, connect, small):
    """A stream with ``max_records`` reads exactly the pages that hold them."""
    api = await emulate(small)

    calls = await connect(api, page_size=50).calls(*MAY, max_records=most).collect()

    assert ids(calls) == small.ids[:most]
    assert len(api.requests) <= max(1, math.ceil(min(most, 300) / 50)) + (most >= 300)


async def test_unordered_is_the_same_set(emulate, connect, month):
    """``ordered=False`` loses and doubles no call, and has no checkpoint."""
    api = await emulate(month, jitter=0.002)
    stream = connect(api, page_size=50, max_concurrency=8).calls(*MAY, ordered=False)

    calls = await stream.collect()

    assert sorted(ids(calls)) == sorted(month.ids)
    assert stream.checkpoint is None


@pytest.mark.parametrize(
    "filters",
    [
        {"direction": "outbound"},
        {"call_type": "missed"},
        {"call_type": "answered", "duration": ">60"},
        {"services": "IVR"},
        {"broadcast": True},
    ],
    ids=repr,
)
async def test_filters_give_what_the_account_holds(filters, emulate, connect, month):
    """The stream of a filter has exactly the matching calls. So has a query with the same words."""
    api = await emulate(month)
    query = CallQuery(from_date=MAY[0], to_date=MAY[1], **filters)
    truth = api.truth(dict(query.params()))

    assert 0 < len(truth) < 3_000
    assert ids(await connect(api).calls(*MAY, **filters).collect()) == truth
    assert ids(await connect(api).calls(query=query).collect()) == truth


async def test_several_agents_are_an_or(emulate, connect, month):
    """Calls of any of the agents, named with a prefix or without."""
    api = await emulate(month)
    agents = sorted({call.agent for call in month.calls if call.agent})[:2]
    truth = api.truth({"agents[]": [f"agent|{agent}" for agent in agents]})

    for style in ("brackets", "indexed", "comma"):
        client = connect(api, array_style=style)
        assert ids(await client.calls(*MAY, agents=[agents[0], f"agent|{agents[1]}"]).collect()) == truth


async def test_any_kind_of_moment_asks_for_the_same_range(emulate, connect, small):
    """A date, the API's own text and an aware moment of any zone give one range."""
    api = await emulate(small)
    client = connect(api)
    asked = [
        (dt.date(2024, 5, 10), dt.date(2024, 5, 11)),
        ("2024-05-10", "2024-05-11 23:59:59"),
        (dt.datetime(2024, 5, 10, tzinfo=IST), dt.datetime(2024, 5, 11, 23, 59, 59, tzinfo=IST)),
        (dt.datetime(2024, 5, 9, 18, 30, tzinfo=dt.UTC), dt.datetime(2024, 5, 11, 18, 29, 59, 999, tzinfo=dt.UTC)),
        (dt.datetime(2024, 5, 9, 14, 30, tzinfo=ZoneInfo("America/New_York")), dt.date(2024, 5, 11)),
    ]
    truth = api.truth(from_date="2024-05-10 00:00:00", to_date="2024-05-11 23:59:59")

    assert truth
    for moments in asked:
        assert ids(await client.calls(*moments).collect()) == truth
    assert len({tuple(request.query) for request in api.requests if request.page == 1}) == 1


async def test_the_zone_of_the_client_is_the_zone_of_its_records(emulate, connect, small):
    """An account in another zone is asked in its wall clock, and its records have that zone."""
    london = ZoneInfo("Europe/London")
    api = await emulate(small)
    calls = (
        await connect(api, zone=london)
        .calls(dt.datetime(2024, 5, 10, tzinfo=dt.UTC), dt.datetime(2024, 5, 11, tzinfo=dt.UTC))
        .collect()
    )

    assert dict(api.requests[0].query)["from_date"] == "2024-05-10 01:00:00"
    assert {call.started_at.utcoffset() for call in calls} == {dt.timedelta(hours=1)}


@pytest.mark.parametrize("max_range", [31, None])
async def test_a_long_range_is_read_window_by_window(max_range, emulate, connect, quarter):
    """Newest first across windows, each call once, no request over 31 days."""
    api = await emulate(quarter, max_range_days=max_range)
    stream = connect(api, page_size=20).calls(*QUARTER)

    assert ids(await stream.collect()) == quarter.ids
    assert stream.stats.count == 500


async def test_rough_records_are_read_to_the_last(emulate, connect, rough):
    """Every odd form of a PHP backend is read; no record is lost and no type differs."""
    api = await emulate(rough)
    calls = await connect(api, page_size=50).calls(*MAY).collect()

    assert ids(calls) == rough.ids
    assert {type(call.id) for call in calls} == {str}
    assert {type(call.call_id) for call in calls} == {str}


# Twenty thousand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "size"),
    [
        ({}, 200),
        ({"limit_cap": 50}, 50),
        ({"limit_cap": 50, "echo_limit": "served"}, 50),
        ({"count_mode": "page"}, 200),
        ({"count_mode": "missing"}, 200),
    ],
    ids=["plain", "capped", "capped, said", "page counts", "no counts"],
)
async def test_twenty_thousand_calls_in_about_the_fewest_requests(knobs, size, emulate, connect, large):
    """Every call, in order, for any count and limit, within 5 % of the fewest requests."""
    api = await emulate(large, **knobs)
    stream = connect(api, page_size=200, max_concurrency=8).calls(*MAY)

    calls = await stream.collect()

    assert ids(calls) == large.ids
    assert len(api.requests) <= 1.05 * 20_000 / size
    assert stream.stats.requests == len(api.requests)


async def test_twenty_thousand_rough_calls(emulate, connect):
    """The same with every odd form of record."""
    data = settled(Dataset.month("2024-05", calls=20_000, php_quirks=True))
    api = await emulate(data)

    calls = await connect(api, page_size=200, max_concurrency=8).calls(*MAY).collect()

    assert ids(calls) == data.ids
    assert len(api.requests) <= 105


# Stopping and resuming -----------------------------------------------------------------------------------------------------


async def read_some(stream, number: int) -> list[str]:
    got = []
    async for found in stream:
        got.append(found.id)
        if len(got) == number:
            break
    return got


@pytest.mark.parametrize("every", [1, 2, 3, 7, 10, 19])
async def test_a_stream_is_gone_on_with_after_any_call(every, emulate, connect):
    """A stream stopped after every k-th call and resumed loses no call and brings none twice."""
    data = Dataset.month("2024-05", calls=60)
    api = await emulate(data)
    client = connect(api, page_size=10)
    got: list[str] = []
    start = None
    for _ in range(70):
        stream = client.calls(*MAY, start=start)
        some = await read_some(stream, every)
        got += some
        start = stream.checkpoint
        await stream.aclose()
        if len(some) < every:
            break

    assert got == data.ids


@pytest.mark.parametrize("after", [1, 5, 10, 11, 25, 49])
@pytest.mark.parametrize("inserted", [1, 9, 10, 23])
async def test_calls_that_came_meanwhile_do_not_shift_the_place(inserted, after, emulate, connect):
    """New calls in front push the place back by pages; the resumed stream still begins with the next call."""
    data = Dataset.month("2024-05", calls=60)
    api = await emulate(data)
    client = connect(api, page_size=10)
    stream = client.calls(*MAY)
    got = await read_some(stream, after)
    checkpoint = stream.checkpoint
    await stream.aclose()
    newest = data.calls[0].start
    for number in range(inserted):
        api.insert(data.clock.stamp(min(newest + number + 1, newest + 60)))

    got += ids(await client.calls(*MAY, start=checkpoint).collect())

    assert got == data.ids


@pytest.mark.parametrize("after", [1, 150, 166, 167, 250, 333, 499, 500])
async def test_a_long_range_is_gone_on_with_in_any_window(after, emulate, connect, quarter):
    """A checkpoint knows its window; earlier ones are not read again."""
    api = await emulate(quarter)
    client = connect(api, page_size=20)
    stream = client.calls(*QUARTER)
    got = await read_some(stream, after)
    checkpoint = stream.checkpoint
    await stream.aclose()
    asked = len(api.requests)

    got += ids(await client.calls(*QUARTER, start=checkpoint).collect())

    assert got == quarter.ids
    assert len(api.requests) - asked <= math.ceil((500 - after) / 20) + 6


async def test_a_checkpoint_of_pages_is_a_checkpoint_too(emulate, connect, small):
    """A stream read by pages can be resumed call by call, and the other way round."""
    api = await emulate(small)
    client = connect(api, page_size=30)
    stream = client.calls(*MAY)
    pages = stream.pages()
    got = [found.id for _ in range(3) for found in (await anext(pages)).records]

    got += ids(await client.calls(*MAY, start=stream.checkpoint).collect())
    await stream.aclose()

    assert got == small.ids


async def test_another_page_size_does_not_spoil_a_checkpoint(emulate, connect, small):
    """A resumed stream uses the page size of its own client."""
    api = await emulate(small)
    stream = connect(api, page_size=30).calls(*MAY)
    got = await read_some(stream, 77)
    await stream.aclose()
    asked = len(api.requests)

    got += ids(await connect(api, page_size=17).calls(*MAY, start=stream.checkpoint).collect())

    assert got == small.ids
    assert {request.limit for request in api.requests[asked:]} == {17}


async def test_a_call_that_was_removed_is_no_place_to_go_on_from(emulate, connect, small):
    """If the last call was removed, the error says that the stream must begin anew."""
    api = await emulate(small)
    client = connect(api, page_size=10)
    stream = client.calls(*MAY)
    got = await read_some(stream, 25)
    await stream.aclose()
    api.delete(got[-1])

    error = await failure_of(client.calls(*MAY, start=stream.checkpoint).collect())

    assert type(error) is ResumeMismatchError
    assert_clean(error)


async def test_a_checkpoint_names_no_number_and_no_token(emulate, connect, small):
    """It may be written to any file or log."""
    api = await emulate(small)
    client_number = small.calls[5].client_number
    stream = connect(api).calls(*MAY, callerid=client_number)
    await anext(stream)

    assert client_number.lstrip("+") not in stream.checkpoint
    await stream.aclose()


# Deadlines, stats, ends ----------------------------------------------------------------------------------------------------


async def test_a_deadline_ends_a_stream_and_says_where(emulate, connect, small):
    """All time counts, the consumer's too; the delivered calls are an exact prefix."""
    api = await emulate(small, faults=[Fault("stall", page=4)])
    stream = connect(api, page_size=10).calls(*MAY, deadline=0.4)
    got = []

    async def read() -> None:
        async for found in stream:
            got.append(found.id)

    error = await failure_of(read())

    assert type(error) is DeadlineExceededError
    assert got == small.ids[:30]
    assert error.checkpoint == stream.checkpoint
    assert_clean(error)
    api = await emulate(small)
    assert got + ids(await connect(api, page_size=10).calls(*MAY, start=error.checkpoint).collect()) == small.ids


async def test_the_numbers_of_a_stream_add_up(emulate, connect, small):
    """Records, pages, requests and bytes equal the server's figures, retries included."""
    api = await emulate(small, faults=[Fault("status", page=2, times=2), Fault("reset", page=4, times=1)])
    stream = connect(api, page_size=40).calls(*MAY)
    raw = [found async for found in stream.pages()]
    stats = stream.stats

    assert stats.records == sum(len(found.records) for found in raw) == stats.count == 300
    assert stats.requests == len(api.requests)
    assert stats.pages == len(raw)
    assert stats.size >= sum(len(found.raw) for found in raw)
    assert (stats.duplicates, stats.reused_ids, stats.undated, stats.rereadings) == (0, 0, 0, 0)
    assert stats.waited_for_pages > 0


async def test_finished_failed_and_closed_are_three_ends(emulate, connect, small):
    """A finished stream stays finished, a failed one fails again, and a closed one says it was closed early."""
    api = await emulate(small)
    client = connect(api)
    finished = client.calls(*MAY)
    await finished.collect()
    closed = client.calls(*MAY)
    await anext(closed)
    await closed.aclose()

    with pytest.raises(StopAsyncIteration):
        await anext(finished)
    error = await failure_of(anext(closed))
    assert type(error) is StreamClosedError
    assert error.checkpoint == closed.checkpoint is not None
    assert closed.closed
    assert finished.closed
    assert_clean(error)


async def test_a_client_without_a_gate_and_many_streams(emulate, connect, small):
    """Ten streams at once over four slots are all complete."""
    api = await emulate(small)
    client = connect(api, page_size=20)

    results = await asyncio.gather(*(client.calls(*MAY).collect() for _ in range(10)))

    assert all(ids(calls) == small.ids for calls in results)
    assert api.peak_in_flight <= 4


async def test_pages_close_like_their_stream(emulate, connect, small):
    """``async with stream.pages()`` ends the stream with the block."""
    api = await emulate(small)
    stream = connect(api, page_size=20).calls(*MAY)

    async with stream.pages() as pages:
        first = await anext(pages)

    assert ids(first.records) == small.ids[:20]
    assert stream.closed
    assert isinstance(await failure_of(anext(pages)), StreamClosedError)


async def test_a_stream_takes_no_values(emulate, connect, small):
    """It has a generator's interface, but takes no values."""
    api = await emulate(small)
    stream = connect(api).calls(*MAY)

    with pytest.raises(TypeError):
        await stream.asend("x")
    assert (await stream.asend(None)).id == small.ids[0]
    with pytest.raises(KeyError):
        await stream.athrow(KeyError("x"))
    assert stream.closed


async def test_a_stream_that_is_closed_while_it_is_awaited_says_so(serve, connect):
    """The task that waits for the next call learns that the stream was closed."""
    server = await serve(ACTS["head hangs"])
    stream = connect(server).calls(*MAY)
    waiting = asyncio.ensure_future(failure_of(anext(stream)))
    await server.until(lambda: server.asked == 1)

    await stream.aclose()

    assert isinstance(await waiting, StreamClosedError)


@pytest.mark.parametrize("mode", ["total", "page"])
async def test_a_list_that_moves_is_read_until_it_is_still(mode, emulate, connect):
    """Calls come and go during the reading: a second pass, with or without ``max_records``, and no double."""
    data = Dataset.month("2024-05", calls=120)
    for most in (None, 60):
        api = await emulate(data, delete_every=7, insert_every=11, count_mode=mode)
        stream = connect(api, page_size=10, max_concurrency=2).calls(*MAY, max_records=most)
        got, before, moved = [], set(api.truth()), None
        try:
            async for found in stream:
                got.append(found.id)
        except CountDriftError as error:
            moved = error
            assert_clean(error)
        assert len(got) == len(set(got))
        if moved is None:
            stayed = before & set(api.truth())
            assert len(got) == most or (most is None and stayed <= set(got))
        assert len(got) <= (most or 999)
        assert stream.stats.records == len(got)
