"""The fetcher: what it retries, for how long, with which page size, and at what cost."""

from __future__ import annotations

import asyncio
import contextlib
import random

import anyio
import pytest

from servetel_async import (
    AuthenticationError,
    BodyTooLargeError,
    CallQuery,
    MalformedResponseError,
    PagingError,
    RequestRejectedError,
    RequestTimeoutError,
    Retry,
    ServerError,
    ServetelClient,
    StreamClosedError,
    Timeouts,
)
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import SMALLEST_PAGE, TRIES, Fetcher, PageLostError, PageTooSlowError
from servetel_async.protocol.conventions import Bounds
from servetel_async.protocol.windows import Window
from servetel_async.settings import LARGEST_PAGE
from tests.bulk.fetching import CALLS, DAY, SICK, fetching, first, on_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, bare, shallow

# Good pages


async def test_a_page_is_counted():
    """Pages, requests, rows and bytes are added to its window and to the total."""
    async with fetching(warm=False) as (_, fetcher):
        cost = Cost()
        page = await fetcher.page(DAY, 2, cost)
        assert (page.count, page.page, page.open()[2]) == (60, 2, 20)
        assert (cost.pages, cost.requests, cost.retries, cost.rows) == (1, 1, 0, 20)
        assert cost.received > 1000
        assert cost == fetcher.total


async def test_a_tally_takes_another_in():
    """Each number is added."""
    cost = Cost(1, 2, 3, 4, 5)
    cost.add(Cost(10, 20, 30, 40, 50))
    assert cost == Cost(11, 22, 33, 44, 55)


async def test_the_size_that_is_asked_for():
    """It requests its own page size unless another is given, and never more than the known page cap."""
    async with fetching() as (server, fetcher):
        await fetcher.page(DAY, 1, Cost())
        await fetcher.page(DAY, 1, Cost(), size=7)
        fetcher.source.page_cap = 5
        capped = Fetcher(fetcher.source, CallQuery(), page_size=20, concurrency=1, patience=1)
        await capped.page(DAY, 1, Cost())
        assert [asked.limit for asked in server.asked] == [20, 7, 5]


async def test_a_count_is_a_page_of_one():
    """It costs one request, whatever the page size."""
    async with fetching() as (server, fetcher):
        assert await fetcher.count(DAY, Cost()) == 60
        assert [(asked.page, asked.limit) for asked in server.asked] == [(1, 1)]


@pytest.mark.parametrize(("pages", "once", "twice"), [(10, False, False), (11, True, False), (21, True, True)])
def test_what_a_window_may_cost(pages, once, twice):
    """The budget is spent once the cost exceeds it; without a limit it is never spent."""
    cost = Cost(pages=pages, limit=10)
    assert (cost.is_spent(), cost.is_spent(2)) == (once, twice)
    assert not Cost(pages=pages).is_spent()


async def test_no_count_is_none():
    """A server that sends no count gives None."""
    async with fetching(lambda _: Answer(no_count=True)) as (_, fetcher):
        assert await fetcher.count(DAY, Cost()) is None


async def test_each_page_is_told():
    """``on_page`` is called after the page was counted; its error reaches the caller."""
    async with fetching() as (_, fetcher):
        before = fetcher.total.pages
        told = []
        fetcher.on_page = lambda: told.append(fetcher.total.pages - before)
        await fetcher.page(DAY, 1, Cost())
        await fetcher.page(DAY, 2, Cost())
        assert told == [1, 2]
        fetcher.on_page = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            await fetcher.page(DAY, 1, Cost())


async def test_newer_windows_come_first():
    """Requests that wait for a slot are served newest window first."""
    async with fetching(concurrency=1) as (server, fetcher):
        windows = [Window.of(f"2024-05-{day:02} 00:00:00", f"2024-05-{day:02} 23:59:59") for day in (2, 4, 3, 5)]
        windows.append(Window(None, None))
        await asyncio.gather(*(fetcher.page(window, 1, Cost()) for window in windows))
        assert [asked.last[:10] for asked in server.asked] == [
            "2024-05-02",
            "~",
            "2024-05-05",
            "2024-05-04",
            "2024-05-03",
        ]


