"""The columns of a call in a table: one for each key of the reference, two moments, and ``extra`` for other keys."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from operator import attrgetter
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import msgspec

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST, name_zone
from servetel_async.protocol.record_reader import RecordReader
from servetel_async.protocol.records import CallRecord, FlowStep
from servetel_async.protocol.rescue import split_object
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.sinks.sink import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Converter = Callable[[Any], Any]

#: What a field may hold besides None, and its column. All else is open-ended or nested, so it becomes JSON.
_TYPES = {
    frozenset({str}): "TEXT",
    frozenset({bool}): "INTEGER",
    frozenset({int}): "INTEGER",
    frozenset({int, str}): "INTEGER",  # SQLite keeps a text that is not a number as it is
    frozenset({int, float}): "NUMERIC",  # an amount that was sent as a whole number stays one
}


#: Lines that are decoded at a time: with four times as many, decoding takes half as long again.
PIECE_ROWS, PIECE_BYTES = 256, 8 * 1024 * 1024
#: The key of a row in a database. The account is not a column of a call; nor is the reading that wrote it last.
KEY = ("account", "id")
#: The columns that are not fields: they are made from a call's stamps and its zone.
MOMENTS = ("started_at", "ended_at")
#: Attribute and key on the wire of each field of a step, except ``extra``.
STEP_FIELDS = [(field.name, field.encode_name) for field in msgspec.structs.fields(FlowStep) if field.name != "extra"]


class Column(msgspec.Struct, frozen=True):
    """A column: its name is the record's attribute."""

    name: str
    type: str
    converter: Any = None
    #: Python types of what the record holds there, besides None.
    kinds: frozenset[Any] = frozenset()


_encode = msgspec.json.Encoder(enc_hook=str).encode


def as_text(value: Any) -> str | None:
    """Return a text as it is; everything else but None becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    return _encode(value).decode()


def _extra(value: dict[str, Any]) -> str | None:
    return as_text(value) if value else None


def flow_text(steps: Any) -> str | None:
    """Return a call's flow as the JSON that the server sent; a rescued flow as the JSON that it must have meant."""
    if isinstance(steps, msgspec.Raw):
        text = str(steps, "utf-8", "replace")
        return None if text == "null" else text
    return None if steps is None else as_text([_as_sent(step) for step in steps])


def _as_sent(step: FlowStep) -> dict[str, Any]:
    values = ((wire, getattr(step, name)) for name, wire in STEP_FIELDS)
    return {**{wire: value for wire, value in values if value is not None}, **step.extra}


def _moment(value: Any) -> str | None:
    return None if value is None else value.isoformat()


def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types of a union besides None."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return frozenset[Any]().union(*(_kinds(each) for each in get_args(annotation)))
    return frozenset() if annotation is NoneType else frozenset({annotation})


def _columns() -> list[Column]:
    columns: list[Column] = []
    for field in msgspec.structs.fields(CallRecord):
        if field.name in ("extra", "zone"):
            continue
        kinds = _kinds(field.type)
        known = _TYPES.get(kinds)
        converter = flow_text if field.name == "call_flow" else as_text
        columns.append(Column(field.name, known or "TEXT", None if known else converter, kinds))
    columns.append(Column("started_at", "TEXT", _moment))
    columns.append(Column("ended_at", "TEXT", _moment))
    columns.append(Column("extra", "TEXT", _extra))
    return columns


COLUMNS = _columns()
_BY_NAME = {column.name: column for column in COLUMNS}
_values = attrgetter(*(column.name for column in COLUMNS))
_converted = [(index, column.converter) for index, column in enumerate(COLUMNS) if column.converter is not None]


def rows_of(records: Iterable[CallRecord]) -> Iterator[list[Any]]:
    """Yield each call's values in the order of ``COLUMNS``."""
    for record in records:
        row = list(_values(record))
        for index, convert in _converted:
            if row[index] is not None:
                row[index] = convert(row[index])
        yield row


class _FlatRecord(CallRecord, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    call_flow: msgspec.Raw = msgspec.Raw(b"null")  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]


_flat_record = msgspec.json.Decoder(_FlatRecord, strict=False).decode


def flat_records(batch: Batch) -> list[CallRecord]:
    """Decode a window for tables whose ``call_flow`` is JSON: its steps stay the server's text, in half the time.

    Raises:
        MalformedResponseError: if a line is not a call.
    """
    reader = RecordReader()  # if every call has an unknown key, this reader learns it once
    records = [_flat(line, reader) for line in batch.lines]
    if batch.zone is not IST:
        name = name_zone(batch.zone)
        for record in records:
            msgspec.structs.force_setattr(record, "zone", name)
    return records


def _flat(line: bytes, reader: RecordReader) -> CallRecord:
    try:
        record = _flat_record(line)
    except (*UNDECODABLE, RecursionError):
        return _rescued(line, reader)
    # Neither a list nor null: PHP's object in place of a list, or something else to rescue.
    return record if bytes(record.call_flow)[:1] in (b"[", b"n") else _rescued(line, reader)


def _rescued(line: bytes, reader: RecordReader) -> CallRecord:
    (rescued,) = reader.read([line])
    fields = msgspec.structs.asdict(rescued)
    if rescued.call_flow is not None:
        sent = split_object(line)["call_flow"]
        if bytes(sent)[:1] == b"[":
            fields["call_flow"] = sent
    return _FlatRecord(**fields)  # as the others are: their fields are in one order


def pieces_of(batch: Batch) -> Iterator[Batch]:
    """Cut a window into pieces that need little memory when decoded, and fit the processor's cache; none empty."""
    begin = size = 0
    for end, line in enumerate(batch.lines):
        if end > begin and (end - begin >= PIECE_ROWS or size + len(line) > PIECE_BYTES):
            yield Batch(batch.lines[begin:end], batch.zone)
            begin, size = end, 0
        size += len(line)
    if begin < len(batch.lines):
        yield Batch(batch.lines[begin:], batch.zone)


def values_by_name(records: Sequence[CallRecord]) -> dict[str, Sequence[Any]]:
    """Return the fields of some calls, column by column: asking each call for each field takes three times as long."""
    if not records:
        return dict.fromkeys(CallRecord.__struct_fields__, ())
    values = zip(*map(msgspec.structs.astuple, records), strict=True)
    return dict(zip(records[0].__struct_fields__, values, strict=True))


def check_columns(columns: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the chosen columns in the order in which they were chosen; all of them for None.

    Raises:
        ConfigurationError: if no column is chosen, one is unknown or comes twice, or ``columns`` is not a sequence.
    """
    if columns is None:
        return tuple(_BY_NAME)
    if isinstance(columns, str) or not isinstance(columns, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _refused('the columns are not a list of names, such as ["id", "started_at"]')
    chosen: tuple[Any, ...] = tuple(columns)
    if not chosen:
        raise _refused("no column is chosen")
    for number, name in enumerate(chosen, 1):
        if not isinstance(name, str) or name not in _BY_NAME:
            near = get_close_matches(name, _BY_NAME, 1) if isinstance(name, str) else []
            perhaps = f"; perhaps '{near[0]}' is meant" if near else ""
            raise _refused(f"name {number} of the columns is no column{perhaps}")
    if len(set(chosen)) < len(chosen):
        raise _refused("a column is chosen twice")
    return chosen


def columns_named(names: Iterable[str]) -> list[Column]:
    """Return the columns of names that were checked."""
    return [_BY_NAME[name] for name in names]


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(what, fix=f"the columns are {', '.join(_BY_NAME)}")
