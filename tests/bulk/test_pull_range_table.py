"""The range of a run by the server's clock, as a table."""

# ruff: noqa: DTZ001 - the wall clock of an account has no zone by definition

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from servetel_async import IST, ConfigurationError
from servetel_async.bulk.ledger import OPEN_END
from servetel_async.bulk.pull_range import account_clock, clock_matters, range_at, server_clock
from servetel_async.protocol.clock import stamp
from servetel_async.protocol.windows import Window

CLOCK = datetime(2024, 5, 10, 6, 30, tzinfo=UTC)
NOW = datetime(2024, 5, 10, 12, 0)
LONDON = ZoneInfo("Europe/London")
DATE = "Mon, 06 May 2024 06:30:15 GMT"


def window(first, last):
    return Window(*(None if text is None else datetime.fromisoformat(text) for text in (first, last)))


@pytest.mark.parametrize(
    ("asked", "first", "last", "is_over"),
    [
        (("2024-05-01", "2024-05-02 23:59:59"), "2024-05-01 00:00:00", "2024-05-02 23:59:59", True),
        (("2024-05-01", "2024-05-31 23:59:59"), "2024-05-01 00:00:00", "2024-05-10 12:00:00", False),
        (("2024-05-01", "2024-05-10 12:00:00"), "2024-05-01 00:00:00", "2024-05-10 12:00:00", True),
        (("2024-05-01", "9999-12-31 23:59:59"), "2024-05-01 00:00:00", "2024-05-10 12:00:00", False),
        (("2024-05-01", None), "2024-05-01 00:00:00", "2024-05-10 12:00:00", False),
        ((None, "2024-05-02"), "2024-05-02 00:00:00", "2024-05-02 00:00:00", True),
        ((None, None), "2024-05-10 12:00:00", "2024-05-10 12:00:00", False),
        (("2024-05-10 12:00:00", None), "2024-05-10 12:00:00", "2024-05-10 12:00:00", False),
    ],
)
def test_a_range_ends_at_the_servers_clock(asked, first, last, is_over):
    """The future is not read, and the receipt says nothing about it."""
    found = range_at(window(*asked), CLOCK, IST, 7200)
    assert (found.window.first, found.window.last, found.is_over) == (first, last, is_over)
    assert (found.clock, found.final_until) == (NOW, NOW - timedelta(hours=2))
    assert found.asked_last == (OPEN_END if asked[1] is None else window(*asked).last)


@pytest.mark.parametrize("last", [None, "2024-05-11", "2024-06-30"])
def test_a_range_that_has_not_begun_is_refused(last):
    """An empty list would look like a day without calls."""
    with pytest.raises(ConfigurationError, match="has not begun") as caught:
        range_at(window("2024-05-10 12:00:01", last), CLOCK, IST, 0)
    assert "2024-05-10 12:00:00" in caught.value.why


@pytest.mark.parametrize(
    ("asked", "here", "matters"),
    [
        (("2024-05-01", None), "2024-05-10 12:59:59", False),
        (("2024-05-01", None), "2024-05-10 13:00:01", True),
        (("2024-05-01", None), "2024-05-10 10:59:59", True),
        (("2024-05-01", "2024-05-02"), "2025-05-10", False),
        (("2024-05-01", "2024-06-01"), "2025-05-10", True),
        (("2024-05-01", "2024-05-05"), "2024-05-03", True),
    ],
)
def test_a_strange_clock_is_asked_for_again_where_it_decides_something(asked, here, matters):
    """It is over an hour away from this computer's clock, and the range reaches one of the two."""
    assert clock_matters(window(*asked), NOW, datetime.fromisoformat(here)) is matters


@pytest.mark.parametrize(
    "date",
    [DATE, "Mon, 06 May 2024 06:30:15 +0000", "Mon, 06 May 2024 06:30:15 -0000", "Mon, 06 May 2024 12:00:15 +0530"],
)
def test_the_servers_clock(date):
    """It is in UTC, whatever zone its header names."""
    assert server_clock(date) == datetime(2024, 5, 6, 6, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Mon, 99 May 2024 06:30:15 GMT", "0", "Mon, 06 May 99999 06:30:15 GMT"]
)
def test_without_a_readable_date_it_is_this_computers_clock(date):
    """The range then ends at this computer's clock."""
    before = datetime.now(UTC)
    assert before <= server_clock(date) <= datetime.now(UTC)


@pytest.mark.parametrize("sent", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 06 May 2024 10:00:00 +99999999999999999999"])
def test_a_clock_beyond_the_calendar_is_not_believed(sent):
    """This computer's clock is used instead."""
    assert abs(account_clock(sent, IST) - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("clock", "last", "past", "final"),
    [
        ("2024-10-27 00:10", "2024-10-27 01:10:00", "2024-10-27 00:59:59", "2024-10-27 00:10:00"),
        ("2024-10-27 01:10", "2024-10-27 01:59:59", "2024-10-27 01:10:00", "2024-10-27 00:59:59"),
        ("2024-10-27 02:10", "2024-10-27 02:10:00", "2024-10-27 02:10:00", "2024-10-27 01:10:00"),
        ("2024-03-31 01:10", "2024-03-31 02:10:00", "2024-03-31 02:10:00", "2024-03-31 00:10:00"),
    ],
)
def test_an_hour_that_comes_twice(clock, last, past, final):
    """The pull reads to the end of the hour, but is final only up to the repeated second; 60 minutes are 60 minutes."""
    found = range_at(Window(None, None), datetime.fromisoformat(clock).replace(tzinfo=UTC), LONDON, 3600)
    assert (found.window.last, stamp(found.clock), stamp(found.final_until)) == (last, past, final)


@pytest.mark.parametrize(("clock", "is_over"), [("2024-10-27 00:40", False), ("2024-10-27 01:40", True)])
def test_a_range_that_ends_in_an_hour_that_comes_again_is_over_when_it_has_come_again(clock, is_over):
    """Calls of the repeated hour may still arrive in it."""
    asked = window("2024-10-26", "2024-10-27 01:30:00")
    found = range_at(asked, datetime.fromisoformat(clock).replace(tzinfo=UTC), LONDON, 0)
    assert (found.window, found.is_over) == (asked, is_over)
