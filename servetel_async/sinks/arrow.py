"""Calls as columns of Arrow, under a schema that depends on the chosen columns and the account's zone alone.

Whole numbers, amounts, booleans and moments are typed; ``call_flow`` is a list of steps and ``circle`` a struct. What
is open-ended (JSON of any shape, a number in one call and a text in the next) is a string: a text as it is, all else
as JSON.
"""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from servetel_async.protocol.clock import IST, name_zone, zone_named
from servetel_async.protocol.records import Circle
from servetel_async.sinks.columns import MOMENTS, STEP_FIELDS, TEXTS_OF_STEP, as_text, columns_named, moments_of
from servetel_async.sinks.libraries import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from servetel_async.protocol.records import CallRecord, FlowStep
    from servetel_async.sinks.columns import Column

    _Reader = tuple[Callable[[Any], Any], bool]
    Maker = Callable[[list[Any]], Any]

_STEP = [name for name, _ in STEP_FIELDS]
_CIRCLE = ["operator", "circle"]
_NO_CIRCLE = Circle()
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
# Moments outside of these no reader in Python could show; ``date``, ``time`` and ``end_stamp`` have them as text.
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def _extra(step: FlowStep) -> dict[str, Any] | None:
    return step.extra or None


#: How to read each field of a step, and whether it is a text in every call.
_STEP_READERS: list[_Reader] = [
    *((attrgetter(name), name in TEXTS_OF_STEP) for name in _STEP),
    (_extra, False),
]
_CIRCLE_READERS: list[_Reader] = [(attrgetter(name), True) for name in _CIRCLE]


class Table:
    """From calls to arrays.

    Args:
        names: of the columns, as ``check_columns`` gave them.

    Attributes:
        arrow, parquet: the modules; they are imported here and nowhere earlier.

    Raises:
        ConfigurationError: pyarrow is not installed.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        try:
            self.arrow: Any = importlib.import_module("pyarrow")
            self.parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise missing("pyarrow", "parquet") from None
        self._text = self.arrow.string()
        self._step = self.arrow.struct([(name, self._text) for name in (*_STEP, "extra")])
        self._circle = self.arrow.struct([(name, self._text) for name in _CIRCLE])
        self._columns = [(column.name, attrgetter(column.name), *self._kind(column)) for column in columns_named(names)]

    def _kind(self, column: Column) -> tuple[Any, Maker]:
        """Give a column's type, None for a moment's, and how its values become an array."""
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
            frozenset({str}): (self._text, lambda values: arrow.array(values, self._text)),
        }
        convert = column.converter or as_text
        mixed: tuple[Any, Maker] = (self._text, lambda values: self._texts(values, convert))
        return nested.get(column.name) or simple.get(column.kinds) or mixed

    def schema(self, zone: tzinfo) -> Any:
        """Give the names and types of the columns."""
        moment = self._moment(zone)
        return self.arrow.schema([(name, moment if kind is None else kind) for name, _, kind, _ in self._columns])

    def _moment(self, zone: tzinfo) -> Any:
        return self.arrow.timestamp("us", tz=_zone_text(zone))

    def arrays(self, records: Sequence[CallRecord], zone: tzinfo) -> list[Any]:
        """Give the columns of some calls of that zone."""
        known = zone_named(name_zone(zone)) or IST
        columns: list[Any] = []
        for name, value_of, kind, make in self._columns:
            if kind is None:
                moments = _microseconds(moments_of(records, name, known))
                columns.append(self.arrow.array(moments, self._moment(zone)))
                continue
            # Column by column: rows as tuples would keep the garbage collector busy.
            values = list(map(value_of, records))
            empty = values.count(None) == len(values)
            columns.append(self.arrow.nulls(len(values), kind) if empty else make(values))
        return columns

    def _floats(self, values: list[Any]) -> Any:
        """A whole number that no float holds exactly is one that Arrow would refuse."""
        return self.arrow.array([None if value is None else float(value) for value in values], self.arrow.float64())

    def _texts(self, values: list[Any], convert: Callable[[Any], str | None] = as_text) -> Any:
        if set(map(type, values)) - {str, type(None)}:
            values = [
                value if value is None or type(value) is str else str(value) if type(value) is int else convert(value)
                for value in values
            ]
        return self.arrow.array(values, self._text)

    def _flows(self, flows: list[tuple[FlowStep, ...] | None]) -> Any:
        offsets: list[int | None] = []
        end = 0
        for flow in flows:
            offsets.append(None if flow is None else end)
            end += len(flow or ())
        offsets.append(end)
        steps = [step for flow in flows if flow for step in flow]
        children = self._structs(steps, self._step, _STEP_READERS)
        return self.arrow.ListArray.from_arrays(self.arrow.array(offsets, self.arrow.int32()), children)

    def _structs(self, items: list[Any], kind: Any, readers: list[_Reader]) -> Any:
        children: list[Any] = []
        for value_of, is_text in readers:
            values = list(map(value_of, items))
            if values.count(None) == len(values):
                children.append(self.arrow.nulls(len(values), self._text))
            else:
                children.append(self.arrow.array(values, self._text) if is_text else self._texts(values))
        return self.arrow.StructArray.from_arrays(children, fields=list(kind))

    def _circles(self, circles: list[Circle | None]) -> Any:
        known = self._structs([circle or _NO_CIRCLE for circle in circles], self._circle, _CIRCLE_READERS)
        if None not in circles:
            return known
        missing = self.arrow.array([circle is None for circle in circles], self.arrow.bool_())
        return self.arrow.StructArray.from_arrays(known.flatten(), fields=list(self._circle), mask=missing)


def _as_they_are(values: list[Any]) -> Any:
    return values


def _microseconds(moments: Sequence[datetime | None]) -> list[int | None]:
    found = [None if moment is None else (moment - _EPOCH) // _MICROSECOND for moment in moments]
    return [None if value is None or not _FIRST <= value <= _LAST else value for value in found]


def _zone_text(zone: tzinfo) -> str:
    """Name a zone so that every reader knows it: Polars fails on a whole file where one column is in ``+05:30``.

    Moments of another fixed offset are written in UTC; they are the same moments.
    """
    name = name_zone(zone)
    if name is None or name == "UTC+05:30":
        return "Asia/Kolkata"
    return "UTC" if name.startswith("UTC") else name
