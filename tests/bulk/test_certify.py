"""The certifier: each kind of proof, its cost, and the flaw that is reported where a proof fails."""

from __future__ import annotations

import contextlib
from random import Random

import pytest

from servetel_async import CallQuery, OutOfWindowError, PagingError, Retry, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.windows.certified import Certified, Flaw, merged
from servetel_async.bulk.windows.certifier import LARGE, MORE_PAGES, PAGES_PER_PAGE, READINGS_OF_SECOND, Certifier
from servetel_async.protocol.rows import RawRecord
from servetel_async.protocol.windows import Window
from tests.bulk import fake_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, capped

HOUR = Window.of("2024-05-06 09:00:00", "2024-05-06 09:59:59")
HOUR_ASKED = (HOUR.first, HOUR.last)
NINE = Window.of("2024-05-06 09:00:00", "2024-05-06 09:00:00")
QUICK = Retry(attempts=1, base=0.001, cap=0.001, throttled_base=0.001, throttled_cap=0.001)


def at(*times):
    """Calls at these times of the day."""
    return calls_at(*(f"2024-05-06 {time}" for time in times))


def spread(number):
    """So many calls, each in its own second."""
    return at(*(f"09:{second // 60:02}:{second % 60:02}" for second in range(0, number * 7, 7)))


def ids(calls):
    return [key for _, key in sorted(calls, key=lambda call: (call[0], call[1]), reverse=False)]


class Reading:
    """A server, and a certifier that reads from it."""

    def __init__(self, server, fetcher, certifier):
        self.server = server
        self.fetcher = fetcher
        self.certifier = certifier
        self.cost = Cost()

    async def read(self, window=HOUR, first=None):
        return await self.certifier.read(window, self.cost, first)

    def assert_whole(self, found, window=HOUR):
        """Assert that every call of the window is there once, newest first, and without a flaw."""
        inside = [call for call in self.server.calls if window.first <= call[0] <= window.last]
        assert sorted((row.start, row.id) for row in found.calls) == sorted(inside)
        assert [row.start for row in found.calls] == sorted((row.start for row in found.calls), reverse=True)
        assert found.flaws == []


@contextlib.asynccontextmanager
async def reading(calls, habit=None, *, page_size=5, fast=False, total=True, **options):
    async with (
        SmallServer(calls, habit, **options) as server,
        ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=QUICK) as client,
    ):
        client.count_is_total = total
        fetcher = Fetcher(client, CallQuery(), page_size=page_size, concurrency=4, patience=1800)
        yield Reading(server, fetcher, Certifier(fetcher, fast=fast))
        assert not client._tasks


# One-page windows


@pytest.mark.parametrize("number", [0, 1, 5])
async def test_a_leaf(number):
    """A window that one reply holds is proved by one request; a full page needs a second one."""
    async with reading(spread(number)) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, dict(found.kinds), found.duplicates) == (number, {"leaf": 1}, 0)
        assert len(case.server.asked) == (2 if number == 5 else 1)


async def test_a_full_page_that_was_miscounted_is_no_leaf():
    """The wrong count equals the page's size by chance: the next page shows more calls."""
    calls = spread(8)

    def habit(asked):
        return Answer(count=5) if asked.nth == 1 else HONEST

    async with reading(calls, habit) as case:
        case.assert_whole(await case.read())


async def test_a_first_page_that_is_there_already():
    """A first page that was already read is not requested again."""
    async with reading(spread(4)) as case:
        page = await case.fetcher.page(HOUR, 1, Cost())
        case.assert_whole(await case.read(first=page))
        assert len(case.server.asked) == 1


async def test_a_leaf_with_the_same_call_twice():
    """Two records of one call are one call; the count is two, so the window has a flaw."""
    twice = at("09:00:00") * 2
    async with reading(twice) as case:
        found = await case.read()
        assert len(found.calls) == 1
        assert found.duplicates == 1
        assert [flaw.why for flaw in found.flaws] == ["the API counts 2 and gave 1 different calls"]
        assert not found.flaws[0].lost


