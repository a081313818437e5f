"""Resuming from a checkpoint: the stream delivers all calls behind the last one, wherever it is now, or raises an error."""

from __future__ import annotations

import pytest

from servetel_async import (
    CountDriftError,
    DeadlineExceededError,
    PagingError,
    ResumeMismatchError,
    Retry,
    ServerError,
    ServetelClient,
    Timeouts,
)
from tests.bulk.small_server import Answer, SmallServer

MAY = ("2024-05-01", "2024-05-31")


def some(number, first=0):
    """That many calls, newest first, five seconds apart."""
    seconds = [5 * (10_000 - each) for each in range(first, first + number)]
    return [
        (f"2024-05-20 {second // 3600:02}:{second % 3600 // 60:02}:{second % 60:02}", f"call-{each:05}")
        for each, second in enumerate(seconds, first)
    ]


def names(calls):
    return [name for _, name in calls]


def client_of(server, **settings):
    return ServetelClient(
        "a-token-for-tests",
        base_url=server.base_url,
        **({"rate": None, "page_size": 10, "retry": Retry(attempts=1)} | settings),
    )


def capped(cap, counts="total"):
    """A server with at most this many calls on a page."""

    def habit(asked):
        size = min(cap, asked.limit)
        return Answer(asked.found[(asked.page - 1) * size : asked.page * size], no_count=counts == "none")

    return habit


async def read(stream, number):
    return [(await anext(stream)).id for _ in range(number)]


async def stopped(client, number, **options):
    """The ids of the first calls, and the checkpoint behind them."""
    async with client.calls(*MAY, **options) as stream:
        return await read(stream, number), stream.checkpoint


async def resumed(client, checkpoint, **options):
    return [call.id for call in await client.calls(*MAY, start=checkpoint, **options).collect()]


@pytest.mark.parametrize("counts", ["total", "none"])
@pytest.mark.parametrize("stop", [1, 5, 60, 100, 149, 150])
@pytest.mark.parametrize(("before", "after"), [(100, 50), (50, 100), (100, 7), (7, 100), (50, 49)])
async def test_another_page_cap_costs_no_call(before, after, stop, counts):
    """Page 1 shows today's page size; a page with as many calls as before proves nothing."""
    calls = some(150)
    async with SmallServer(calls) as server, client_of(server, page_size=100) as client:
        server.habit = capped(before, counts)
        got, checkpoint = await stopped(client, stop)
        server.habit = capped(after, counts)
        stream = client.calls(*MAY, start=checkpoint)
        assert got + [call.id async for call in stream] == names(calls)
        assert stream.stats.rereadings == 0


@pytest.mark.parametrize("gone", [1, 5, 60, 99])
@pytest.mark.parametrize("counts", ["total", "none"])
async def test_calls_that_were_removed_in_front_cost_nothing(gone, counts):
    """The call moves to an earlier page, and its old place may be beyond the end of the list."""
    calls = some(101)
    habit = None if counts == "total" else lambda _asked: Answer(no_count=True)
    async with SmallServer(calls, habit) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 100)
        del server.calls[:gone]
        assert await resumed(client, checkpoint) == ["call-00100"]
        _, at_the_end = await stopped(client, 101 - gone)
        assert await resumed(client, at_the_end) == []


async def test_a_resumed_stream_asks_with_its_own_page_size():
    """A checkpoint of ``max_records=1`` came from pages of one call; the rest comes in pages of the client."""
    calls = some(300)
    async with SmallServer(calls) as server, client_of(server, page_size=100) as client:
        (call,) = await client.calls(*MAY, max_records=1).collect()
        assert server.asked[-1].limit == 1
        _, checkpoint = await stopped(client, 1, max_records=1)
        asked = len(server.asked)
        assert [call.id, *await resumed(client, checkpoint)] == names(calls)
        assert [each.limit for each in server.asked[asked:]] == [100] * 4
        asked = len(server.asked)
        assert await resumed(client, checkpoint, page_size=30) == names(calls)[1:]
        assert {each.limit for each in server.asked[asked:]} == {30}


async def test_a_wrong_count_brings_no_call_twice():
    """The whole list is read again. The calls in front of the checkpoint were delivered before, so they are skipped."""
    async with SmallServer(some(60)) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 25)
        server.habit = lambda asked: Answer(count=len(asked.found) + 1)
        stream = client.calls(*MAY, start=checkpoint)
        with pytest.raises(CountDriftError, match="60 calls were found where the API counts 61"):
            async for call in stream:
                got.append(call.id)
    assert got == names(server.calls)
    assert stream.stats.rereadings == 1


