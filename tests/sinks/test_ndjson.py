"""NDJSON: the server's own bytes, one record per line, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat

import pytest

from servetel_async import OutputError, OutputLockedError
from servetel_async.sinks.ndjson import NdjsonSink, lines_of

SAMPLE = b"""{
  "id": "66339a440ac50d47500dbc9e",
  "charges": 1.50,
  "unknown_key": {"big": 123456789012345678901234567890, "tiny": 1e400, "minus": -0.0},
  "agent_name": "\\u00e9\xc3\xa9 \xe2\x80\xa8 \\/",
  "missed_agents": [ ]
}"""


def test_a_record_stays_byte_for_byte(page_of):
    """A record that stands on one line is written as it was sent: spaces, escapes, order and number text."""
    row = b'{"id":"1", "z": 1.10,"a":[ 1E5 ],"name":"\\u0041\\/"}'
    assert lines_of(page_of(row)) == row + b"\n"


def test_pretty_printed_json_becomes_one_line(page_of):
    """Line ends between tokens go; keys keep their order and numbers their digits."""
    line = lines_of(page_of(SAMPLE))
    assert line.count(b"\n") == 1
    assert json.loads(line) == json.loads(SAMPLE)
    for text in (b"1.50", b"123456789012345678901234567890", b"1e400", b"-0.0", b"\\u00e9\xc3\xa9", b"\\/"):
        assert text in line
    assert list(json.loads(line)) == list(json.loads(SAMPLE))


def test_line_separators_inside_a_text_break_no_line(page_of):
    """U+2028 and an escaped line end belong to the text; the file still has one record per line."""
    rows = [b'{"id":"1","notes":"a\xe2\x80\xa8b\\nc"}', b'{"id":"2"}']
    assert lines_of(page_of(*rows)).split(b"\n") == [*rows, b""]


def test_broken_utf8_does_not_spoil_the_file(page_of):
    """Bytes that are no UTF-8 become U+FFFD, so that every strict reader can read the other records."""
    lines = lines_of(page_of(b'{"id":"1","agent_name":"a\xffb"}', b'{"id":"2"}')).decode()
    assert [json.loads(line)["id"] for line in lines.splitlines()] == ["1", "2"]


def test_only_calls_that_passed_the_sieve_are_written(page_of):
    """A duplicate that the stream dropped is not in the file either; the first one is the one that stays."""
    first, twin, other = b'{"id":"1","time":"a","n":1}', b'{"id":"1","time":"a","n":2}', b'{"id":2}'
    assert lines_of(page_of(first, twin, other, keep=(0, 2))) == first + b"\n" + other + b"\n"
    assert lines_of(page_of(first, twin, other, keep=(2,))) == other + b"\n"
    assert lines_of(page_of(first, keep=())) == b""


def test_a_call_without_an_id_is_found_again(page_of):
    """A record without an id is matched by its content, which is its key."""
    rows = (b'{"status":"missed"}', b'{"id":"1"}', b'{"status":"answered"}')
    assert lines_of(page_of(*rows, keep=(1, 2))) == rows[1] + b"\n" + rows[2] + b"\n"


def test_the_file_appears_at_commit(page_of, tmp_path):
    """Until commit there is only the part file; afterwards only the file, mode 0600, with the digest of its bytes."""
    before = os.umask(0)
    try:
        sink = NdjsonSink(tmp_path / "a.ndjson")
        sink.open()
        sink.write(page_of(b'{"id":"1"}'))
        assert {path.name for path in tmp_path.iterdir()} == {"a.ndjson.part", "a.ndjson.lock"}
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
        sink.commit()
        sink.abandon()
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("a.ndjson", 0o600)
    assert (sink.size, sink.sha256) == (11, hashlib.sha256(file.read_bytes()).hexdigest())


def test_abandoning_leaves_nothing(page_of, tmp_path):
    """What was written and not committed is gone, and so are part file and lock."""
    sink = NdjsonSink(tmp_path / "a.ndjson")
    sink.open()
    sink.write(page_of(b'{"id":"1"}'))
    sink.abandon()
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_refused(tmp_path):
    """A file, or a link that points nowhere, is never replaced unasked."""
    (tmp_path / "a.ndjson").write_text("mine")
    (tmp_path / "b.ndjson").symlink_to(tmp_path / "nowhere")
    for name in ("a.ndjson", "b.ndjson"):
        with pytest.raises(OutputError, match="exists"):
            NdjsonSink(tmp_path / name).open()
    assert (tmp_path / "a.ndjson").read_text() == "mine"


def test_a_file_that_appears_meanwhile_is_not_replaced(page_of, tmp_path):
    """The name is taken atomically at commit: whoever was faster keeps it."""
    sink = NdjsonSink(tmp_path / "a.ndjson")
    sink.open()
    sink.write(page_of(b'{"id":"1"}'))
    (tmp_path / "a.ndjson").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        sink.commit()
    sink.abandon()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.ndjson", "mine")]


def test_overwrite_replaces_at_commit_only(page_of, tmp_path):
    """The old file stays whole until the new one is."""
    target = tmp_path / "a.ndjson"
    target.write_text("old")
    sink = NdjsonSink(target, overwrite=True)
    sink.open()
    sink.write(page_of(b'{"id":"1"}'))
    assert target.read_text() == "old"
    sink.commit()
    sink.abandon()
    assert target.read_text() == '{"id":"1"}\n'


def test_a_second_writer_is_locked_out(tmp_path):
    """The second sink on one output fails at once, and takes nothing away from the first."""
    first, second = NdjsonSink(tmp_path / "a.ndjson"), NdjsonSink(tmp_path / "a.ndjson")
    first.open()
    with pytest.raises(OutputLockedError):
        second.open()
    second.abandon()
    first.commit()
    first.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a.ndjson"]


def test_leftovers_of_a_killed_run_are_in_nobodys_way(page_of, tmp_path):
    """A part file and a lock file without a living holder are taken over, also where they are planted links."""
    (tmp_path / "a.ndjson.lock").write_text("")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.ndjson.part").symlink_to(tmp_path / "precious")
    sink = NdjsonSink(tmp_path / "a.ndjson")
    sink.open()
    sink.write(page_of(b'{"id":"1"}'))
    sink.commit()
    sink.abandon()
    assert {path.name for path in tmp_path.iterdir()} == {"a.ndjson", "precious"}
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_missing_directory_is_an_output_error(tmp_path):
    """The system's reason is given; no path of the machine is."""
    with pytest.raises(OutputError, match=r"a\.ndjson cannot be written") as caught:
        NdjsonSink(tmp_path / "none" / "a.ndjson").open()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_output_error(page_of, tmp_path):
    """A write that finds no space says so, and what was written goes."""
    sink = NdjsonSink(tmp_path / "a.ndjson")
    sink.open()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._descriptor)
    os.close(full)
    with pytest.raises(OutputError, match="No space left"):
        sink.write(page_of(b'{"id":"1"}'))
    sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_reused_id_on_another_day_is_told_from_a_duplicate(page_of):
    """A dropped duplicate in front of another call with its id and time of day does not take that call's line."""
    dropped = b'{"id":"7","date":"2024-05-20","time":"10:00:00"}'
    kept = b'{"id":"7","date":"2024-05-19","time":"10:00:00"}'
    assert lines_of(page_of(dropped, kept, keep=(1,))) == kept + b"\n"