# Bounds


@pytest.mark.parametrize(
    ("bounds", "first_second", "last_second"),
    [
        (Bounds(), "2024-05-06 00:00:00", "2024-05-06 23:59:59"),
        (Bounds(1, 0), "2024-05-05 23:59:59", "2024-05-06 23:59:59"),
        (Bounds(0, 1), "2024-05-06 00:00:00", "2024-05-07 00:00:00"),
        (Bounds(1, 1), "2024-05-05 23:59:59", "2024-05-07 00:00:00"),
    ],
)
def test_widened(bounds, first_second, last_second):
    """A bound that the server excludes is moved by one second; an open side stays open."""
    assert bounds.widen(DAY) == Window.of(first_second, last_second)
    assert bounds.widen(Window(None, None)) == Window(None, None)


# Before the first good reply


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_server_that_never_answers_well(attempts):
    """The client retries as often as it always does, and raises its error."""

    async def main():
        async with fetching(lambda _: SICK, attempts=attempts, warm=False) as (server, fetcher):
            cost = Cost()
            with pytest.raises(ServerError):
                await fetcher.page(DAY, 1, cost)
            assert len(server.asked) == cost.requests == attempts
            assert cost.retries == attempts - 1

    on_clock(main)


def test_the_first_page_may_need_the_clients_retries():
    """The client's own retries are counted too."""

    async def main():
        async with fetching(first(2, SICK), attempts=3, warm=False) as (_, fetcher):
            cost = Cost()
            assert (await fetcher.page(DAY, 1, cost)).count == 60
            assert (cost.requests, cost.retries, cost.pages) == (3, 2, 1)

    on_clock(main)


# While other pages come


@pytest.mark.parametrize(
    "answer",
    [
        SICK,
        Answer(status=503),
        Answer(status=429),
        Answer(body=b'{"count": 1, "resul'),
        Answer(body=b"<html>"),
        Answer(page=7),
    ],
    ids=["500", "503", "429", "cut", "html", "another page"],
)
def test_a_passing_failure_is_tried_again(answer):
    """Three bad answers cost three retries and no error."""

    async def main():
        async with fetching(first(3, answer)) as (_, fetcher):
            cost = Cost()
            assert (await fetcher.page(DAY, 2, cost)).page == 2
            assert (cost.requests, cost.retries, cost.pages) == (4, 3, 1)

    on_clock(main)


@pytest.mark.parametrize("times", [1, 2])
def test_a_no_in_passing_is_asked_once_more(times):
    """A 200 that refuses is retried once; the second refusal is final."""
    no = Answer(body=b'{"success": false, "message": "not now"}')

    async def main():
        async with fetching(first(times, no)) as (server, fetcher):
            with contextlib.nullcontext() if times == 1 else pytest.raises(RequestRejectedError):
                assert (await fetcher.page(DAY, 2, Cost())).page == 2
            assert len(server.asked) == 2

    on_clock(main)


@pytest.mark.parametrize(("drawn", "waited"), [(max, 0.5 + 1 + 2), (min, 0.0)])
def test_the_bound_of_a_backoff_doubles(monkeypatch, drawn, waited):
    """A pause is random, up to a bound that doubles, so that failed pages are not retried at the same time."""
    monkeypatch.setattr(random, "uniform", lambda low, high: drawn(low, high))

    async def main():
        async with fetching(first(3, SICK)) as (_, fetcher):
            await fetcher.page(DAY, 1, Cost())
            assert fetcher.waited == waited

    on_clock(main)


