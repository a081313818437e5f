"""The moments of a column. Nearly all stamps have one format and one zone, and are read without a ``datetime``."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from servetel_async.protocol.clock import read_stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    Stamps = Iterable[str | None]

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
#: No reader in Python could show moments outside these; ``date``, ``time`` and ``end_stamp`` have them as text.
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
#: Seconds by the parts of a stamp, `` HH:MM`` and ``:SS``. A table of all 86,400 times of a day would take megabytes.
_MINUTES = {f" {minute // 60:02}:{minute % 60:02}": 60 * minute for minute in range(24 * 60)}
_SECONDS = {f":{second:02}": second for second in range(60)}


def stamps_of(columns: Mapping[str, Sequence[Any]], name: str) -> list[str | None]:
    """Return the stamps from which ``started_at`` or ``ended_at`` of some calls are read."""
    if name == "ended_at":
        return list(columns["end_stamp"])
    pairs = zip(columns["date"], columns["time"], strict=True)
    return [f"{day} {time}" if day and time else None for day, time in pairs]


def moments_of(stamps: Stamps, zone: tzinfo) -> list[datetime | None]:
    """Read stamps as aware moments; None if a stamp is not one."""
    return [read_stamp(stamp, zone) for stamp in stamps]


def texts_of(stamps: Stamps, zone: tzinfo) -> list[str]:
    """Read stamps as ISO 8601 with the offset; empty if a stamp is not a moment."""
    if not isinstance(zone, timezone):
        return [_text(stamp, zone) for stamp in stamps]
    offset = datetime(2000, 1, 1, tzinfo=zone).isoformat()[19:]
    return [
        _text(stamp, zone) if stamp is None or _wall_seconds(stamp) is None else f"{stamp[:10]}T{stamp[11:]}{offset}"
        for stamp in stamps
    ]


def _text(stamp: str | None, zone: tzinfo) -> str:
    moment = read_stamp(stamp, zone)
    return "" if moment is None else moment.isoformat()


def microseconds_of(stamps: Stamps, zone: tzinfo) -> list[int | None]:
    """Read stamps as microseconds since 1970 in UTC; None if a stamp is not a moment that a ``datetime`` holds."""
    if not isinstance(zone, timezone):
        return [_microseconds(stamp, zone) for stamp in stamps]
    offset = zone.utcoffset(None) // _MICROSECOND
    return [
        _microseconds(stamp, zone)
        if stamp is None or (seconds := _wall_seconds(stamp)) is None
        else seconds * 1_000_000 - offset
        for stamp in stamps
    ]


def _microseconds(stamp: str | None, zone: tzinfo) -> int | None:
    moment = read_stamp(stamp, zone)
    if moment is None:
        return None
    found = (moment - _EPOCH) // _MICROSECOND
    return found if _FIRST <= found <= _LAST else None


def _wall_seconds(stamp: str) -> int | None:
    """Return a stamp's seconds since 1970 on its own wall clock; None if the stamp has another format."""
    try:
        return _midnight(stamp[:10]) + _MINUTES[stamp[10:16]] + _SECONDS[stamp[16:]]
    except (KeyError, ValueError):
        return None


@lru_cache(maxsize=64)
def _midnight(text: str) -> int:
    day = date.fromisoformat(text)
    # A date by week has another form; on the calendar's first and last day an offset could lead out of it.
    if day.isoformat() != text or not date.min < day < date.max:
        raise ValueError
    return (day - _EPOCH.date()).days * 86_400
