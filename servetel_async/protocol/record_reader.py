"""Reads records one by one: strictly, with the keys it has learnt, or, where that fails, field by field.

A key that nobody here knows, in every record since the server was updated, would cost the rescue of every record. So
what keeps coming is learnt: a decoder is built once for records that have these keys too.
"""

from __future__ import annotations

import functools
import operator
import re
from typing import TYPE_CHECKING, Any

import msgspec

from servetel_async.protocol.records import CallRecord
from servetel_async.protocol.rescue import KNOWN_KEYS, MANY_VALUES, is_too_large, rescue

if TYPE_CHECKING:
    from collections.abc import Callable

#: Unknown keys of a record that are learnt at most, and how often a reader learns: a server may send new ones for ever.
MOST_KEYS, MOST_LESSONS = 16, 4

_FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FIELDS = tuple(field for field in CallRecord.__struct_fields__ if field not in ("extra", "zone"))
_fields_of = operator.attrgetter(*_FIELDS)
_plain = re.compile(r'[^"\\\x00-\x1f]{1,100}').fullmatch  # what msgspec takes for a name
_strict = msgspec.json.Decoder(CallRecord, strict=False).decode


class RecordReader:
    """Reads the records of one page, or of one batch."""

    __slots__ = ("_decode", "_keys", "_lessons", "_unknown")

    def __init__(self) -> None:
        self._decode: Callable[[Any], CallRecord] = _strict
        self._keys: frozenset[str] = frozenset()
        self._unknown: frozenset[str] = frozenset()  # of the last record that was rescued
        self._lessons = 0

    def read(self, raw: msgspec.Raw | bytes, index: int) -> CallRecord:
        """Read one.

        Args:
            raw: its bytes.
            index: its place, which an error names.

        Raises:
            MalformedResponseError: nobody can read it.
        """
        if len(raw) <= MANY_VALUES or not is_too_large(raw):
            try:
                return self._decode(raw)
            except _FAILURES:
                pass
        record = rescue(raw, index)
        self._learn(record)
        return record

    def _learn(self, record: CallRecord) -> None:
        """Learn keys that came in two rescued records, one after the other, and were all that was wrong with them."""
        unknown = frozenset(record.extra)
        keeps_coming, self._unknown = unknown == self._unknown, unknown
        keys = self._keys | unknown
        if not keeps_coming or unknown & KNOWN_KEYS or len(keys) > MOST_KEYS or not all(map(_plain, unknown)):
            return
        if keys != self._keys and self._lessons < MOST_LESSONS:
            self._lessons += 1
            self._keys = keys
            self._decode = _decoder_with(keys)


@functools.lru_cache(maxsize=16)
def _decoder_with(keys: frozenset[str]) -> Callable[[Any], CallRecord]:
    """A strict decoder of records that may have these keys too."""
    names = {f"unknown_{number}": key for number, key in enumerate(sorted(keys))}
    shape = msgspec.defstruct(
        "LearntRecord",
        [(name, Any, msgspec.UNSET) for name in names],
        bases=(CallRecord,),
        rename=names,
        frozen=True,
        gc=False,
        forbid_unknown_fields=True,
        kw_only=True,
    )
    decode = msgspec.json.Decoder(shape, strict=False).decode

    def read(raw: Any) -> CallRecord:
        found = decode(raw)
        values = ((key, getattr(found, name)) for name, key in names.items())
        extra = {key: value for key, value in values if value is not msgspec.UNSET}
        given: list[Any] = [*_fields_of(found), extra]
        return CallRecord(*given)  # by position: by name it would cost as much as the decoding

    return read
