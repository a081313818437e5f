"""Windows: closed ranges of whole seconds. No operation loses a second or puts one into two windows."""

# ruff: noqa: DTZ001 - the wall clock of an account has no zone by definition

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.windows import LONGEST, Window, up_to

START = datetime(2024, 5, 1)
MAY = Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59")
OPEN = [Window(None, START), Window(START, None), Window(None, None)]


def of(first, last):
    """A window by seconds after the start, both included."""
    return Window(START + first * SECOND, START + last * SECOND)


def seconds_of(windows):
    """Every second of these windows, as often as it is in them."""
    found = []
    for window in windows:
        offset = int((window.start - START).total_seconds())
        found += range(offset, offset + window.seconds)
    return sorted(found)


@pytest.mark.parametrize(
    ("window", "seconds"),
    [(of(0, 0), 1), (of(0, 1), 2), (MAY, 31 * 86400), *[(window, 0) for window in OPEN]],
)
def test_seconds(window, seconds):
    """Both bounds belong to a closed window; an open one has no number of seconds."""
    assert window.seconds == seconds


def test_of():
    """Two stamps are the two bounds, and come back unchanged."""
    window = Window.of("2024-05-01 09:30:00", "2024-05-02 23:59:59")
    assert (window.start, window.end) == (datetime(2024, 5, 1, 9, 30), datetime(2024, 5, 2, 23, 59, 59))
    assert (window.first, window.last) == ("2024-05-01 09:30:00", "2024-05-02 23:59:59")


@pytest.mark.parametrize("text", ["2024-05-01", "2024-05-01T00:00:00", "2024-02-30 00:00:00", ""])
def test_of_what_is_no_stamp(text):
    """Windows are made of our own stamps only; any other text is a bug and raises."""
    with pytest.raises(ValueError, match=r"another form|out of range|must be in"):
        Window.of(text, "2024-05-02 00:00:00")


def test_bounds_as_text_enclose_every_stamp():
    """An open side compares as smaller, or larger, than any stamp."""
    assert Window(None, None).first < "0001-01-01 00:00:00"
    assert Window(None, None).last > "9999-12-31 23:59:59"


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (MAY, "2024-05-01 00:00:00 to 2024-05-31 23:59:59"),
        (Window(None, START), "the beginning to 2024-05-01 00:00:00"),
        (Window(START, None), "2024-05-01 00:00:00 to now"),
    ],
)
def test_as_text(window, text):
    """It is readable in a message."""
    assert str(window) == text


# cut


@given(seconds=st.integers(1, 5000), pieces=st.integers(-3, 5010))
def test_cut_keeps_each_second_once(seconds, pieces):
    """Pieces are adjacent, newest first, about equal, and as many as requested, but never more than seconds."""
    window = of(0, seconds - 1)
    cut = window.cut(pieces)
    assert len(cut) == max(1, min(pieces, seconds))
    assert (cut[0].end, cut[-1].start) == (window.end, window.start)
    assert all(newer.start - SECOND == older.end for newer, older in pairwise(cut))
    sizes = [piece.seconds for piece in cut]
    assert sum(sizes) == seconds
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("window", OPEN)
def test_an_open_window_is_not_cut(window):
    """Its end is unknown."""
    assert window.cut(5) == [window]


# days


@given(seconds=st.integers(1, 5 * 86400), offset=st.integers(0, 86400))
def test_days_keep_each_second_once(seconds, offset):
    """Days are adjacent, newest first, and each is within one date."""
    window = of(offset, offset + seconds - 1)
    days = window.days()
    assert (days[0].end, days[-1].start) == (window.end, window.start)
    assert all(newer.start - SECOND == older.end for newer, older in pairwise(days))
    assert all(day.start.date() == day.end.date() for day in days)
    assert len({day.start.date() for day in days}) == len(days)


@pytest.mark.parametrize("window", OPEN)
def test_an_open_window_has_no_days(window):
    """It stays as it is."""
    assert window.days() == [window]


