"""A checkpoint: where a stream stood after the last call it handed out, as a text that any file or column can hold.

It names the call itself, so that going on is exact even when calls were added in front of it since: the call is looked
for where it stood, then around there, and the walk goes on behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from servetel_async.errors import ConfigurationError, ResumeMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window

_VERSION = "servetel-1"


class Place(NamedTuple):
    """Where calls stand: ``records[0]`` is number ``before + 1`` of its window."""

    window: Window
    size: int
    before: int
    records: Sequence[CallRecord]

    def at(self, last: CallRecord) -> Place:
        """The same place, as long as ``last`` is the last call that was handed out: it holds no other."""
        return Place(self.window, self.size, self.before + self._index_of(last), (last,))

    def rank_of(self, last: CallRecord) -> int:
        """Which one it is in its window, from 1."""
        return self.before + self._index_of(last) + 1

    def _index_of(self, last: CallRecord) -> int:
        records = self.records
        return next(index for index in range(len(records) - 1, -1, -1) if records[index] is last)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a stream stood.

    Attributes:
        query: fingerprint of the query.
        window: last stamp of the window that was being walked.
        asked: page size that was asked for, and size: the real one.
        rank: calls of the window up to and with the last one handed out.
        id: that call.
    """

    query: str
    window: str
    asked: int
    size: int
    rank: int
    id: str

    def __str__(self) -> str:
        return "|".join((_VERSION, self.query, self.window, str(self.asked), str(self.size), str(self.rank), self.id))

    @classmethod
    def read(cls, text: object, fingerprint: str) -> Self:
        """Read a checkpoint back, for the query of that fingerprint.

        Raises:
            ConfigurationError: it is no checkpoint.
            ResumeMismatchError: it belongs to another query, or to another version of this library.
        """
        parts = text.split("|", 6) if isinstance(text, str) else []
        if len(parts) != 7 or not parts[0].startswith("servetel-"):  # noqa: PLR2004 - the fields above
            raise ConfigurationError("start is not a checkpoint", fix="give what stream.checkpoint returned, unchanged")
        version, query, window, asked, size, rank, identifier = parts
        if version != _VERSION:
            raise ResumeMismatchError("the checkpoint was made by another version", fix="start again without start=")
        if query != fingerprint:
            raise ResumeMismatchError(
                "the checkpoint belongs to another query",
                why="going on from it would skip calls that were never delivered",
                fix="give the same dates and filters as before, or start again without start=",
            )
        if not all(re.fullmatch(r"[1-9][0-9]{0,17}", number) for number in (asked, size, rank)):
            raise ConfigurationError("start is a damaged checkpoint", fix="start again without start=")
        return cls(query, window, int(asked), int(size), int(rank), identifier)

    def pages_to_search(self) -> Iterator[int]:
        """Page numbers on which the call may stand now: where it stood, one before (calls went), those after (came)."""
        page = -(-self.rank // self.size)
        yield page
        if page > 1:
            yield page - 1
        yield from range(page + 1, page + 1000)
