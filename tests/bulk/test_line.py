"""The window scheduler: it reads windows in parallel and commits them in order, newest first, without a gap."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import anyio
import pytest

from servetel_async import CallQuery, OutOfWindowError, RequestRejectedError, Retry, ServerError, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.windows.certifier import Certifier
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.bulk.windows.plan import MOST_PAGES
from servetel_async.bulk.windows.scheduler import WindowScheduler
from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.conventions import Bounds, Conventions
from servetel_async.protocol.windows import Window
from tests.bulk import fake_clock
from tests.bulk.short_ranges import allows, refusal, refused
from tests.bulk.slots import assert_free
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

DAYS = [f"2024-05-{day:02}" for day in range(1, 11)]
CALLS = calls_at(*(f"{day} {hour:02}:00:00" for day in DAYS for hour in range(0, 24, 6)))
WINDOWS = [Window.of(f"{day} 00:00:00", f"{day} 23:59:59") for day in reversed(DAYS)]
QUICK = Retry(attempts=1, base=0.001, cap=0.001)


class Run:
    """A scheduler, its server, and the windows that it committed."""

    def __init__(self, server, fetcher, width, walks):
        self.server = server
        self.fetcher = fetcher
        self.committed = []
        self.given = []
        self.full_after = None
        self.certifier = Certifier(fetcher, fast=False)
        self.certifier.walks = walks
        self.line = WindowScheduler(fetcher, self.certifier, DateBoundsProbe(fetcher), self.commit, width)

    async def commit(self, window, found, cost):
        await asyncio.sleep(0)
        if len(self.committed) == self.full_after:
            raise OSError("full")
        self.given.append(found)
        self.committed.append((window, replace(found, calls=list(found.calls)), cost))

    @property
    def windows(self):
        return [window for window, _, _ in self.committed]

    @property
    def calls(self):
        return [(row.start, row.id) for _, found, _ in self.committed for row in found.calls]


@contextlib.asynccontextmanager
async def lining(habit=None, *, calls=CALLS, width=3, bounds=Bounds(), page_size=5, walks=False):  # noqa: B008 - frozen
    async with (
        SmallServer(calls, habit) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=QUICK) as client,
    ):
        client.count_is_total = not walks
        client.conventions = None if bounds is None else Conventions("start", bounds)
        fetcher = Fetcher(client, CallQuery(), page_size=page_size, concurrency=4, patience=1800)
        run = Run(server, fetcher, width, walks)
        run.line._calibration.is_sure = bounds is not None
        yield run
        assert not client._tasks
        assert_free(fetcher._concurrency)
        await asyncio.sleep(0)
        assert len([task for task in asyncio.all_tasks() if "WindowScheduler" in repr(task.get_coro())]) == 0


async def test_nothing_to_read():
    """Without windows no request is sent."""
    async with lining() as run:
        await run.line.run([])
        assert (run.committed, run.server.asked) == ([], [])


async def test_what_is_committed_is_let_go():
    """The scheduler releases the calls of a window once they are written."""
    async with lining() as run:
        await run.line.run(WINDOWS)
        assert len(run.calls) == len(CALLS)
        assert [found.calls for found in run.given] == [[] for _ in WINDOWS]


@pytest.mark.parametrize("width", [1, 3, 20])
async def test_windows_are_committed_in_order(width):
    """Each window is committed once, newest first, with its calls and its cost."""
    async with lining(width=width) as run:
        await run.line.run(WINDOWS)
        assert run.windows == WINDOWS
        assert run.calls == CALLS
        assert {cost.requests for _, _, cost in run.committed} == {1}
        assert run.line.read_ahead == 0
        assert run.line.counts == dict.fromkeys(WINDOWS, 4)


async def test_no_more_than_its_width_at_once():
    """The number of windows read ahead is bounded."""
    seen = []

    def habit(asked):
        seen.append((asked.last, len(run.committed)))
        return HONEST

    async with lining(habit, width=2) as run:
        await run.line.run(WINDOWS)
        for last, committed in seen:
            assert [window.last for window in WINDOWS].index(last) < committed + 2


async def test_a_late_head_holds_the_others_back():
    """A finished window waits for all before it, so the destination never has a gap."""
    gate = asyncio.Event()

    def habit(asked):
        return Answer(until=gate) if asked.last == WINDOWS[0].last else HONEST

    async with lining(habit, width=3) as run:
        task = asyncio.create_task(run.line.run(WINDOWS))
        for _ in range(5_000):
            if run.line.read_ahead == 8:  # two windows of four calls
                break
            await asyncio.sleep(0.001)
        assert (run.line.read_ahead, len(run.server.asked), run.committed) == (8, 3, [])
        gate.set()
        await task
        assert run.windows == WINDOWS


async def test_a_large_window_is_cut():
    """Its count decides; the pieces take its place, and no second is in two of them."""
    async with lining(page_size=1, calls=CALLS) as run:
        whole = Window.of("2024-05-01 00:00:00", "2024-05-10 23:59:59")
        tail = Window.of("2024-04-01 00:00:00", "2024-04-30 23:59:59")
        await run.line.run([whole, tail])
        assert len(run.windows) == 2
        run.committed.clear()
        many = calls_at(*(f"2024-05-{1 + n // 24 % 10:02} {n % 24:02}:{n // 240:02}:00" for n in range(MOST_PAGES * 3)))
        run.server.calls = many
        await run.line.run([whole, tail])
        assert len(run.windows) > 3
        assert run.windows[-1] == tail
        assert (run.windows[0].end, run.windows[-2].start) == (whole.end, whole.start)
        assert all(newer.start - SECOND == older.end for newer, older in pairwise(run.windows[:-1]))
        assert sorted(run.calls) == sorted(many)


async def test_pieces_wait_for_room():
    """A cut window frees its place for one piece: never more pieces are held than the width allows."""
    seen = []

    def habit(asked):
        seen.append((asked.window, len(run.committed)))
        return Answer(after=0.2) if asked.last == head.last else HONEST

    many = calls_at(*(f"2024-05-{1 + n // 24 % 10:02} {n % 24:02}:{n // 240:02}:00" for n in range(MOST_PAGES * 3)))
    head = Window.of("2024-06-01 00:00:00", "2024-06-30 23:59:59")
    whole = Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59")
    tail = Window.of("2024-04-01 00:00:00", "2024-04-30 23:59:59")
    async with lining(habit, page_size=1, calls=many, width=3) as run:
        await run.line.run([head, whole, tail])
        read = {(window.first, window.last) for window in run.windows}
        assert len(read) > 4
        for number, (_, committed) in enumerate(seen, 1):
            assert len({window for window, _ in seen[:number] if window in read}) <= committed + 3


async def test_whole_windows_are_not_cut():
    """Each replaces a window that was committed before."""
    many = calls_at(*(f"2024-05-{1 + n // 24 % 10:02} {n % 24:02}:{n // 240:02}:00" for n in range(MOST_PAGES * 3)))
    whole = Window.of("2024-05-01 00:00:00", "2024-05-10 23:59:59")
    async with lining(page_size=1, calls=many) as run:
        await run.line.run([whole], whole=True)
        assert run.windows == [whole]
        assert sorted(run.calls) == sorted(many)


MONTHS = [
    Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59"),
    Window.of("2024-04-01 00:00:00", "2024-04-30 23:59:59"),
    Window.of("2024-03-01 00:00:00", "2024-03-31 23:59:59"),
]


async def test_windows_that_are_too_long_for_the_server():
    """A refused window is cut, later ones are cut before their request, and each call is committed once."""
    habit = allows(7)
    async with lining(habit, width=1) as run:
        await run.line.run(MONTHS)
        assert refused(run.server.asked, habit) == 1
        assert run.windows == [part for month in MONTHS for part in month.split(timedelta(days=7))]
        assert sorted(run.calls) == sorted(CALLS)
        assert sum(run.line.counted(month) for month in MONTHS) == len(CALLS)
        assert run.line.counted(Window.of("2024-02-01 00:00:00", "2024-02-29 23:59:59")) is None
        run.fetcher.total.rows += 10**6  # the count bounds the cost
        assert run.certifier.is_spent()


async def test_a_refusal_after_a_range_was_learnt():
    """A later refusal is not confused with the one that showed the limit."""

    def habit(asked):
        return refusal("too long ago") if asked.last < "2024-04-15" else allows(7)(asked)

    async with lining(habit, width=1) as run:
        with pytest.raises(RequestRejectedError, match="too long ago"):
            await run.line.run(MONTHS)
        assert run.fetcher.source.longest_range == timedelta(days=7)
        assert len(run.server.asked) < 60


async def test_a_whole_window_that_is_refused_is_an_error():
    """A window that replaces a committed one cannot be cut."""
    async with lining(allows(7)) as run:
        with pytest.raises(RequestRejectedError):
            await run.line.run(MONTHS[:1], whole=True)
        assert (len(run.server.asked), run.committed) == (1, [])


async def test_a_known_first_page_is_not_asked_for_again():
    """It was read before."""
    async with lining() as run:
        run.line.known[WINDOWS[0]] = await run.fetcher.page(WINDOWS[0], 1, Cost())
        run.server.asked.clear()
        await run.line.run(WINDOWS[:2])
        assert run.server.windows == {(WINDOWS[1].first, WINDOWS[1].last): 1}
        assert run.line.known == {}


@pytest.mark.parametrize("whole", [False, True])
async def test_a_server_that_counts_nothing_is_read_by_days(whole):
    """Without a count a window is cut by days, unless it has to stay whole."""
    week = Window.of("2024-05-01 00:00:00", "2024-05-10 23:59:59")
    async with lining(lambda _: Answer(no_count=True), walks=True) as run:
        await run.line.run([week], whole=whole)
        assert run.windows == ([week] if whole else WINDOWS)
        assert sorted(run.calls) == sorted(CALLS)


async def test_the_first_records_calibrate():
    """The first page with records shows the server's bounds."""
    async with lining(bounds=None) as run:
        await run.line.run(WINDOWS[:2])
        assert run.fetcher.source.conventions == Conventions()
        assert run.calls == CALLS[:8]


