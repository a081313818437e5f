"""Ranges on a wall clock that is set back: one hour of autumn comes twice, and a stamp does not say which is meant.

1. An aware ``datetime`` bounds moments. A day or a text bounds the wall clock, as it is written.
2. A range asks for each second of the wall clock that a moment of the range shows, and for no other second. So no call
   of the range is lost, and a call that certainly lies outside is left out.
3. A second that comes twice is asked for once. The calls of both moments come, because their records do not differ.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import SECOND, account_time, on_wall, stamp
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from datetime import tzinfo

    from servetel_async.protocol.clock import Moment


class DoubledHour(NamedTuple):
    """A part of the wall clock that comes twice. Nearly everywhere it is an hour; on Lord Howe it is half an hour.

    Attributes:
        first: its first second.
        last: its last second.
        change: the moment in UTC at which the clock is set back from behind ``last`` to ``first``.
    """

    first: datetime
    last: datetime
    change: datetime


def doubled_hour(moment: datetime, zone: tzinfo) -> DoubledHour | None:
    """Find the doubled hour that an aware moment of whole seconds lies in, at either time; else None."""
    if isinstance(zone, timezone):
        return None
    local = moment.astimezone(zone)
    early, late = (local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    if early >= late:
        return None
    before = early.astimezone(zone).utcoffset()
    while late - early > SECOND:  # the clock is set back after ``early`` and not after ``late``
        middle = early + timedelta(seconds=(late - early) // SECOND // 2)
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return DoubledHour(on_wall(late.astimezone(zone)), on_wall(early.astimezone(zone)), late)


def _at_first(moment: datetime, zone: tzinfo) -> DoubledHour | None:
    """Find the doubled hour that a moment lies in for the first time: later moments show its seconds again."""
    hour = doubled_hour(moment, zone)
    return hour if hour is not None and moment < hour.change else None


def _at_second(moment: datetime, zone: tzinfo) -> DoubledHour | None:
    """Find the doubled hour that a moment lies in for the second time: earlier moments showed its seconds before."""
    hour = doubled_hour(moment, zone)
    return hour if hour is not None and moment >= hour.change else None


def latest_wall(moment: datetime, zone: tzinfo) -> datetime:
    """Return the latest second that the wall clock has shown up to a moment."""
    moment = moment.astimezone(UTC).replace(microsecond=0)
    hour = _at_second(moment, zone)
    return on_wall(moment.astimezone(zone)) if hour is None else hour.last


def past_wall(moment: datetime, zone: tzinfo) -> datetime:
    """Return the latest second of the wall clock up to which no later moment shows any second again."""
    moment = moment.astimezone(UTC).replace(microsecond=0)
    hour = _at_first(moment, zone)
    return on_wall(moment.astimezone(zone)) if hour is None else hour.first - SECOND


def wall_windows(from_date: Moment | None, to_date: Moment | None, zone: tzinfo) -> tuple[Window, ...]:
    """Return the windows to ask for, newest first: one, or two that leave out the middle of a doubled hour.

    Raises:
        ConfigurationError: if a bound is not a moment, or if ``from_date`` lies after ``to_date``.
    """
    begin = None if from_date is None else account_time(from_date, zone, name="from_date")
    finish = None if to_date is None else account_time(to_date, zone, name="to_date", end=True)
    start, since = (None, None) if begin is None else (on_wall(begin), _moment(begin))
    end, until = (None, None) if finish is None else (on_wall(finish), _moment(finish))
    comes_again = None if since is None else _at_first(since, zone)
    if comes_again is not None and until is not None and until < comes_again.change:
        comes_again = None
    came_before = None if until is None else _at_second(until, zone)
    if came_before is not None and since is not None and since >= came_before.change:
        came_before = None
    asked = Window(
        start if comes_again is None else comes_again.first,
        end if came_before is None else came_before.last,
    )
    first, last = (asked.start, asked.end) if since is None or until is None else (since, until)
    if start is not None and end is not None and first is not None and last is not None:
        if first > last:
            raise ConfigurationError(
                f"from_date ({stamp(start)}) lies after to_date ({stamp(end)})",
                why="such a range holds no call, and the API answers it with an empty list",
                fix="swap the two",
            )
        if comes_again is not None and comes_again == came_before and end + SECOND < start:
            return Window(start, asked.end), Window(asked.start, end)
    return (asked,)


def _moment(time: datetime) -> datetime | None:
    """Return an aware time in UTC, because two times of one zone compare by their wall clock; None for a naive time."""
    return None if time.tzinfo is None else time.astimezone(UTC)
