"""The ledger: each reading of a window is one fact that never changes, and these facts decide what later runs do.

1. A reading records the account, the query, the server's clock, how many calls the API counted and gave, a digest of
   what was written, and the proof, or why there is no proof.
2. A reading has seen nothing that came after its clock. So its proof ends at that clock.
3. A reading whose clock is later than the server's clock now was given a wrong time. It proves nothing. If the
   server's clock was more than an hour ahead of this computer's, this computer's counts.
4. If two readings cover one second, the later reading counts.
5. Resume, sync, check, receipt and exit code are functions of the readings and the server's clock. No other mark says
   what was read, what is final, or where to resume.

Nothing here does I/O; ``sinks`` keep the readings, as text.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from servetel_async.bulk.windows.certified import Flaw  # noqa: TC001 - msgspec reads it
from servetel_async.bulk.windows.covered import Covered
from servetel_async.protocol.account import Account  # noqa: TC001 - msgspec reads it
from servetel_async.protocol.clock import DAY, is_wall_stamp, shift, stamp
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The version of readings and headers. Those of another version are refused in a file, and left out in a database.
FORMAT = 2
#: ``asked_last`` of a range without an end; it compares later than every stamp.
OPEN_END = "~"
#: If the server's clock differs more from this computer's, it is checked by more replies.
STRANGE = timedelta(hours=1)
#: How far the clocks of two replies of one server may differ.
TOLERANCE = timedelta(minutes=5)
#: Notes, charges and recordings may come this long after their call. Calls read sooner are read again in full.
IN_FULL = DAY
_BITS = 64


class Unreadable(msgspec.Struct, frozen=True):
    """An undecodable record, and the reason."""

    reason: str
    raw: str

    def __repr__(self) -> str:
        """Show the reason, but not the record."""
        return f"Unreadable(reason={self.reason!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same where rich prints it."""
        return [("reason", self.reason)]


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reading of a window.

    Attributes:
        format: the version of this struct.
        account: the account of the calls; scope: the fingerprint of the query without its dates.
        mask: the name of the mask; empty without one.
        asked_first, asked_last: the range for which it was read; ``OPEN_END`` without an end.
        first, last: first and last second of the window, both included.
        clock, here: the server's and this computer's clock when the run began, both on the account's wall clock.
        counted: the API's count of the window; None if it sends no total.
        records: distinct calls that were written.
        digest: order-independent digest of what was written; see ``digest_of``.
        duplicates, reused_ids, undated: see ``PullReceipt``.
        kinds: numbers of its parts by kind of proof; flaws: the parts without a proof.
        quarantined: undecodable records.
        conventions: how the server read the dates of its requests.
        pages, requests, retries, received: the cost.
        recounted: whether it was only counted again, with the same result.
        at: the time of this fact in UTC, by this computer's clock.
        version: the version of this package.
    """

    format: int
    account: Account
    scope: str
    mask: str = ""
    asked_first: str
    asked_last: str
    first: str
    last: str
    clock: str
    here: str
    counted: int | None
    records: int
    digest: str
    duplicates: int = 0
    reused_ids: int = 0
    undated: int = 0
    kinds: dict[str, int] = {}
    flaws: tuple[Flaw, ...] = ()
    quarantined: tuple[Unreadable, ...] = ()
    conventions: str = ""
    pages: int = 0
    requests: int = 0
    retries: int = 0
    received: int = 0
    recounted: bool = False
    at: str
    version: str

    @property
    def window(self) -> Window:
        """The window that was read."""
        return Window.of(self.first, self.last)

    @property
    def lost(self) -> bool:
        """Whether calls are missing because pages did not come."""
        return any(flaw.lost for flaw in self.flaws)

    @property
    def read_at(self) -> str:
        """The latest time at which it was read: a server's clock far ahead of this computer's does not count."""
        return self.clock if _moment(self.clock) - _moment(self.here) <= STRANGE else self.here

    @property
    def seen(self) -> Window | None:
        """The seconds that were over when it was read; None if all of them were in the future."""
        last = min(self.last, self.read_at)
        return Window.of(self.first, last) if self.first <= last else None

    def age(self) -> timedelta:
        """Return how old its newest second was when it was read."""
        return _moment(self.read_at) - _moment(self.last)


class Rest(NamedTuple):
    """A reading, and the parts of its window that no later reading has replaced, newest first."""

    reading: Reading
    left: list[Window]


class Due(NamedTuple):
    """The work of a sync.

    Attributes:
        since: the first second that a sync keeps current; its readings have it as ``asked_first``.
        window: the newest range without a gap that the sync looks at, up to the server's clock.
        read: the windows to read, newest first.
        recount: the readings to count again; those that differ are read again.
    """

    since: str
    window: Window
    read: list[Window]
    recount: list[Reading]


def trusted(readings: Iterable[Reading], now: datetime) -> list[Reading]:
    """Leave out the readings whose clock lies in the future (rule 3)."""
    latest = _latest_clock(now)
    return [reading for reading in readings if reading.clock <= latest]


def _latest_clock(now: datetime) -> str:
    return stamp(shift(now, TOLERANCE))


def half_read(readings: Sequence[Reading], now: datetime) -> list[Window]:
    """Return the windows that a resumed pull reads again, because not all of them was seen or proved (rules 2 and 3).

    Each is read as a whole. If only its rest were read, a file would hold the calls of both windows.
    """
    sound = {reading.window for reading in trusted(readings, now) if reading.seen == reading.window}
    return [reading.window for reading in readings if reading.flaws or reading.window not in sound]


def current(readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings that no later one has replaced, not even in part; newest window first (rule 4).

    Args:
        readings: the readings in the order in which they were written.
    """
    untouched = [rest.reading for rest in _rests(readings) if rest.left == [rest.reading.window]]
    return sorted(untouched, key=lambda reading: reading.last, reverse=True)