# Counted and repaired


@pytest.mark.parametrize("number", [6, 10, 11, 23])
async def test_counted(number):
    """Several pages without a boundary second cost one request each, and the last page is read last."""
    async with reading(spread(number)) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, dict(found.kinds)) == (number, {"counted": 1})
        pages = [asked.page for asked in case.server.asked]
        assert sorted(pages) == list(range(1, -(-number // 5) + 1))
        assert pages[-1] == max(pages)


async def test_repaired():
    """A boundary second is read once on its own, and replaces the pages' own calls of that second."""
    async with reading(at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:10:00")) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, dict(found.kinds)) == (7, {"repaired": 1})
        assert case.server.windows[("2024-05-06 09:30:00", "2024-05-06 09:30:00")] == 1
        assert len(case.server.asked) == 3


async def test_what_was_read_alone_counts():
    """One page repeats a call and hides another: reading the boundary second alone proves the window."""
    calls = at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:10:00")

    def habit(asked):
        if asked.page == 2 and asked.first == HOUR.first:
            return Answer(rows=[asked.found[4], *asked.rows[1:]])
        return HONEST

    async with reading(calls, habit) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (dict(found.kinds), found.duplicates) == ({"repaired": 1}, 1)
        assert len(case.server.asked) == 3


async def test_ties_in_another_order_each_time():
    """A call that the shuffled boundary hid is found, and one that it repeated is kept once."""
    random = Random(1)
    calls = at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:40:02", "09:10:00")

    def habit(asked):
        asked.found.sort(key=lambda call: (call[0], random.random()), reverse=True)
        return HONEST

    for _ in range(10):
        async with reading(calls, habit) as case:
            found = await case.read()
            case.assert_whole(found)
            assert found.counted == 8


async def test_fast_leaves_cut_seconds_as_they_came():
    """While the counts agree, no second is read again."""
    calls = at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:10:00")
    async with reading(calls, fast=True) as case:
        found = await case.read()
        case.assert_whole(found)
        assert dict(found.kinds) == {"counted": 1}
        assert len(case.server.asked) == 2


async def test_fast_still_needs_the_counts_to_agree():
    """If one call came twice and another is missing, the window is read another way."""
    calls = at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:10:00")
    hidden = []

    def habit(asked):
        if asked.page == 2 and asked.window == (HOUR.first, HOUR.last):
            hidden.append(asked)
            return Answer(rows=[asked.found[4], *asked.rows[1:]])  # the first page's last call again
        return HONEST

    async with reading(calls, habit, fast=True) as case:
        case.assert_whole(await case.read())
        assert hidden


# Moving lists


async def test_a_list_that_moved_is_read_in_leaves():
    """Once counts differ, only one-page windows are accepted as proof."""
    calls = spread(12)

    def habit(asked):
        if asked.nth == 3:
            case.server.calls.insert(0, ("2024-05-06 09:59:59", "late"))
            asked.found.insert(0, case.server.calls[0])
        return HONEST

    async with reading(calls, habit) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, dict(found.kinds)) == (13, {"leaf": 13})


async def test_a_list_that_never_stops_moving_is_cut():
    """Each piece is a one-page window: within one reply nothing can move."""
    calls = spread(30)

    def habit(asked):
        if asked.page == 2 and asked.window == (HOUR.first, HOUR.last):
            return Answer(count=99)
        return HONEST

    async with reading(calls, habit) as case:
        found = await case.read()
        case.assert_whole(found)
        assert found.counted == 30
        assert set(found.kinds) <= {"leaf", "counted"}


async def test_a_short_page_is_asked_for_again():
    """A page that disagrees with the count is read up to three times before the whole window is read again."""
    calls = spread(12)
    seen = []

    def habit(asked):
        if asked.page == 2:
            seen.append(asked)
            return Answer(rows=asked.rows[:2]) if len(seen) < 3 else HONEST
        return HONEST

    async with reading(calls, habit) as case:
        case.assert_whole(await case.read())
        assert len(seen) == 3
        assert len(case.server.asked) == 5


async def test_a_short_first_page():
    """It is not taken for a page cap: the second page is longer."""
    calls = spread(12)

    def habit(asked):
        return Answer(rows=asked.rows[:2]) if asked.nth == 1 else HONEST

    async with reading(calls, habit) as case:
        case.assert_whole(await case.read())
        assert case.fetcher.source.page_cap is None
        assert case.fetcher.page_size == 5


async def test_an_empty_first_page_of_a_list_that_is_not():
    """An empty page does not mean an empty list while the count is larger."""
    calls = spread(12)
    async with reading(calls, lambda asked: Answer(rows=[]) if asked.nth == 1 else HONEST) as case:
        case.assert_whole(await case.read())


async def test_a_page_that_lost_its_count():
    """A single reply without a count is read again."""
    calls = spread(12)
    async with reading(calls, lambda asked: Answer(no_count=True) if asked.nth == 3 else HONEST) as case:
        found = await case.read()
        case.assert_whole(found)
        assert found.counted == 12


async def test_a_first_page_that_lost_its_count():
    """On a server that sends counts, one reply without a count starts no walk: the window is read again."""
    calls = spread(12)
    async with reading(calls, lambda asked: Answer(no_count=True) if asked.nth == 1 else HONEST) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, case.certifier.walks) == (12, False)


# Seconds


async def test_a_second_of_more_than_a_page():
    """It is read until the union of the readings has as many calls as the server counts."""
    random = Random(2)

    def habit(asked):
        random.shuffle(asked.found)
        return HONEST

    async with reading(at(*["09:00:00"] * 12), habit) as case:
        found = await case.read(NINE)
        case.assert_whole(found, NINE)
        assert found.counted == 12
        assert set(found.kinds) <= {"repeated", "counted"}


async def test_a_repeated_second_within_a_window():
    """A window that contains such a second is complete too."""
    random = Random(3)
    calls = [*at(*["09:30:00"] * 12), *at("09:10:00", "09:20:00")]

    def habit(asked):
        asked.found.sort(key=lambda call: (call[0], random.random()), reverse=True)
        return HONEST

    async with reading(calls, habit) as case:
        found = await case.read()
        case.assert_whole(found)
        assert found.counted == 14


async def test_a_second_whose_calls_never_all_come_is_said():
    """After its last reading the second is reported, with the calls that came."""
    calls = at(*["09:00:00"] * 12)

    def habit(asked):
        return Answer(rows=[call for call in asked.rows if call[1] != "call-0003"])

    async with reading(calls, habit) as case:
        found = await case.read(NINE)
        assert len(found.calls) == 11
        assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(NINE.first, NINE.last, False)]
        assert "12" in found.flaws[0].why
        assert len(case.server.asked) <= READINGS_OF_SECOND * 9


def scripted(*readings):
    """A second with these readings, each a count and its calls; the last one repeats."""
    begun = []

    def habit(asked):
        if asked.page == 1:
            begun.append(asked)
        count, calls = readings[min(len(begun), len(readings)) - 1]
        rows = [("2024-05-06 09:00:00", call) for call in calls]
        return Answer(rows=rows[(asked.page - 1) * asked.limit : asked.page * asked.limit], count=count)

    return habit


async def test_a_second_that_lost_a_call_meanwhile():
    """A deleted call does not count for a call that has not come yet."""
    async with reading([], scripted((7, "abcdeff"), (6, "bcdeff"), (6, "bcdefg"))) as case:
        found = await case.read(NINE)
        assert [row.id for row in found.calls] == list("bcdefg")
        assert found.flaws == []


async def test_a_second_that_lost_several_calls_meanwhile():
    """The union starts again once it is larger than the count."""
    readings = [(7, "abcdeff"), (5, "cdeff"), (5, "cdegg"), (5, "defgg")]
    async with reading([], scripted(*readings)) as case:
        found = await case.read(NINE)
        assert [row.id for row in found.calls] == list("cdefg")
        assert (found.flaws, dict(found.kinds)) == ([], {"repeated": 1})


# Ghosts


def ghost(second):
    """A server whose count is one too high for every range with this second."""

    def habit(asked):
        return Answer(count=len(asked.found) + (asked.first <= second <= asked.last))

    return habit


async def test_a_ghost_is_named_to_the_second():
    """The count is always one too high: its second is reported, and the rest is proved."""
    second = "2024-05-06 09:17:23"
    async with reading(spread(40), ghost(second)) as case:
        found = await case.read()
        assert len(found.calls) == 40
        assert found.counted == 41
        assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(second, second, False)]
        assert found.flaws[0].why == "the API counts 1 and gave a first page of 0"


