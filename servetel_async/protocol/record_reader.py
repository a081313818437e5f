"""Read records: strictly, with the keys learnt so far, or, where that fails, field by field.

A server update may add a key to every record; each record would then need a rescue. So recurring keys are learnt: a
decoder is built once for records that have these keys too.
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

#: Most unknown keys of a record to learn, and most lessons of a reader: a server may send new ones for ever.
MOST_KEYS, MOST_LESSONS = 16, 4

_FAILURES = (*UNDECODABLE, RecursionError)
_plain_name = re.compile(r'[^"\\\x00-\x1f]{1,100}').fullmatch  # accepted by msgspec as a name
#: Fields of a record before ``extra`` and ``zone``.
_FIELDS = len(CallRecord.__struct_fields__) - 2


class Shape:
    """The target of strict decoding: a ``CallRecord``, or a struct that has slots for unknown keys too.

    Attributes:
        struct: the type that the decoder makes.
        read: the decoder of one record's bytes to a ``CallRecord``; it may fail.
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
        """Convert the decoder's output for many records."""
        return tuple(map(self._with_extra, found)) if self._keys else found

    def _with_extra(self, found: CallRecord) -> CallRecord:
        """Convert one decoded struct: the values of its slots go to ``extra``."""
        values = msgspec.structs.astuple(found)  # a quarter of the time of taking them by name
        unknown = values[_FIELDS + 2 :]  # behind ``extra`` and ``zone``
        extra = dict(zip(self._keys, unknown, strict=True))
        if msgspec.UNSET in unknown:
            extra = {key: value for key, value in extra.items() if value is not msgspec.UNSET}
        fields: list[Any] = [*values[:_FIELDS], extra]
        return CallRecord(*fields)  # by position: by name it would cost as much as the decoding


_PLAIN = Shape()
_learnt = functools.lru_cache(maxsize=16)(Shape)


class RecordReader:
    """Read records, and remember the keys learnt: each client has one, and so does each reader of a batch.

    Attributes:
        shape: the shape expected of a record now.
    """

    __slots__ = ("_keys", "_lessons", "_unknown", "shape")

    def __init__(self) -> None:
        self.shape = _PLAIN
        self._keys: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()  # of the last record that was rescued
        self._lessons = 0

    def read(self, rows: Sequence[msgspec.Raw | bytes], start: int = 0) -> list[CallRecord]:
        """Read records; ``start`` is the place of the first one in its page.

        Raises:
            MalformedResponseError: if a record is undecodable; names its place, never its content.
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
            if record is None:  # outside of the handler: an error of the rescue must not carry the decoder's error
                record = self._rescue(row, index)
                read = self.shape.read  # the reader may have learnt
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
        """Learn the keys that came in two successive records, if nothing else was wrong with them."""
        keys = self._keys | unknown
        if unknown & KNOWN_KEYS or len(keys) > MOST_KEYS or not all(map(_plain_name, unknown)):
            return
        if keys != self._keys and self._lessons < MOST_LESSONS:
            self._lessons += 1
            self._keys, self.shape = keys, _learnt(keys)