def test_backoffs_are_counted():
    """The fetcher adds up the time that it waited."""

    async def main():
        async with fetching(first(3, SICK)) as (_, fetcher):
            begun = asyncio.get_running_loop().time()
            await fetcher.page(DAY, 1, Cost())
            assert fetcher.waited == pytest.approx(asyncio.get_running_loop().time() - begun)
            assert 0 < fetcher.waited < 0.5 + 1 + 2

    on_clock(main)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(status=401), AuthenticationError),
        (Answer(status=422), RequestRejectedError),
        (Answer(status=400), RequestRejectedError),
    ],
)
def test_what_is_final_is_raised_at_once(answer, error):
    """Such an error is not retried."""

    async def main():
        async with fetching(lambda _: answer) as (server, fetcher):
            with pytest.raises(error):
                await fetcher.page(DAY, 1, Cost())
            assert len(server.asked) == 1

    on_clock(main)


@pytest.mark.parametrize("page", [1, 3])
def test_one_page_that_never_comes_is_lost(page):
    """It is given up after its tries, although it looked like an outage; other pages still come."""

    def habit(asked):
        return SICK if asked.page == page and asked.limit == 20 else HONEST

    async def main():
        async with fetching(habit) as (server, fetcher):
            cost = Cost()
            with pytest.raises(PageLostError) as caught:
                await fetcher.page(DAY, page, cost)
            assert isinstance(caught.value.error, ServerError)
            tries = [asked for asked in server.asked if asked.limit == 20]
            assert TRIES <= len(tries) <= TRIES + 2
            assert len(server.asked) <= len(tries) + 2
            assert cost.requests == len(server.asked)
            assert (await fetcher.page(DAY, 2, Cost())).page == 2

    on_clock(main)


def test_a_page_that_came_late_is_not_lost():
    """It comes on the last try."""

    async def main():
        bad = [0]

        def habit(asked):
            bad[0] += asked.page == 3
            return SICK if asked.page == 3 and bad[0] < TRIES else HONEST

        async with fetching(habit) as (_, fetcher):
            assert (await fetcher.page(DAY, 3, Cost())).page == 3

    on_clock(main)


def test_a_lost_page_that_is_looked_at_alone_is_an_error():
    """``sure_page`` returns the page or raises its error."""

    async def main():
        async with fetching(lambda asked: SICK if asked.page == 3 else HONEST) as (_, fetcher):
            with pytest.raises(ServerError):
                await fetcher.sure_page(DAY, 3, Cost())

    on_clock(main)


def test_when_nothing_comes_any_more_patience_ends_it():
    """All pages fail together: a few requests, then the error."""

    async def main():
        async with fetching(lambda _: SICK, patience=300) as (server, fetcher):
            begun = asyncio.get_running_loop().time()
            results = await asyncio.gather(
                *(fetcher.page(DAY, page, Cost()) for page in (1, 2, 3)), return_exceptions=True
            )
            assert {type(result) for result in results} == {ServerError}
            assert asyncio.get_running_loop().time() - begun == pytest.approx(300, abs=5)
            assert len(server.asked) < 40

    on_clock(main)


# Page sizes


@pytest.mark.parametrize("size", [100, 40])
def test_two_timeouts_halve_the_page_size(size):
    """The reader of the pages has to begin again, with pages half as large."""

    def habit(asked):
        return Answer(after=3600) if asked.limit == size else HONEST

    async def main():
        async with fetching(habit) as (server, fetcher):
            fetcher.page_size = size
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost())
            assert fetcher.page_size == size // 2
            assert len(server.asked) == 2
            assert (await fetcher.page(DAY, 1, Cost())).limit == size // 2

    on_clock(main)


def test_pages_never_become_smaller_than_the_smallest():
    """A page of ten calls that times out is only retried."""

    def habit(asked):
        return Answer(after=3600) if asked.nth <= 3 else HONEST

    async def main():
        async with fetching(habit) as (_, fetcher):
            fetcher.page_size = SMALLEST_PAGE
            assert (await fetcher.page(DAY, 1, Cost())).limit == SMALLEST_PAGE

    on_clock(main)


@pytest.mark.parametrize(("size", "halved"), [(15, 10), (11, 10), (21, 10)])
def test_the_last_halving_ends_at_the_smallest(size, halved):
    """The page size never falls below it."""

    async def main():
        async with fetching(lambda _: Answer(after=3600)) as (_, fetcher):
            fetcher.page_size = size
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost())
            assert fetcher.page_size == halved

    on_clock(main)


def test_pages_that_were_asked_for_together_halve_once():
    """Several pages of one size that time out together halve it once."""

    async def main():
        async with fetching(lambda asked: Answer(after=3600) if asked.limit > 50 else HONEST, patience=10**6) as (
            _,
            fetcher,
        ):
            fetcher.page_size = 100
            works = (fetcher.page(DAY, 1, Cost(), size=100) for _ in range(2))
            results = await asyncio.gather(*works, return_exceptions=True)
            assert {type(result) for result in results} == {PageTooSlowError}
            assert fetcher.page_size == 50

    on_clock(main)


def test_a_late_complaint_about_an_old_size():
    """A page size that became smaller meanwhile stays as it is."""

    async def main():
        async with fetching(lambda asked: Answer(after=3600) if asked.limit > 50 else HONEST) as (_, fetcher):
            fetcher.page_size = 12
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost(), size=100)
            assert fetcher.page_size == 12

    on_clock(main)


def test_a_timeout_between_other_failures_does_not_halve():
    """Only two timeouts in a row halve the page size."""

    def habit(asked):
        return {1: Answer(after=3600), 2: SICK, 3: Answer(after=3600)}.get(asked.nth, HONEST)

    async def main():
        async with fetching(habit) as (_, fetcher):
            assert (await fetcher.page(DAY, 1, Cost())).count == 60
            assert fetcher.page_size == 20

    on_clock(main)


def test_a_timeout_slows_all_down():
    """From then on half as many requests run at a time."""

    async def main():
        async with fetching(first(1, Answer(after=3600)), concurrency=8) as (_, fetcher):
            await fetcher.page(DAY, 1, Cost())
            assert 4 <= fetcher._concurrency.limit < 5

    on_clock(main)


def test_a_429_slows_all_down():
    """It has the same effect as a timeout."""

    async def main():
        async with fetching(first(1, Answer(status=429)), concurrency=8) as (_, fetcher):
            await fetcher.page(DAY, 1, Cost())
            assert 4 <= fetcher._concurrency.limit < 5

    on_clock(main)


def test_the_next_pull_begins_where_the_last_one_was():
    """The account remembers its concurrency after a 429, and its next fetcher begins with it."""

    async def main():
        async with fetching(first(1, Answer(status=429)), concurrency=8) as (_, fetcher):
            await fetcher.page(DAY, 1, Cost())
            learnt = fetcher._concurrency.limit
            another = Fetcher(fetcher.source, CallQuery(), page_size=100, concurrency=8, patience=60)
            assert 4 <= another._concurrency.limit == learnt

    on_clock(main)


HUGE = Answer(body=b" " * (LARGEST_PAGE + 1))


def test_a_body_that_is_too_large_halves_at_once():
    """A retry would bring the same body."""

    async def main():
        async with fetching(lambda asked: HUGE if asked.limit > 10 else HONEST) as (server, fetcher):
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost())
            assert (fetcher.page_size, len(server.asked)) == (10, 1)

    on_clock(main)


def test_a_small_page_that_is_too_large_is_an_error():
    """It cannot be halved any more."""

    async def main():
        async with fetching(lambda _: HUGE) as (_, fetcher):
            with pytest.raises(BodyTooLargeError):
                await fetcher.page(DAY, 1, Cost(), size=SMALLEST_PAGE)

    on_clock(main)


def test_a_page_that_is_looked_at_alone_may_be_smaller():
    """``sure_page`` continues with the smaller size by itself."""

    async def main():
        async with fetching(lambda asked: Answer(after=3600) if asked.limit > 20 else HONEST) as (_, fetcher):
            fetcher.page_size = 100
            page = await fetcher.sure_page(DAY, 1, Cost())
            assert page.limit == fetcher.page_size == 12

    on_clock(main)


def test_a_413_halves_at_once():
    """A gateway before the API finds the page too large."""

    async def main():
        async with fetching(lambda asked: Answer(status=413) if asked.limit > 10 else HONEST) as (server, fetcher):
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost())
            assert (fetcher.page_size, len(server.asked)) == (10, 1)

    on_clock(main)


