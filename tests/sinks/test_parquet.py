"""Parquet: typed columns under one schema, in one file or a file for each day."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import stat
import sys
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from servetel_async import MalformedResponseError, OutputError
from servetel_async.protocol.clock import IST
from servetel_async.sinks.files.file_sink import FileSink
from servetel_async.sinks.formats import parquet
from servetel_async.sinks.formats.parquet import NO_DAY, DaysEncoder, ParquetEncoder
from servetel_async.sinks.sink import Batch, PullIdentity, Span
from servetel_async.sinks.table.columns import check_columns
from tests.sinks.life import finished, open_for

pq = pytest.importorskip("pyarrow.parquet")
dataset = pytest.importorskip("pyarrow.dataset")


def encode(path, *batches, columns=None, kind=ParquetEncoder):
    encoder = kind(check_columns(columns))
    encoder.open(path)
    for batch in batches:
        encoder.write(batch)
    encoder.close()
    return path


def read(path):
    return pq.read_table(path, partitioning=None).to_pylist()


def days(path, *batches, columns=None):
    return encode(path, *batches, columns=columns, kind=DaysEncoder)


def call(number, day="2024-05-02", time="10:00:00"):
    return json.dumps({"id": str(number), "date": day, "time": time}).encode()


def as_sent(step):
    """Convert a step of Parquet to JSON, with every value as text."""
    return {key: value for key, value in step.items() if value is not None}


def as_text(value):
    return value if isinstance(value, str) else json.dumps(value)


def check_flow(sent, got):
    if sent is None:
        assert got is None
        return
    assert len(got) == len(sent)
    for one, step in zip(sent, got, strict=True):
        wanted = {"readable_time" if key == "readableTime" else key: value for key, value in one.items()}
        assert as_sent(step) == {key: as_text(value) for key, value in wanted.items() if value is not None}


def test_every_field_is_what_the_server_sent(realistic, expected, tmp_path):
    """Values and types of 250 calls in every odd form are compared one by one."""
    rows = read(encode(tmp_path / "a", realistic))
    assert len(rows) == len(realistic.lines) == 250
    for line, row in zip(realistic.lines, rows, strict=True):
        assert tuple(row) == check_columns(None)
        for name, got in row.items():
            value = expected(line, name)
            if name == "call_flow":
                check_flow(value, got)
            elif isinstance(value, list | dict) and name != "circle":
                assert json.loads(got) == value, name
            elif name == "agent_ring_time" and value is not None:
                assert got == str(value), name
            else:
                assert got == value and type(got) is type(value), name


def test_days_hold_what_one_file_holds(realistic, tmp_path):
    """Every call is there once, on the day of its start."""
    whole = read(encode(tmp_path / "a", realistic))
    parts = {path.parent.name: read(path) for path in sorted(days(tmp_path / "d", realistic).rglob("*.parquet"))}
    assert sorted((row for rows in parts.values() for row in rows), key=lambda row: row["id"]) == sorted(
        whole, key=lambda row: row["id"]
    )
    assert all(name == f"day={row['date']}" for name, rows in parts.items() for row in rows)


@pytest.mark.parametrize("kind", [ParquetEncoder, DaysEncoder])
def test_hostile_calls_do_no_harm(hostile, tmp_path, kind):
    """Calls with formulas, control characters, huge numbers and odd moments are there, with complete texts."""
    rows = {row["id"]: row for path in [encode(tmp_path / "a", hostile, kind=kind)] for row in read(path)}
    records = {record.id: record for record in hostile.records()}
    assert rows.keys() == records.keys()
    for key, record in records.items():
        for name in ("agent_name", "date", "time", "call_duration", "answered_seconds", "notes"):
            value = getattr(record, name)
            same = rows[key][name]
            assert same == value if isinstance(value, str | None) or name != "notes" else json.loads(same) == value


def test_a_lone_surrogate_is_a_replacement_character(batch_of, tmp_path):
    """Arrow accepts none; a line with one that came from no page is refused."""
    encode(tmp_path / "a", batch_of(b'{"id":"1","agent_name":"a\\ud800b"}'))
    assert read(tmp_path / "a")[0]["agent_name"] == "a\ufffdb"
    encoder = ParquetEncoder(check_columns(None))
    encoder.open(tmp_path / "b")
    with pytest.raises(MalformedResponseError):
        encoder.write(Batch([b'{"id":"1","agent_name":"a\\ud800b"}'], IST))
    encoder.abandon()


def test_large_numbers_are_exact_or_kept_aside(batch_of, tmp_path):
    """2**63-1 fits a whole-number column; a larger number goes to extra; an amount is always a float."""
    encode(
        tmp_path / "a",
        batch_of(
            b'{"id":"1","call_duration":9223372036854775807,"charges":9223372036854775807}',
            b'{"id":"2","call_duration":9223372036854775808,"charges":3}',
        ),
    )
    first, second = read(tmp_path / "a")
    assert (first["call_duration"], first["charges"]) == (2**63 - 1, float(2**63))
    assert (second["call_duration"], second["extra"]) == (None, '{"call_duration":9223372036854775808}')
    assert (second["charges"], type(second["charges"])) == (3.0, float)


def test_moments_that_no_reader_could_show_are_null(batch_of, tmp_path):
    """The first hours of year 1 are in year 0 of UTC; their texts stay."""
    encode(tmp_path / "a", batch_of(call(1, "0001-01-01", "00:00:00"), call(2, "9999-12-31", "23:59:59")))
    first, last = read(tmp_path / "a")
    assert (first["started_at"], first["date"]) == (None, "0001-01-01")
    assert last["started_at"] == datetime(9999, 12, 31, 23, 59, 59, tzinfo=IST)


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (IST, "Asia/Kolkata"),
        (timezone(timedelta(hours=5, minutes=30)), "Asia/Kolkata"),
        (ZoneInfo("Europe/London"), "Europe/London"),
        (UTC, "UTC"),
        (timezone(timedelta(hours=-8), "mine"), "UTC"),
    ],
)
def test_moments_are_moments_of_the_accounts_zone(batch_of, tmp_path, zone, name):
    """The zone's name is known to every reader; a fixed offset other than India's is written in UTC."""
    table = pq.read_table(encode(tmp_path / "a", batch_of(call(1), zone=zone), columns=["started_at"]))
    assert str(table.schema.field("started_at").type) == f"timestamp[us, tz={name}]"
    assert table["started_at"].to_pylist() == [datetime(2024, 5, 2, 10, tzinfo=zone)]


def test_the_schema_does_not_depend_on_the_calls(realistic, hostile, batch_of, tmp_path):
    """Files of odd, plain, empty or no calls can be read as one table."""
    windows = [[realistic], [hostile], [batch_of(b'{"id":"1"}')], [batch_of()], []]
    schemas = [pq.read_schema(encode(tmp_path / str(index), *batches)) for index, batches in enumerate(windows)]
    assert all(schema == schemas[0] for schema in schemas)
    assert schemas[0].names == list(check_columns(None))


def test_no_call_at_all_is_a_table_without_rows(tmp_path):
    """Readers find the columns in the one file, or in the one file of the directory."""
    assert pq.read_table(encode(tmp_path / "a")).num_rows == 0
    days(tmp_path / "d")
    table = dataset.dataset(tmp_path / "d", partitioning="hive").to_table()
    assert (table.num_rows, table.schema.names) == (0, [*check_columns(None), "day"])
    assert str(table.schema.field("day").type) == "string"


def test_calls_without_a_day_alone_are_a_table_too(batch_of, tmp_path):
    """Their day is null, in the type of days."""
    days(tmp_path / "d", batch_of(b'{"id":"1"}'))
    table = dataset.dataset(tmp_path / "d", partitioning="hive").to_table()
    assert (table["id"].to_pylist(), table["day"].to_pylist()) == (["1"], [None])


def test_columns_come_in_the_chosen_order(batch_of, tmp_path):
    """This also holds for one column alone, or without the id."""
    batch = batch_of(call(1))
    assert pq.read_schema(encode(tmp_path / "a", batch, columns=["started_at", "id"])).names == ["started_at", "id"]
    assert read(encode(tmp_path / "b", batch, columns=["circle"])) == [{"circle": None}]


def test_a_file_without_calls_has_one_empty_row_group(tmp_path):
    """Every reader can open it: pyarrow 19 cannot read a file without row groups."""
    file = pq.ParquetFile(encode(tmp_path / "calls.parquet"))

    assert file.num_row_groups == 1
    assert file.read(columns=["id"]).num_rows == 0


def test_null_and_empty_are_told_apart(batch_of, tmp_path):
    """An empty list differs from no list, an empty circle from no circle, and a step may lack extra."""
    encode(
        tmp_path / "a",
        batch_of(
            b'{"id":"1","call_flow":[],"circle":{},"notes":""}',
            b'{"id":"2"}',
            b'{"id":"3","call_flow":[{"odd":1}],"circle":{"circle":"Delhi"}}',
        ),
        columns=["call_flow", "circle", "notes"],
    )
    first, second, third = read(tmp_path / "a")
    assert first == {"call_flow": [], "circle": {"operator": None, "circle": None}, "notes": ""}
    assert second == {"call_flow": None, "circle": None, "notes": None}
    assert as_sent(third["call_flow"][0]) == {"extra": '{"odd":1}'}
    assert third["circle"] == {"operator": None, "circle": "Delhi"}


def test_windows_are_gathered_into_row_groups(batch_of, tmp_path, monkeypatch):
    """Many small windows make few groups, and no group exceeds its bound by more than a piece."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    windows = [batch_of(*(call(index * 30 + row) for row in range(30))) for index in range(20)]
    file = pq.ParquetFile(encode(tmp_path / "a", *windows))
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [120] * 5
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_only_what_comes_again_has_a_dictionary(realistic, tmp_path):
    """A dictionary of values that all differ makes a file larger."""
    group = pq.ParquetFile(encode(tmp_path / "a", realistic)).metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    dense = {column.path_in_schema for column in columns if "RLE_DICTIONARY" in column.encodings}
    plain = {column.path_in_schema for column in columns} - dense
    assert {"status", "agent_name", "date", "circle.operator", "call_flow.list.element.type"} <= dense
    assert {"id", "time", "started_at", "recording_url", "call_flow.list.element.time"} <= plain