async def test_a_call_that_is_filed_elsewhere_ends_it_if_it_keeps_coming():
    """Only its end lies in the window, though calls are filed by start: after more readings it is an error."""
    guest = json.dumps(
        {
            "count": 1,
            "page": 1,
            "results": [{"id": "a", "date": DAYS[8], "time": "23:50:00", "end_stamp": f"{DAYS[9]} 00:10:00"}],
        }
    ).encode()
    async with lining(lambda asked: Answer(body=guest) if asked.last == WINDOWS[0].last else HONEST) as run:
        with pytest.raises(OutOfWindowError, match=f"started {DAYS[8]} 23:50:00"):
            await run.line.run(WINDOWS)
        assert run.server.windows[WINDOWS[0].first, WINDOWS[0].last] == 3
        assert run.committed == []


async def test_what_was_read_under_other_conventions_is_read_again():
    """After a change, the earlier windows are read again under the final conventions."""
    async with lining(width=1) as run:

        async def commit(window, found, cost):
            if window == WINDOWS[4]:
                run.fetcher.source.conventions = Conventions("start", Bounds(1, 0))
            await Run.commit(run, window, found, cost)

        run.line._commit = commit
        await run.line.run(WINDOWS)
        before = len(run.committed)
        assert before == len(WINDOWS)
        assert await run.line.confirm(Cost())
        assert [window for window, _, _ in run.committed[before:]] == WINDOWS[:5]
        assert {found.conventions for _, found, _ in run.committed[before:]} == {"start+1+0"}


