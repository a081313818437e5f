"""DEST: its ending decides the format, and an unknown one is refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from servetel_async import ConfigurationError
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.files.file_sink import FileSink
from servetel_async.sinks.formats.csv import CsvEncoder
from servetel_async.sinks.formats.ndjson import LinesEncoder, StdoutSink
from servetel_async.sinks.formats.parquet import DaysEncoder, ParquetEncoder
from servetel_async.sinks.table.columns import COLUMNS, check_columns


@pytest.mark.parametrize(
    ("dest", "encoder"),
    [
        ("a.ndjson", type(None)),
        ("A.JSONL", type(None)),
        ("a.ndjson.gz", LinesEncoder),
        ("a.jsonl.ZST", LinesEncoder),
        ("a.csv", CsvEncoder),
        (Path("a.csv.gz"), CsvEncoder),
        ("a.b.csv.zst", CsvEncoder),
        ("x/a.parquet", ParquetEncoder),
        ("x/", DaysEncoder),
        ("x.csv/", DaysEncoder),
    ],
)
def test_the_ending_chooses_the_format(dest, encoder):
    """Case does not matter, a path works like a text, and a final slash means a directory."""
    sink = sink_for(dest)
    assert type(sink) is FileSink
    assert type(sink._encoder) is encoder


def test_a_dash_is_standard_output():
    """``-`` means the same as in other programs."""
    assert type(sink_for("-")) is StdoutSink


@pytest.mark.parametrize(
    "dest", ["calls", "a.txt", "", "/dev/null", "a.db.bak", "a.parquet.gz", "a.db.gz", "a.gz", "a.csv.bz2", ".csv"]
)
def test_an_unknown_ending_lists_the_known_ones(dest):
    """A typing error chooses no format silently."""
    with pytest.raises(ConfigurationError, match="not known") as caught:
        sink_for(dest)
    assert ".ndjson" in caught.value.fix


@pytest.mark.parametrize("dest", [None, 3, b"a.db", "a\0.db", "a\ud800.csv"])
def test_what_is_no_path_is_refused(dest):
    """Only texts and paths name a destination."""
    with pytest.raises(ConfigurationError):
        sink_for(dest)


@pytest.mark.parametrize("dest", ["a.parquet", "a/"])
def test_a_missing_pyarrow_is_told_at_once(dest, monkeypatch):
    """The error comes before any request, and says how to install it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match="pyarrow") as caught:
        sink_for(dest)
    assert caught.value.fix == "pip install 'servetel-async[parquet]'"


def test_columns_are_chosen_in_the_callers_order(tmp_path):
    """They may be a list, a tuple or any other iterable."""
    assert check_columns(["started_at", "id"]) == ("started_at", "id")
    assert check_columns(name for name in ("id",)) == ("id",)
    assert check_columns(None) == tuple(column.name for column in COLUMNS)


@pytest.mark.parametrize("columns", ["id", b"status", [], ["id", "nothing"], ["id", "id"], [None], [["id"]], 3])
@pytest.mark.parametrize("dest", ["a.csv", "a.ndjson"])
def test_columns_that_do_not_exist_are_refused(columns, dest):
    """No, unknown or repeated columns and a bare text are refused; the message lists the names."""
    with pytest.raises(ConfigurationError) as caught:
        sink_for(dest, columns=columns)
    assert "started_at" in caught.value.fix


@pytest.mark.parametrize("dest", ["a.ndjson", "a.jsonl.gz", "-"])
def test_a_choice_of_columns_needs_a_table(dest):
    """NDJSON always holds the whole record."""
    with pytest.raises(ConfigurationError, match="no choice of columns"):
        sink_for(dest, columns=["id"])


def test_choosing_touches_nothing(tmp_path):
    """Neither a file nor a directory is created."""
    for name in ("a.csv", "a.parquet", "a/", "a.ndjson.zst"):
        sink_for(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []
