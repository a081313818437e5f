"""Rows: a record's own bytes on one line, its key and its start; and what undecodable records become."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.emulator import Dataset
from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.clock import IST
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rows import MANY_BRACKETS, RawRecord, records_of, rows_of
from servetel_async.protocol.verdict import Unacceptable

SAMPLE = json.loads((Path(__file__).parent / "data" / "page.json").read_bytes())["results"][0]
SOUND = b'{"id": "1", "date": "2024-05-06", "time": "09:00:00"}'


def rows(*records, count=None):
    """The rows of a page with these records, as bytes."""
    count = len(records) if count is None else count
    return rows_of(PageReader().read(Reply(200, b'{"count": %d, "results": [%s]}' % (count, b",".join(records))), 0.0))


def one(record):
    (found,) = rows(record)
    return found


def digest(line):
    return f"sha256-{hashlib.sha256(line).hexdigest()[:24]}"


def nested(depth, key=b"notes"):
    return b'{"id": "1", "date": "2024-05-06", "time": "09:00:00", "%s": %s1%s}' % (key, b"[" * depth, b"]" * depth)


def test_a_sound_record_is_its_own_bytes():
    """No byte is changed; its key, start and end are read."""
    line = json.dumps(SAMPLE).encode()
    assert one(line) == RawRecord(line, SAMPLE["id"], f"{SAMPLE['date']} {SAMPLE['time']}", end=SAMPLE["end_stamp"])


@pytest.mark.parametrize(
    ("filed_by", "moment"),
    [("start", "2024-05-06 09:00:00"), ("end", "2024-05-06 09:10:00"), ("insertion", "2024-05-06 12:00:00")],
)
def test_the_moment_under_which_a_server_files_a_call(filed_by, moment):
    """Its start, its end, or the time in its id; the start stays known."""
    key = f"{1714977000:08x}" + "0" * 16
    line = b'{"id": "%s", "date": "2024-05-06", "time": "09:00:00", "end_stamp": "2024-05-06 09:10:00"}' % key.encode()
    page = PageReader().read(Reply(200, b'{"count": 1, "results": [%s]}' % line), 0.0)
    (row,) = rows_of(page, filed_by=filed_by)
    assert (row.moment, row.start, row.id) == (moment, "2024-05-06 09:00:00", key)


@pytest.mark.parametrize("end", [b"null", b"5", b'["x"]', b'""'])
@pytest.mark.parametrize("filed_by", ["end", "insertion"])
def test_a_record_that_does_not_say_its_moment(end, filed_by):
    """Without an end, or with a numeric id, it has no moment but is still a sound record."""
    line = b'{"id": 7, "date": "2024-05-06", "time": "09:00:00", "end_stamp": %s}' % end
    (row,) = rows_of(PageReader().read(Reply(200, b'{"count": 1, "results": [%s]}' % line), 0.0), filed_by=filed_by)
    assert (row.moment, row.reason) == ("", None)


def test_a_month_with_every_quirk_is_lossless():
    """Every record of the emulator keeps its id and means the same as the bytes sent."""
    rough = Dataset.month("2024-05", calls=300, php_quirks=True)
    found = rows(*[call.body for call in rough.calls])
    assert [row.id for row in found] == rough.ids
    assert [row.reason for row in found] == [None] * 300
    assert [json.loads(row.line) for row in found] == list(rough.records())


def test_an_empty_page_has_no_rows():
    """No records give no rows."""
    assert rows() == []


def test_rows_keep_the_order_of_the_page():
    """A broken record keeps its place too."""
    found = rows(SOUND, b"7", SOUND.replace(b'"1"', b'"2"'))
    assert [row.id for row in found] == ["1", digest(b"7"), "2"]


# One line each


@pytest.mark.parametrize("gap", [b"\n", b"\r", b"\r\n", b"\n  \n"])
def test_a_record_over_several_lines_becomes_one(gap):
    """Line ends between tokens are removed and the content stays: NDJSON has one record per line."""
    line = one(SOUND.replace(b", ", b"," + gap)).line
    assert not {b"\n", b"\r"} & {line[place : place + 1] for place in range(len(line))}
    assert json.loads(line) == json.loads(SOUND)


def test_an_escaped_line_end_stays():
    """Inside a text a line end is two characters, so no line ends there."""
    record = SOUND[:-1] + rb', "notes": "a\nb\r"}'
    assert one(record).line == record


def test_text_beyond_ascii_stays():
    """Valid UTF-8 is not changed."""
    record = SOUND[:-1] + ', "notes": "नमस्ते \U0001f600"}'.encode()
    assert one(record).line == record


def test_broken_utf8_becomes_the_replacement_character():
    """A broken name must not make the file unreadable for strict readers; the call is kept."""
    found = one(SOUND[:-1] + b', "agent_name": "A\xff\xfeB"}')
    assert json.loads(found.line)["agent_name"].startswith("A\N{REPLACEMENT CHARACTER}")
    assert (found.id, found.start, found.reason) == ("1", "2024-05-06 09:00:00", None)


# What is not as it should be


@pytest.mark.parametrize(
    ("record", "key", "start"),
    [
        (b'{"id": 7, "date": "2024-05-06", "time": "09:00:00"}', "7", "2024-05-06 09:00:00"),
        (
            b'{"id": 1714657799.11930963, "date": "2024-05-06", "time": "09:00:00"}',
            "1714657799.11930963",
            "2024-05-06 09:00:00",
        ),
        (b'{"id": "a", "date": null, "time": "09:00:00"}', "a", ""),
        (b'{"id": "a", "date": "2024-05-06", "time": null}', "a", ""),
        (b'{"id": "a", "date": "2024-05-06"}', "a", ""),
        (b'{"id": "a", "time": "09:00:00"}', "a", ""),
        (b'{"id": "a"}', "a", ""),
        (b'{"id": "a", "date": "", "time": ""}', "a", " "),
        (b'{"id": "a", "date": "00/00/0000", "time": "24:00"}', "a", "00/00/0000 24:00"),
    ],
)
def test_strange_keys_and_starts(record, key, start):
    """A numeric key is kept as written; a call without a readable date or time has no start but is still a call."""
    assert one(record) == RawRecord(record, key, start)


@pytest.mark.parametrize(
    "record",
    [
        b'{"date": "2024-05-06", "time": "09:00:00"}',
        b'{"id": "", "date": "2024-05-06", "time": "09:00:00"}',
        b'{"id": null, "date": "2024-05-06", "time": "09:00:00"}',
    ],
)
def test_a_record_without_an_id_has_its_content_for_a_key(record):
    """It is distinguished from others and counted once."""
    found = one(record)
    assert (found.id, found.start, found.reason) == (digest(record), "2024-05-06 09:00:00", None)


@pytest.mark.parametrize("record", [b"7", b"null", b'"text"', b"[]", b"{}", b'{"foreign": 1}', b"true"])
def test_what_is_no_call_has_a_reason(record):
    """It is kept with its bytes and a reason; the page's other records are sound."""
    found = rows(SOUND, record)[1]
    assert found.line == record
    assert (found.id, found.start) == (digest(record), "")
    assert found.reason is not None
    assert found.reason.startswith(("it is no JSON object", "it holds no key of a call"))


