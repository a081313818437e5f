"""Moments of any class and at both ends of the calendar: the right second, or a ``ConfigurationError``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

import pytest

from servetel_async import IST, CallQuery, ConfigurationError
from servetel_async.bulk.pull_range import range_at
from servetel_async.protocol.clock import EARLIEST, LATEST, SECOND, shift, stamp, wall_clock
from servetel_async.protocol.conventions import Bounds
from servetel_async.protocol.windows import Window

SECRET = "canary-of-a-zone"
DAY = timedelta(days=1)


class Broken(tzinfo):
    """A zone that raises."""

    def utcoffset(self, _moment):
        raise KeyError(SECRET)


class Wrong(tzinfo):
    """A zone whose offset is not a timedelta."""

    def utcoffset(self, _moment):
        return 5


class NotATime(datetime):
    """Like ``pandas.NaT``: a ``datetime`` by its class only."""

    def utcoffset(self):
        raise ValueError(SECRET)


class NoDay(date):
    """A ``date`` whose year raises."""

    @property
    def year(self):
        raise KeyError(SECRET)


class Fine(datetime):
    """Like ``pandas.Timestamp``: more digits, its own calendar, and no plain arithmetic."""

    def astimezone(self, _zone):
        raise OverflowError(SECRET)

    def __add__(self, _other):
        raise OverflowError(SECRET)


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (datetime(2024, 5, 1, tzinfo=Broken()), "KeyError"),
        (datetime(2024, 5, 1, tzinfo=Wrong()), "TypeError"),
        (NotATime(2024, 5, 1), "ValueError"),
        (NoDay(2024, 5, 1), "KeyError"),
        (datetime.max.replace(tzinfo=UTC), "outside the years 1 to 9999"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "outside the years 1 to 9999"),
    ],
    ids=["raises", "wrong offset", "not a time", "no year", "after the end", "before the beginning"],
)
@pytest.mark.parametrize("end", [False, True])
def test_a_moment_that_cannot_be_read_is_refused(moment, why, end):
    """The error names the class of the exception, never its message. So does the error of the query."""
    name = "to_date" if end else "from_date"
    with pytest.raises(ConfigurationError, match=f"{name} is not a moment.*{why}") as refused:
        CallQuery(**{name: moment})
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_a_moment_of_another_class_becomes_a_plain_one():
    """Its fields and its offset give the second, whatever else its class does."""
    plain = wall_clock(Fine(2024, 5, 1, 10, 0, 0, 5, tzinfo=UTC), IST, name="from_date")

    assert type(plain) is datetime
    assert stamp(plain) == "2024-05-01 15:30:00"


def test_a_date_of_another_class_becomes_a_plain_one():
    """A subclass of ``date`` means its day."""

    class Day(date):
        pass

    assert type(wall_clock(Day(2024, 5, 1), IST, name="from_date")) is datetime


@pytest.mark.parametrize(("day", "last"), [(date.min, "0001-01-01"), (date.max, "9999-12-31")])
def test_the_first_and_the_last_day_can_be_asked_for(day, last):
    """Each is a window of 86,400 seconds that can be cut."""
    window = CallQuery.day(day).window()

    assert (window.first, window.last) == (f"{last} 00:00:00", f"{last} 23:59:59")
    assert list(window.split()) == window.days() == [window]
    assert sum(piece.seconds for piece in window.cut(7)) == window.seconds == 86_400


def test_all_of_the_calendar_can_be_cut():
    """No second is lost at either end."""
    window = CallQuery(from_date=date.min, to_date=date.max).window()
    pieces = list(window.split())

    assert (pieces[-1].start, pieces[0].end) == (EARLIEST, LATEST)
    assert sum(piece.seconds for piece in pieces) == window.seconds


@pytest.mark.parametrize("month", ["0001-01", "9999-12"])
def test_the_first_and_the_last_month_can_be_asked_for(month):
    """Each has 31 days."""
    assert CallQuery.month(month).window().seconds == 31 * 86_400


@pytest.mark.parametrize(
    "options",
    [
        {"days": 10**9},
        {"days": 10**400},
        {"days": 740_000},
        {"days": float("nan")},
        {"days": "7"},
        {"days": 1, "now": datetime.min.replace(tzinfo=UTC)},
        {"days": 1, "now": "2024-05-01"},
        {"days": 1, "now": Fine(2024, 5, 1, tzinfo=Broken())},
    ],
    ids=["overflow", "huge", "before year 1", "nan", "text", "first day", "now is a text", "now is broken"],
)
def test_a_time_that_begins_before_the_calendar_is_refused(options):
    """``CallQuery.last`` raises a ``ConfigurationError``."""
    with pytest.raises(ConfigurationError):
        CallQuery.last(**options)


def test_a_wall_clock_stops_at_the_ends_of_the_calendar():
    """A shift beyond either end changes nothing."""
    assert shift(EARLIEST, -SECOND) == EARLIEST
    assert shift(LATEST, SECOND) == LATEST
    assert shift(EARLIEST, DAY) - EARLIEST == DAY


def test_a_window_at_the_ends_is_not_widened_beyond_them():
    """A window is never widened to a second before year 1, even for a server that omits a bound."""
    assert Bounds(1, 1).widen(Window(EARLIEST, LATEST)) == Window(EARLIEST, LATEST)


def test_what_is_left_of_a_window_that_begins_with_the_calendar():
    """Removing its beginning leaves the rest, and nothing before it."""
    whole = Window(EARLIEST, EARLIEST + 2 * DAY)
    taken = Window(EARLIEST, EARLIEST + DAY)

    assert whole.without([taken]) == [Window(EARLIEST + DAY + SECOND, whole.end)]
    assert whole.without([whole]) == []


def test_an_allowed_lateness_longer_than_the_calendar():
    """No call is final then."""
    found = range_at(Window(None, None), datetime(2024, 5, 6, 10, tzinfo=UTC), IST, 10**11)

    assert stamp(found.final_until) == "0001-01-01 00:00:00"
