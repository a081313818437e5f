"""CSV: every field of every call, for spreadsheets and for programs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servetel_async import MalformedResponseError
from servetel_async.protocol.clock import IST
from servetel_async.sinks.formats.csv import CsvEncoder
from servetel_async.sinks.sink import Batch
from servetel_async.sinks.table.columns import check_columns
from tests.sinks.spreadsheets import QUOTES, SEPARATORS, SIGNS, cells, is_formula, without_guards


def encode(path, *batches, columns=None, packing=None):
    encoder = CsvEncoder(check_columns(columns), packing)
    encoder.open(path)
    for batch in batches:
        encoder.write(batch)
    encoder.close()
    return path.read_bytes()


def read(data):
    csv.field_size_limit(2_000_000)
    header, *rows = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def field(path, batch, name):
    (row,) = read(encode(path, batch))
    return row[name]


def test_every_field_is_what_the_server_sent(realistic, expected, tmp_path):
    """Numbers, moments, JSON and texts of 250 calls in every odd form are compared one by one."""
    rows = read(encode(tmp_path / "a", realistic))
    assert len(rows) == len(realistic.lines) == 250
    for line, row in zip(realistic.lines, rows, strict=True):
        for name in check_columns(None):
            value, text = expected(line, name), row[name]
            if value is None or value == "":
                assert text == "", name
            elif isinstance(value, bool):
                assert text == ("true" if value else "false"), name
            elif isinstance(value, float):
                assert float(text) == value, name
            elif name in ("started_at", "ended_at"):
                assert text == value.isoformat(), name
            elif isinstance(value, str):
                assert text == value, name
            else:
                assert json.loads(text) == value, name


def test_hostile_texts_reach_every_reader(hostile, tmp_path):
    """A strict reader gets one row per call, with its own id and all its fields."""
    data = encode(tmp_path / "a", hostile)
    rows = read(data)
    assert len(rows) == len(hostile.lines)
    for record, row in zip(hostile.records(), rows, strict=True):
        assert without_guards(row["id"].replace("\u2400", "\0")) == without_guards(record.id)
        name = (record.agent_name or "").replace("\0", "\u2400")
        assert without_guards(row["agent_name"]) == without_guards(name)


def test_no_field_is_a_formula(hostile, tmp_path):
    """Whatever a text begins with, a spreadsheet sees text; only numbers and phone numbers keep their sign."""
    for row in read(encode(tmp_path / "a", hostile)):
        for name, text in row.items():
            if text[:1] in tuple("=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20"):
                assert text.removeprefix("+").isdigit() or float(text) <= 0, name


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\\t=1",
        "\\r=1",
        "\\n=1",
        "\\u0000=1",
        "\\uff1d1",
        "-5",
        "+12345",
        "+1234567890123456",
    ],
)
@pytest.mark.parametrize("name", ["agent_name", "notes", "id", "date", "agent_ring_time"])
def test_a_text_that_could_be_a_formula_gets_a_quote(batch_of, tmp_path, name, text):
    """This holds for plain and open-ended fields, even if the text only looks like a number."""
    call = {"id": "1", name: json.loads(f'"{text}"')}
    value = field(tmp_path / "a", batch_of(json.dumps(call).encode()), name)
    if name == "agent_ring_time" and text in ("-5", "+12345", "+1234567890123456"):
        assert value.lstrip("'") in (text, text.lstrip("+"))
    else:
        given = json.loads(f'"{text}"').replace("\0", "\u2400")
        assert value == "'" + (given if given[0] not in "\t\r\n" else f"{given[0]}'{given[1:]}")


@pytest.mark.parametrize("separators", SEPARATORS)
@pytest.mark.parametrize("quote", QUOTES)
def test_no_cell_is_a_formula_wherever_a_spreadsheet_splits(separators, quote, batch_of, tmp_path):
    """No sign stands unguarded after a separator, even behind invisible characters or quotes."""
    texts = [
        f"x{before}{between}{after}{sign}1+cmd|' /C calc'!A0"
        for before in (*",;|\t\r\n", "\r\n", ", ;", "")
        for between in ("", '"', "'", '""', "\u200b", "\ufeff")
        for after in ("", "\t", ";")
        for sign in SIGNS
    ]
    texts += ["x;-5\t+cmd|' /C calc'!A0", "x;-5;=1+1", "x\t+5\r\n=1+1", "x;-1.5e", "x;+919876543210+1"]
    lines = [
        json.dumps({"id": str(number), "agent_name": text, "missed_agents": [text, -5, {text: text}]}).encode()
        for number, text in enumerate(texts)
    ]
    found = cells(encode(tmp_path / "a", batch_of(*lines)), SEPARATORS[separators], QUOTES[quote])
    assert [cell for cell in found if is_formula(cell)] == []
    assert any("calc" in cell for cell in found)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a;=1", "a;'=1"),
        ("a, -b", "a, -b"),
        ("a,-b", "a,'-b"),
        ("a;-5", "a;-5"),
        ("a;+919876543210", "a;+919876543210"),
        ("a;+919876543210;b", "a;'+919876543210;b"),
        ('a;"=1', "a;\"'=1"),
        ("a;'=1", "a;''=1"),
        ("=1;=2", "'=1;'=2"),
        ("Delhi - Sales, north", "Delhi - Sales, north"),
        ("a=1;b-2", "a=1;b-2"),
    ],
)
def test_a_sign_behind_a_separator_gets_a_quote(text, written, batch_of, tmp_path):
    """A number there does not, nor does a sign inside a word."""
    assert (
        field(tmp_path / "a", batch_of(json.dumps({"id": "1", "agent_name": text}).encode()), "agent_name") == written
    )


def test_json_with_negative_numbers_stays_json(batch_of, tmp_path):
    """The minus of a number is no formula, wherever a line is split."""
    value = [1, -5, {"a": -1.5, "b": [-2, -3]}]
    call = json.dumps({"id": "1", "missed_agents": value}, separators=(",", ":")).encode()
    assert json.loads(field(tmp_path / "a", batch_of(call), "missed_agents")) == value


@pytest.mark.parametrize("text", ["+919876543210", "919876543210", "+123456", "+123456789012345", "'=1", " =1", "a=1"])
def test_phone_numbers_and_other_texts_stay_as_they_are(batch_of, tmp_path, text):
    """A ``+`` before six to fifteen digits is no formula."""
    assert (
        field(tmp_path / "a", batch_of(json.dumps({"id": "1", "client_number": text}).encode()), "client_number")
        == text
    )


def test_numbers_stay_numbers(batch_of, tmp_path):
    """The minus of a number is no formula, and 2**63-1 keeps its digits."""
    (row,) = read(
        encode(
            tmp_path / "a",
            batch_of(
                b'{"id":"1","call_duration":-5,"answered_seconds":9223372036854775807,"charges":-1.25,"notes":-7}'
            ),
        )
    )
    assert (row["call_duration"], row["answered_seconds"], row["charges"], row["notes"]) == (
        "-5",
        "9223372036854775807",
        "-1.25",
        "-7",
    )


def test_a_nul_is_made_visible(batch_of, tmp_path):
    """Many readers stop at a NUL: it becomes U+2400 in texts, and an escape in JSON."""
    data = encode(tmp_path / "a", batch_of(b'{"id":"1","agent_name":"a\\u0000b","missed_agents":["a\\u0000b"]}'))
    assert b"\0" not in data
    (row,) = read(data)
    assert (row["agent_name"], row["missed_agents"]) == ("a\u2400b", '["a\\u0000b"]')


def test_control_characters_and_line_separators_stay(batch_of, tmp_path):
    """ESC and U+2028 are ordinary characters; line ends within a text are quoted."""
    text = "\x1b[31mred\u2028\r\n\x85"
    assert field(tmp_path / "a", batch_of(json.dumps({"id": "1", "agent_name": text}).encode()), "agent_name") == text


def test_a_lone_surrogate_is_a_replacement_character(batch_of, tmp_path):
    """No file can hold one; a line with one that came from no page is refused, never half written."""
    batch = batch_of(b'{"id":"1","agent_name":"a\\ud800b"}')
    assert field(tmp_path / "a", batch, "agent_name") == "a\ufffdb"
    with pytest.raises(MalformedResponseError):
        encode(tmp_path / "b", Batch([b'{"id":"1","agent_name":"a\\ud800b"}'], IST))


def test_a_megabyte_is_a_field(batch_of, tmp_path):
    """No text is cut."""
    batch = batch_of(b'{"id":"1","notes":"%s"}' % (b"x" * 1_000_000))
    assert field(tmp_path / "a", batch, "notes") == "x" * 1_000_000


def test_line_ends_and_header(batch_of, tmp_path):
    """Header and records end in CRLF, there is no byte order mark, and a missing value is an empty field."""
    data = encode(tmp_path / "a", batch_of(b'{"id":"1"}'), columns=["id", "notes", "status"])
    assert data == b"id,notes,status\r\n1,,\r\n"


def test_no_call_at_all_is_a_header(batch_of, tmp_path):
    """The file is only a header, with or without an empty window."""
    assert encode(tmp_path / "a", columns=["id", "notes"]) == b"id,notes\r\n"
    assert encode(tmp_path / "b", batch_of(), columns=["id", "notes"]) == b"id,notes\r\n"


def test_one_column_without_a_value_is_still_a_record(batch_of, tmp_path):
    """Readers would skip an empty line."""
    data = encode(tmp_path / "a", batch_of(b'{"id":"1"}', b'{"id":"2","notes":"x"}'), columns=["notes"])
    assert data == b'notes\r\n""\r\nx\r\n'


def test_columns_come_in_the_chosen_order(batch_of, tmp_path):
    """This includes columns of moments."""
    call = b'{"id":"1","date":"2024-05-02","time":"19:19:59"}'
    assert encode(tmp_path / "a", batch_of(call), columns=["started_at", "id"]).endswith(
        b"2024-05-02T19:19:59+05:30,1\r\n"
    )


@pytest.mark.parametrize(
    ("zone", "offset"),
    [
        (ZoneInfo("Europe/London"), "+01:00"),
        (timezone(timedelta(hours=-8), "mine"), "-08:00"),
        (UTC, "+00:00"),
    ],
)
def test_moments_carry_the_offset_of_the_accounts_zone(batch_of, tmp_path, zone, offset):
    """Summer time is included."""
    call = b'{"id":"1","date":"2024-05-02","time":"19:19:59","end_stamp":"2024-05-02 19:20:57"}'
    (row,) = read(encode(tmp_path / "a", batch_of(call, zone=zone)))
    assert (row["started_at"], row["ended_at"]) == (f"2024-05-02T19:19:59{offset}", f"2024-05-02T19:20:57{offset}")


def test_windows_larger_than_a_piece_keep_their_order(batch_of, tmp_path):
    """A window is decoded piece by piece."""
    batch = batch_of(*(b'{"id":"%d"}' % index for index in range(1000)))
    assert [row["id"] for row in read(encode(tmp_path / "a", batch))] == [str(index) for index in range(1000)]


def test_packed_csv_is_the_same_csv(realistic, tmp_path):
    """Packing does not change the format inside."""
    assert gzip.decompress(encode(tmp_path / "a", realistic, packing=".gz")) == encode(tmp_path / "b", realistic)


def test_an_odd_call_flow_is_read_as_it_was_meant(batch_of, tmp_path):
    """PHP's object in place of a list becomes the list, with the API's keys; a real list stays as sent."""
    flow = b'{"1":{"type":"b","readableTime":"x","odd":[1]},"0":{"type":"a","time":1.50}}'
    assert json.loads(field(tmp_path / "a", batch_of(b'{"id":"1","call_flow":%s}' % flow), "call_flow")) == [
        {"type": "a", "time": 1.5},
        {"type": "b", "readableTime": "x", "odd": [1]},
    ]
    honest = b'[ {"time":1.50,"type":null} ]'
    assert field(tmp_path / "b", batch_of(b'{"id":"1","call_flow":%s}' % honest), "call_flow") == honest.decode()


def test_a_new_key_in_every_call_takes_nothing_from_the_others(realistic, batch_of, tmp_path):
    """The server was updated: the key goes to ``extra``, and the other fields do not change."""
    plain = [line for line in realistic.lines if json.loads(line).keys() <= set(check_columns(None))]
    updated = [line.rstrip()[:-1] + b',"brand_new":{"a":[1]}}' for line in plain]
    before = read(encode(tmp_path / "a", batch_of(*plain)))
    after = read(encode(tmp_path / "b", batch_of(*updated)))
    assert len(after) == len(plain) > 100
    for old, new in zip(before, after, strict=True):
        extra = json.loads(new.pop("extra"))
        assert extra.pop("brand_new") == {"a": [1]}
        assert extra == json.loads(old.pop("extra") or "{}")
        assert new == old


def test_the_file_is_private(tmp_path):
    """It has mode 0600 from its first moment, whatever the umask."""
    before = os.umask(0)
    try:
        encoder = CsvEncoder(check_columns(None))
        encoder.open(tmp_path / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    encoder.abandon()
    encoder.abandon()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_any_text_comes_back(batch_of, tmp_path, texts):
    """Texts are quoted by RFC 4180, so the standard library reads them back."""
    calls = [json.dumps({"id": "1", "agent_name": one, "notes": two}).encode() for one, two in texts]
    path = tmp_path / "a"
    path.unlink(missing_ok=True)
    rows = read(encode(path, batch_of(*calls)))
    for (one, two), row in zip(texts, rows, strict=True):
        for text, got in ((one, row["agent_name"]), (two, row["notes"])):
            assert without_guards(got) == without_guards(text.replace("\0", "\u2400"))