def test_large_calls_are_not_gathered_for_long(batch_of, tmp_path, monkeypatch):
    """Memory is limited by bytes as well as by rows."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100_000)
    windows = [batch_of(b'{"id":"%d","notes":"%s"}' % (index, b"x" * 60_000)) for index in range(6)]
    assert pq.ParquetFile(encode(tmp_path / "a", *windows)).num_row_groups == 3


def test_a_day_that_comes_again_gets_another_file(batch_of, tmp_path, monkeypatch):
    """Only a few files are open at a time, and no call is lost."""
    monkeypatch.setattr(parquet, "MOST_OPEN", 2)
    order = ["2024-05-03", "2024-05-02", "2024-05-01", "2024-05-03", "2024-05-02"]
    days(tmp_path / "d", *(batch_of(call(index, day)) for index, day in enumerate(order)))
    found = {str(path.relative_to(tmp_path / "d")): read(path)[0]["id"] for path in (tmp_path / "d").rglob("*.parquet")}
    assert found == {
        "day=2024-05-03/part-0.parquet": "0",
        "day=2024-05-02/part-0.parquet": "1",
        "day=2024-05-01/part-0.parquet": "2",
        "day=2024-05-03/part-1.parquet": "3",
        "day=2024-05-02/part-1.parquet": "4",
    }


def test_windows_of_one_day_share_a_file(batch_of, tmp_path):
    """A window may span several days, and a day several windows."""
    days(
        tmp_path / "d",
        batch_of(call(1, "2024-05-03"), call(2, "2024-05-02")),
        batch_of(call(3, "2024-05-02"), call(4, "2024-05-01")),
    )
    files = sorted((tmp_path / "d").rglob("*.parquet"))
    assert [[row["id"] for row in read(file)] for file in files] == [["4"], ["2", "3"], ["1"]]


@pytest.mark.parametrize(
    ("date", "time", "day"),
    [
        ("2024-05-02", "24:00:00", "2024-05-02"),
        ("20240502", "10:00:00", "2024-05-02"),
        ("2024-02-30", "10:00:00", NO_DAY),
        ("../../../x", "10:00:00", NO_DAY),
        ("", "", NO_DAY),
        ("2024-05-0\u0662", "10:00:00", NO_DAY),
        (None, None, NO_DAY),
    ],
)
def test_only_real_days_become_directories(batch_of, tmp_path, date, time, day):
    """A text of the server never becomes a path."""
    batch = batch_of(json.dumps({"id": "1", "date": date, "time": time}).encode())
    days(tmp_path / "d", batch)
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet") if read(path)]
    assert found == [f"d/day={day}/part-0.parquet"]


@pytest.mark.parametrize("kind", [ParquetEncoder, DaysEncoder])
def test_everything_is_private(realistic, tmp_path, kind):
    """Files have mode 0600 and directories 0700 from their first moment, whatever the umask."""
    before = os.umask(0)
    try:
        encoder = kind(check_columns(None))
        encoder.open(tmp_path / "a")
        encoder.write(realistic)
        modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.rglob("*")}
        encoder.close()
        modes |= {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    assert modes == ({(False, 0o600)} if kind is ParquetEncoder else {(False, 0o600), (True, 0o700)})


def open_files(directory):
    """The files below this directory that the process has open."""
    links = [os.path.realpath(link) for link in pathlib.Path("/proc/self/fd").iterdir()]
    return [link for link in links if link.startswith(f"{directory.resolve()}/")]


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("kind", [ParquetEncoder, DaysEncoder])
def test_abandoning_closes_everything(realistic, tmp_path, kind):
    """It works at any moment and any number of times; no file stays open."""
    encoder = kind(check_columns(None))
    encoder.abandon()
    encoder.open(tmp_path / "a")
    encoder.write(realistic)
    assert open_files(tmp_path)
    encoder.abandon()
    assert open_files(tmp_path) == []
    encoder.abandon()


def test_duckdb_reads_both(realistic, tmp_path):
    """DuckDB reads moments as moments, can unnest steps, and has the day as a column."""
    duckdb = pytest.importorskip("duckdb")
    encode(tmp_path / "a.parquet", realistic)
    days(tmp_path / "d", realistic)
    with duckdb.connect(":memory:") as database:
        flows = database.execute(
            "SELECT count(*), count(DISTINCT id), sum(len(call_flow)), min(started_at) < max(ended_at) FROM read_parquet(?)",
            [str(tmp_path / "a.parquet")],
        ).fetchone()
        by_day = database.execute(
            "SELECT count(*), bool_and(CAST(day AS text) = date) FROM read_parquet(?, hive_partitioning = true)",
            [str(tmp_path / "d/**/*.parquet")],
        ).fetchone()
    steps = sum(len(json.loads(line).get("call_flow") or ()) for line in realistic.lines)
    assert flows == (250, 250, steps, True)
    assert by_day == (250, True)


def test_pandas_reads_both(realistic, tmp_path):
    """The account's zone is kept in pandas."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(encode(tmp_path / "a", realistic))
    assert (len(frame), str(frame["started_at"].dtype)) == (250, "datetime64[us, Asia/Kolkata]")
    assert len(pandas.read_parquet(days(tmp_path / "d", realistic))) == 250


