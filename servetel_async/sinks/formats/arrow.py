"""Calls as columns of Arrow. The schema depends only on the chosen columns and the account's zone.

Whole numbers, amounts, booleans and moments are typed; ``call_flow`` is a list of steps and ``circle`` a struct. An
open-ended value (JSON of any shape, a number in one call and a text in the next) is a string: a text as it is, all else
as JSON.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple

from servetel_async.protocol.clock import IST, name_zone, zone_named
from servetel_async.protocol.records import Circle, FlowStep
from servetel_async.sinks.extras import missing
from servetel_async.sinks.table.columns import MOMENTS, as_text, columns_named, values_by_name
from servetel_async.sinks.table.timestamps import microseconds_of, stamps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.table.columns import Column

    Maker = Callable[[Sequence[Any]], Any]

_NO_CIRCLE = Circle()


class Table:
    """Converts calls to Arrow arrays.

    Args:
        names: names of the columns, from ``check_columns``.

    Attributes:
        arrow, parquet: the modules; they are imported here and nowhere earlier.

    Raises:
        ConfigurationError: if pyarrow is not installed.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        try:
            self.arrow: Any = importlib.import_module("pyarrow")
            self.parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise missing("pyarrow", "parquet") from None
        self._text = self.arrow.string()
        self._step = self.arrow.struct([(name, self._text) for name in FlowStep.__struct_fields__])
        self._circle = self.arrow.struct([(name, self._text) for name in Circle.__struct_fields__])
        self._columns = [(column.name, *self._kind(column)) for column in columns_named(names)]

    def _kind(self, column: Column) -> tuple[Any, Maker]:
        """Return a column's type (None for a moment) and the function that makes an array of its values."""
        arrow = self.arrow
        if column.name in MOMENTS:
            return None, _as_they_are
        nested: dict[str, tuple[Any, Maker]] = {
            "call_flow": (arrow.list_(self._step), self._flows),
            "circle": (self._circle, self._circles),
        }
        simple: dict[frozenset[Any], tuple[Any, Maker]] = {
            frozenset({bool}): (arrow.bool_(), lambda values: arrow.array(values, arrow.bool_())),
            frozenset({int}): (arrow.int64(), lambda values: arrow.array(values, arrow.int64())),
            frozenset({int, float}): (arrow.float64(), self._floats),
        }
        convert = column.converter or as_text
        mixed: tuple[Any, Maker] = (self._text, lambda values: self._texts(values, convert))
        return nested.get(column.name) or simple.get(column.kinds) or mixed

    def schema(self, zone: tzinfo) -> Any:
        """Return the names and types of the columns."""
        moment = self._moment(zone)
        return self.arrow.schema([(name, moment if kind is None else kind) for name, kind, _ in self._columns])

    def _moment(self, zone: tzinfo) -> Any:
        return self.arrow.timestamp("us", tz=_zone_text(zone))

    def arrays(self, records: Sequence[CallRecord], zone: tzinfo) -> list[Any]:
        """Return the columns of some calls of that zone."""
        known = zone_named(name_zone(zone)) or IST
        fields = values_by_name(records)
        columns: list[Any] = []
        for name, kind, make in self._columns:
            if kind is None:
                moments = microseconds_of(stamps_of(fields, name), known)
                columns.append(self.arrow.array(moments, self._moment(zone)))
                continue
            values = fields[name]
            empty = values.count(None) == len(values)
            columns.append(self.arrow.nulls(len(values), kind) if empty else make(values))
        return columns

    def _floats(self, values: Sequence[Any]) -> Any:
        """Convert numbers to floats first: Arrow refuses a whole number that no float holds exactly."""
        return self.arrow.array([None if value is None else float(value) for value in values], self.arrow.float64())

    def _texts(self, values: Sequence[Any], convert: Callable[[Any], str | None] = as_text) -> Any:
        try:
            return self.arrow.array(values, self._text)
        except self.arrow.ArrowException:  # not all of them are texts
            texts = [
                value if value is None or type(value) is str else str(value) if type(value) is int else convert(value)
                for value in values
            ]
        return self.arrow.array(texts, self._text)

    def _flows(self, flows: Sequence[tuple[FlowStep, ...] | None]) -> Any:
        offsets: list[int | None] = []
        end = 0
        for flow in flows:
            offsets.append(None if flow is None else end)
            end += len(flow or ())
        offsets.append(end)
        steps = [step for flow in flows if flow for step in flow]
        children = self._structs(steps, self._step)
        return self.arrow.ListArray.from_arrays(self.arrow.array(offsets, self.arrow.int32()), children)

    def _structs(self, items: Sequence[FlowStep | Circle], kind: Any) -> Any:
        names = [field.name for field in kind]
        columns: Iterable[Sequence[Any]] = zip(*map(astuple, items), strict=True) if items else [()] * len(names)
        children: list[Any] = []
        for name, values in zip(names, columns, strict=True):
            texts: Sequence[Any] = [value or None for value in values] if name == "extra" else values
            empty = texts.count(None) == len(texts)
            children.append(self.arrow.nulls(len(texts), self._text) if empty else self._texts(texts))
        return self.arrow.StructArray.from_arrays(children, fields=list(kind))

    def _circles(self, circles: Sequence[Circle | None]) -> Any:
        known = self._structs([circle or _NO_CIRCLE for circle in circles], self._circle)
        if None not in circles:
            return known
        missing = self.arrow.array([circle is None for circle in circles], self.arrow.bool_())
        return self.arrow.StructArray.from_arrays(known.flatten(), fields=list(self._circle), mask=missing)


def _as_they_are(values: Sequence[Any]) -> Any:
    return values


def _zone_text(zone: tzinfo) -> str:
    """Return a zone's name that every reader knows: Polars fails on a whole file if one column is in ``+05:30``.

    Moments of another fixed offset are written in UTC; they are the same moments.
    """
    name = name_zone(zone)
    if name is None or name == "UTC+05:30":
        return "Asia/Kolkata"
    return "UTC" if name.startswith("UTC") else name