def cut(readings: Sequence[Reading]) -> list[Rest]:
    """Return the readings that later ones have replaced in part, newest reading first, and what is left of them.

    Args:
        readings: the readings in the order in which they were written.
    """
    return [rest for rest in _rests(readings) if rest.left and rest.left != [rest.reading.window]]


def _rests(readings: Sequence[Reading]) -> list[Rest]:
    rests: list[Rest] = []
    taken = Covered()
    for reading in reversed(readings):
        rests.append(Rest(reading, taken.left(reading.window)))
        taken.add(reading.window)
    return rests


def due(readings: Sequence[Reading], now: datetime, lookback: timedelta) -> Due:
    """Plan what a sync reads and recounts so that a database is current, whatever happened since its last run.

    The territory of a sync is the look-back, each range that was not over when it was read, and each window that an
    earlier sync could not prove. The range of a sync has no end; the range of a pull ends where it was asked to end.
    In its territory a sync reads what no reading has seen, what was younger than a day when it was read, and what was
    not proved. It counts again what was younger than the look-back when it was read. The rest is final.

    Args:
        readings: the readings of this account, query and mask, in the order in which they were written.
        now: the server's clock.
        lookback: how long calls may arrive or change.
    """
    known = trusted(readings, now)
    territory = _territory(readings, now, lookback)
    answered = Covered()
    for part in territory:
        answered.add(part)
    read: list[Window] = []
    recount: list[Reading] = []
    taken = Covered()
    for reading in reversed(known):
        seen = reading.seen
        if seen is None:
            continue
        own = taken.left(seen)
        taken.add(seen)
        state = _state(reading, lookback)
        inside = [] if state == "final" else [part for piece in own for part in answered.inside(piece)]
        if inside and state == "recent" and own == [reading.window]:
            recount.append(reading)  # as a whole, even if it reaches beyond the territory: a count cannot be cut
        else:
            read += inside
    read += [gap for part in territory for gap in taken.left(part)]
    recount.sort(key=lambda reading: reading.last, reverse=True)
    looked_at = joined([*read, *(reading.window for reading in recount)])
    return Due(territory[0].first, looked_at[0], joined(read), recount)


def _state(reading: Reading, lookback: timedelta) -> str:
    """Classify a reading: ``young`` is read again, ``recent`` is counted again, ``final`` is not expected to change."""
    age = reading.age()
    if reading.flaws or age < IN_FULL:
        return "young"
    if age >= lookback:
        return "final"
    return "young" if reading.counted is None else "recent"


def _territory(readings: Sequence[Reading], now: datetime, lookback: timedelta) -> list[Window]:
    """Return the seconds that a sync keeps current, as windows that do not overlap, newest first."""
    midnight = shift(now, -lookback).replace(hour=0, minute=0, second=0)
    ranges = [Window(midnight, now)]
    latest = _latest_clock(now)
    for reading in readings:
        is_trusted = reading.clock <= latest
        if is_trusted and reading.flaws and reading.asked_last == OPEN_END:  # of a sync, perhaps for an older range
            ranges.append(reading.window)
        if not is_trusted or reading.asked_last > reading.read_at:  # its range may not have been over
            last = min(reading.asked_last, stamp(now))
            if reading.asked_first <= last:
                ranges.append(Window.of(reading.asked_first, last))
    return joined(ranges)


def gaps(readings: Iterable[Reading]) -> list[Window]:
    """Return what was asked for and not read, newest first: a run was interrupted, or is still at work."""
    asked: list[Window] = []
    read = Covered()
    for reading in readings:
        read.add(reading.window)
        last = min(reading.asked_last, reading.clock)
        if reading.asked_first <= last:
            asked.append(Window.of(reading.asked_first, last))
    return [gap for part in joined(asked) for gap in read.left(part)]


def joined(windows: Iterable[Window]) -> list[Window]:
    """Join windows that overlap or touch; newest first."""
    joined: list[Window] = []
    for window in sorted(windows, key=lambda window: window.last, reverse=True):
        if joined and (newer := joined[-1]).first <= _next(window.last):
            joined[-1] = Window.of(min(newer.first, window.first), newer.last)
        else:
            joined.append(window)
    return joined


def _next(last: str) -> str:
    return stamp(shift(_moment(last), timedelta(seconds=1)))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def digest_of(lines: Iterable[bytes]) -> str:
    """Digest lines, whatever their order: 16 hex digits. Digests of parts add up to the digest of the whole."""
    total = sum(int.from_bytes(hashlib.blake2b(line, digest_size=_BITS // 8).digest(), "big") for line in lines)
    return f"{total % 2**_BITS:016x}"


_decode = msgspec.json.Decoder(Reading).decode
_is_stamp = lru_cache(maxsize=1024)(is_wall_stamp)  # the readings of a run share most of their stamps


def read_fact(text: bytes) -> Reading | None:
    """Read a fact; None if it has another version or cannot be read."""
    try:
        reading = _decode(text)
    except (*UNDECODABLE, RecursionError):
        return None
    return reading if reading.format == FORMAT and _is_dated(reading) else None


def _is_dated(reading: Reading) -> bool:
    """Whether its moments are stamps, so that they compare as text."""
    ends = [] if reading.asked_last == OPEN_END else [reading.asked_last]
    moments = [reading.first, reading.last, reading.clock, reading.here, reading.asked_first, *ends]
    return reading.first <= reading.last and all(map(_is_stamp, moments))
