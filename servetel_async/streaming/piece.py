"""The output of a reading: a piece of the list, or the proved end."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from servetel_async.protocol.checkpoint import Position
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.records import CallRecord


class End(enum.Enum):
    """The proved end. It is a value: code of the caller may raise any exception but cannot return this."""

    END = enum.auto()


class Piece(NamedTuple):
    """Calls that were never delivered before, their page, and the place of the last of them.

    ``place`` is None once the list is known to have moved: from then on calls in front of any place may be missing.
    """

    records: list[CallRecord]
    page: PageBody
    number: int
    place: Position | None
