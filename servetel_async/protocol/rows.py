"""Rows: records as the server's own bytes, and the few fields read to account for them.

A pull writes the server's bytes. So it reads only the fields that prove the pull complete: id and moments. It decodes
the rest if a destination wants types.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, cast

import msgspec

from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.clock import IST, is_wall_stamp, name_zone
from servetel_async.protocol.conventions import inserted_at
from servetel_async.protocol.record_reader import RecordReader
from servetel_async.protocol.records import CallRecord, Id  # noqa: TC001 - msgspec reads the annotations
from servetel_async.protocol.rescue import MANY_VALUES, is_too_large, rescue
from servetel_async.protocol.undecodable import UNDECODABLE, is_utf8, repair_utf8

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from servetel_async.protocol.conventions import FiledBy
    from servetel_async.protocol.decoding import PageBody


#: A call's flow has some twenty steps; a single record with more brackets gets a close look.
MANY_BRACKETS = 500
#: Extra list levels for a batch of keys. A record nested so deeply that a later decoder, on a deeper stack, might fail,
#: fails here already and gets a close look.
MARGIN = 32


class RawRecord(msgspec.Struct, frozen=True, gc=False):  # ten thousands are held, too many for the garbage collector
    """One record.

    Attributes:
        line: its bytes as sent, on one line, in strict UTF-8.
        id: its key.
        start: its date and time as sent, ``YYYY-MM-DD HH:MM:SS`` if valid; empty without them.
        reason: the reason why it is undecodable; None for a sound record.
        end: its ``end_stamp`` as sent; empty without one.
        filed_at: the moment under which the server files it; empty if the record lacks it. None means its start.
    """

    line: bytes
    id: str
    start: str
    reason: str | None = None
    end: str = ""
    filed_at: str | None = None

    @property
    def moment(self) -> str:
        """The moment that the server compares with the dates."""
        return self.start if self.filed_at is None else self.filed_at

    def __repr__(self) -> str:
        """Show the id, not the content: a traceback that keeps local variables must not hold calls."""
        return f"Row(id={self.id!r}, start={self.start!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same where rich prints it."""
        return [("id", self.id), ("start", self.start)]


class _Key(msgspec.Struct, gc=False):
    id: Id
    date: str
    time: str
    end_stamp: Any = None


def _nested(times: int) -> Any:
    nested: Any = list[_Key]
    for _ in range(times):
        nested = list[nested]
    return nested


_key = msgspec.json.Decoder(_Key).decode
_keys = msgspec.json.Decoder(_nested(MARGIN)).decode
_FAILURES = (*UNDECODABLE, RecursionError)


def rows_of(
    page: PageBody, first: int = 0, last: int | None = None, *, filed_by: FiledBy = "start", zone: tzinfo = IST
) -> list[RawRecord]:
    """Return the page's records as rows, in the page's order. An undecodable record has a reason.

    Args:
        page: the page.
        first: index of the first record.
        last: index behind the last record; None for the end.
        filed_by: the moment under which the server files calls.
        zone: the account's wall clock.
    """
    lines = list(map(bytes, page.rows()[first:last]))
    keys = _keys_of(lines)
    if keys is None:
        rows = [_row(line, index) for index, line in enumerate(lines, first)]
    else:
        rows = [_sound(line, key) for line, key in zip(lines, keys, strict=True)]
    return rows if filed_by == "start" else [_filed(row, filed_by, zone) for row in rows]


def _sound(line: bytes, key: _Key) -> RawRecord:
    end = key.end_stamp
    return RawRecord(line, key.id, f"{key.date} {key.time}", None, end if type(end) is str else "")


def _filed(row: RawRecord, filed_by: FiledBy, zone: tzinfo) -> RawRecord:
    moment = row.end if filed_by == "end" else inserted_at(row.id, zone)
    return msgspec.structs.replace(row, filed_at=moment if is_wall_stamp(moment) else "")


def _keys_of(lines: list[bytes]) -> list[_Key] | None:
    """Read the keys of many records at once; None if one of them is invalid or needs a close look."""
    if max(map(len, lines), default=0) > MANY_VALUES:
        return None
    text = b"".join((b"[" * (MARGIN + 1), b",".join(lines), b"]" * (MARGIN + 1)))
    if b"\n" in text or b"\r" in text:
        return None
    if not text.isascii() and not is_utf8(text):
        return None
    try:
        keys: Any = _keys(text)
    except _FAILURES:
        return None
    for _ in range(MARGIN):
        (keys,) = keys
    return cast("list[_Key]", keys)


def _row(line: bytes, index: int) -> RawRecord:
    if is_too_large(line):
        return _strange(line, index)
    line = _one_line(line)
    if line.count(b"[") + line.count(b"{") > MANY_BRACKETS:  # perhaps nested too deeply for a later decoder
        return _strange(line, index)
    try:
        key = _key(line)
    except _FAILURES:
        return _strange(line, index)
    return _sound(line, key)


def _one_line(line: bytes) -> bytes:
    # Line ends are only between tokens: inside of text they are escaped, else the page would have been refused.
    if b"\n" in line or b"\r" in line:
        line = msgspec.json.format(line, indent=-1)
    # One bad byte in a name must not make the file unreadable for every strict reader.
    return line if line.isascii() or is_utf8(line) else repair_utf8(line)


def _strange(line: bytes, index: int) -> RawRecord:
    try:
        record = rescue(line, index)
    except MalformedResponseError as error:
        return RawRecord(line, f"sha256-{hashlib.sha256(line).hexdigest()[:24]}", "", error.why)
    start = f"{record.date} {record.time}" if record.date and record.time else ""
    return RawRecord(line, record.id, start, None, record.end_stamp or "")


def records_of(lines: Sequence[bytes], zone: tzinfo = IST) -> list[CallRecord]:
    """Decode rows that were found sound.

    Raises:
        MalformedResponseError: if a row is not sound.
    """
    records = RecordReader().read(lines)
    if zone is not IST:
        name = name_zone(zone)
        for record in records:
            msgspec.structs.force_setattr(record, "zone", name)
    return records