# split


@pytest.mark.parametrize("window", OPEN)
def test_an_open_window_is_not_split(window):
    """It is requested as it is."""
    assert list(window.split()) == [window]


@given(seconds=st.integers(1, 1000), longest=st.integers(1, 1000))
def test_split_keeps_each_second_once(seconds, longest):
    """Windows are adjacent, newest first; all but the last have the longest length, and none is longer."""
    window = of(0, seconds - 1)
    parts = list(window.split(timedelta(seconds=longest)))
    assert (parts[0].end, parts[-1].start) == (window.end, window.start)
    assert all(newer.start - SECOND == older.end for newer, older in pairwise(parts))
    assert {part.seconds for part in parts[:-1]} <= {longest}
    assert 1 <= parts[-1].seconds <= longest


def test_a_month_is_one_window():
    """31 days to the second are not split; one second more is."""
    assert list(MAY.split()) == [MAY]
    longer = Window(MAY.start, MAY.end + SECOND)
    assert [part.seconds for part in longer.split()] == [int(LONGEST.total_seconds()), 1]


# up_to


@pytest.mark.parametrize(
    ("last", "left"),
    [
        (29, [(20, 29), (10, 19), (0, 9)]),
        (25, [(20, 25), (10, 19), (0, 9)]),
        (20, [(20, 20), (10, 19), (0, 9)]),
        (19, [(10, 19), (0, 9)]),
        (0, [(0, 0)]),
        (30, []),
        (-1, []),
    ],
)
def test_windows_up_to_a_second(last, left):
    """Later windows are left out; the window with that second ends there, even if windows are cut differently now."""
    windows = [of(20, 29), of(10, 19), of(0, 9)]
    assert up_to(windows, of(last, last).last) == [of(*each) for each in left]


def test_windows_up_to_what_is_no_second():
    """A damaged checkpoint is in no window."""
    assert up_to([MAY], "2024-05-1x") == []
    assert up_to([Window(None, None)], "~") == [Window(None, None)]


# without


@given(
    seconds=st.integers(1, 60),
    taken=st.lists(st.tuples(st.integers(-20, 70), st.integers(0, 30)), max_size=4),
)
def test_without_leaves_exactly_the_other_seconds(seconds, taken):
    """Exactly the removed seconds are gone, in any order, overlapping or out of bounds; the rest is newest first."""
    others = [of(first, first + length) for first, length in taken]
    gone = {second for first, length in taken for second in range(first, first + length + 1)}
    left = of(0, seconds - 1).without(others)
    assert seconds_of(left) == [second for second in range(seconds) if second not in gone]
    assert all(newer.start > older.end for newer, older in pairwise(left))


def test_without_nothing():
    """Removing nothing leaves the whole window."""
    assert MAY.without([]) == [MAY]


def test_without_its_first_or_its_last_second():
    """Bounds are included: a window that ends or begins at a bound removes that second."""
    first, last = Window(None, MAY.start), Window(MAY.end, None)
    before, after = Window(MAY.start - timedelta(hours=1), MAY.start), Window(MAY.end, MAY.end + timedelta(hours=1))
    assert MAY.without([before]) == [Window(MAY.start + SECOND, MAY.end)]
    assert MAY.without([after]) == [Window(MAY.start, MAY.end - SECOND)]
    assert MAY.without([first, last]) == [MAY]  # open windows remove nothing


def test_without_itself():
    """Removing all of it leaves nothing, not an empty window."""
    assert MAY.without([MAY]) == []


@pytest.mark.parametrize("other", OPEN)
def test_without_an_open_window(other):
    """Windows of a journal are closed; an open one removes nothing."""
    assert MAY.without([other]) == [MAY]


@pytest.mark.parametrize("window", OPEN)
def test_an_open_window_is_left_whole(window):
    """Nothing can be removed from a window without an end."""
    assert window.without([MAY]) == [window]