def test_a_413_for_a_small_page_is_final():
    """It cannot be halved any more."""

    async def main():
        async with fetching(lambda _: Answer(status=413)) as (server, fetcher):
            with pytest.raises(RequestRejectedError):
                await fetcher.page(DAY, 1, Cost(), size=SMALLEST_PAGE)
            assert len(server.asked) == 1

    on_clock(main)


# Strange answers


def test_another_page_for_ever():
    """A server that ignores the page number is not an outage."""

    async def main():
        async with fetching(lambda _: Answer(page=7)) as (_, fetcher):
            with pytest.raises(PageLostError) as caught:
                await fetcher.page(DAY, 2, Cost())
            assert type(caught.value.error) is PagingError
            assert "page 7 came instead" in str(caught.value.error)

    on_clock(main)


async def test_an_empty_page_may_bear_any_number():
    """Past the end some servers say that it is page 1."""
    async with fetching(lambda _: Answer(rows=[], page=1)) as (_, fetcher):
        assert (await fetcher.page(DAY, 9, Cost())).open()[2] == 0


def test_garbage_for_ever():
    """No reply is a page: patience ends, then the error is raised."""

    async def main():
        async with fetching(lambda _: Answer(body=b"<html>"), patience=60) as (_, fetcher):
            with pytest.raises(MalformedResponseError):
                await fetcher.page(DAY, 2, Cost())

    on_clock(main)


# Ends


async def test_a_client_that_is_closed_under_it():
    """The error says so, and is not a cancellation."""
    async with fetching(lambda _: Answer(after=3600)) as (server, fetcher):
        task = asyncio.create_task(fetcher.page(DAY, 1, Cost()))
        while not server.asked:
            await asyncio.sleep(0)
        await fetcher.source.aclose()
        with pytest.raises(StreamClosedError, match="closed under the pull"):
            await task


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_page_leaves_nothing(times):
    """Cancelled during its request or while it waits, a page leaves no task and no slot."""
    async with fetching(lambda asked: Answer(after=3600) if asked.page == 1 else HONEST, concurrency=1) as (
        server,
        fetcher,
    ):
        tasks = [asyncio.create_task(fetcher.page(DAY, page, Cost())) for page in (1, 2, 3)]
        while not server.asked:
            await asyncio.sleep(0)
        for task in tasks[:2]:
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
        assert (await tasks[2]).page == 3
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False]


def test_a_cancel_scope_around_a_page():
    """An anyio cancel scope leaves nothing either."""

    async def main():
        async with fetching(lambda _: Answer(after=3600)) as (server, fetcher):
            with anyio.move_on_after(20) as scope:
                await fetcher.page(DAY, 1, Cost())
            assert scope.cancelled_caught
            assert len(server.asked) == 1

    on_clock(main)


def test_a_cancelled_backoff():
    """No task waits after it."""

    async def main():
        async with fetching(lambda _: SICK) as (server, fetcher):
            task = asyncio.create_task(fetcher.page(DAY, 1, Cost()))
            while not server.asked:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    on_clock(main)


def test_the_clients_own_timeouts_hold():
    """A page is given up after ``Timeouts(read=)``, not later."""

    async def main():
        async with SmallServer(CALLS) as server:
            server.habit = lambda asked: Answer(after=3600) if asked.nth == 1 else HONEST
            timeouts = Timeouts(read=5, total=7)
            async with ServetelClient(
                "t-123456", base_url=server.base_url, rate=None, timeouts=timeouts, retry=Retry(attempts=1)
            ) as client:
                fetcher = Fetcher(client, CallQuery(), page_size=SMALLEST_PAGE, concurrency=1, patience=1)
                begun = asyncio.get_running_loop().time()
                with pytest.raises(RequestTimeoutError):
                    await fetcher.page(DAY, 1, Cost())
                assert asyncio.get_running_loop().time() - begun == pytest.approx(5, abs=1.1)

    on_clock(main)


# Empty replies without a count

