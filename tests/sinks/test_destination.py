"""DEST: the ending decides, and what is not known is refused before anything happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from servetel_async import ConfigurationError
from servetel_async.sinks.destination import receipt_path, sink_for
from servetel_async.sinks.ndjson import NdjsonSink, StdoutSink
from servetel_async.sinks.sqlite import SqliteSink


@pytest.mark.parametrize(
    ("dest", "kind"),
    [
        ("a.ndjson", NdjsonSink),
        ("A.JSONL", NdjsonSink),
        ("x/a.db", SqliteSink),
        (Path("a.sqlite"), SqliteSink),
        ("-", StdoutSink),
    ],
)
def test_the_ending_chooses_the_sink(dest, kind):
    """Letters may be large or small, and a path is as good as a text."""
    assert type(sink_for(dest)) is kind


@pytest.mark.parametrize(
    "dest", ["a.csv", "a.ndjson.gz", "a.jsonl.zst", "a.parquet", "a.duckdb", "postgresql://u:hunter2@h/d"]
)
def test_kinds_of_later_versions_say_so(dest):
    """The message says what works now, and repeats no address: it may hold a password."""
    with pytest.raises(ConfigurationError, match="later version") as caught:
        sink_for(dest)
    assert ".sqlite" in caught.value.fix
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("dest", ["calls", "a.txt", "", "/dev/null", "a.db.bak"])
def test_an_unknown_ending_lists_the_known_ones(dest):
    """A typing error does not silently choose a format."""
    with pytest.raises(ConfigurationError, match="not known") as caught:
        sink_for(dest)
    assert ".ndjson" in caught.value.fix


@pytest.mark.parametrize("dest", [None, 3, b"a.db", "a\0.db"])
def test_what_is_no_path_is_refused(dest):
    """Only texts and paths name a destination."""
    with pytest.raises(ConfigurationError):
        sink_for(dest)


def test_the_receipt_stands_beside_the_output():
    """Standard output has no place beside it."""
    assert receipt_path("x/a.db") == Path("x/a.db.receipt.json")
    assert receipt_path("-") is None
