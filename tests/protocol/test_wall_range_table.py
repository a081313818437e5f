"""Ranges in which the clock is set back or forward: no call is lost, and none that is certainly outside comes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from itertools import combinations_with_replacement
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async import IST, CallQuery, ConfigurationError
from servetel_async.protocol.clock import stamp
from servetel_async.protocol.wall_range import DoubledHour, doubled_hour, latest_wall, past_wall, wall_windows
from servetel_async.protocol.windows import Window

LONDON = ZoneInfo("Europe/London")  # set back on 2024-10-27 at 01:00 UTC, from 02:00 to 01:00; forward on 2024-03-31
NEW_YORK = ZoneInfo("America/New_York")  # set back on 2024-11-03 at 06:00 UTC, from 02:00 to 01:00
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # set back on 2024-04-06 at 15:00 UTC, from 02:00 to 01:30 of the 7th
KWAJALEIN = ZoneInfo("Pacific/Kwajalein")  # set back by 23 hours on 1969-09-30 at 13:00 UTC, over the date line
YEAR = 2024
SECOND = timedelta(seconds=1)


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def asked(query, zone):
    """The windows as text, newest first."""
    return [str(window) for window in query.windows(zone)]


# Table

#: A zone; from and to in UTC, or open; the requested windows, newest first.
RANGES = {
    "before it": (LONDON, "2024-10-26 23:00", "2024-10-26 23:59:59", ["2024-10-27 00:00:00 to 2024-10-27 00:59:59"]),
    "its first time": (LONDON, "2024-10-27 00:10", "2024-10-27 00:50", ["2024-10-27 01:10:00 to 2024-10-27 01:50:00"]),
    "its second time": (LONDON, "2024-10-27 01:10", "2024-10-27 01:50", ["2024-10-27 01:10:00 to 2024-10-27 01:50:00"]),
    "the hour up to its middle": (
        *(LONDON, "2024-10-27 00:30", "2024-10-27 01:30"),
        ["2024-10-27 01:00:00 to 2024-10-27 01:59:59"],
    ),
    "from its first to its second time": (
        *(LONDON, "2024-10-27 00:10", "2024-10-27 01:50"),
        ["2024-10-27 01:00:00 to 2024-10-27 01:59:59"],
    ),
    "twenty minutes around the change": (
        *(LONDON, "2024-10-27 00:50", "2024-10-27 01:10"),
        ["2024-10-27 01:50:00 to 2024-10-27 01:59:59", "2024-10-27 01:00:00 to 2024-10-27 01:10:00"],
    ),
    "the last second before the change and the first after it": (
        *(LONDON, "2024-10-27 00:59:59", "2024-10-27 01:00"),
        ["2024-10-27 01:59:59 to 2024-10-27 01:59:59", "2024-10-27 01:00:00 to 2024-10-27 01:00:00"],
    ),
    "two parts that touch": (
        *(LONDON, "2024-10-27 00:30:01", "2024-10-27 01:30"),
        ["2024-10-27 01:00:00 to 2024-10-27 01:59:59"],
    ),
    "one second between two parts": (
        *(LONDON, "2024-10-27 00:30:02", "2024-10-27 01:30"),
        ["2024-10-27 01:30:02 to 2024-10-27 01:59:59", "2024-10-27 01:00:00 to 2024-10-27 01:30:00"],
    ),
    "up to the last second before the change": (
        *(LONDON, "2024-10-27 00:30", "2024-10-27 00:59:59"),
        ["2024-10-27 01:30:00 to 2024-10-27 01:59:59"],
    ),
    "from the change": (LONDON, "2024-10-27 01:00", "2024-10-27 01:30", ["2024-10-27 01:00:00 to 2024-10-27 01:30:00"]),
    "from its first time on": (LONDON, "2024-10-27 00:30", None, ["2024-10-27 01:00:00 to now"]),
    "from its second time on": (LONDON, "2024-10-27 01:30", None, ["2024-10-27 01:30:00 to now"]),
    "up to its first time": (LONDON, None, "2024-10-27 00:30", ["the beginning to 2024-10-27 01:30:00"]),
    "up to its second time": (LONDON, None, "2024-10-27 01:30", ["the beginning to 2024-10-27 01:59:59"]),
    "from its first time to the next day": (
        *(LONDON, "2024-10-27 00:30", "2024-10-28 00:30"),
        ["2024-10-27 01:00:00 to 2024-10-28 00:30:00"],
    ),
    "the gap of spring": (
        LONDON,
        "2024-03-31 00:30",
        "2024-03-31 01:30",
        ["2024-03-31 00:30:00 to 2024-03-31 02:30:00"],
    ),
    "New York": (NEW_YORK, "2024-11-03 05:30", "2024-11-03 06:30", ["2024-11-03 01:00:00 to 2024-11-03 01:59:59"]),
    "New York, around the change": (
        *(NEW_YORK, "2024-11-03 05:50", "2024-11-03 06:10"),
        ["2024-11-03 01:50:00 to 2024-11-03 01:59:59", "2024-11-03 01:00:00 to 2024-11-03 01:10:00"],
    ),
    "Lord Howe, an hour": (
        *(LORD_HOWE, "2024-04-06 14:30", "2024-04-06 15:30"),
        ["2024-04-07 01:30:00 to 2024-04-07 02:00:00"],
    ),
    "Lord Howe, around the change": (
        *(LORD_HOWE, "2024-04-06 14:50", "2024-04-06 15:10"),
        ["2024-04-07 01:50:00 to 2024-04-07 01:59:59", "2024-04-07 01:30:00 to 2024-04-07 01:40:00"],
    ),
    "a doubled day": (
        *(KWAJALEIN, "1969-09-30 00:00", "1969-09-30 20:00"),
        ["1969-09-30 11:00:00 to 1969-09-30 23:59:59", "1969-09-30 01:00:00 to 1969-09-30 08:00:00"],
    ),
    "a zone that never changes": (
        *(IST, "2024-10-27 00:50", "2024-10-27 01:10"),
        ["2024-10-27 06:20:00 to 2024-10-27 06:40:00"],
    ),
}


@pytest.mark.parametrize(("zone", "begin", "finish", "windows"), RANGES.values(), ids=RANGES)
def test_a_range_of_moments(zone, begin, finish, windows):
    """The windows hold exactly the seconds that the clock shows in the range, once each."""
    query = CallQuery(from_date=begin and utc(begin), to_date=finish and utc(finish))
    assert asked(query, zone) == windows


#: From and to; the windows that London's account is asked for.
MIXED = {
    "a moment and a text": (
        utc("2024-10-27 00:50"),
        "2024-10-27 01:10:00",
        ["2024-10-27 01:00:00 to 2024-10-27 01:10:00"],
    ),
    "a text and a moment": (
        "2024-10-27 01:50:00",
        utc("2024-10-27 01:10"),
        ["2024-10-27 01:50:00 to 2024-10-27 01:59:59"],
    ),
    "a moment and a day": (utc("2024-10-27 00:50"), date(2024, 10, 27), ["2024-10-27 01:00:00 to 2024-10-27 23:59:59"]),
    "two texts": ("2024-10-27 01:10:00", "2024-10-27 01:50:00", ["2024-10-27 01:10:00 to 2024-10-27 01:50:00"]),
    "a day": (date(2024, 10, 27), date(2024, 10, 27), ["2024-10-27 00:00:00 to 2024-10-27 23:59:59"]),
}


@pytest.mark.parametrize(("begin", "finish", "windows"), MIXED.values(), ids=MIXED)
def test_a_text_bounds_the_wall_clock(begin, finish, windows):
    """A text or a day means both times of a second; a moment means what the clock shows from or up to it."""
    assert asked(CallQuery(from_date=begin, to_date=finish), LONDON) == windows


REVERSED = {
    "moments": (utc("2024-10-27 01:10"), utc("2024-10-27 00:50")),
    "texts": ("2024-10-27 01:50:00", "2024-10-27 01:10:00"),
    "a moment and a text": (utc("2024-10-27 01:50"), "2024-10-27 01:10:00"),
    "a text and a moment": ("2024-10-27 01:50:00", utc("2024-10-27 00:10")),
}


@pytest.mark.parametrize(("begin", "finish"), REVERSED.values(), ids=REVERSED)
def test_a_range_that_is_reversed(begin, finish):
    """It is refused; moments are compared as moments, even if their stamps are in order."""
    with pytest.raises(ConfigurationError, match="lies after to_date") as refused:
        CallQuery(from_date=begin, to_date=finish).windows(LONDON)
    assert refused.value.why.startswith("such a range holds no call")


def test_moments_whose_stamps_are_in_order_are_reversed():
    """01:10 in winter time is later than 01:50 in summer time."""
    with pytest.raises(ConfigurationError, match=r"01:10:00\) lies after to_date \(2024-10-27 01:50:00"):
        wall_windows(utc("2024-10-27 01:10"), utc("2024-10-27 00:50"), LONDON)


# Queries


def test_both_times_of_a_second_are_two_queries():
    """Python finds them equal in one zone, but two queries an hour apart must not share requests."""
    first, second = (CallQuery(from_date=datetime(2024, 10, 27, 1, 30, fold=fold, tzinfo=LONDON)) for fold in (0, 1))
    assert first != second
    assert (asked(first, LONDON), asked(second, LONDON)) == (
        ["2024-10-27 01:00:00 to now"],
        ["2024-10-27 01:30:00 to now"],
    )


def test_what_is_left_out_is_part_of_a_query():
    """Twenty minutes around the change and the hour around them differ in fingerprint, not in parameters."""
    part = CallQuery(from_date=utc("2024-10-27 00:50"), to_date=utc("2024-10-27 01:10"))
    whole = CallQuery(from_date="2024-10-27 01:00:00", to_date="2024-10-27 01:59:59")
    assert part.params(LONDON) == whole.params(LONDON)
    assert [str(window) for window in part.left_out(LONDON)] == ["2024-10-27 01:10:01 to 2024-10-27 01:49:59"]
    assert whole.left_out(LONDON) == []
    assert part.fingerprint(LONDON) != whole.fingerprint(LONDON)
    assert part.fingerprint(IST) == part.fingerprint(timezone(timedelta(hours=5, minutes=30)))


LASTS = {
    "in spring": (datetime(2024, 3, 31, 2, 30, tzinfo=LONDON), "2024-03-31 00:30:00", "2024-03-31 02:30:00"),
    "in autumn": (datetime(2024, 10, 27, 1, 30, fold=1, tzinfo=LONDON), "2024-10-27 01:00:00", "2024-10-27 01:59:59"),
    "in summer": (datetime(2024, 7, 1, 12, 0, tzinfo=LONDON), "2024-07-01 11:00:00", "2024-07-01 12:00:00"),
}


@pytest.mark.parametrize(("now", "first", "last"), LASTS.values(), ids=LASTS)
def test_the_last_hour_is_an_hour(now, first, last):
    """It is 60 minutes of time, even if ``now`` is in a zone whose clock changes."""
    assert asked(CallQuery.last(hours=1, now=now), LONDON) == [f"{first} to {last}"]
    assert CallQuery.last(hours=1, now=now.astimezone(UTC)).params(LONDON) == [("from_date", first), ("to_date", last)]


# Where the clock is

#: A moment; the latest second shown, and the latest that is not shown again.
CLOCKS = {
    "before": ("2024-10-26 23:59:59.9", "2024-10-27 00:59:59", "2024-10-27 00:59:59"),
    "the first time": ("2024-10-27 00:30:00.9", "2024-10-27 01:30:00", "2024-10-27 00:59:59"),
    "the last second of the first time": ("2024-10-27 00:59:59.9", "2024-10-27 01:59:59", "2024-10-27 00:59:59"),
    "the change": ("2024-10-27 01:00:00", "2024-10-27 01:59:59", "2024-10-27 01:00:00"),
    "the second time": ("2024-10-27 01:30:00.9", "2024-10-27 01:59:59", "2024-10-27 01:30:00"),
    "after": ("2024-10-27 02:00:00", "2024-10-27 02:00:00", "2024-10-27 02:00:00"),
}


@pytest.mark.parametrize(("moment", "latest", "past"), CLOCKS.values(), ids=CLOCKS)
def test_where_the_clock_is(moment, latest, past):
    """A started call may have any second up to the first value; no future call has one up to the second."""
    assert stamp(latest_wall(utc(moment), LONDON)) == latest
    assert stamp(past_wall(utc(moment), LONDON)) == past
    assert (
        latest_wall(utc(moment), UTC) == past_wall(utc(moment), UTC) == utc(moment).replace(tzinfo=None, microsecond=0)
    )


def test_the_doubled_hour():
    """Either time gives its seconds and the moment of the change."""
    hour = DoubledHour(datetime(2024, 4, 7, 1, 30), datetime(2024, 4, 7, 1, 59, 59), utc("2024-04-06 15:00"))  # noqa: DTZ001
    for moment in ("2024-04-06 14:30:00", "2024-04-06 14:59:59", "2024-04-06 15:00:00", "2024-04-06 15:29:59"):
        assert doubled_hour(utc(moment), LORD_HOWE) == hour
    for moment in ("2024-04-06 14:29:59", "2024-04-06 15:30:00"):
        assert doubled_hour(utc(moment), LORD_HOWE) is None


# Every zone


@cache
def changes_of(name):
    """The first moment after each change of a zone's clock in the year, or any moment if the clock never changes."""
    zone, day = ZoneInfo(name), timedelta(days=1)
    found, moment = [], datetime(YEAR, 1, 1, tzinfo=UTC)
    while moment.year == YEAR:
        early, late = moment, moment + day
        before = early.astimezone(zone).utcoffset()
        if late.astimezone(zone).utcoffset() != before:
            while late - early > SECOND:
                middle = early + (late - early) // SECOND // 2 * SECOND
                early, late = (middle, late) if middle.astimezone(zone).utcoffset() == before else (early, middle)
            found.append(late)
        moment += day
    return found or [datetime(YEAR, 6, 1, tzinfo=UTC)]