NIGHT = Window.of("2024-05-06 00:00:00", "2024-05-06 01:00:00")
BARE = Answer(rows=[], no_count=True)


@pytest.mark.parametrize(("known", "times", "asked"), [(True, 1, 2), (True, 2, 3), (False, 1, 1)])
async def test_a_bare_empty_page_of_a_server_that_counts_is_asked_for_again(known, times, asked):
    """If the server is not known to count, the reader of the page decides."""
    async with fetching(bare(times=times, when=lambda _asked: True)) as (server, fetcher):
        fetcher.source.count_is_total = known
        page = await fetcher.page(DAY, 1, Cost())
        assert len(page.rows()) == (20 if known else 0)
        assert len(server.asked) == asked


#: After a first page: one more request for a window that holds calls.
LOOK = {1: [(DAY.first, DAY.last)], 2: []}


@pytest.mark.parametrize("number", [1, 2])
async def test_a_bare_empty_page_is_believed_in_the_end(number):
    """As a first page it then means a count of 0; as a later page it has no count."""
    async with fetching(lambda asked: HONEST if asked.found else BARE) as (server, fetcher):
        page = await fetcher.page(NIGHT, number, Cost())
        assert (page.rows(), page.count) == ([], 0 if number == 1 else None)
        assert [asked.window for asked in server.asked] == [(NIGHT.first, NIGHT.last)] * 3 + LOOK[number]


async def test_a_bare_empty_page_of_a_silent_server_is_never_believed():
    """The window had calls when it was counted: the pull ends with an error and can be resumed."""
    async with fetching(lambda _: BARE) as (_, fetcher):
        with pytest.raises(MalformedResponseError) as failure:
            await fetcher.page(NIGHT, 1, Cost())
        assert failure.value.retryable


@pytest.mark.parametrize("known", [True, False])
async def test_one_bare_empty_page_is_no_count(known):
    """``check`` and ``sync`` compare counts, so one empty reply must not look like a changed count."""
    async with fetching(bare(times=1, when=lambda _asked: True)) as (_, fetcher):
        fetcher.source.count_is_total = known
        assert await fetcher.count(DAY, Cost()) == 60


async def test_a_window_without_calls_counts_0_where_no_count_is_sent():
    """A second empty page proves that there are no calls."""
    async with fetching(lambda _: BARE) as (server, fetcher):
        fetcher.source.count_is_total = False
        assert await fetcher.count(DAY, Cost()) == 0
        assert len(server.asked) == 2


async def test_a_page_refused_for_its_depth_is_lost_and_not_the_end():
    """A refused deep page is lost, because a shorter window has no such page. Any other refusal ends the pull."""
    async with fetching(shallow(0)) as (_, fetcher):
        with pytest.raises(PageLostError):
            await fetcher.page(DAY, 51, Cost())
        with pytest.raises(RequestRejectedError):
            await fetcher.page(DAY, 49, Cost())


def test_after_an_outage_fewer_requests_go_at_once():
    """After an outage the server gets fewer requests at once than before."""
    in_flight = []

    def habit(asked):
        if asked.nth <= 40:
            return SICK
        in_flight.append(server.in_flight)
        return Answer(after=1)

    async def main():
        nonlocal server
        async with fetching(habit, concurrency=8) as (server, fetcher):
            pages = [fetcher.page(DAY, number % 3 + 1, Cost()) for number in range(24)]
            assert [len(page.rows()) for page in await asyncio.gather(*pages)] == [20] * 24
            assert max(in_flight[8:16]) <= 6  # the first eight waited for the end of the outage

    server = None
    on_clock(main)


async def test_records_of_another_year_say_nothing_of_the_bounds():
    """A page that ignores the range is not taken for one whose range was a second too wide."""
    async with fetching(lambda _: Answer(rows=[("2019-01-01 00:00:00", "old")], count=1)) as (server, fetcher):
        fetcher.source.bounds = Bounds(1, 1)
        page = await fetcher.page(DAY, 1, Cost())
        assert (len(page.rows()), len(server.asked), fetcher.source.bounds) == (1, 1, Bounds(1, 1))
