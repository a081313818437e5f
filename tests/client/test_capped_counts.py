"""A server that never counts beyond a limit, or refuses the pages behind one: every call comes, or an error says why not."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt

import pytest

from servetel_async import CountDriftError, RequestRejectedError, Retry, ServerError, ServetelClient
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, capped, hiding, shallow

MAY = ("2024-05-01", "2024-05-31")
QUICK = Retry(attempts=1, base=0.001, cap=0.001)
_NEWEST = dt.datetime(2024, 5, 31, 23, 0)  # noqa: DTZ001 - the account's wall clock


def some(number, *, apart=60):
    """That many calls, newest first, that many seconds apart; four share each second, so that a limit may split one."""
    return calls_at(*[str(_NEWEST - dt.timedelta(seconds=apart * (index // 4))) for index in range(number)])


@contextlib.asynccontextmanager
async def api(calls, habit=None, **options):
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=QUICK, **options) as client,
    ):
        yield server, client
        assert all(task.done() for task in client._tasks)


def ids(calls):
    return [call.id if hasattr(call, "id") else call[1] for call in calls]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("number", "most", "size"),
    [(2_502, 1_000, 100), (2_502, 1_000, 300), (2_502, 1_000, 1_000), (2_502, 1_024, 100), (4_000, 2_000, 200)],
)
async def test_a_capped_count_ends_no_stream(number, most, size, ordered):
    """The rest of the range is requested until its count is not round. Each call comes once."""
    calls = some(number)
    async with api(calls, capped(most), page_size=size) as (_, client):
        stream = client.calls(*MAY, ordered=ordered)
        got = ids([call async for call in stream])

    assert (got if ordered else sorted(got)) == (ids(calls) if ordered else sorted(ids(calls)))
    assert (stream.stats.records, stream.stats.count) == (number, number)
    assert stream.stats.requests < number / size + 10 + number / most


@pytest.mark.parametrize(("number", "more"), [(997, 0), (1_000, 1), (1_001, 0), (2_000, 1), (2_001, 0)])
async def test_an_honest_count_costs_one_request_where_it_is_round(number, more):
    """A count that is not round costs nothing. The statistics count each call once."""
    async with api(some(number)) as (server, client):
        stream = client.calls(*MAY)
        assert len([call async for call in stream]) == number
        fewest = -(-number // 100) + (number % 100 == 0)  # one more request behind a full page
        assert len(server.asked) == stream.stats.requests == fewest + more
        assert stream.stats.count == number


async def test_what_was_asked_for_costs_no_proof():
    """``max_records`` ends a stream before its end needs a proof."""
    async with api(some(2_502), capped(1_000)) as (server, client):
        assert len(await client.calls(*MAY, max_records=1_000).collect()) == 1_000
        assert len(server.asked) == 10
        assert len(await client.calls(*MAY, max_records=1_300).collect()) == 1_300


@pytest.mark.parametrize("after", [1, 999, 1_000, 1_001, 1_100, 2_000, 2_003, 2_501, 2_502])
@pytest.mark.parametrize("habit", [capped(1_000), shallow(1_000)], ids=["capped", "shallow"])
async def test_a_checkpoint_behind_a_limit_is_a_place(habit, after):
    """Another stream continues behind the last call, whatever range that call came with."""
    calls = some(2_502)
    async with api(calls, habit) as (_, client):
        stream = client.calls(*MAY)
        first = [await anext(stream) for _ in range(after)]
        checkpoint = stream.checkpoint
        await stream.aclose()
        rest = await client.calls(*MAY, start=checkpoint).collect()

    assert ids(first) + ids(rest) == ids(calls)


@pytest.mark.parametrize("order", ["oldest first", "undated"])
async def test_a_list_without_the_usual_order_is_read_in_halves(order):
    """If the oldest call does not show the rest, both halves of the range are read, and no call comes twice."""
    calls = some(1_502)

    def habit(asked):
        found = asked.found[::-1] if order == "oldest first" else asked.found
        rows = found[:1_000][(asked.page - 1) * asked.limit : asked.page * asked.limit]
        if order == "undated":
            rows = [("somewhen", key) for _, key in rows]
        return Answer(rows=rows, count=min(1_000, len(found)))

    async with api(calls, habit) as (_, client):
        stream = client.calls(*MAY)
        got = [call.id async for call in stream]
        assert sorted(got) == sorted(ids(calls))
        assert stream.stats.count == 1_502


async def test_a_stream_that_is_read_in_halves_keeps_the_checkpoint_before_them():
    """A checkpoint cannot name a place in a half that is read again. A later stream begins earlier and misses no call."""
    calls = some(1_502)

    def habit(asked):
        rows = asked.found[::-1][:1_000][(asked.page - 1) * asked.limit : asked.page * asked.limit]
        return Answer(rows=rows, count=min(1_000, len(asked.found)))

    async with api(calls, habit) as (_, client):
        stream = client.calls(*MAY)
        first = [await anext(stream) for _ in range(1_000)]
        checkpoint = stream.checkpoint
        await anext(stream)
        assert stream.checkpoint == checkpoint
        await stream.aclose()
        with pytest.raises(CountDriftError, match="may be missing"):
            await client.calls(*MAY, start=checkpoint).collect()
    assert len({call.id for call in first}) == 1_000


async def test_a_limit_that_cannot_be_got_behind_is_an_error():
    """Two thousand calls in one second: the calls that come are delivered. Then the error says that calls may be missing."""
    got = []
    async with api(calls_at(*["2024-05-06 09:00:00"] * 2_000), capped(1_000)) as (_, client):
        with pytest.raises(CountDriftError, match="may be missing"):
            async for call in client.calls(*MAY):
                got.append(call.id)
    assert len(got) == 1_000


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("size", [100, 300])
async def test_a_page_refused_for_its_depth_ends_no_stream(size, ordered):
    """The rest is requested as a narrower range, whose pages are less deep."""
    calls = some(2_502)
    async with api(calls, shallow(1_000), page_size=size) as (server, client):
        stream = client.calls(*MAY, ordered=ordered)
        got = ids([call async for call in stream])
        assert (got if ordered else sorted(got)) == (ids(calls) if ordered else sorted(ids(calls)))
        assert (stream.stats.count, stream.stats.requests) == (2_502, len(server.asked))


@pytest.mark.parametrize(
    "calls", [calls_at(*["2024-05-06 09:00:00"] * 2_000), some(2_000)[::-1]], ids=["a second", "no order"]
)
async def test_a_refusal_that_is_not_for_depth_stays_one(calls):
    """The refusal is raised if no narrower range is left, or if the list has no order to narrow it by."""
    async with api([], None) as (server, client):
        server.calls = calls
        server.habit = shallow(1_000)
        with pytest.raises(RequestRejectedError, match="too deep"):
            await client.calls(*MAY).collect()


async def test_a_refusal_in_a_later_pass_stays_one():
    """The first pass was not refused, so the depth is not the reason."""
    calls = some(1_300)

    def habit(asked):
        if asked.page == 11 and len([other for other in server.asked if other.page == 11]) > 1:
            return Answer(status=400, body=b'{"success": false, "message": "no"}')
        return Answer(count=1_301)

    async with api(calls, habit) as (server, client):
        with pytest.raises(RequestRejectedError):
            await client.calls(*MAY).collect()


@pytest.mark.parametrize("dates", [MAY, (None, "2024-05-31"), ("2024-05-01", None), (None, None)])
@pytest.mark.parametrize(("number", "most"), [(2_502, 1_000), (1_000, 9_999), (3_000, 2_000), (996, 999)])
async def test_a_count_is_the_count_whatever_its_limit(number, most, dates):
    """The counts of two parts prove a round count; an open range is cut at the call where its count ends."""
    async with api(some(number), capped(most)) as (server, client):
        assert await client.count(*dates) == number
        assert len(server.asked) < 45


async def test_an_open_count_is_proved_where_deep_pages_are_refused():
    """The open range is cut at a call that is less deep."""
    async with api(some(2_000), shallow(500)) as (server, client):
        assert await client.count() == 2_000
        assert [asked.page for asked in server.asked] == [1, 2_000, 1_000, 500, 1, 1]


@pytest.mark.parametrize("status", [400, 503])
async def test_an_open_count_that_is_refused_in_the_middle_is_an_error(status):
    """No page shows where to cut, so the refusal is raised."""

    def habit(asked):
        return HONEST if asked.nth == 1 else Answer(status=status, body=b'{"success": false, "message": "no"}')

    async with api(some(1_000), habit) as (_, client):
        with pytest.raises(RequestRejectedError if status == 400 else ServerError):
            await client.count()


async def test_a_server_that_leaves_out_bounds_counts_no_fewer():
    """The parts have more bounds than the whole range, so their sum may be too low: the larger count is right."""
    calls = some(1_000)
    async with api(calls) as (server, client):
        server._inside = lambda start, first, last: first <= start < last
        assert await client.count() == 1_000


@pytest.mark.parametrize("dates", [MAY, (None, None)])
async def test_a_count_that_cannot_be_proved_is_an_error(dates):
    """Of two thousand calls in one second, the server counts a thousand."""
    async with api(calls_at(*["2024-05-06 09:00:00"] * 2_000), capped(1_000)) as (_, client):
        with pytest.raises(CountDriftError, match="may be missing"):
            await client.count(*dates)


async def test_a_count_of_an_open_range_without_dates_cannot_be_proved():
    """The last call has no date, so it does not show where to cut."""

    def habit(asked):
        return Answer(rows=[("somewhen", key) for _, key in asked.rows], count=1_000)

    async with api(some(1_200), habit) as (_, client):
        with pytest.raises(CountDriftError, match="may be missing"):
            await client.count()


@pytest.mark.parametrize("ordered", [True, False])
async def test_deeper_pages_that_come_all_the_same_are_left(ordered):
    """One page is refused and later pages are not: the rest is read as a narrower range, and each call comes once."""
    calls = some(1_502)

    def habit(asked):
        refused = asked.page == 11 and len(asked.found) == 1_502
        return Answer(status=400, body=b'{"success": false, "message": "no"}') if refused else HONEST

    async with api(calls, habit) as (_, client):
        stream = client.calls(*MAY, ordered=ordered)
        got = ids([call async for call in stream])
    assert (got if ordered else sorted(got)) == (ids(calls) if ordered else sorted(ids(calls)))


async def test_a_deeper_page_that_came_before_hides_no_gap():
    """Pages come in any order, and one in the middle is refused last: a narrower range brings its calls."""
    calls, deeper = some(3_002), asyncio.Event()

    def habit(asked):
        refused = asked.page == 10 and len(asked.found) == 3_002
        return Answer(status=400, body=b'{"success": false, "message": "no"}', until=deeper) if refused else HONEST

    async with api(calls, habit) as (server, client):
        got = []
        async for call in client.calls(*MAY, ordered=False):
            got.append(call.id)
            if len(got) > 1_500:
                deeper.set()
    assert sorted(got) == sorted(ids(calls))
    assert 10 in [asked.page for asked in server.asked]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("number", "most"), [(1_002, 1_000), (2_502, 1_000), (4_000, 2_000)])
async def test_a_limit_without_any_count_ends_no_stream(number, most, ordered):
    """A round number of calls, then an empty page: a narrower range brings the rest."""
    calls = some(number)
    async with api(calls, hiding(most)) as (_, client):
        got = ids([call async for call in client.calls(*MAY, ordered=ordered)])
        assert await client.count(*MAY) == number
    assert (got if ordered else sorted(got)) == (ids(calls) if ordered else sorted(ids(calls)))
