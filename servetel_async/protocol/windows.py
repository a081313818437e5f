"""Windows: closed ranges of whole seconds on the account's wall clock, ``[start, end]``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from servetel_async.protocol.clock import SECOND, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Ranges over 31 days were refused for one user; nobody has seen a shorter limit.
LONGEST = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Window:
    """Both bounds belong to it; None leaves that side open."""

    start: datetime | None
    end: datetime | None

    def split(self, longest: timedelta = LONGEST) -> Iterator[Window]:
        """Cut into windows no longer than that, newest first, as the API itself orders calls. No second is in two."""
        if self.start is None or self.end is None:
            yield self
            return
        end = self.end
        while end - self.start >= longest:
            start = end - longest + SECOND
            yield Window(start, end)
            end = start - SECOND
        yield Window(self.start, end)

    @property
    def first(self) -> str:
        """The smallest stamp inside, as text: every real stamp is larger than an empty text."""
        return "" if self.start is None else stamp(self.start)

    @property
    def last(self) -> str:
        """The largest stamp inside, as text: every real stamp is smaller than ``~``."""
        return "~" if self.end is None else stamp(self.end)

    def __str__(self) -> str:
        """Never holds personal data, so it may stand in errors and logs."""
        return f"{self.first or 'the beginning'} to {'now' if self.end is None else self.last}"
