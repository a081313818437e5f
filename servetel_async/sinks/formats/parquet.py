"""Parquet: one file, or a directory with a file for each day (``day=2024-05-02/part-0.parquet``).

The schema depends only on the chosen columns and the account's zone, so files of different pulls can be read as one
table: numbers, booleans and moments are typed, ``call_flow`` is a list of steps, open-ended values are JSON strings.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from servetel_async.protocol.clock import IST
from servetel_async.sinks.files.atomic import create_private, sync_directory
from servetel_async.sinks.files.ownership import make_directory
from servetel_async.sinks.formats.arrow import Table
from servetel_async.sinks.table.columns import MOMENTS, pieces_of

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path

    from servetel_async.protocol.records import CallRecord
    from servetel_async.sinks.sink import Batch

#: Size of a row group: a reader reads one at once, and memory holds one while it is gathered.
GROUP_ROWS, GROUP_BYTES = 20_000, 64 * 1024 * 1024
#: Days come one after another, so more open files would only wait for the end.
MOST_OPEN = 3
#: The name that Hive, and with it every reader, gives to rows without a value.
NO_DAY = "__HIVE_DEFAULT_PARTITION__"
#: The directory of a file without rows.
EMPTY_DAY = "1970-01-01"

#: Columns of a call and of a step whose values hardly ever repeat: a dictionary of them would be larger than they are.
_UNIQUE = {"id", "call_id", "uuid", "recording_url", "aws_call_recording_identifier", "time", "end_stamp", *MOMENTS}
_UNIQUE_IN_STEP = {"time", "anstime", "readable_time", "value"}

_is_day = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII).fullmatch


class ParquetEncoder:
    """Calls as one Parquet file; see ``sink.Encoder``.

    Args:
        columns: names from ``check_columns``, in the order of the file.

    Raises:
        ConfigurationError: if pyarrow is not installed.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._table = Table(columns)
        self._path: Path | None = None
        self._file: _File | None = None

    def open(self, path: Path) -> None:
        """Remember the path: the schema names the account's zone, which comes with the first window."""
        self._path, self._file = path, None

    def write(self, batch: Batch) -> None:
        """Append a window."""
        file = self._opened(batch.zone)
        for piece in pieces_of(batch):
            file.add(self._table.arrays(piece.records(), piece.zone))

    def _opened(self, zone: tzinfo) -> _File:
        assert self._path is not None  # noqa: S101 - for the type checker: it is open
        if self._file is None:
            self._file = _File(self._path, self._table, zone)
        return self._file

    def close(self) -> None:
        """Finish the file; without any call it has its columns and no row."""
        self._opened(IST).close()

    def abandon(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.abandon()


class DaysEncoder:
    """Calls as a directory, a file for each day on which calls started; a day that comes again gets another file.

    Args:
        columns: names from ``check_columns``, in the order of the files.

    Raises:
        ConfigurationError: if pyarrow is not installed.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._table = Table(columns)
        self._path: Path | None = None
        self._zone: tzinfo = IST
        self._open: dict[str, _File] = {}
        self._parts: dict[str, int] = {}

    def open(self, path: Path) -> None:
        """Create the directory, with the marker that shows that it is ours."""
        make_directory(path)
        self._path, self._parts = path, {}

    def write(self, batch: Batch) -> None:
        """Append each call to its day."""
        self._zone = batch.zone
        for piece in pieces_of(batch):
            days: dict[str, list[CallRecord]] = {}
            for record in piece.records():
                days.setdefault(_day_of(record), []).append(record)
            for day, records in days.items():
                self._file_of(day).add(self._table.arrays(records, piece.zone))

    def _file_of(self, day: str) -> _File:
        file = self._open.pop(day, None)
        if file is None:
            if len(self._open) >= MOST_OPEN:
                self._finish(next(iter(self._open)))
            file = self._create(day)
        self._open[day] = file  # the last one is the one used last
        return file

    def _create(self, day: str) -> _File:
        assert self._path is not None  # noqa: S101 - for the type checker: it is open
        directory = self._path / f"day={day}"
        directory.mkdir(mode=0o700, exist_ok=True)
        number = self._parts.get(day, 0)
        self._parts[day] = number + 1
        return _File(directory / f"part-{number}.parquet", self._table, self._zone)

    def _finish(self, day: str) -> None:
        self._open[day].close()
        del self._open[day]

    def close(self) -> None:
        """Finish all files; without any call there is one without rows, which shows the columns."""
        assert self._path is not None  # noqa: S101 - for the type checker: it is open
        if self._parts.keys() <= {NO_DAY}:
            self._file_of(EMPTY_DAY)
        for day in list(self._open):
            self._finish(day)
        for day in self._parts:
            sync_directory(self._path / f"day={day}")
        sync_directory(self._path)

    def abandon(self) -> None:
        """Close all files."""
        for file in self._open.values():
            file.abandon()
        self._open.clear()


def _day_of(record: CallRecord) -> str:
    """Return the day on which a call started, even if its time is missing: only real days become directory names."""
    if record.date is not None and _is_real_day(record.date):
        return record.date
    started = record.started_at
    return NO_DAY if started is None else started.date().isoformat()


@lru_cache(maxsize=64)
def _is_real_day(text: str) -> bool:
    try:
        return _is_day(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _repeated(schema: Any) -> list[str]:
    """Name the columns that get a dictionary, as Parquet names what is nested."""
    found: list[str] = []
    for field in schema:
        if field.name == "call_flow":
            steps = {step.name for step in field.type.value_type} - _UNIQUE_IN_STEP
            found += [f"call_flow.list.element.{name}" for name in steps]
        elif field.name == "circle":
            found += [f"circle.{part.name}" for part in field.type]
        elif field.name not in _UNIQUE:
            found.append(field.name)
    return found


class _File:
    """One Parquet file, written by row groups."""

    def __init__(self, path: Path, table: Table, zone: tzinfo) -> None:
        self._arrow = table.arrow
        self._schema = table.schema(zone)
        self._gathered: list[Any] = []
        self._rows = self._bytes = self._groups = 0
        self._file = os.fdopen(create_private(path), "wb")
        try:
            self._writer = table.parquet.ParquetWriter(
                self._file, self._schema, compression="zstd", use_dictionary=_repeated(self._schema)
            )
        except BaseException:
            self._file.close()
            raise

    def add(self, columns: list[Any]) -> None:
        """Append rows, given as columns."""
        rows = self._arrow.RecordBatch.from_arrays(columns, schema=self._schema)
        self._gathered.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        gathered, self._gathered, self._rows, self._bytes = self._gathered, [], 0, 0
        if gathered:
            self._write(self._arrow.Table.from_batches(gathered))

    def _write(self, rows: Any) -> None:
        self._writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        self._groups += 1

    def close(self) -> None:
        self._flush()
        if not self._groups:  # pyarrow 19 cannot read a file without row groups
            self._write(self._schema.empty_table())
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with suppress(Exception):  # the footer of a file that will not be read
            self._writer.close()
        with suppress(OSError):
            self._file.close()
