"""The range of a run: the part of the requested range that is over by the server's clock. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.bulk.ledger import OPEN_END, STRANGE
from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import EARLIEST, stamp
from servetel_async.protocol.wall_range import latest_wall, past_wall
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from datetime import tzinfo


class PullRange(NamedTuple):
    """The range that a run reads.

    Attributes:
        window: the closed range; it ends at the latest second that the wall clock has shown.
        asked_last: the last second that was asked for; ``OPEN_END`` without one.
        clock: the latest second up to which no second comes again. It differs from the end of an open range only in the
            hour of autumn that comes twice.
        final_until: the watermark; calls that started later are pulled, but their windows are not final.
    """

    window: Window
    asked_last: str
    clock: datetime
    final_until: datetime

    @property
    def is_over(self) -> bool:
        """Whether the whole requested range was read, and lies in the past."""
        return self.asked_last <= min(stamp(self.clock), self.window.last)


def range_at(asked: Window, clock: datetime, zone: tzinfo, settle: float) -> PullRange:
    """Close a range at the server's clock.

    Args:
        asked: the requested range; without a start it begins where it ends, until the oldest call is known.
        clock: the server's clock, aware.
        zone: the account's wall clock.
        settle: allowed lateness in seconds; a call is listed when it is over, and some come hours late.

    Raises:
        ConfigurationError: if the whole range lies in the future.
    """
    now = latest_wall(clock, zone)
    if asked.start is not None and asked.start > now:
        raise ConfigurationError(
            "the range has not begun yet",
            why=f"it begins at {asked.first}, and the server's clock says {stamp(now)}",
            fix="name a range that has begun; if that clock is not the account's, check zone=",
        )
    end = now if asked.end is None else min(asked.end, now)
    start = end if asked.start is None else asked.start
    asked_last = OPEN_END if asked.end is None else asked.last
    return PullRange(Window(start, end), asked_last, past_wall(clock, zone), _final_until(clock, zone, settle))


def _final_until(clock: datetime, zone: tzinfo, settle: float) -> datetime:
    """Return the watermark. Subtract in real time: across a change of the wall clock an hour is not always an hour."""
    try:
        return past_wall(clock - timedelta(seconds=settle), zone)
    except OverflowError:
        return EARLIEST


def clock_matters(asked: Window, clock: datetime, here: datetime) -> bool:
    """Whether a wrong clock of the server would change what is read: it differs, and the range reaches up to it.

    Args:
        asked: the requested range.
        clock: the server's clock, on the account's wall clock.
        here: this computer's clock, on the account's wall clock.
    """
    if abs(clock - here) <= STRANGE:
        return False
    return asked.end is None or asked.end > min(clock, here)


def server_clock(date: str | None) -> datetime:
    """Read the server's ``Date`` header; use this computer's clock if it cannot be read."""
    try:
        moment = parsedate_to_datetime(date or "")
    except (ValueError, OverflowError):
        return datetime.now(UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def account_clock(date: str | None, zone: tzinfo) -> datetime:
    """Read the server's ``Date`` as a moment in UTC. If the zone cannot hold it, use this computer's clock."""
    try:
        return server_clock(date).astimezone(zone).astimezone(UTC)
    except OverflowError:
        return datetime.now(UTC)
