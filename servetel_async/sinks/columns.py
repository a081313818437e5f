"""The columns of a call in a database: one for each key of the reference, two moments, and what nobody knows yet."""

from __future__ import annotations

from operator import attrgetter
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import msgspec

from servetel_async.protocol.records import CallRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Converter = Callable[[Any], Any]

#: What a field may hold besides None, and its column. Whatever else is open or nested, so it becomes JSON.
_TYPES = {
    frozenset({str}): "TEXT",
    frozenset({bool}): "INTEGER",
    frozenset({int}): "INTEGER",
    frozenset({int, str}): "INTEGER",  # SQLite keeps a text that is no number as it is
    frozenset({int, float}): "NUMERIC",  # an amount that was sent as a whole number stays one
}


class Column(msgspec.Struct, frozen=True):
    """A column: its name is the record's attribute."""

    name: str
    type: str
    converter: Any = None

    @property
    def declaration(self) -> str:
        """Its part of ``CREATE TABLE``."""
        return f"{self.name} {self.type} PRIMARY KEY NOT NULL" if self.name == "id" else f"{self.name} {self.type}"


def as_text(value: Any) -> str | None:
    """Keep a text as it is; everything else but None becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value, enc_hook=str).decode()


def _extra(value: dict[str, Any]) -> str | None:
    return as_text(value) if value else None


def _moment(value: Any) -> str | None:
    return None if value is None else value.isoformat()


def _kinds(annotation: Any) -> frozenset[Any]:
    """Take a union apart: what a value may be, besides None."""
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
        known = _TYPES.get(_kinds(field.type))
        columns.append(Column(field.name, known or "TEXT", None if known else as_text))
    columns.append(Column("started_at", "TEXT", _moment))
    columns.append(Column("ended_at", "TEXT", _moment))
    columns.append(Column("extra", "TEXT", _extra))
    return columns


COLUMNS = _columns()
_values = attrgetter(*(column.name for column in COLUMNS))
_converted = [(index, column.converter) for index, column in enumerate(COLUMNS) if column.converter is not None]


def rows_of(records: Iterable[CallRecord]) -> Iterator[list[Any]]:
    """Give each call's values in the order of ``COLUMNS``."""
    for record in records:
        row = list(_values(record))
        for index, convert in _converted:
            if row[index] is not None:
                row[index] = convert(row[index])
        yield row
