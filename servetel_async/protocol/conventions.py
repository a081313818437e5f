"""The moment that a server compares with ``from_date`` and ``to_date``, and whether it includes both bounds.

The API documents neither. A call has three moments: it starts, it ends, and its record is inserted. A server
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
#: If two moments of a call are closer than this, in seconds, a widened range of one second may hold both.
_APART = 2


class Bounds(NamedTuple):
    """Seconds to widen the dates by, so that the server includes them; both 0 if it includes them itself."""

    start: int = 0
    end: int = 0

    def widen(self, window: Window) -> Window:
        """Return the window to ask for so that the server includes both of its bounds."""
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
        filed_by: the moment of a call that the server compares with the dates.
        bounds: the bounds that the server leaves out.
    """

    filed_by: FiledBy = "start"
    bounds: Bounds = Bounds()

    @property
    def text(self) -> str:
        """Text for a ledger, for example ``"start+0+1"``: by start, and ``to_date`` is left out."""
        return f"{self.filed_by}+{self.bounds.start}+{self.bounds.end}"

    @classmethod
    def of(cls, text: str) -> Conventions | None:
        """Read such a text; None for any other text."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        return cls(cast("FiledBy", found[1]), Bounds(int(found[2]), int(found[3])))


class KnownCall(NamedTuple):
    """The readable moments of a call that was seen. They identify the call: some calls have no ``id``."""

    moments: dict[FiledBy, str]

    @property
    def text(self) -> str:
        """Its moments as one text, in the order of their names."""
        return " ".join(self.moments[name] for name in sorted(self.moments))

    def shows(self, filed_by: FiledBy, second: str, asked: Window, wanted: KnownCall) -> bool:
        """Whether it shows, as the wanted call would, that a range holds the calls of a second.

        Args:
            filed_by: the moment that the server compares with the range, as a guess.
            second: the second in question.
            asked: the range. No other moment of this call may lie in it.
            wanted: the call that has ``second`` as one of its moments.
        """
        inside = [name for name, text in self.moments.items() if asked.first <= text <= asked.last]
        return self == wanted or (self.moments.get(filed_by) == second and inside == [filed_by])

    @property
    def tells(self) -> bool:
        """Whether it can show which of its moments a server files it under."""
        return 1 < len(self.moments) == len(set(self.moments.values()))

    @property
    def is_clear(self) -> bool:
        """Whether a range of one of its moments, a second wider on both sides, holds no other of its moments."""
        moments = [datetime.fromisoformat(text) for text in set(self.moments.values())]
        gaps = [abs((one - other).total_seconds()) for one, other in combinations(moments, 2)]
        return bool(moments) and min(gaps, default=_APART) >= _APART


def inserted_at(key: str, zone: tzinfo) -> str:
    """Return the second at which a record was inserted, on the account's clock; empty if the id does not say it.

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
    """Return the sides on which calls came from a second that a server seemed to leave out.

    Args:
        window: the wanted seconds.
        asked: the same, plus a second where a bound seemed to be left out. If a call lies even further out, the page
            proves nothing.
        moments: moments of the received calls.

    Returns:
        Names of fields of ``Bounds``.
    """
    known = [moment for moment in moments if is_wall_stamp(moment)]
    if not all(asked.first <= moment <= asked.last for moment in known):
        return []
    beyond = (min(known, default="~") < window.first, max(known, default="") > window.last)
    return [side for side, is_beyond in zip(Bounds._fields, beyond, strict=True) if is_beyond]


def lies_inside(window: Window, key: str, start: str, end: str, zone: tzinfo) -> bool:
    """Whether any moment of a call lies in the window, or none of its moments can be read."""
    texts = [text for text in (start, end, inserted_at(key, zone)) if is_wall_stamp(text)]
    return not texts or any(window.first <= text <= window.last for text in texts)