async def test_a_window_in_which_conventions_changed_was_read_under_none():
    """Its pages were requested in two ways."""

    def habit(asked):
        if asked.page == 2 and asked.window == (WINDOWS[1].first, WINDOWS[1].last):
            run.fetcher.source.conventions = Conventions("start", Bounds(1, 0))
        return HONEST

    async with lining(habit, page_size=3, width=1) as run:
        await run.line.run(WINDOWS[:3])
        assert [found.conventions for _, found, _ in run.committed] == ["start+0+0", "", "start+1+0"]


async def test_what_never_holds_is_not_confirmed():
    """A server that changes its conventions at each check is given up after a few rounds."""
    async with lining() as run:
        await run.line.run(WINDOWS[:2])
        texts = itertools.cycle([Bounds(0, 1), Bounds(1, 0)])

        async def confirm(_tally):
            run.fetcher.source.conventions = Conventions("start", next(texts))
            return False

        run.line._calibration.confirm = confirm
        assert not await run.line.confirm(Cost())


async def test_records_outside_of_the_window_end_it():
    """No call is looked up, and none is written."""
    async with lining(lambda _: Answer(rows=[("2019-01-01 00:00:00", "old")], count=1), bounds=None) as run:
        with pytest.raises(OutOfWindowError):
            await run.line.run(WINDOWS)
        assert run.committed == []


