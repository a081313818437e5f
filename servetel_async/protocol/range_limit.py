"""The longest range that a server allows: read from its refusal, or found by halving."""

from __future__ import annotations

import re
from datetime import timedelta

from servetel_async.protocol.clock import DAY

_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "seven": 7, "ten": 10, "fifteen": 15, "thirty": 30}
#: Days of the shortest month: to a server that counts months, a longer range in February is more than one month.
_UNITS = {"hour": timedelta(hours=1), "day": DAY, "week": 7 * DAY, "month": 28 * DAY}
_LENGTH = re.compile(
    rf"(?<![\w.-])(\d{{1,4}}|{'|'.join(_WORDS)})[\s-]*(?:calendar\s)?({'|'.join(_UNITS)})s?(?![\w-])", re.IGNORECASE
)
#: A length of time is a limit only next to one of these words; "older than 90 days" means something else.
_LIMITS = re.compile(
    r"\b(?:max\w*|exceed\w*|more|longer|greater|larger|less|within|limit\w*|at most|up to|span\w*|beyond|over|between"
    r"|only|range\w*|difference|period|duration|interval|allow\w*)\b",
    re.IGNORECASE,
)


def read_limit(said: str) -> timedelta | None:
    """Read the longest range that a server allows from its message; None if it names no limit.

    Of several lengths the shortest is the limit: the other one is the requested range.

    >>> read_limit("Date range must not exceed 7 days")
    datetime.timedelta(days=7)
    """
    if not _LIMITS.search(said):
        return None
    lengths = [_number(found[1]) * _UNITS[found[2].lower()] for found in _LENGTH.finditer(said)]
    return min((length for length in lengths if length), default=None)


def shorter_range(refused: timedelta, said: str) -> timedelta | None:
    """Choose a shorter range after a refusal; None if the length was not the reason.

    The message is used once. After that the days are halved, down to one: from 31 days that is four more requests.

    Args:
        refused: length of the range.
        said: the server's message.
    """
    limit = read_limit(said)
    if limit is not None and limit < refused:
        return limit
    days = -(-refused // DAY)
    if days <= 1:
        return None
    return days // 2 * DAY


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else _WORDS[text.lower()]
