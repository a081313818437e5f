"""The certifier at its limits: budgets, lists that keep changing, seconds that cannot be proved, walks that fail."""

from __future__ import annotations

from servetel_async import Retry, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.windows.certified import Flaw
from servetel_async.protocol.windows import Window
from tests.bulk import fake_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at
from tests.bulk.test_certify import NINE, at, reading, scripted, spread


def test_a_lost_second_stays_lost_when_the_budget_is_spent():
    """One second always fails: its calls are lost, and the rest is read after the budget is spent."""
    calls = spread(8)
    bad = calls[3]

    async def main():
        async with reading(calls, lambda asked: Answer(status=500) if bad in asked.found else HONEST) as case:
            await case.fetcher.page(NINE, 1, Cost())  # other pages come
            case.cost = Cost(pages=1, limit=0)
            found = await case.read()
            assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(bad[0], bad[0], True)]
            assert sorted((row.start, row.id) for row in found.calls) == sorted({*calls} - {bad})

    fake_clock.run(main())


async def test_a_restless_list_is_read_in_one_page_windows_from_the_start():
    """Counts changed in two windows, so the next one is read in one-page windows only."""
    hours = [Window.of(f"2024-05-06 {hour:02}:00:00", f"2024-05-06 {hour:02}:59:59") for hour in (9, 10, 11)]
    moving = [(hour.first, hour.last) for hour in hours[:2]]
    calls = at(*(f"{hour:02}:{minute:02}:00" for hour in (9, 10, 11) for minute in range(0, 60, 5)))

    def habit(asked):
        return Answer(count=13) if asked.page == 2 and asked.window in moving else HONEST

    async with reading(calls, habit) as case:
        for hour in hours[:2]:
            case.assert_whole(await case.certifier.read(hour, Cost()), hour)
        found = await case.certifier.read(hours[2], Cost())
        case.assert_whole(found, hours[2])
        assert set(found.kinds) == {"leaf"}


async def test_the_budget_of_a_range_grows_with_each_window(tmp_path):
    """An empty month comes last, and does not reduce the budget of the months before it."""
    days = [f"2024-{month:02}-{day:02}" for month in (5, 6) for day in range(1, 31)]
    calls = calls_at(
        *(f"{day} {hour:02}:{minute:02}:00" for day in days for hour in range(9, 14) for minute in (0, 30))
    )
    late = ("2024-06-29 12:00:07", "late")

    def habit(asked):
        # The oldest month is requested after the newest is committed: now a call arrives in the newest.
        if asked.last.startswith("2024-04") and late not in calls:
            calls.append(late)
            calls.sort(key=lambda call: call[0], reverse=True)
        return HONEST

    async with (
        SmallServer(calls, habit) as server,
        ServetelClient(
            "token-123456", base_url=server.base_url, rate=None, page_size=2, max_concurrency=2, retry=Retry(attempts=1)
        ) as client,
    ):
        receipt = await client.pull(tmp_path / "a.ndjson", from_date="2024-04-01", to_date="2024-06-30")
    assert late in calls
    assert (receipt.complete, receipt.records) == (True, len(calls)), receipt.certified


async def test_a_boundary_second_that_cannot_be_proved_is_named():
    """The window's count is right, but its boundary second counts one too many: the second has a flaw."""
    second = "2024-05-06 09:30:00"

    def habit(asked):
        return Answer(count=len(asked.found) + 1) if asked.window == (second, second) else HONEST

    async with reading(at(*["09:30:00"] * 6, "09:40:00", "09:10:00"), habit) as case:
        found = await case.read()
        assert len(found.calls) == 8
        assert [(flaw.first, flaw.last, flaw.lost) for flaw in found.flaws] == [(second, second, False)]


async def test_a_walk_that_never_ends_does_not_end_the_pull():
    """The same page comes again and again: the window is reported, with the calls that came."""

    def habit(asked):
        return Answer(rows=asked.rows or asked.found[:5], count=13)

    async with reading(at(*["09:00:00"] * 12), habit) as case:
        found = await case.read(NINE)
        assert len(found.calls) == 12
        assert found.flaws == [Flaw(NINE.first, NINE.last, "the API counts 13 and gave 12 different calls")]


async def test_a_second_of_one_page_is_read_three_times():
    """Two readings miss a call: the third proves the second."""
    async with reading([], scripted((3, "ab"), (3, "ab"), (3, "abc"))) as case:
        found = await case.read(NINE)
        assert [row.id for row in found.calls] == list("abc")
        assert (found.flaws, dict(found.kinds)) == ([], {"leaf": 1})


async def test_a_walk_that_met_a_call_twice_is_walked_again():
    """No page is short, but one call replaced another: the next pass has both."""
    doubled = []

    def habit(asked):
        if asked.page == 3 and not doubled:
            doubled.append(asked)
            return Answer(no_count=True, rows=[asked.found[0], *asked.rows[1:]])
        return Answer(no_count=True)

    async with reading(spread(23), habit, total=False) as case:
        found = await case.read()
        case.assert_whole(found)
        assert dict(found.kinds) == {"walked": 1}


async def test_what_was_walked_is_not_held_against_what_is_counted():
    """The server sends totals only later: the pages walked before use up no budget."""
    first, second, third = (
        Window.of(f"2024-05-06 {hour:02}:00:00", f"2024-05-06 {hour:02}:59:59") for hour in (9, 10, 11)
    )
    calls = at(*(f"09:{second // 60:02}:{second % 60:02}" for second in range(1_601)))
    calls += [(start, f"later-{start}") for start, _ in at(*(f"1{minute % 2}:{minute}:00" for minute in range(10, 40)))]
    calls.sort(key=lambda call: call[0], reverse=True)

    def habit(asked):
        if asked.last == first.last:
            return Answer(no_count=True)
        return Answer(count=16) if asked.window == (third.first, third.last) and asked.page == 2 else HONEST

    async with reading(calls, habit, total=False) as case:
        for window in (first, second):
            case.assert_whole(await case.certifier.read(window, Cost()), window)
        case.certifier.expect(15)
        case.assert_whole(await case.certifier.read(third, Cost()), third)