async def test_a_ghost_does_not_cost_the_world():
    """Halving finds it in few requests."""
    async with reading(spread(40), ghost("2024-05-06 09:17:23")) as case:
        await case.read()
        assert len(case.server.asked) < 150


async def test_a_count_that_is_always_one_too_many_does_not_cost_the_world():
    """The flaw is reported without a request for every second."""
    async with reading(spread(40), lambda asked: Answer(count=len(asked.found) + 1)) as case:
        found = await case.read(Window.of("2024-05-06 09:00:00", "2024-05-06 09:04:59"))
        assert len(found.calls) == 40
        assert found.flaws
        assert len(case.server.asked) < 500


# Orders


def oldest_first(asked):
    asked.found.reverse()
    return HONEST


async def test_another_order_is_read_in_leaves():
    """Pages that are not in time order prove nothing; one-page windows do."""
    async with reading(spread(30), oldest_first) as case:
        found = await case.read()
        case.assert_whole(found)
        assert set(found.kinds) == {"leaf"}
        assert found.counted == 30


async def test_the_order_is_learned_once():
    """The next window is cut at once, without reading its other pages."""
    async with reading(spread(30), oldest_first) as case:
        await case.read()
        before = len(case.server.asked)
        case.assert_whole(await case.read())
        whole = [asked for asked in case.server.asked[before:] if asked.window == (HOUR.first, HOUR.last)]
        assert [asked.page for asked in whole] == [1]


