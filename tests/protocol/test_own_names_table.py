"""A server that sends a key with one of our own names: it is an ordinary unknown key, at every level."""

from __future__ import annotations

import json

import pytest

from servetel_async.protocol.clock import IST
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.records import EXTRA, ZONE
from servetel_async.protocol.reply import Reply
from servetel_async.sinks.table.columns import COLUMNS, rows_of

CALL = {"id": "1", "date": "2024-05-06", "time": "10:00:00"}
OURS = {
    "extra": (EXTRA, {"a": 1}),
    "extra of a wrong kind": (EXTRA, 5),
    "extra, null": (EXTRA, None),
    "zone": (ZONE, "Europe/London"),
    "zone, null": (ZONE, None),
    "an attribute": ("extra", {"a": 1}),
    "another attribute": ("zone", "Europe/London"),
    "a column": ("started_at", "never"),
    "a learnt slot": ("unknown_0", 1),
    "a method": ("is_answered", True),
}
each = pytest.mark.parametrize(("key", "value"), OURS.values(), ids=OURS)
escaped = pytest.mark.parametrize(
    "write", [str, lambda text: text.replace("_", "\\u005f", 1)], ids=["plain", "escaped"]
)


def read(records, write=str, **envelope):
    text = json.dumps({"results": records, "count": len(records), **envelope})
    page = PageReader().take(Reply(200, write(text).encode() + b" " * 8192 + b"\n", {}), 0.0)
    page.open()
    return page


@escaped
@each
def test_in_a_record(key, value, write):
    """``extra`` keeps the key, and it sets no field, even if it comes in every record; the zone stays."""
    if "_" not in key:
        write = str
    records = read([CALL | {"id": str(number), key: value} for number in range(9)], write).records()

    assert [record.extra for record in records] == [{key: value}] * 9
    assert {record.zone for record in records} == {None}
    assert {record.started_at.utcoffset() for record in records} == {IST.utcoffset(None)}
    (row,) = {tuple(row[1:]) for row in rows_of(records)}
    assert json.loads(row[[column.name for column in COLUMNS].index("extra") - 1]) == {key: value}


@each
def test_in_a_step_of_the_flow(key, value):
    """The step keeps it under its name."""
    (record,) = read([CALL | {"call_flow": [{"type": "init", key: value}]}]).records()

    (step,) = record.call_flow
    assert step.extra == {key: value}
    assert (step.type, record.extra) == ("init", {})


@each
def test_in_the_circle(key, value):
    """The circle is read without the key, and everything sent is kept."""
    circle = {"operator": "Airtel", "circle": "Delhi", key: value}
    (record,) = read([CALL | {"circle": circle}]).records()

    assert (record.circle.operator, record.circle.circle) == ("Airtel", "Delhi")
    assert record.extra == {"circle": circle}


@each
def test_in_the_envelope(key, value):
    """Unknown keys of the envelope change nothing."""
    page = read([CALL], **{key: value, "_records": 5, "reader": 5, "body": 5})

    assert (page.count, [record.id for record in page.records()]) == (1, ["1"])
