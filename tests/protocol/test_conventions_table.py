"""Conventions: bounds, moments, and what a page shows of them."""

from __future__ import annotations

from datetime import timedelta, timezone

import pytest

from servetel_async import IST
from servetel_async.protocol.conventions import (
    Bounds,
    Conventions,
    inserted_at,
    known_call,
    lies_inside,
    sides_beyond,
)
from servetel_async.protocol.windows import Window

#: 2024-05-06 12:00:00 in India, as the first digits of an ObjectId.
NOON_ID = f"{1714977000:08x}" + "0" * 16
NOON = "2024-05-06 12:00:00"
DAY = Window.of("2024-05-06 00:00:00", "2024-05-06 23:59:59")


@pytest.mark.parametrize("filed_by", ["start", "end", "insertion"])
@pytest.mark.parametrize("bounds", [Bounds(0, 0), Bounds(0, 1), Bounds(1, 0), Bounds(1, 1)])
def test_a_text_means_the_same_when_it_is_read_again(filed_by, bounds):
    """A short text, for a ledger, reads back as the same conventions."""
    made = Conventions(filed_by, bounds)
    assert made.text == f"{filed_by}+{bounds.start}+{bounds.end}"
    assert Conventions.of(made.text) == made


@pytest.mark.parametrize("text", ["", "start", "start+0", "start+2+0", "middle+0+0", "start+0+0 ", "start+0+0\n"])
def test_any_other_text_is_none(text):
    """A text of another version is not read."""
    assert Conventions.of(text) is None


@pytest.mark.parametrize(
    ("one", "other", "narrower"),
    [
        ((0, 0), (0, 1), True),
        ((0, 0), (1, 1), True),
        ((1, 0), (1, 1), True),
        ((0, 0), (0, 0), False),
        ((1, 0), (0, 1), False),
        ((1, 1), (0, 1), False),
    ],
)
def test_narrower(one, other, narrower):
    """Less on one side, and not more on the other."""
    assert Bounds(*one).is_narrower(Bounds(*other)) is narrower


@pytest.mark.parametrize(
    ("key", "stamp"),
    [
        (NOON_ID, NOON),
        (NOON_ID.upper(), NOON),
        ("0" * 24, "1970-01-01 05:30:00"),
        ("f" * 24, "2106-02-07 11:58:15"),
        (NOON_ID[:-1], ""),
        ("g" + NOON_ID[1:], ""),
        ("7000001", ""),
        ("", ""),
    ],
)
def test_the_insertion_is_in_an_object_id(key, stamp):
    """The first eight digits are seconds since 1970; any other id has no moment."""
    assert inserted_at(key, IST) == stamp


def test_the_insertion_is_on_the_accounts_clock():
    """The digits are UTC and become the wall clock."""
    assert inserted_at(NOON_ID, timezone(timedelta(0))) == "2024-05-06 06:30:00"


@pytest.mark.parametrize(
    ("start", "end", "key", "tells", "clear"),
    [
        ("2024-05-06 11:00:00", "2024-05-06 11:30:00", NOON_ID, True, True),
        ("2024-05-06 11:00:00", "2024-05-06 11:30:00", "", True, True),
        ("2024-05-06 11:00:00", "", "", False, True),
        ("2024-05-06 11:00:00", "2024-05-06 11:00:00", "", False, True),
        ("2024-05-06 11:00:00", "2024-05-06 11:00:01", "", True, False),
        ("2024-05-06 11:00:00", "2024-05-06 11:00:02", "", True, True),
        ("2024-05-06 11:00:00", "2024-05-06 11:00:00", NOON_ID, False, True),
        ("2024-05-06 11:00:00", "2024-05-06 11:59:59", NOON_ID, True, False),
        ("24:00", "never", "call-1", False, False),
    ],
)
def test_what_a_call_can_show(start, end, key, tells, clear):
    """A call shows the filing moment if its moments differ, and the bounds if no two are neighbours."""
    call = known_call(key, start, end, IST)
    assert (call.tells, call.is_clear) == (tells, clear)


SECOND = Window.of(NOON, NOON)


@pytest.mark.parametrize(
    ("start", "end", "shows"),
    [
        ("2024-05-06 11:00:00", NOON, True),
        (NOON, "2024-05-06 12:30:00", False),
        (NOON, NOON, False),
        ("2024-05-06 11:00:00", "2024-05-06 12:30:00", False),
    ],
)
def test_another_call_of_the_second_shows_the_same(start, end, shows):
    """It counts if only that moment lies there: calls of one second may change places."""
    wanted = known_call("", "2024-05-06 10:00:00", NOON, IST)
    assert known_call("", start, end, IST).shows("end", NOON, SECOND, wanted) is shows


def test_the_call_itself_shows_it():
    """It shows the moment even if two of its moments lie in the range."""
    wanted = known_call("", NOON, NOON, IST)
    assert wanted.shows("end", NOON, SECOND, wanted)


@pytest.mark.parametrize(
    ("start", "end", "key", "inside"),
    [
        ("2024-05-06 00:00:00", "", "", True),
        ("2024-05-05 23:59:59", "", "", False),
        ("2024-05-05 23:59:59", "2024-05-06 00:00:10", "", True),
        ("2024-05-05 23:59:59", "2024-05-07 00:00:10", "", False),
        ("2024-05-05 23:59:59", "2024-05-05 23:59:59", NOON_ID, True),
        ("", "never", "call-1", True),
    ],
)
def test_a_call_lies_inside_by_any_of_its_moments(start, end, key, inside):
    """A call without a readable moment counts as inside."""
    assert lies_inside(DAY, key, start, end, IST) is inside


WIDER = Window.of("2024-05-05 23:59:59", "2024-05-07 00:00:00")


@pytest.mark.parametrize(
    ("moments", "sides"),
    [
        ([], []),
        ([NOON, ""], []),
        (["2024-05-05 23:59:59", NOON], ["start"]),
        ([NOON, "2024-05-07 00:00:00"], ["end"]),
        (["2024-05-05 23:59:59", "2024-05-07 00:00:00"], ["start", "end"]),
        (["2024-05-05 23:59:59", "2024-05-04 00:00:00"], []),
        (["2024-05-07 00:00:00", "2024-05-07 00:00:01"], []),
    ],
)
def test_the_sides_on_which_calls_came_of_a_second_too_many(moments, sides):
    """A call even further out proves nothing."""
    assert sides_beyond(DAY, WIDER, moments) == sides