@pytest.mark.parametrize("at", [2, 3, 4, 6])
@pytest.mark.parametrize("change", ["added in front", "removed in front", "removed behind", "added behind"])
async def test_a_list_that_moves_while_it_is_resumed_is_read_again(change, at):
    """There is no error, nothing is lost or repeated, and nothing in front of the checkpoint is delivered."""
    async with SmallServer(some(100)) as server, client_of(server, max_concurrency=1) as client:
        got, checkpoint = await stopped(client, 25)
        begun = len(server.asked)

        def habit(asked):
            if asked.nth == begun + at:
                calls = server.calls
                if change == "added in front":
                    calls.insert(0, ("2024-05-20 23:00:00", "new"))
                elif change == "removed in front":
                    del calls[3]
                elif change == "removed behind":
                    del calls[40]
                else:
                    calls.insert(30, (calls[30][0], "late"))
                asked.found[:] = calls
            return Answer()

        server.habit = habit
        rest = await resumed(client, checkpoint)
    there = names(server.calls)
    assert set(rest) >= set(there[there.index("call-00024") + 1 :])
    assert len(set(rest)) == len(rest)
    assert not set(rest) & {*got, "new"}


async def test_calls_of_one_second_may_come_in_another_order():
    """The API sorts by start without a tiebreaker. So the checkpoint names the delivered calls of the last second."""
    calls = [(start, name) for start, name in some(12)]
    calls[3:9] = [("2024-05-20 13:00:00", name) for _, name in calls[3:9]]
    async with SmallServer(calls, capped(4)) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 6)
        for order in ([8, 7, 6, 5, 4, 3], [5, 6, 7, 8, 3, 4], [3, 4, 8, 7, 6, 5]):
            server.calls = [*calls[:3], *[calls[each] for each in order], *calls[9:]]
            rest = await resumed(client, checkpoint)
            assert sorted(got + rest) == names(calls)


async def test_an_id_that_two_calls_share_is_not_the_place_of_the_other():
    """Id and start together identify a call."""
    calls = some(40)
    calls[5] = calls[5][0], "twin"
    calls[25] = calls[25][0], "twin"
    async with SmallServer(calls) as server, client_of(server) as client:
        for stop in (6, 26):
            _, checkpoint = await stopped(client, stop)
            assert await resumed(client, checkpoint) == names(calls)[stop:]


@pytest.mark.parametrize("counts", ["total", "none"])
async def test_a_call_is_gone_only_after_the_whole_window_was_looked_through(counts):
    """Each page and the end of the list are read once; then the error says what to do."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 25)
        del server.calls[24]
        if counts == "none":
            server.habit = lambda _asked: Answer(no_count=True)
        asked = len(server.asked)
        with pytest.raises(ResumeMismatchError, match="no longer in the list") as raised:
            await resumed(client, checkpoint)
        assert sorted({each.page for each in server.asked[asked:]}) == [1, 2, 3, 4, 5, 6, 7]
        assert len(server.asked) - asked <= 8
        assert raised.value.checkpoint == checkpoint


async def test_a_server_that_repeats_its_last_page_ends_the_search():
    """Past the end of the list it sends the last page again, and says so."""

    def clamping(asked):
        page = min(asked.page, -(-len(asked.found) // asked.limit))
        return Answer(asked.found[(page - 1) * asked.limit : page * asked.limit], page=page)

    async with SmallServer(some(55), clamping) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 25)
        assert got + await resumed(client, checkpoint) == names(server.calls)
        del server.calls[24]
        with pytest.raises(ResumeMismatchError, match="no longer in the list"):
            await resumed(client, checkpoint)


async def test_a_server_that_does_not_heed_the_page_number_is_named():
    """The search raises an error too if the same page comes again and again."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 45)
        server.habit = lambda asked: Answer(asked.found[:10], page=1)
        with pytest.raises(PagingError, match="page 1 came instead"):
            await resumed(client, checkpoint)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("fault", ["empty", "empty, count 0", "another page"])
