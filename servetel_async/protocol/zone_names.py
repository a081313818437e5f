"""Zones by the names that people write: ``Europe/London``, ``+05:30``."""

from __future__ import annotations

import re
from datetime import timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})", re.ASCII)
#: The largest offset from UTC of any clock.
_FURTHEST = timedelta(hours=14)


def read_zone(name: str) -> tzinfo:
    """Read a name of the time-zone database, in any case, or a fixed offset such as ``+05:30``; ``IST`` is India's.

    Raises:
        ConfigurationError: if there is no such zone.
    """
    name = name.strip()
    if name.upper() == "IST":
        return IST
    match = _OFFSET.fullmatch(name.upper())
    zone = _find(name) if match is None else _offset(match)
    if zone is None:
        raise ConfigurationError(
            "there is no such zone",
            why="it is neither a name of the time-zone database nor an offset from -14:00 to +14:00",
            fix="give for example Asia/Kolkata, Europe/London or +05:30; if such a name is refused: pip install tzdata",
        )
    return zone


def _offset(match: re.Match[str]) -> tzinfo | None:
    hours, minutes = int(match[2]), int(match[3])
    offset = timedelta(hours=hours, minutes=minutes)
    if minutes >= 60 or offset > _FURTHEST:  # noqa: PLR2004 - minutes of an hour
        return None
    offset = -offset if match[1] == "-" else offset
    return IST if offset == IST.utcoffset(None) else timezone(offset)


def _find(name: str) -> tzinfo | None:
    known = _known().get(name.casefold())
    return None if known is None else ZoneInfo(known)


@cache
def _known() -> dict[str, str]:
    """Return the names of the database by their lower case: finding them reads hundreds of files."""
    return {name.casefold(): name for name in available_timezones()}