def wall(moment, zone):
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def readings(shown, zone):
    """The moments at which a clock shows a time: one, or two in a doubled hour."""
    moments = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return [moment for moment in moments if wall(moment, zone) == shown]


def is_in(shown, windows):
    return any(window.start <= shown <= window.end for window in windows)


MINUTES = [timedelta(minutes=minutes) for minutes in range(-120, 125, 5)]
BOUNDS = sorted([*(timedelta(minutes=minutes) for minutes in (-90, -60, -50, -10, 0, 10, 30, 60, 100)), -SECOND])


def test_every_zone_and_every_change():
    """Calls every five minutes around both changes, in ranges with any bounds: none is lost, none is added."""
    wrong, seen = [], set()
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for change in changes_of(name):
            shown = [(change + after, wall(change + after, zone)) for after in MINUTES]
            if (key := tuple(shown)) in seen:  # many zones change in the same way
                continue
            seen.add(key)
            moments = {each: readings(each, zone) for _, each in shown}
            for since, until in combinations_with_replacement(BOUNDS, 2):
                begin, finish = change + since, change + until
                windows = CallQuery(from_date=begin, to_date=finish).windows(zone)
                inside = {each for each in moments if is_in(each, windows)}
                lost = {each for at, each in shown if begin <= at <= finish} - inside
                added = {each for each in inside if not any(begin <= moment <= finish for moment in moments[each])}
                wrong += [(name, begin, finish, lost, added)] if lost or added else []
    assert wrong == []
    assert len(seen) > 90


