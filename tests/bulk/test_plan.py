"""The plan: where a range is cut into windows, without losing a second."""

# ruff: noqa: DTZ001 - the wall clock of an account has no zone by definition

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.bulk.windows.plan import (
    MOST_CALLS,
    MOST_PAGES,
    PAGES,
    pieces_for,
    width_for,
    windows_of,
)
from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.windows import LONGEST, Window

NOW = datetime(2024, 5, 6, 12, 0, 15)
MAY = Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59")


# Windows


@pytest.mark.parametrize(
    ("final_until", "expected"),
    [
        (MAY.end, [MAY]),
        (MAY.end + SECOND, [MAY]),
        (MAY.start - SECOND, [MAY]),
        (MAY.end - SECOND, [Window(MAY.end, MAY.end), Window(MAY.start, MAY.end - SECOND)]),
        (MAY.start, [Window(MAY.start + SECOND, MAY.end), Window(MAY.start, MAY.start)]),
        (NOW, [Window(NOW + SECOND, MAY.end), Window(MAY.start, NOW)]),
    ],
)
def test_a_range_is_cut_where_finality_ends(final_until, expected):
    """No window holds both final and changing seconds."""
    assert windows_of(MAY, final_until) == expected


@given(st.integers(0, 200), st.integers(0, 86400 * 200))
def test_windows_hold_each_second_once(days, offset):
    """They come newest first, touch each other, and none has more than 31 days."""
    whole = Window(MAY.start, MAY.start + timedelta(days=days, hours=5))
    windows = windows_of(whole, MAY.start + timedelta(seconds=offset))
    assert (windows[0].end, windows[-1].start) == (whole.end, whole.start)
    assert all(newer.start - SECOND == older.end for newer, older in pairwise(windows))
    assert all(window.seconds <= LONGEST.total_seconds() for window in windows)


@pytest.mark.parametrize("window", [Window(None, NOW), Window(NOW, None)])
def test_an_open_range_is_one_window(window):
    """Its ends are unknown, so it cannot be cut."""
    assert windows_of(window, NOW) == [window]


# Pieces


@pytest.mark.parametrize(
    ("count", "size", "pieces"),
    [
        (0, 100, 1),
        (100 * MOST_PAGES - 2, 100, 1),
        (100 * MOST_PAGES, 100, 2),
        (100 * MOST_PAGES + 1, 100, 3),
        (999, 1000, 2),
        (1000, 1000, 2),
        (1001, 1000, 1),
        (100 * PAGES * 10, 100, 10),
        (100 * PAGES * 10 + 1, 100, 11),
        (MOST_CALLS * 6 // 5 - 2, 1000, 1),
        (MOST_CALLS * 6 // 5 + 1, 1000, 2),
        (MOST_CALLS * 3, 10_000, 2 + 1),
        (50_000, 20_001, 1 + 2),
        (19_998, 2 * MOST_CALLS, 1),
        (2 * MOST_CALLS + 1, 2 * MOST_CALLS, 2),
        (10, 1, 1),
        (41, 1, 3),
    ],
)
def test_pieces(count, size, pieces):
    """A piece has about twenty pages, and few enough calls for memory; a count that may be capped gives two."""
    assert pieces_for(MAY, count, size) == pieces


def test_a_single_second_is_never_cut():
    """Its number of calls does not matter."""
    assert pieces_for(Window(NOW, NOW), 10**6, 100) == 1
    assert pieces_for(Window(NOW, NOW + SECOND), 10**6, 100) > 1


@given(st.integers(0, 10**7), st.integers(1, 100_000))
def test_pieces_are_never_too_large(count, size):
    """If calls are spread evenly, a piece has at most twice the pages or calls of a window, or is one page."""
    pieces = pieces_for(MAY, count, size)
    assert pieces >= 1
    most = max(2 * size, 2 * min(PAGES * size, MOST_CALLS))
    assert count / pieces <= most


@pytest.mark.parametrize(("size", "width"), [(10, 12), (100, 12), (250, 6), (500, 3), (5_000, 3)])
def test_windows_that_are_read_at_once_fit_in_memory(size, width):
    """With larger pages fewer windows are read in parallel: together they hold at most 30,000 calls."""
    assert width_for(size, 16) == width
