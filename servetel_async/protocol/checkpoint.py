"""A checkpoint: the last call that a stream delivered, as a text that any file or column can hold.

1. It names the call by id and start. The rank, the call's place in the list, only says where to look first. So a resume
   does not depend on the page size, on the server's page cap, or on calls added or removed since.
2. It also names the calls of the same second that were delivered before. The API sorts by time and has no tiebreaker,
   so calls of one second may come in another order the next time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

import msgspec

from servetel_async.errors import ConfigurationError, ResumeMismatchError
from servetel_async.protocol.clock import is_wall_stamp
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.protocol.windows import up_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window

_VERSION = "servetel-2"
_Fields = tuple[Annotated[int, msgspec.Meta(ge=1, lt=10**18)], str, Annotated[list[str], msgspec.Meta(min_length=1)]]
_decode = msgspec.json.Decoder(_Fields).decode


def start_of(record: CallRecord) -> str:
    """When a call started, ``YYYY-MM-DD HH:MM:SS``; empty if its date or time is unreadable."""
    return readable_start(f"{record.date} {record.time}")


def readable_start(text: str) -> str:
    """Return a start if it is readable, else an empty text."""
    return text if is_wall_stamp(text) else ""


class Second(NamedTuple):
    """The last delivered calls, as far as they started in the same second.

    Attributes:
        start: that second; empty if it is unreadable, and then ``ids`` names only the last call.
        ids: ids of the calls, in the order of delivery.
    """

    start: str = ""
    ids: tuple[str, ...] = ()

    def then(self, records: Sequence[CallRecord]) -> Second:
        """Return the value after ``records`` were delivered as well."""
        start = start_of(records[-1])
        first = len(records) - 1
        while start and first and start_of(records[first - 1]) == start:
            first -= 1
        ids = tuple([record.id for record in records[first:]])
        return Second(start, self.ids + ids if start and not first and start == self.start else ids)


class Position(NamedTuple):
    """A piece of the list, and the data for a checkpoint inside it.

    Attributes:
        window: the window of the piece.
        before: calls of the window in front of ``records``.
        records: the piece as the server sent it.
        fresh: the calls to deliver: those of ``records``, and calls that were held back until now.
        second: the last calls delivered before them.
    """

    window: Window
    before: int
    records: Sequence[CallRecord]
    fresh: Sequence[CallRecord]
    second: Second

    def at(self, last: CallRecord) -> Position:
        """Return the same place for a piece whose last delivered call is ``last``; it refers to no other call."""
        return Position(self.window, self._rank_of(last) - 1, (last,), (last,), self._second_before(last))

    def checkpoint(self, last: CallRecord, query: str) -> Checkpoint:
        """Make the checkpoint after ``last``, for the query with this fingerprint."""
        second = self._second_before(last).then((last,))
        return Checkpoint(query, self.window.last, self._rank_of(last), second)

    def _rank_of(self, last: CallRecord) -> int:
        return self.before + max(0, _index_of(last, self.records)) + 1

    def _second_before(self, last: CallRecord) -> Second:
        handed_out = self.fresh[: _index_of(last, self.fresh)]
        return self.second.then(handed_out) if handed_out else self.second


def _index_of(last: CallRecord, records: Sequence[CallRecord]) -> int:
    return next((index for index in range(len(records) - 1, -1, -1) if records[index] is last), -1)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last delivered call.

    Attributes:
        query: fingerprint of the query.
        window: the last second of its window.
        rank: its place in the window's list at that time, counted from 1.
        second: this call, as the last of ``ids``, and the calls of its second delivered before it.
    """

    query: str
    window: str
    rank: int
    second: Second

    @property
    def id(self) -> str:
        """The call's id."""
        return self.second.ids[-1]

    @property
    def start(self) -> str:
        """The start of the call; empty if unreadable."""
        return self.second.start

    def is_in(self, window: Window) -> bool:
        """Whether the call belongs to a window. Its own start decides, because windows may be cut differently now."""
        return window.first <= (self.start or self.window) <= window.last

    def left_of(self, windows: list[Window]) -> list[Window]:
        """Return the remaining windows, newest first: from the window that holds the call.

        Empty if no window holds the call.
        """
        left = list(windows)
        while left and not self.is_in(left[0]):
            del left[0]
        return up_to(left, self.window) or left

    def __str__(self) -> str:
        call = msgspec.json.encode((self.rank, self.start, self.second.ids)).decode()
        return f"{_VERSION}|{self.query}|{self.window}|{call}"

    @classmethod
    def read(cls, text: object, fingerprint: str) -> Self:
        """Read a checkpoint for the query of that fingerprint.

        Raises:
            ConfigurationError: if it is not a checkpoint.
            ResumeMismatchError: if it belongs to another query, or to another version of this library.
        """
        parts = text.split("|", 3) if isinstance(text, str) else []
        if len(parts) != 4 or not parts[0].startswith("servetel-"):  # noqa: PLR2004 - the parts above
            raise ConfigurationError("start is not a checkpoint", fix="give what stream.checkpoint returned, unchanged")
        version, query, window, call = parts
        if version != _VERSION:
            raise ResumeMismatchError("the checkpoint was made by another version", fix="start again without start=")
        if query != fingerprint:
            raise ResumeMismatchError(
                "the checkpoint belongs to another query",
                why="a resume from it would skip calls that were never delivered",
                fix="give the same dates and filters as before, or start again without start=",
            )
        try:
            rank, start, ids = _decode(call)
        except (*UNDECODABLE, UnicodeError):
            rank, start, ids = 0, "", []
        if not ids or start != readable_start(start):
            raise ConfigurationError("start is a damaged checkpoint", fix="start again without start=")
        return cls(query, window, rank, Second(start, tuple(ids)))
