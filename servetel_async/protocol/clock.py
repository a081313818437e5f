"""The account's wall clock: how a moment becomes the API's ``YYYY-MM-DD HH:MM:SS`` and back.

The API uses whole seconds of one zone, Indian Standard Time for every Indian account, and never names it. Sending UTC
asks for a window 5.5 hours in the past, so a ``datetime`` without a zone is refused rather than guessed.
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
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
#: The ends of the calendar; a wall clock has no zone.
EARLIEST, LATEST = datetime.min, datetime.max.replace(microsecond=0)  # noqa: DTZ901

Moment = datetime | date | str


def wall_clock(moment: Moment, zone: tzinfo, *, name: str, end: bool = False) -> datetime:
    """Convert a caller's moment into the account's wall clock: a naive ``datetime`` of whole seconds.

    See ``account_time`` for the arguments and the errors.
    """
    return on_wall(account_time(moment, zone, name=name, end=end))


def account_time(moment: Moment, zone: tzinfo, *, name: str, end: bool = False) -> datetime:
    """Convert a caller's moment into the account's time, in whole seconds.

    A moment becomes a ``datetime`` in ``zone``. A day or a text is on the wall clock already: it becomes a naive one.

    Args:
        moment: an aware ``datetime``, a ``date``, or ``"YYYY-MM-DD[ HH:MM:SS]"`` already on the account's wall clock.
        zone: the account's zone.
        name: the parameter's name, for the error.
        end: whether a day without a time means its last second.

    Raises:
        ConfigurationError: if the moment is naive, unreadable, or of another type.
    """
    if isinstance(moment, (datetime, date)):
        try:
            return _local(moment, zone) if isinstance(moment, datetime) else _edge_of(moment, end=end)
        except _NaiveError:
            why = ""
        except OverflowError:
            why = "on the account's wall clock it lies outside the years 1 to 9999"
        except Exception as error:  # noqa: BLE001 - the caller's own class or zone; its message may hold a secret
            why = f"reading its fields raised {type(error).__name__}"
        if not why:
            raise ConfigurationError(
                f"{name} is a datetime without a time zone",
                why="it could mean UTC, this computer's zone or the account's, hours apart",
                fix=f"say which: {name}=moment.replace(tzinfo=IST), or datetime.now(UTC)",
            )
        raise ConfigurationError(
            f"{name} is not a moment that the API knows",
            why=f"it is a {type(moment).__name__}; {why}",
            fix=f'for example {name}="2024-05-01" or {name}="2024-05-01 09:30:00"',
        )
    if isinstance(moment, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _parse(moment, name=name, end=end)
    raise ConfigurationError(
        f"{name} is a {type(moment).__name__}",
        fix='give an aware datetime, a date, or "YYYY-MM-DD HH:MM:SS"',
    )


class _NaiveError(Exception):
    """A ``datetime`` without an offset."""


def _local(moment: datetime, zone: tzinfo) -> datetime:
    """Convert a ``datetime``, also one of another library (``pandas.Timestamp``), to a plain one in the zone."""
    offset = moment.utcoffset()
    if offset is None:
        raise _NaiveError
    fields = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return datetime(*fields, tzinfo=timezone(offset)).astimezone(zone)


def on_wall(time: datetime) -> datetime:
    """Return what the wall clock shows at a time."""
    return time.replace(tzinfo=None, fold=0)


def _edge_of(day: date, *, end: bool) -> datetime:
    return datetime.combine(date(day.year, day.month, day.day), time(23, 59, 59) if end else time.min)


def shift(moment: datetime, by: timedelta) -> datetime:
    """Move a wall clock time; it stops at the end of the calendar."""
    try:
        return moment + by
    except OverflowError:
        return EARLIEST if by < timedelta(0) else LATEST


def _parse(text: str, *, name: str, end: bool) -> datetime:
    try:
        if _DAY.fullmatch(text):
            return _edge_of(date.fromisoformat(text), end=end)
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
    """Format ``YYYY-MM-DD HH:MM:SS``; years below 1000 keep their four digits."""
    return moment.isoformat(sep=" ", timespec="seconds")


def read_stamp(text: str | None, zone: tzinfo | None) -> datetime | None:
    """Read a stamp of a record as an aware moment; None for any other text (``24:00:00``, ``00/00/0000``)."""
    if text is None or zone is None:
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
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return stamp(moment) == text  # Python 3.14 reads 24:00:00 as the next day


def from_epoch(seconds: float, zone: tzinfo) -> datetime | None:
    """Convert epoch seconds to an aware moment; None if out of range of the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return None


_zones: dict[str, tzinfo | None] = {}


def name_zone(zone: tzinfo) -> str | None:
    """Name a zone for records to carry: text can be written as JSON and means the same in another process.

    Raises:
        ConfigurationError: if the zone is neither a fixed offset nor in the time-zone database.
    """
    if zone is IST:
        return None
    if isinstance(zone, timezone):
        return _offset_name(zone)
    key = getattr(zone, "key", None)
    if isinstance(key, str):
        return key
    raise ConfigurationError(
        "zone has no name",
        why=f"it is of type {type(zone).__name__}",
        fix='give IST, a datetime.timezone, or for example zoneinfo.ZoneInfo("Europe/London")',
    )


def _offset_name(zone: timezone) -> str:
    """Return ``UTC+05:30``, even if the caller gave that offset another name."""
    return str(timezone(zone.utcoffset(None)))


def zone_named(name: str | None) -> tzinfo | None:
    """Find the zone that ``name_zone`` named, IST for None; None for an unknown name."""
    if name is None:
        return IST
    if name not in _zones:
        try:
            fixed = name.startswith("UTC")
            written = "UTC+00:00" if name == "UTC" else name
            _zones[name] = datetime.strptime(written, "UTC%z").tzinfo if fixed else ZoneInfo(name)
        except (ValueError, OSError, KeyError, UnicodeError):
            _zones[name] = None
    return _zones[name]
