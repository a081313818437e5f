"""Evidence: what the pages of a window prove, page by page and edge by edge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.errors import OutOfWindowError
from servetel_async.protocol.evidence import Evidence, MisfiledError, check_inside, ordered
from servetel_async.protocol.rows import RawRecord
from servetel_async.protocol.windows import Window
from tests.protocol.three_parts import assert_says_what_and_what_to_do

DAY = Window.of("2024-05-06 00:00:00", "2024-05-06 23:59:59")


def row(key, second=0, start=None):
    """A call with this id that started at that second of the day."""
    start = f"2024-05-06 00:00:{second:02}" if start is None else start
    return RawRecord(f"{key}@{start}".encode(), key, start)


def evidence(*pages, count=None):
    """Pages 1, 2, ... with one count."""
    found = Evidence(DAY)
    for number, rows in enumerate(pages, 1):
        found.add(number, list(rows), count)
    return found


def ids(rows):
    return [each.id for each in rows]


# Pages


def test_a_page_that_is_read_again_takes_the_place_of_its_first_answer():
    """Only the last answer of each page counts, but every count that came is kept."""
    found = Evidence(DAY)
    found.add(1, [row("a", 9), row("b", 8)], 2)
    found.add(1, [row("c", 9)], 1)
    assert ids(found.calls()) == ["c"]
    assert found.counts == {1, 2}


def test_has():
    """It knows which pages it has, not which ones it should have."""
    found = evidence([row("a")])
    assert found.has(1)
    assert not found.has(2)


def test_calls_are_each_one_once_newest_first():
    """Pages may arrive in any order; a call on two pages is one call; ties are sorted by id."""
    found = Evidence(DAY)
    found.add(2, [row("b", 5), row("a", 5), row("z", 1)], 5)
    found.add(1, [row("q", 9), row("c", 5), row("b", 5)], 5)
    assert ids(found.calls()) == ["q", "a", "b", "c", "z"]
    assert found.duplicates == 1


def test_one_id_at_two_times_is_two_calls():
    """Id and start identify a call, so a reused id hides no call."""
    found = evidence([row("a", 9)], [row("a", 8)])
    assert (len(found.calls()), found.duplicates, found.duplicates_left()) == (2, 0, False)


@given(st.permutations([row("a", 9), row("b", 5), row("a", 5), row("c", 5), row("d", start="")]))
def test_order_does_not_depend_on_the_reading(rows):
    """Newest first, ties by id, calls without a start last: each reading gives the same bytes."""
    assert [(each.id, each.start[-2:]) for each in ordered(rows)] == [
        ("a", "09"),
        ("a", "05"),
        ("b", "05"),
        ("c", "05"),
        ("d", ""),
    ]


# Edges


@pytest.mark.parametrize(
    ("pages", "cut"),
    [
        ([[9, 8], [7, 6]], []),
        ([[9, 8], [8, 6]], [8]),
        ([[9, 8], [8, 8], [8, 7]], [8]),
        ([[9, 8], [8, 7], [7, 6]], [7, 8]),
        ([[9, 8], [], [8, 7]], [8]),
        ([[9, 9]], []),
        ([], []),
    ],
)
def test_cut_seconds(pages, cut):
    """A second is cut if it is on both sides of a page edge; an empty page in between does not hide it."""
    found = evidence(
        *[[row(f"{page}{place}", second) for place, second in enumerate(rows)] for page, rows in enumerate(pages)]
    )
    assert found.cut_seconds() == [f"2024-05-06 00:00:{second:02}" for second in cut]


def test_calls_without_a_start_cut_no_second():
    """Calls without a start share no second that could be read alone."""
    assert evidence([row("a", start="")], [row("b", start="")]).cut_seconds() == []


@pytest.mark.parametrize(
    ("pages", "in_order"),
    [
        ([[9, 8], [8, 7]], True),
        ([[9, 8], [9, 7]], False),
        ([[8, 9]], False),
        ([[9, None, 8]], True),
        ([[9, None, 10]], False),
        ([], True),
    ],
)
def test_in_order(pages, in_order):
    """All pages are newest first; calls without a start do not count."""
    made = [
        [
            row(f"{page}{place}", start="" if second is None else f"2024-05-06 00:00:{second:02}")
            for place, second in enumerate(rows)
        ]
        for page, rows in enumerate(pages)
    ]
    assert evidence(*made).in_order() is in_order


def test_pages_are_judged_by_their_number_and_not_by_their_arrival():
    """Pages that arrive early do not break the order."""
    found = Evidence(DAY)
    found.add(2, [row("b", 8)], None)
    found.add(1, [row("a", 9), row("c", 8)], None)
    assert found.in_order()
    assert found.cut_seconds() == ["2024-05-06 00:00:08"]


@pytest.mark.parametrize(
    ("sizes", "hole"),
    [
        ([2, 2, 1], False),
        ([2, 1, 2], True),
        ([1, 2, 2], True),
        ([2, 2, 3], True),
        ([2], False),
        ([], False),
        ([0, 2], True),
    ],
)
def test_has_hole(sizes, hole):
    """Only the last page may be shorter than the others."""
    pages = [[row(f"{page}.{place}") for place in range(size)] for page, size in enumerate(sizes)]
    assert evidence(*pages).has_hole() is hole


# Seconds that were read alone


def test_what_was_read_alone_takes_the_place_of_what_the_pages_had():
    """The second's own reading replaces the pages' calls of that second, even if it lacks some."""
    found = evidence([row("a", 9), row("b", 8)], [row("b", 8), row("z", 7)])
    assert found.duplicates_left()
    found.replace("2024-05-06 00:00:08", [row("b", 8), row("c", 8)])
    assert ids(found.calls()) == ["a", "b", "c", "z"]
    assert not found.duplicates_left()
    assert found.duplicates == 1


def test_duplicates_elsewhere_are_left():
    """A duplicate outside the seconds that were read alone still counts against the reading."""
    found = evidence([row("a", 9)], [row("a", 9)])
    found.replace("2024-05-06 00:00:08", [])
    assert found.duplicates_left()


# Verdicts


@pytest.mark.parametrize(
    ("counts", "calls", "flaw"),
    [
        ([2, 2], 2, None),
        ([0], 0, None),
        ([2, 2], 1, "the API counts 2 and gave 1 different calls"),
        ([2, 2], 3, "the API counts 2 and gave 3 different calls"),
        ([1000, 1003], 1003, "the count moved from 1,000 to 1,003"),
        ([3, 1, 2], 3, "the count moved from 1 to 3"),
        ([2, None], 2, "a page had no count"),
        ([1, None, 3], 3, "the count moved from 1 to 3"),
        ([None, None], 2, "no count"),
        ([], 0, None),
    ],
)
def test_flaw(counts, calls, flaw):
    """A window is proved if the counts before and after and the number of different calls agree."""
    found = Evidence(DAY)
    for number, count in enumerate(counts, 1):
        found.add(number, [], count)
    if not counts:
        flaw = "no count"
    assert found.flaw(calls) == flaw


# Inside


@pytest.mark.parametrize("start", ["2024-05-06 00:00:00", "2024-05-06 23:59:59", "", "24:00:00", "2024-05-07 25:00:00"])
def test_inside(start):
    """Both bounds are inside; an unreadable stamp cannot be checked."""
    check_inside(DAY, [row("a", start=start)])
    check_inside(Window(None, None), [row("a", start=start)])


@pytest.mark.parametrize(("filed_at", "end"), [(None, "2024-05-06 00:00:30"), ("2024-05-07 00:00:01", "")])
def test_misfiled(filed_at, end):
    """Only the filing moment lies outside: the server may file calls under another moment than assumed."""
    start = "2024-05-05 23:59:59" if filed_at is None else "2024-05-06 12:00:00"
    call = RawRecord(b"{}", "a", start, end=end, filed_at=filed_at)
    with pytest.raises(MisfiledError) as caught:
        check_inside(DAY, [row("b"), call, row("c")])
    assert caught.value.row is call
    with pytest.raises(OutOfWindowError):  # this is worse, in any order
        check_inside(DAY, [call, row("d", start="2019-01-01 00:00:00")])


def test_all_goes_by_the_moment_under_which_calls_are_filed():
    """Order, page edges and repairs use the filing moment; a call without one comes last."""

    def filed(key, second, at):
        return RawRecord(
            b"{}", key, f"2024-05-06 00:00:{second:02}", filed_at=f"2024-05-06 00:01:{at:02}" if at else ""
        )

    found = evidence([filed("a", 1, 9), filed("b", 5, 8)], [filed("c", 2, 8), filed("d", 9, 0)])
    assert found.in_order()
    assert found.cut_seconds() == ["2024-05-06 00:01:08"]
    assert ids(found.calls()) == ["a", "b", "c", "d"]
    found.replace("2024-05-06 00:01:08", [filed("e", 3, 8)])
    assert ids(found.calls()) == ["a", "e", "d"]


@pytest.mark.parametrize("start", ["2024-05-05 23:59:59", "2024-05-07 00:00:00", "2019-01-01 00:00:00"])
def test_outside(start):
    """One second beyond a bound is outside: the page is refused, and the error names the second and the window."""
    found = Evidence(DAY)
    with pytest.raises(OutOfWindowError, match=f"started {start} came for 2024-05-06 00:00:00 to") as caught:
        found.add(1, [row("secret-id"), row("secret-id", start=start)], 2)
    assert "secret" not in str(caught.value)
    assert_says_what_and_what_to_do(caught.value, "ignored the dates")
    assert not found.has(1)
    assert found.counts == set()
