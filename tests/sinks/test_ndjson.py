"""NDJSON: the server's own bytes, one record per line; standard output gets them as they come."""

from __future__ import annotations

import gzip
import hashlib
import json
import os

import pytest

from servetel_async import OutputError
from servetel_async.sinks.formats.ndjson import LinesEncoder, StdoutSink
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, open_for

SAMPLE = b"""{
  "id": "66339a440ac50d47500dbc9e",
  "charges": 1.50,
  "unknown_key": {"big": 123456789012345678901234567890, "tiny": 1e400, "minus": -0.0},
  "agent_name": "\\u00e9\xc3\xa9 \xe2\x80\xa8 \\/",
  "missed_agents": [ ]
}"""
SPAN = Span("2024-05-01 00:00:00", "2024-05-01 23:59:59")


def encode(path, *batches, packing=None):
    encoder = LinesEncoder(packing)
    encoder.open(path)
    for batch in batches:
        encoder.write(batch)
    encoder.close()
    return path.read_bytes()


def test_a_record_stays_byte_for_byte(batch_of, tmp_path):
    """A record on one line keeps its spaces, escapes, order and number text."""
    row = b'{"id":"1", "z": 1.10,"a":[ 1E5 ],"name":"\\u0041\\/"}'
    assert encode(tmp_path / "a", batch_of(row)) == row + b"\n"


def test_pretty_printed_json_becomes_one_line(batch_of, tmp_path):
    """Line ends between tokens are removed; keys keep their order and numbers their digits."""
    line = encode(tmp_path / "a", batch_of(SAMPLE))
    assert line.count(b"\n") == 1
    assert json.loads(line) == json.loads(SAMPLE)
    for text in (b"1.50", b"123456789012345678901234567890", b"1e400", b"-0.0", b"\\u00e9\xc3\xa9", b"\\/"):
        assert text in line
    assert list(json.loads(line)) == list(json.loads(SAMPLE))


def test_line_separators_inside_a_text_break_no_line(batch_of, tmp_path):
    """U+2028 and an escaped line end are part of the text; each record stays on one line."""
    rows = [b'{"id":"1","notes":"a\xe2\x80\xa8b\\nc"}', b'{"id":"2"}']
    assert encode(tmp_path / "a", batch_of(*rows)).split(b"\n") == [*rows, b""]


def test_windows_follow_one_another(batch_of, tmp_path):
    """A window without calls adds nothing, and an empty result is an empty file."""
    assert encode(tmp_path / "a", batch_of(b'{"id":"1"}'), batch_of(), batch_of(b'{"id":"2"}')) == (
        b'{"id":"1"}\n{"id":"2"}\n'
    )
    assert encode(tmp_path / "b") == b""


def test_packed_lines_are_the_same_lines(hostile, tmp_path):
    """Texts that harm some reader are unchanged."""
    plain, packed = encode(tmp_path / "a", hostile), encode(tmp_path / "b", hostile, packing=".gz")
    assert gzip.decompress(packed) == plain
    assert plain.splitlines() == hostile.lines


@pytest.fixture
def pipe(monkeypatch):
    """A pipe in place of standard output; returns the end to read from."""
    reading, writing = os.pipe()
    monkeypatch.setattr("servetel_async.sinks.formats.ndjson._STDOUT", writing)
    yield reading
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue


def test_standard_output_gets_each_window_at_once(batch_of, pipe):
    """A reader of the pipe sees calls as they come; size and digest are those of the printed bytes."""
    sink = StdoutSink()
    assert open_for(sink, PullIdentity("pull", "scope", "account")) is None
    sink.begin(b"{}")
    sink.commit(batch_of(b'{"id":"1"}'), SPAN, b"{}")
    assert os.read(pipe, 100) == b'{"id":"1"}\n'
    assert finished(sink) == (11, hashlib.sha256(b'{"id":"1"}\n').hexdigest(), {})
    sink.abandon()


def test_a_reader_that_has_gone_is_told(batch_of, pipe):
    """A closed pipe is an output error, not a traceback."""
    os.close(pipe)
    with pytest.raises(OutputError, match="has gone"):
        StdoutSink().commit(batch_of(b'{"id":"1"}'), SPAN, b"{}")
