"""A realistic month of a call centre: the same bytes for the same seed, and the true ids to compare with."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timezone
from itertools import accumulate
from random import Random
from typing import Any, Final, Self

import msgspec

from servetel_async.emulator.calls import Call, CallGenerator
from servetel_async.emulator.centre import CallCentre
from servetel_async.emulator.clock import IST, WallClock

__all__ = ["Dataset"]

#: Half an hour, in seconds: India's hours begin at the half hours of UTC.
_SLOT: Final = 1_800
_DECEMBER: Final = 12
#: Calls per second, relative, by hour of a working day: a morning peak, lunch, an afternoon peak, a few at night.
_RHYTHM: Final = (
    *(0.02, 0.01, 0.01, 0.01, 0.01, 0.02, 0.05, 0.15, 0.45, 1.00, 1.60, 1.80),
    *(1.50, 0.90, 1.00, 1.50, 1.70, 1.50, 1.10, 0.80, 0.40, 0.20, 0.08, 0.04),
)
#: Monday to Sunday.
_WEEK: Final = (1.25, 1.10, 1.00, 1.00, 1.05, 0.60, 0.12)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The calls of one account, newest first; immutable, so that many emulators may share it.

    Made by `Dataset.month` or `Dataset.range`.
    """

    seed: int
    php_quirks: bool
    clock: WallClock
    centre: CallCentre
    calls: tuple[Call, ...]

    @classmethod
    def month(
        cls,
        month: str,
        *,
        calls: int = 100_000,
        seed: int = 1,
        php_quirks: bool = False,
        zone: timezone = IST,
    ) -> Self:
        """Make a calendar month, written `"2024-05"`; the arguments are those of `range`."""
        year, number = (int(part) for part in month.split("-"))
        following = f"{year + number // _DECEMBER:04}-{number % _DECEMBER + 1:02}-01"
        clock = WallClock(zone)
        last = clock.stamp(clock.parse_bound(following, end=False) - 1)
        return cls.range(f"{month}-01", last, calls=calls, seed=seed, php_quirks=php_quirks, zone=zone)

    @classmethod
    def range(
        cls,
        from_: str,
        to: str,
        *,
        calls: int,
        seed: int = 1,
        php_quirks: bool = False,
        zone: timezone = IST,
    ) -> Self:
        """Make the calls of a range.

        Args:
            from_: its first second, `"2024-05-01 09:00:00"` or a bare date, on the account's wall clock.
            to: its last second, inclusive; a bare date means the end of that day.
            calls: exact number of calls that start in it.
            seed: equal seeds give equal bytes.
            php_quirks: whether records have every odd form that was seen in the field.
            zone: a fixed offset from UTC.
        """
        clock = WallClock(zone)
        first, last = clock.parse_bound(from_, end=False), clock.parse_bound(to, end=True)
        if last < first:
            raise ValueError(f"the range ends before it begins: {from_} to {to}")
        centre = CallCentre.staffed(seed)
        generator = CallGenerator(centre, clock, seed=f"calls {seed}", php_quirks=php_quirks)
        made = [generator.make(start, serial) for serial, start in enumerate(_starts(clock, first, last, calls, seed))]
        made.reverse()
        return cls(seed=seed, php_quirks=php_quirks, clock=clock, centre=centre, calls=tuple(made))

    def __len__(self) -> int:
        return len(self.calls)

    def __repr__(self) -> str:
        return f"<Dataset of {len(self)} calls, seed {self.seed}>"

    @property
    def ids(self) -> list[str]:
        """The ids as text, newest first, also of records whose id is an int."""
        return [call.id for call in self.calls]

    def records(self) -> Iterator[dict[str, Any]]:
        """Parse the records, newest first."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        return (decode(call.body) for call in self.calls)

    def generator(self, seed: int) -> CallGenerator:
        """Return a source of further calls for this account."""
        return CallGenerator(self.centre, self.clock, seed=f"more calls {seed}", php_quirks=self.php_quirks)


def _starts(clock: WallClock, first: int, last: int, count: int, seed: int) -> list[int]:
    """Draw `count` instants from `first` to `last`, oldest first, in the rhythm of the week."""
    random = Random(f"starts {seed}")
    slots: list[tuple[int, int]] = []
    weights: list[float] = []
    at = first
    while at <= last:
        until = min(at - at % _SLOT + _SLOT, last + 1)
        weekday, hour = clock.weekday_hour(at)
        slots.append((at, until - at))
        weights.append(_WEEK[weekday] * _RHYTHM[hour] * (until - at))
        at = until
    drawn = random.choices(slots, cum_weights=list(accumulate(weights)), k=count)
    return sorted(begin + int(random.random() * length) for begin, length in drawn)