async def test_a_page_that_is_wrong_once_does_not_mislead_the_search(fault, nth):
    """It is requested again."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 45)
        begun = len(server.asked)

        def habit(asked):
            if asked.nth != begun + nth:
                return Answer()
            if fault == "another page":
                return Answer(page=asked.page + 1)
            return Answer([], count=0 if fault.endswith("0") and nth == 1 else None)

        server.habit = habit
        assert got + await resumed(client, checkpoint) == names(server.calls)


async def test_an_empty_reply_behind_the_end_of_the_list_does_not_move_the_end():
    """Without a count, too, each empty page is requested again: the call may be on it."""
    async with SmallServer(some(55), lambda _asked: Answer(no_count=True)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 45)
        del server.calls[:30]  # the call is on page 2 now, and the list ends with page 3
        empty = [2]

        def habit(asked):
            if asked.page in empty:
                empty.remove(asked.page)
                return Answer([], no_count=True)
            return Answer(no_count=True)

        server.habit = habit
        assert await resumed(client, checkpoint) == names(server.calls)[15:]
        assert not empty


async def test_a_page_that_stays_empty_is_no_end_of_the_search():
    """The count says that the page should hold calls, so the search continues on the pages around it."""
    async with SmallServer(some(100)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 45)
        del server.calls[:20]  # the call is on page 3 now
        server.habit = lambda asked: Answer([] if asked.page == 5 else None)
        stream = client.calls(*MAY, start=checkpoint)
        assert await read(stream, 10) == names(server.calls)[25:35]
        await stream.aclose()


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_failure_in_the_search_leaves_the_checkpoint_as_it_was(nth):
    """The next attempt begins at the same place."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 45)
        begun = len(server.asked)
        server.habit = lambda asked: Answer(status=503 if asked.nth == begun + nth else 200)
        with pytest.raises(ServerError) as raised:
            await resumed(client, checkpoint)
        assert raised.value.checkpoint == checkpoint
        assert got + await resumed(client, checkpoint) == names(server.calls)


async def test_the_deadline_holds_in_the_search():
    """Once a page was read, a passed deadline is not reported as an overload."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 45)
        begun = len(server.asked)
        server.habit = lambda asked: Answer(after=30 if asked.nth == begun + 2 else 0)
        with pytest.raises(DeadlineExceededError) as raised:
            await resumed(client, checkpoint, deadline=0.3)
        assert raised.value.checkpoint == checkpoint


async def test_a_call_that_moves_past_the_search_is_found_in_another_look():
    """New calls came in front during the search, so the call moved to a page that was already read."""
    async with SmallServer(some(100)) as server, client_of(server) as client:
        got, checkpoint = await stopped(client, 50)
        del server.calls[:10]  # the call is the last one on page 4
        begun = len(server.asked)

        def habit(asked):
            if asked.nth == begun + 3:  # page 5 was read; now page 4
                server.calls[:0] = [("2024-05-20 23:00:00", f"new-{each}") for each in range(5)]
                asked.found[:] = server.calls
            return Answer()

        server.habit = habit
        assert await resumed(client, checkpoint) == names(server.calls)[45:]
        assert [each.page for each in server.asked[begun : begun + 3]] == [1, 5, 4]
    assert not set(names(server.calls)[45:]) & set(got)


async def test_a_call_that_is_removed_while_the_list_is_read_again_is_missed():
    """The calls behind it are unknown: an error is better than a lost call."""
    async with SmallServer(some(60)) as server, client_of(server, max_concurrency=1) as client:
        _, checkpoint = await stopped(client, 25)
        begun = len(server.asked)

        def habit(asked):
            if asked.nth == begun + 4:
                del server.calls[24]
                asked.found[:] = server.calls
            return Answer()

        server.habit = habit
        with pytest.raises(ResumeMismatchError, match="no longer in the list"):
            await resumed(client, checkpoint)


async def test_a_resumed_stream_can_be_read_by_pages():
    """The first page holds the rest of the checkpoint's page."""
    async with SmallServer(some(55)) as server, client_of(server) as client:
        _, checkpoint = await stopped(client, 25)
        pages = [[call.id for call in page.records] async for page in client.calls(*MAY, start=checkpoint).pages()]
    assert [len(page) for page in pages] == [5, 10, 10, 5]
    assert [name for page in pages for name in page] == names(server.calls)[25:]


async def test_the_search_does_not_overload_itself():
    """Its requests queue like those of any running stream, however short ``acquire`` is."""
    async with SmallServer(some(55)) as server:
        async with client_of(server) as client:
            got, checkpoint = await stopped(client, 45)
        async with client_of(server, rate=20, timeouts=Timeouts(acquire=0.01)) as client:
            assert got + await resumed(client, checkpoint) == names(server.calls)