CHANGING = sorted(name for name in available_timezones() if len(changes_of(name)) > 1)
SECONDS = st.integers(-3 * 3600, 3 * 3600).map(lambda seconds: seconds * SECOND)


@given(st.sampled_from(CHANGING), st.integers(0, 1), SECONDS, SECONDS, SECONDS)
def test_a_call_comes_if_and_only_if_it_may_lie_inside(name, nth, since, until, after):
    """To the second: a stamp is requested if one of its possible moments is in the range."""
    zone, change = ZoneInfo(name), changes_of(name)[nth]
    begin, finish = sorted([change + since, change + until])
    shown = wall(change + after, zone)
    windows = CallQuery(from_date=begin, to_date=finish).windows(zone)
    assert is_in(shown, windows) == any(begin <= moment <= finish for moment in readings(shown, zone))
    newest_first = [bound for window in windows for bound in (window.end, window.start)]
    assert newest_first == sorted(newest_first, reverse=True)


@given(st.sampled_from(CHANGING), st.integers(0, 1), SECONDS, SECONDS)
def test_open_ranges_meet(name, nth, at, after):
    """A range from a moment and a range up to it lose no call, and share at most a doubled hour."""
    zone, change = ZoneInfo(name), changes_of(name)[nth]
    shown = wall(change + after, zone)
    (newer,) = CallQuery(from_date=change + at).windows(zone)
    (older,) = CallQuery(to_date=change + at).windows(zone)
    assert (newer.start <= shown) == any(moment >= change + at for moment in readings(shown, zone))
    assert (shown <= older.end) == any(moment <= change + at for moment in readings(shown, zone))
    assert Window(newer.start, older.end).seconds <= 2 * 3600