def test_a_reason_shows_no_content():
    """It names size and digest, never the content."""
    reason = one(b'{"foreign": "+919812345678"}').reason
    assert reason is not None
    assert "98123" not in reason


def test_two_unreadable_records_are_two():
    """Other bytes are another record; the same bytes are always the same one."""
    first, second, again = rows(b"7", b"8", b"7")
    assert first.id == again.id != second.id


# Depth


def test_many_brackets_are_looked_at_closely():
    """A record with any number of short lists is sound."""
    record = SOUND[:-1] + b', "notes": [' + b",".join([b"[]"] * (MANY_BRACKETS + 1)) + b"]}"
    found = one(record)
    assert (found.line, found.id, found.start, found.reason) == (record, "1", "2024-05-06 09:00:00", None)


@pytest.mark.parametrize("depth", [MANY_BRACKETS - 1, MANY_BRACKETS, MANY_BRACKETS + 1])
def test_at_the_bound_of_brackets(depth):
    """The close look gives the same row as the quick one."""
    found = one(nested(depth))
    assert (found.id, found.start, found.reason) == ("1", "2024-05-06 09:00:00", None)


def deeper(frames, work):
    """Call it from a deeper stack: a pull reads rows elsewhere than it proves pages."""
    return work() if frames == 0 else deeper(frames - 1, work)


@pytest.mark.parametrize("key", [b"notes", b"unknown", b"call_flow"])
def test_no_depth_breaks_a_row(key):
    """A record nested too deeply is a row with a reason; a row without a reason can be decoded later."""
    record = nested(1, key)
    for depth in range(800, 1100):
        record = nested(depth, key)
        try:
            page = PageReader().read(Reply(200, b'{"count": 2, "results": [%s, %s]}' % (SOUND, record)), 0.0)
            page.open()
        except Unacceptable:
            break  # the page's own proof refuses it
        sound, deep = deeper(60, lambda page=page: rows_of(page))
        assert (sound.id, sound.reason) == ("1", None)
        assert deep.line == record
        if deep.reason is None:
            assert len(deeper(60, lambda deep=deep: records_of([deep.line]))) == 1


# Typed


def test_records_of():
    """Sound rows become records, even those that need the rescue."""
    found = rows(SOUND, b'{"id": 7, "date": null, "foreign": [1]}')
    first, second = records_of([row.line for row in found])
    assert (first.id, first.date, first.time) == ("1", "2024-05-06", "09:00:00")
    assert (second.id, second.extra) == ("7", {"foreign": [1]})


def test_records_of_another_zone_carry_it():
    """The zone of its moments goes with the record; IST is not written."""
    (plain,) = records_of([SOUND])
    (abroad,) = records_of([SOUND], ZoneInfo("Europe/London"))
    assert plain.started_at.utcoffset() == IST.utcoffset(None)
    assert abroad.started_at.utcoffset().total_seconds() == 3600


def test_records_of_what_is_not_sound():
    """The error names the place of an unreadable line."""
    with pytest.raises(MalformedResponseError, match="Record 2 of the page cannot be read"):
        records_of([SOUND, b"7"])


# Anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "date", "time", "x"]) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_becomes_one_row(value):
    """Any record becomes one line of JSON with the same meaning, a key, and perhaps a reason."""
    line = msgspec.json.encode(json.loads(json.dumps(value)))
    found = one(line)
    assert found.id
    assert b"\n" not in found.line
    assert msgspec.json.decode(found.line) == msgspec.json.decode(line)
    if found.reason is None:
        assert [record.id for record in records_of([found.line])] == [found.id]
