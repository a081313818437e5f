"""Moments of a column are the moments that a record's own properties return, in every output format."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.protocol.clock import IST, read_stamp
from servetel_async.sinks.table.timestamps import microseconds_of, moments_of, stamps_of, texts_of

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
ZONES = [
    IST,
    UTC,
    timezone(timedelta(hours=-8)),
    timezone(timedelta(hours=5, minutes=53, seconds=28)),
    ZoneInfo("Europe/London"),
]
#: Stamps at every edge of the fast parser, which uses no datetime.
STAMPS = [
    "2024-05-02 19:19:59",
    "2024-02-29 00:00:00",
    "2023-02-29 00:00:00",
    "2024-03-31 01:30:00",
    "1969-12-31 23:59:59",
    "1900-01-01 12:00:00",
    "2024-05-02 24:00:00",
    "2024-05-02 23:60:00",
    "2024-05-02 23:59:60",
    "2024-05-02T19:19:59",
    "2024-05-02 19:19",
    "2024-05-02 19:19:59.5",
    "2024-05-02 19:19:5",
    "2024-05-02 9:19:59 ",
    "2024-05-02 19:19:59+00:00",
    "2024-05-02 00:00+05",
    "2024-W18-4 19:19:59",
    "20240502 19:19:59",
    "2024-05-02",
    "02-05-2024 19:19:59",
    "0000-00-00 00:00:00",
    "0001-01-01 00:00:00",
    "0001-01-02 00:00:00",
    "9999-12-30 23:59:59",
    "9999-12-31 23:59:59",
    "\u0662024-05-02 19:19:59",
    "2024-05-02 1\u0669:19:59",
    "\u00b2024-05-02 19:19:59",
    " ",
    "",
    None,
]


def as_microseconds(moment):
    """A moment in UTC, if a datetime can represent it."""
    if moment is None:
        return None
    try:
        return (moment.astimezone(UTC) - EPOCH) // MICROSECOND
    except OverflowError:
        return None


@pytest.mark.parametrize("zone", ZONES, ids=str)
def test_a_column_holds_what_each_stamp_says_alone(zone):
    """Datetimes, texts and microseconds agree; an invalid stamp has no moment in all three."""
    moments = [read_stamp(stamp, zone) for stamp in STAMPS]
    assert moments_of(STAMPS, zone) == moments
    assert texts_of(STAMPS, zone) == ["" if moment is None else moment.isoformat() for moment in moments]
    assert microseconds_of(STAMPS, zone) == [as_microseconds(moment) for moment in moments]
    assert sum(moment is not None for moment in moments) >= 10


@given(
    st.one_of(
        st.datetimes().map(lambda moment: moment.isoformat(sep=" ", timespec="seconds")),
        st.from_regex(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", fullmatch=True),
        st.text(alphabet="0123456789-: .+TZW", max_size=22),
    ),
    st.sampled_from(ZONES),
)
def test_any_text_is_read_as_it_is_read_alone(stamp, zone):
    """The fast and the slow way never differ."""
    moment = read_stamp(stamp, zone)
    assert texts_of([stamp], zone) == ["" if moment is None else moment.isoformat()]
    assert microseconds_of([stamp], zone) == [as_microseconds(moment)]


def test_a_start_needs_its_day_and_its_time():
    """``started_at`` combines two fields, ``ended_at`` has one."""
    columns = {"date": ["2024-05-02", None, ""], "time": ["10:00:00"] * 3, "end_stamp": [None, "x", ""]}
    assert stamps_of(columns, "started_at") == ["2024-05-02 10:00:00", None, None]
    assert stamps_of(columns, "ended_at") == [None, "x", ""]