def test_an_error_keeps_what_was_committed():
    """Windows read before the error are committed, running ones are ended, and one error is raised."""

    async def main():
        def habit(asked):
            if asked.last == WINDOWS[2].last:
                return Answer(after=3600)
            return Answer(status=400) if asked.last == WINDOWS[4].last else HONEST

        async with lining(habit, width=3) as run:
            begun = asyncio.get_running_loop().time()
            with pytest.raises(RequestRejectedError, match="refuses"):
                await run.line.run(WINDOWS)
            assert (run.windows, run.calls) == (WINDOWS[:2], CALLS[:8])
            assert asyncio.get_running_loop().time() - begun < 3600

    fake_clock.run(main())


async def test_an_error_of_commit_ends_it():
    """Reading stops when the disk is full; earlier commits stay."""
    async with lining(width=2) as run:
        run.full_after = 1
        with pytest.raises(OSError, match="full"):
            await run.line.run(WINDOWS)
        assert (run.windows, run.calls) == (WINDOWS[:1], CALLS[:4])
        assert 2 <= len(run.server.asked) <= 4


def test_a_lost_first_page_is_read_in_parts():
    """The window has no count to be cut by, and is still complete."""

    async def main():
        def habit(asked):
            return Answer(status=500) if asked.window == (WINDOWS[1].first, WINDOWS[1].last) else HONEST

        async with lining(habit) as run:
            await run.line.run(WINDOWS[:3])
            assert run.windows == WINDOWS[:3]
            assert run.calls == CALLS[:12]

    fake_clock.run(main())


def test_a_first_page_that_is_too_slow_is_read_smaller():
    """No call of it is lost."""

    async def main():
        async with lining(lambda asked: Answer(after=3600) if asked.limit > 20 else HONEST, page_size=5) as run:
            await run.fetcher.page(WINDOWS[0], 1, Cost())
            run.fetcher.page_size = 40
            await run.line.run(WINDOWS[:3])
            assert run.calls == CALLS[:12]
            assert run.fetcher.page_size == 20

    fake_clock.run(main())


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("asked", [1, 3])
async def test_a_cancelled_line_leaves_nothing(times, asked):
    """Cancelled once or often during its requests, it leaves no task running."""
    async with lining(lambda _: Answer(after=3600), width=3) as run:
        task = asyncio.create_task(run.line.run(WINDOWS))
        while len(run.server.asked) < asked:
            await asyncio.sleep(0.001)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert run.committed == []
        while run.server.in_flight:
            await asyncio.sleep(0.001)


async def test_a_cancel_scope_around_a_line():
    """An anyio cancel scope that ends it in the sixth window leaves only the earlier commits."""
    scope = anyio.CancelScope()

    def habit(asked):
        if asked.nth < 6:
            return HONEST
        scope.cancel()
        return Answer(after=3600)

    async with lining(habit, width=3) as run:
        with scope:
            await run.line.run(WINDOWS)
        assert scope.cancelled_caught
        assert 3 <= len(run.windows) <= 5
        assert run.windows == WINDOWS[: len(run.windows)]
        assert run.calls == CALLS[: 4 * len(run.windows)]


async def test_cancelled_at_any_step():
    """A cancellation at any step leaves no task, and the committed windows have no gap."""
    committed = set()
    for steps in range(0, 120, 5):
        async with lining(width=3) as run:
            task = asyncio.create_task(run.line.run(WINDOWS))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert run.windows == WINDOWS[: len(run.windows)]
            assert run.calls == CALLS[: 4 * len(run.windows)]
            committed.add(len(run.windows))
    assert committed > {0}, "no run came as far as a commit"


def test_the_other_errors_log_nothing():
    """Several windows fail together: one error is raised, and the others are not logged."""

    async def main():
        log = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: log.append(context))
        async with lining(lambda _: Answer(status=500), width=5) as run:
            with pytest.raises(ServerError):
                await run.line.run(WINDOWS)
        gc.collect()
        await asyncio.sleep(0)
        assert log == []

    fake_clock.run(main())
