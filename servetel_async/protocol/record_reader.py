"""Reads records: strictly, with the keys it has learnt, or, where that fails, field by field.

A key that nobody here knows, in every record since the server was updated, would cost the rescue of every record. So
what keeps coming is learnt: a decoder is built once for records that have these keys too.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from servetel_async.protocol.records import CallRecord
from servetel_async.protocol.rescue import KNOWN_KEYS, MANY_VALUES, is_too_large, rescue
from servetel_async.protocol.undecodable import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Unknown keys of a record that are learnt at most, and how often a reader learns: a server may send new ones for ever.
MOST_KEYS, MOST_LESSONS = 16, 4

_FAILURES = (*UNDECODABLE, RecursionError)
_plain_name = re.compile(r'[^"\\\x00-\x1f]{1,100}').fullmatch  # what msgspec takes for a name
#: Fields of a record before ``extra`` and ``zone``.
_FIELDS = len(CallRecord.__struct_fields__) - 2


class Shape:
    """What a record is strictly decoded to: a ``CallRecord``, or one that has slots for unknown keys too.

    Attributes:
        struct: what the decoder makes.
        read: makes a ``CallRecord`` of one record's bytes, or fails.
    """

    __slots__ = ("_decode", "_keys", "read", "struct")

    def __init__(self, keys: frozenset[str] = frozenset()) -> None:
        self.struct: type[CallRecord] = CallRecord
        self._keys: tuple[str, ...] = ()
        if not keys:
            self.read: Callable[[msgspec.Raw | bytes], CallRecord] = msgspec.json.Decoder(
                CallRecord, strict=False
            ).decode
            return
        names = {f"unknown_{number}": key for number, key in enumerate(sorted(keys))}
        struct = msgspec.defstruct(
            "LearntRecord",
            [(name, Any, msgspec.UNSET) for name in names],
            bases=(CallRecord,),
            rename=names,
            frozen=True,
            gc=False,
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self.struct = cast("type[CallRecord]", struct)
        self._keys = tuple(names.values())
        self._decode = msgspec.json.Decoder(self.struct, strict=False).decode
        self.read = self._read_learnt

    def _read_learnt(self, row: msgspec.Raw | bytes) -> CallRecord:
        return self._with_extra(self._decode(row))

    def finished(self, found: tuple[CallRecord, ...]) -> tuple[CallRecord, ...]:
        """Make records of what a decoder has made of many."""
        return tuple(map(self._with_extra, found)) if self._keys else found

    def _with_extra(self, found: CallRecord) -> CallRecord:
        """Make a record of what was decoded: what stands in a slot goes to ``extra``."""
        values = msgspec.structs.astuple(found)  # a fourth of the time that taking them by name takes
        unknown = values[_FIELDS + 2 :]  # behind ``extra`` and ``zone``
        extra = dict(zip(self._keys, unknown, strict=True))
        if msgspec.UNSET in unknown:
            extra = {key: value for key, value in extra.items() if value is not msgspec.UNSET}
        fields: list[Any] = [*values[:_FIELDS], extra]
        return CallRecord(*fields)  # by position: by name it would cost as much as the decoding


_PLAIN = Shape()
_learnt = functools.lru_cache(maxsize=16)(Shape)


class RecordReader:
    """Reads records, and remembers what it has learnt: a client has one, and whoever reads a batch.

    Attributes:
        shape: what it expects of a record by now.
    """

    __slots__ = ("_keys", "_lessons", "_unknown", "shape")

    def __init__(self) -> None:
        self.shape = _PLAIN
        self._keys: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()  # of the last record that was rescued
        self._lessons = 0

    def read(self, rows: Sequence[msgspec.Raw | bytes], start: int = 0) -> list[CallRecord]:
        """Read some, the first of which has this place in its page.

        Raises:
            MalformedResponseError: nobody can read one; names its place, never its content.
        """
        read = self.shape.read
        if max(map(len, rows), default=0) <= MANY_VALUES:
            with suppress(*_FAILURES):
                return list(map(read, rows))
        return self._read_each(rows, start)

    def _read_each(self, rows: Sequence[msgspec.Raw | bytes], start: int) -> list[CallRecord]:
        records: list[CallRecord] = []
        read = self.shape.read
        for index, row in enumerate(rows, start):
            record = None
            if len(row) <= MANY_VALUES or not is_too_large(row):
                try:  # noqa: SIM105 - a context manager for each record would cost as much as a tenth of it
                    record = read(row)
                except _FAILURES:
                    pass
            if record is None:  # not in the handler: what the decoder raised must not hang on what the rescue raises
                record = self._rescue(row, index)
                read = self.shape.read  # it may have learnt
            records.append(record)
        return records

    def _rescue(self, row: msgspec.Raw | bytes, index: int) -> CallRecord:
        record = rescue(row, index)
        unknown = frozenset(record.extra)
        keeps_coming, self._unknown = unknown == self._unknown, unknown
        if keeps_coming and unknown:
            self._learn(unknown)
        return record

    def _learn(self, unknown: frozenset[str]) -> None:
        """Learn the keys that came in two records, one after the other, if they were all that was wrong with them."""
        keys = self._keys | unknown
        if unknown & KNOWN_KEYS or len(keys) > MOST_KEYS or not all(map(_plain_name, unknown)):
            return
        if keys != self._keys and self._lessons < MOST_LESSONS:
            self._lessons += 1
            self._keys, self.shape = keys, _learnt(keys)
