"""The account's wall clock: the API writes dates without a zone, so one fixed offset converts them into instants."""

from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from typing import Final

__all__ = ["IST", "WallClock"]

#: India has one zone and no daylight saving time.
IST: Final = timezone(timedelta(hours=5, minutes=30), "IST")

_DAY: Final = 86_400
_EPOCH: Final = date(1970, 1, 1).toordinal()
_FORMAT: Final = "%Y-%m-%d %H:%M:%S"


@cache
def _times() -> tuple[str, ...]:
    """Return every time of day as text; formatting each stamp anew would be a third of the cost of a record."""
    return tuple(f"{h:02}:{m:02}:{s:02}" for h in range(24) for m in range(60) for s in range(60))


@cache
def _dates(day: int) -> tuple[str, str]:
    """Return a day as `YYYY-MM-DD` and as `DD-MM-YYYY`."""
    text = date.fromordinal(_EPOCH + day).isoformat()
    return text, f"{text[8:]}-{text[5:7]}-{text[:4]}"


class WallClock:
    """Convert between instants (whole seconds since 1970, UTC) and the text of the account's wall clock."""

    __slots__ = ("_offset",)

    def __init__(self, zone: timezone = IST) -> None:
        self._offset = int(zone.utcoffset(None).total_seconds())

    def split(self, instant: int) -> tuple[str, str]:
        """Return `("2024-05-02", "19:19:59")`, the record's `date` and `time`."""
        day, second = divmod(instant + self._offset, _DAY)
        return _dates(day)[0], _times()[second]

    def stamp(self, instant: int) -> str:
        """Return `"2024-05-02 19:19:59"`, as in `end_stamp` and in the query."""
        return " ".join(self.split(instant))

    def readable(self, instant: int) -> str:
        """Return `"02-05-2024 19:19:59"`, as in a step's `readableTime`."""
        day, second = divmod(instant + self._offset, _DAY)
        return f"{_dates(day)[1]} {_times()[second]}"

    def weekday_hour(self, instant: int) -> tuple[int, int]:
        """Return the weekday (Monday is 0) and the hour."""
        day, second = divmod(instant + self._offset, _DAY)
        return (day + 3) % 7, second // 3_600

    def parse(self, text: str) -> int:
        """Read a stamp, strictly.

        Raises:
            ValueError: if the text is not `YYYY-MM-DD HH:MM:SS`, two digits each.
        """
        wall = datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
        if wall.strftime(_FORMAT) != text:
            raise ValueError(f"not in the format {_FORMAT}")
        return int(wall.timestamp()) - self._offset

    def parse_bound(self, text: str, *, end: bool) -> int:
        """Read a stamp or a bare date; a date means its first second or, as an end, its last."""
        if len(text) == len("YYYY-MM-DD"):
            text += " 23:59:59" if end else " 00:00:00"
        return self.parse(text)