async def test_another_order_and_a_second_of_more_than_a_page():
    """Such a second is still read until the union of its readings is complete."""
    random = Random(4)
    calls = [*spread(20), *at(*["09:30:00"] * 12)]
    calls = [(start, f"call-{number:04}") for number, (start, _) in enumerate(calls)]

    def habit(asked):
        random.shuffle(asked.found)
        return HONEST

    async with reading(calls, habit) as case:
        case.assert_whole(await case.read())


# Caps


@pytest.mark.parametrize("number", [3, 5, 6, 10, 17])
async def test_a_silent_cap(number):
    """The server sends five calls where ten were requested: the cap is learned once, and no call is lost."""

    def habit(asked):
        asked.limit = min(asked.limit, 5)
        return HONEST

    async with reading(spread(number), habit, page_size=10) as case:
        case.assert_whole(await case.read())
        assert case.fetcher.source.page_cap == (5 if number > 5 else None)
        assert case.fetcher.page_size == (5 if number > 5 else 10)
        case.assert_whole(await case.read())


# Walks


@pytest.mark.parametrize("mode", ["missing", "page"])
@pytest.mark.parametrize("number", [0, 4, 5, 6, 10, 23])
async def test_a_server_without_a_total_is_walked(mode, number):
    """The walk ends at an empty page, requested twice; the count may prove a one-page window."""

    def habit(asked):
        return Answer(no_count=True) if mode == "missing" else Answer(count=len(asked.rows))

    async with reading(spread(number), habit, total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        walked = mode == "missing" or number > 5
        assert dict(found.kinds) == ({"walked": 1} if walked else {"leaf": 1})
        assert found.counted == (None if walked else number)
        assert case.certifier.walks is walked


async def test_a_walk_repairs_cut_seconds():
    """A walk reads boundary seconds alone too, except with ``fast``."""
    calls = at(*["09:30:00"] * 4, "09:40:00", "09:40:01", "09:10:00")
    alone = ("2024-05-06 09:30:00", "2024-05-06 09:30:00")
    for fast in (False, True):
        async with reading(calls, lambda _: Answer(no_count=True), total=False, fast=fast) as case:
            case.assert_whole(await case.read())
            assert (case.server.windows[alone] > 0) is not fast


async def test_an_empty_page_that_was_none_does_not_end_a_walk():
    """It is requested again, and the walk continues."""
    calls = spread(23)
    async with reading(
        calls, lambda asked: Answer(no_count=True, rows=[] if asked.nth == 4 else None), total=False
    ) as case:
        case.assert_whole(await case.read())


async def test_a_walk_with_a_hole_is_walked_again():
    """A page in the middle was short."""
    calls = spread(23)
    short = []

    def habit(asked):
        if asked.page == 3 and not short:
            short.append(asked)
            return Answer(no_count=True, rows=asked.rows[:2])
        return Answer(no_count=True)

    async with reading(calls, habit, total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        assert found.kinds == {"walked": 1}


def third_page_is_short(asked):
    return Answer(no_count=True, rows=asked.rows[:2] if asked.page == 3 else None)


async def test_a_walk_that_never_agrees_is_cut():
    """The third page is short in every pass: the window is cut until no part has a third page."""
    async with reading(spread(23), third_page_is_short, total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        assert set(found.kinds) == {"walked"}
        assert found.kinds["walked"] > 1


async def test_a_second_whose_walk_never_agrees_is_reported():
    """A second cannot be cut: the calls that came are kept, and the second is reported."""
    async with reading(at(*["09:00:00"] * 23), third_page_is_short, total=False) as case:
        found = await case.read(NINE)
        assert len(found.calls) == 20
        assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(NINE.first, NINE.last, False)]
        assert "pages had holes" in found.flaws[0].why


async def test_the_same_page_for_ever_ends_a_walk():
    """A server that ignores the page number raises an error."""
    calls = spread(23)
    async with reading(calls, lambda asked: Answer(no_count=True, rows=asked.found[:5]), total=False) as case:
        with pytest.raises(PagingError, match="came again"):
            await case.read()


async def test_a_walk_may_be_capped():
    """The walk accepts the server's page length."""

    def habit(asked):
        asked.limit = min(asked.limit, 3)
        return Answer(no_count=True)

    async with reading(spread(11), habit, total=False) as case:
        case.assert_whole(await case.read())


LIES = {
    "an empty page with a count": lambda asked: Answer(rows=[]),
    "a count of less than the page": lambda asked: Answer(count=len(asked.rows) - 1),
    "no count": lambda asked: Answer(no_count=True),
    "the count of the page": lambda asked: Answer(count=len(asked.rows)),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_one_lie_makes_nobody_walk(lie):
    """Only the first count is wrong, so counts are still taken as totals, and two empty pages hide no call."""

    def habit(asked):
        if asked.nth == 1:
            return lie(asked)
        if asked.page == 2 and empty:
            return empty.pop()
        return HONEST

    empty = [Answer(rows=[])] * 2
    async with reading(spread(12), habit, total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, case.certifier.walks, case.fetcher.source.count_is_total) == (12, False, True)
        assert not empty, "both were sent"


async def test_a_count_that_is_always_less_than_its_page_is_none():
    """Such a count proves nothing: the pages are walked."""
    async with reading(spread(12), lambda _: Answer(count=0), total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        assert dict(found.kinds) == {"walked": 1}


# Pages that do not come


def test_a_poisoned_second_costs_one_second():
    """A record that breaks the server is isolated: only its second is lost, and it is reported."""
    calls = spread(60)
    bad = calls[33]

    def habit(asked):
        return Answer(status=500) if bad in asked.rows else HONEST

    async def main():
        async with reading(calls, habit) as case:
            await case.fetcher.page(NINE, 1, Cost())
            found = await case.read()
            assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(bad[0], bad[0], True)]
            assert len(found.calls) == 59
            assert found.counted is None
            assert case.certifier.lost is not None
            assert case.certifier.lost.status == 500
            assert len(case.server.asked) < 600

    fake_clock.run(main())


def test_pages_that_became_smaller():
    """After two timeouts the window is read again from its start with half the page size."""
    calls = spread(60)

    def habit(asked):
        return Answer(after=3600) if asked.limit > 25 else HONEST

    async def main():
        async with reading(calls, habit, page_size=20) as case:
            await case.fetcher.page(HOUR, 1, Cost())
            case.fetcher.page_size = 40
            case.assert_whole(await case.read())
            assert case.fetcher.page_size == 20

    fake_clock.run(main())


def test_pages_that_become_smaller_while_what_cannot_be_proved_is_walked():
    """A second with too low a count is walked to its end, in smaller pages."""
    second = Window.of(HOUR.first, HOUR.first)
    calls = calls_at(*[HOUR.first] * 30)

    def habit(asked):
        return Answer(after=3600) if asked.limit > 10 and asked.page > 1 else Answer(count=15)

    async def main():
        async with reading(calls, habit, page_size=20) as case:
            found = await case.read(second)
            assert len(found.calls) == 30
            assert found.flaws
            assert case.fetcher.page_size == 10

    fake_clock.run(main())


def test_pages_that_become_smaller_in_the_middle():
    """Pages of two sizes are never added together."""
    calls = spread(60)

    def habit(asked):
        return Answer(after=3600) if asked.limit > 15 and asked.page > 1 else HONEST

    async def main():
        async with reading(calls, habit, page_size=20) as case:
            case.assert_whole(await case.read())
            assert case.fetcher.page_size == 10

    fake_clock.run(main())


@pytest.mark.parametrize("page", [1, 2])
async def test_one_empty_page_is_no_end_where_nothing_counts(page):
    """The count is that of the page alone, so one empty page does not prove the end."""
    emptied = []

    def habit(asked):
        if asked.page == page and asked.window == HOUR_ASKED and not emptied:
            emptied.append(asked)
            return Answer(rows=[], count=0)
        return Answer(count=len(asked.rows))

    async with reading(spread(12), habit, page_size=5, total=False) as case:
        case.assert_whole(await case.read())
        assert emptied


@pytest.mark.parametrize("more", [1, 3])
async def test_a_list_that_grows_as_fast_as_it_is_read(more):
    """Each reading finds more calls, so in the end the window is reported as not proved.

    The first calls are found. If three calls arrive with each page of two, some are missed: their seconds are reported.
    """
    calls = spread(8)
    before = set(calls)

    def habit(asked):
        calls.extend((asked.first, f"late-{asked.nth}-{asked.window}-{number}") for number in range(more))
        calls.sort(key=lambda call: call[0], reverse=True)
        return HONEST

    async with reading(calls, habit, page_size=2) as case:
        found = await case.read()
        missing = before - {(row.start, row.id) for row in found.calls}
        assert more == 3 or not missing
        assert all(any(flaw.first <= start <= flaw.last for flaw in found.flaws) for start, _ in missing)
        assert "its list changed faster than it could be read" in {flaw.why for flaw in found.flaws}
        most = PAGES_PER_PAGE * 4 + MORE_PAGES
        assert most < len(case.server.asked) < 4 * most


async def test_calls_outside_of_the_window_end_it():
    """Records of other dates raise an error."""
    calls = spread(3)
    async with reading(calls, lambda _: Answer(rows=[("2019-01-01 00:00:00", "old")], count=1)) as case:
        with pytest.raises(OutOfWindowError):
            await case.read()


# Putting together


def test_merged():
    """Calls are sorted, counts and duplicates added, kinds and flaws collected."""
    old, new = RawRecord(b"{}", "a", "2024-05-06 09:00:00"), RawRecord(b"{}", "b", "2024-05-06 09:00:01")
    flaw = Flaw("x", "y", "z")
    first, second = Certified([old], 1, 2), Certified([new], 1, 3, flaws=[flaw])
    first.kinds.update(leaf=1)
    second.kinds.update(leaf=2, counted=1)
    whole = merged([first, second])
    assert (whole.calls, whole.counted, whole.duplicates, whole.flaws) == ([new, old], 2, 5, [flaw])
    assert whole.kinds == {"leaf": 3, "counted": 1}


def test_merged_without_a_count():
    """If one part has no count, the merged window has none."""
    assert merged([Certified([], 1), Certified([], None)]).counted is None
    assert merged([Certified([], 0), Certified([], 0)]).counted == 0


async def test_a_second_that_is_seen_to_have_lost_calls_begins_anew():
    """More calls were seen than the steady count says, so the union starts again."""
    readings = [(6, "abcdee"), (6, "fgaabb"), (6, "bcdeff"), (6, "bcdegg")]
    async with reading([], scripted(*readings)) as case:
        found = await case.read(NINE)
        assert [row.id for row in found.calls] == list("bcdefg")
        assert (found.flaws, dict(found.kinds)) == ([], {"repeated": 1})


async def test_a_large_window_is_put_in_order_like_a_small_one():
    """A thread sorts it, with the same result."""
    async with reading(spread(LARGE // 4 + 1), page_size=250) as case:
        small = await case.read()
    stamps = [f"09:{second // 60:02}:{second % 60:02}" for second in range(3600)]
    async with reading(at(*stamps[: LARGE + 1]), page_size=500) as case:
        found = await case.read()
        case.assert_whole(found)
        assert dict(found.kinds) == dict(small.kinds)


@pytest.mark.parametrize("more", [1, 3])
async def test_a_list_without_a_count_that_grows_as_fast_as_it_is_read(more, monkeypatch):
    """The walk ends too: the window has the first calls, and is reported as not proved."""
    monkeypatch.setattr("servetel_async.bulk.windows.uncounted.MOST_PAGES", 100)
    calls = spread(8)
    before = set(calls)

    def habit(asked):
        calls.extend((asked.first, f"late-{asked.nth}-{asked.window}-{number}") for number in range(more))
        calls.sort(key=lambda call: call[0], reverse=True)
        return Answer(no_count=True)

    async with reading(calls, habit, page_size=2, total=False) as case:
        found = await case.read()
        assert before <= {(row.start, row.id) for row in found.calls}
        assert len(case.server.asked) < 300
        assert [flaw.why for flaw in found.flaws] == ["its list changed faster than it could be read"]


# Empty replies without a count, and counts that may be limits


def leaves_out_none(asked):
    """Send no count with an empty page."""
    return HONEST if asked.rows else Answer(no_count=True)


@pytest.mark.parametrize("number", [0, 5])
async def test_a_server_that_leaves_out_the_count_of_an_empty_page(number):
    """As a first page it is an empty one-page window; after a full page it is the end."""
    async with reading(spread(number), leaves_out_none) as case:
        found = await case.read()
        case.assert_whole(found)
        assert (found.counted, dict(found.kinds)) == (number, {"leaf": 1})


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("page_size", [250, 1_000])
async def test_a_count_that_may_be_a_limit_is_proved_by_parts(page_size, leaves):
    """The window is cut, and each part has its own count, whether or not one reply holds all its calls."""
    calls = calls_at(*(f"2024-05-06 09:{index // 60 % 60:02}:{index % 60:02}" for index in range(2_500)))
    async with reading(calls, capped(1_000), page_size=page_size) as case:
        found = await case.certifier.read(HOUR, Cost(), leaves=leaves)
        case.assert_whole(found)
        assert found.counted == 2_500


async def test_a_second_that_may_hold_more_than_is_counted_is_reported():
    """The calls that came are kept, and the second is not certified."""
    calls = calls_at(*["2024-05-06 09:00:00"] * 1_500)
    async with reading(calls, capped(1_000), page_size=250) as case:
        found = await case.read(NINE)
        assert len(found.calls) == 1_000
        assert [flaw.lost for flaw in found.flaws] == [False]
        assert "round number" in found.flaws[0].why
