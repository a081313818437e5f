"""The account's wall clock: how a moment becomes the API's ``YYYY-MM-DD HH:MM:SS`` and back.

The API speaks in whole seconds of one zone, Indian Standard Time for every Indian account, and never names it. Sending
UTC asks for a window 5.5 hours in the past, so a ``datetime`` without a zone is refused rather than guessed.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from servetel_async.errors import ConfigurationError

#: Indian Standard Time, +05:30 the whole year. A fixed offset: it needs no time-zone database.
IST = timezone(timedelta(hours=5, minutes=30), "IST")

WALL_FORMAT = "%Y-%m-%d %H:%M:%S"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_STAMP = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)
SECOND = timedelta(seconds=1)

Moment = datetime | date | str


def wall_clock(moment: Moment, zone: tzinfo, *, name: str, end: bool = False) -> datetime:
    """Turn what a caller may give into the account's wall clock: a naive ``datetime`` of whole seconds.

    Args:
        moment: an aware ``datetime``, a ``date``, or ``"YYYY-MM-DD[ HH:MM:SS]"`` already on the account's wall clock.
        zone: the account's zone.
        name: the parameter's name, for the error.
        end: a day without a time means its last second.

    Raises:
        ConfigurationError: naive, unreadable, or of another type.
    """
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise ConfigurationError(
                f"{name} is a datetime without a time zone",
                why="it could mean UTC, this computer's zone or the account's, hours apart",
                fix=f"say which: {name}=moment.replace(tzinfo=IST), or datetime.now(UTC)",
            )
        try:
            return moment.astimezone(zone).replace(tzinfo=None, microsecond=0)
        except OverflowError:
            raise _unreadable(name) from None
    if isinstance(moment, date):
        return datetime.combine(moment, time(23, 59, 59) if end else time.min)
    if isinstance(moment, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _parse(moment, name=name, end=end)
    raise ConfigurationError(
        f"{name} is a {type(moment).__name__}",
        fix='give an aware datetime, a date, or "YYYY-MM-DD HH:MM:SS"',
    )


def _parse(text: str, *, name: str, end: bool) -> datetime:
    try:
        if _DAY.fullmatch(text):
            return wall_clock(date.fromisoformat(text), IST, name=name, end=end)
        if _STAMP.fullmatch(text):
            return datetime.strptime(text, WALL_FORMAT)  # noqa: DTZ007 - the wall clock has no zone by definition
    except ValueError:
        pass
    raise _unreadable(name)


def _unreadable(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is not a moment that the API knows",
        why='it is neither "YYYY-MM-DD" nor "YYYY-MM-DD HH:MM:SS", or no such day exists',
        fix=f'for example {name}="2024-05-01" or {name}="2024-05-01 09:30:00"',
    )


def stamp(moment: datetime) -> str:
    """``YYYY-MM-DD HH:MM:SS``; years below 1000 keep their four digits."""
    return moment.isoformat(sep=" ", timespec="seconds")


def read_stamp(text: str | None, zone: tzinfo) -> datetime | None:
    """Read a stamp of a record as an aware moment; None for whatever is not one (``24:00:00``, ``00/00/0000``)."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)
    except (ValueError, OverflowError):
        return None


def is_wall_stamp(text: str) -> bool:
    """Whether text is exactly ``YYYY-MM-DD HH:MM:SS``, so that comparing stamps as text compares moments."""
    if not _STAMP.fullmatch(text):
        return False
    try:
        datetime.strptime(text, WALL_FORMAT)  # noqa: DTZ007 - only its shape is asked for
    except ValueError:
        return False
    return True


def from_epoch(seconds: float, zone: tzinfo) -> datetime | None:
    """Epoch seconds as an aware moment; None where no calendar holds them."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return None


_zones: dict[str, tzinfo] = {}


def name_zone(zone: tzinfo) -> str | None:
    """Give a zone's name, for records to carry: a text can be written as JSON and sent to another process."""
    if zone is IST:
        return None
    name = str(zone)
    _zones[name] = zone
    return name


def zone_named(name: str | None) -> tzinfo:
    """Find a zone by the name that ``name_zone`` gave it, also in another process; IST where there is no such zone."""
    if name is None:
        return IST
    zone = _zones.get(name)
    if zone is None:
        try:
            zone = datetime.strptime(name, "UTC%z").tzinfo if name.startswith("UTC") else ZoneInfo(name)
        except (ValueError, OSError):  # ZoneInfo: no such zone, or a name that is a path
            zone = None
        zone = _zones[name] = IST if zone is None else zone
    return zone
