"""How long a range a server allows: read from its message, or found by halving."""

from __future__ import annotations

from datetime import timedelta

import pytest

from servetel_async.protocol.range_limit import read_limit, shorter_range

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("Date range must not exceed 7 days", 7 * DAY),
        ("to_date: The range may not be longer than 15 days.", 15 * DAY),
        ("maximum 1 month", 28 * DAY),
        ("The difference between from_date and to_date should be less than one month", 28 * DAY),
        ("range cannot be more than 24 hours", DAY),
        ("You can select at most a week", 7 * DAY),
        ("Only 1 day is allowed", DAY),
        ("Max 3-day interval", 3 * DAY),
        ("Period of 31 days exceeds the limit of 7 calendar days", 7 * DAY),
        ("Please select dates within seven days", 7 * DAY),
        ("DATE RANGE LIMITED TO 2 WEEKS", 14 * DAY),
        ("up to 12 hours", 12 * HOUR),
    ],
)
def test_a_limit_that_is_named(said, limit):
    """A limit is a number with a unit of time next to a limiting word; of two lengths the shorter one counts."""
    assert read_limit(said) == limit


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Bad request",
        "The agents field is invalid",
        "from_date must be after 2024-05-01",
        "limit may not be greater than 100",
        "Invalid date range",
        "Records are kept for 90 days",
        "Wait 2 hours",
        "Range may not exceed 0 days",
        "at most 7dayspans",
        "no more than 1.5 days",
        "range may not exceed 12345 days",
    ],
)
def test_no_limit_is_named(said):
    """Not every number or length of time is a limit."""
    assert read_limit(said) is None


@pytest.mark.parametrize(
    ("refused", "said", "shorter"),
    [
        (31 * DAY, "at most 7 days", 7 * DAY),
        (31 * DAY, "maximum 12 hours", 12 * HOUR),
        (7 * DAY, "at most 7 days", 3 * DAY),
        (5 * DAY, "at most 7 days", 2 * DAY),
        (31 * DAY, "at most 90 days", 15 * DAY),
        (31 * DAY, "no", 15 * DAY),
        (15 * DAY, "no", 7 * DAY),
        (7 * DAY, "no", 3 * DAY),
        (3 * DAY, "no", DAY),
        (2 * DAY, "no", DAY),
        (DAY + timedelta(seconds=1), "no", DAY),
        (DAY, "no", None),
        (HOUR, "no", None),
        (12 * HOUR, "maximum 12 hours", None),
        (DAY, "maximum 12 hours", 12 * HOUR),
    ],
)
def test_what_is_asked_for_next(refused, said, shorter):
    """The limit in the message, if shorter; else half of the days, down to one; then length is not the reason."""
    assert shorter_range(refused, said) == shorter


def test_a_month_takes_four_more_requests_at_most():
    """Halving ends soon, whatever the server says."""
    refused, asked = 31 * DAY, 0
    while (shorter := shorter_range(refused, "no")) is not None:
        refused, asked = shorter, asked + 1
    assert (refused, asked) == (DAY, 4)
