"""What a server compares ``from_date`` and ``to_date`` with, and whether it counts both of them in.

The API does not document either. A call has three moments: it starts, it ends, and its record is inserted. A server
files each call under one of them. So a range holds the calls whose filing moment lies in it.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, cast

from servetel_async.protocol.clock import SECOND, from_epoch, is_wall_stamp, shift, stamp
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

FiledBy: TypeAlias = Literal["start", "end", "insertion"]

_TEXT = re.compile(r"(start|end|insertion)\+([01])\+([01])")
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
#: Seconds between two moments of a call below which a widened range of one second may hold both.
_APART = 2


class Bounds(NamedTuple):
    """Seconds by which the dates must be widened for the server to count them in; both 0 where it does so itself."""

    start: int = 0
    end: int = 0

    def widen(self, window: Window) -> Window:
        """The window to ask for so that the server counts both of its bounds in."""
        if self == Bounds():
            return window
        return Window(
            None if window.start is None else shift(window.start, -self.start * SECOND),
            None if window.end is None else shift(window.end, self.end * SECOND),
        )

    def is_narrower(self, other: Bounds) -> bool:
        """Whether it widens less on one side, and on no side more."""
        return self != other and self.start <= other.start and self.end <= other.end


class Conventions(NamedTuple):
    """How a server reads dates.

    Attributes:
        filed_by: the moment of a call that it compares with the dates.
        bounds: the bounds that it leaves out.
    """

    filed_by: FiledBy = "start"
    bounds: Bounds = Bounds()

    @property
    def text(self) -> str:
        """A short text for a ledger, for example ``"start+0+1"``: by start, and ``to_date`` is left out."""
        return f"{self.filed_by}+{self.bounds.start}+{self.bounds.end}"

    @classmethod
    def of(cls, text: str) -> Conventions | None:
        """Read such a text; None for any other text."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        return cls(cast("FiledBy", found[1]), Bounds(int(found[2]), int(found[3])))


class KnownCall(NamedTuple):
    """The readable moments of a call that was seen. A call is recognised by them: not each has an ``id``."""

    moments: dict[FiledBy, str]

    @property
    def text(self) -> str:
        """Its moments as one text, in the order of their names."""
        return " ".join(self.moments[name] for name in sorted(self.moments))

    def shows(self, filed_by: FiledBy, second: str, asked: Window, wanted: KnownCall) -> bool:
        """Whether it shows, as the call that is wanted would, that a range holds the calls of a second.

        Args:
            filed_by: the moment that the server compares with the range, as a guess.
            second: which one.
            asked: the range. No other moment of this call may lie in it.
            wanted: the call whose moment that second is.
        """
        inside = [name for name, text in self.moments.items() if asked.first <= text <= asked.last]
        return self == wanted or (self.moments.get(filed_by) == second and inside == [filed_by])

    @property
    def tells(self) -> bool:
        """Whether it can show under which of its moments a server files it."""
        return 1 < len(self.moments) == len(set(self.moments.values()))

    @property
    def is_clear(self) -> bool:
        """Whether a range of one of its moments, a second wider on both sides, holds no other second of its moments."""
        moments = [datetime.fromisoformat(text) for text in set(self.moments.values())]
        gaps = [abs((one - other).total_seconds()) for one, other in combinations(moments, 2)]
        return bool(moments) and min(gaps, default=_APART) >= _APART


def inserted_at(key: str, zone: tzinfo) -> str:
    """The second at which a record was inserted, on the account's clock; empty if the id does not say it.

    Args:
        key: the record's ``id``. The first 8 digits of an ObjectId are seconds since 1970.
        zone: the account's wall clock.
    """
    if not _OBJECT_ID.fullmatch(key):
        return ""
    moment = from_epoch(int(key[:8], 16), zone)
    return "" if moment is None else stamp(moment.replace(tzinfo=None))


def known_call(key: str, start: str, end: str, zone: tzinfo) -> KnownCall:
    """Collect the moments of a call."""
    named: dict[FiledBy, str] = {"start": start, "end": end, "insertion": inserted_at(key, zone)}
    return KnownCall({name: text for name, text in named.items() if is_wall_stamp(text)})


def sides_beyond(window: Window, asked: Window, moments: Iterable[str]) -> list[str]:
    """Give the sides on which calls came of a second that a server seemed to leave out.

    Args:
        window: the seconds that were wanted.
        asked: the same, and a second more where a bound seemed to be left out. If a call lies even further out, the
            page proves nothing.
        moments: of the calls that came.

    Returns:
        Names of fields of ``Bounds``.
    """
    known = [moment for moment in moments if is_wall_stamp(moment)]
    if not all(asked.first <= moment <= asked.last for moment in known):
        return []
    beyond = (min(known, default="~") < window.first, max(known, default="") > window.last)
    return [side for side, is_beyond in zip(Bounds._fields, beyond, strict=True) if is_beyond]


def lies_inside(window: Window, key: str, start: str, end: str, zone: tzinfo) -> bool:
    """Whether any moment of a call lies in the window, or none of them can be read."""
    texts = [text for text in (start, end, inserted_at(key, zone)) if is_wall_stamp(text)]
    return not texts or any(window.first <= text <= window.last for text in texts)
