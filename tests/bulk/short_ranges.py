"""Habits of a small server that refuses long ranges."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.bulk.small_server import HONEST, Answer, calls_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bulk.small_server import Asked

DAY = timedelta(days=1)
SAYS = "Date range must not exceed {days:g} days"
#: Two calls on each day of May and June, one of them at midnight.
CALLS = calls_at(
    *(
        f"2024-{month:02}-{day:02} {time}"
        for month in (5, 6)
        for day in range(1, 31)
        for time in ("00:00:00", "12:00:00")
    )
)


def length(asked: Asked) -> timedelta | None:
    """The time from the first to the last requested second; None if an end is open."""
    if not asked.first or asked.last == "~":
        return None
    return datetime.fromisoformat(asked.last) - datetime.fromisoformat(asked.first)


def refusal(message: str, status: int = 422) -> Answer:
    """A refusal by the server."""
    return Answer(status=status, body=json.dumps({"success": False, "message": message}).encode())


def elapsed(asked: Asked, days: float) -> bool:
    """Whether the range is longer than so many times 24 hours; an open range always is."""
    found = length(asked)
    return found is None or found > days * DAY


def exactly(asked: Asked, days: float) -> bool:
    """Whether the range has at least so many times 24 hours, both end seconds included."""
    found = length(asked)
    return found is None or found + timedelta(seconds=1) >= days * DAY


def dates(asked: Asked, days: float) -> bool:
    """Whether the range touches more than so many calendar dates."""
    found = length(asked)
    if found is None:
        return True
    first, last = (datetime.fromisoformat(text).date() for text in asked.window)
    return (last - first).days + 1 > days


def allows(
    days: float,
    says: str = SAYS,
    status: int = 422,
    counts: Callable[[Asked, float], bool] = elapsed,
    also: Callable[[Asked], Answer] = lambda _: HONEST,
) -> Callable[[Asked], Answer]:
    """Refuse ranges over so many days; answer others as ``also`` says."""
    return lambda asked: refusal(says.format(days=days), status) if counts(asked, days) else also(asked)


def refused(asked: list[Asked], habit: Callable[[Asked], Answer]) -> int:
    """How many of the requests this habit refuses."""
    return sum(habit(each).status != HONEST.status or habit(each).body is not None for each in asked)