def test_polars_reads_both(realistic, tmp_path):
    """The file's zone is one that Polars knows; otherwise it could not read the file at all."""
    polars = pytest.importorskip("polars")
    encode(tmp_path / "a.parquet", realistic)
    days(tmp_path / "d", realistic)
    assert polars.read_parquet(tmp_path / "a.parquet").height == 250
    assert polars.scan_parquet(tmp_path / "d", hive_partitioning=True).collect().height == 250


def test_a_file_whose_end_cannot_be_written_is_quiet_when_it_is_collected(realistic, tmp_path, monkeypatch):
    """Arrow's writer does not retry the end of an abandoned file, so nothing is printed."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    encoder = ParquetEncoder(check_columns(None))
    encoder.open(tmp_path / "a")
    encoder.write(realistic)
    encoder._file._file.close()  # the disk has disappeared
    encoder.abandon()
    gc.collect()
    assert heard == []


@pytest.mark.parametrize("kind", [ParquetEncoder, DaysEncoder])
def test_a_full_disk_is_an_output_error(realistic, tmp_path, kind):
    """Arrow's own error is replaced, and no partial file has the name."""
    resource = pytest.importorskip("resource")
    target = tmp_path / "a"
    sink = FileSink(target, kind(check_columns(None)), directory=kind is DaysEncoder)
    open_for(sink, PullIdentity("pull", "scope", "account"))
    sink.begin(b"{}")
    sink.commit(realistic, Span("a", "b"), b"{}")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            finished(sink)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in tmp_path.iterdir()} == {"a.part", "a.part.journal", "a.lock"}
    finished(sink)
    sink.abandon()
    assert dataset.dataset(target, format="parquet", partitioning="hive").count_rows() == 250
