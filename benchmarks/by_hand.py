"""A hand-written loop into a CSV or Parquet file, as fast as Python allows: the floor of a pull into that format.

It only keeps the server's data: nothing is certified, ordered, guarded or resumed, no moment is computed,
and nested values stay the server's own JSON. ``encoded`` gives each page to a pull's own encoder instead: the same
file as a pull, and nothing else of a pull.
"""

from __future__ import annotations

import csv
import os
import tempfile
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.contenders import by_aiohttp
from servetel_async.protocol.clock import IST
from servetel_async.protocol.records import CallRecord
from servetel_async.sinks.formats.csv import CsvEncoder
from servetel_async.sinks.formats.parquet import ParquetEncoder
from servetel_async.sinks.sink import Batch
from servetel_async.sinks.table.columns import COLUMNS, check_columns

if TYPE_CHECKING:
    from collections.abc import Callable

#: Columns of one type; a value whose type differs between calls is kept as JSON.
_TYPED = [column.name for column in COLUMNS if column.kinds in map(frozenset, ({str}, {int}, {bool}, {int, float}))]
_OPEN = [column.name for column in COLUMNS if column.kinds and column.name not in _TYPED]


@cache
def _decoder() -> Callable[[bytes], Any]:
    types = {field.name: field.type for field in msgspec.structs.fields(CallRecord)}
    nothing = msgspec.Raw(b"null")
    typed: list[Any] = [(name, types[name], None) for name in _TYPED if name != "id"]
    fields = [("id", str), *typed, *((name, msgspec.Raw, nothing) for name in _OPEN)]
    page = msgspec.defstruct("Page", [("results", tuple[msgspec.defstruct("Row", fields, gc=False), ...])])
    return msgspec.json.Decoder(page, strict=False).decode


def csv_by_hand(url: str, size: int, calls: int) -> int:
    """The csv module, a row for each call."""
    typed, opened, decode = attrgetter(*_TYPED), attrgetter(*_OPEN), _decoder()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as directory,
        Path(directory, "calls.csv").open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(_TYPED + _OPEN)

        def read(body: bytes) -> int:
            rows = decode(body).results
            writer.writerows([(*typed(row), *[str(value, "utf-8") for value in opened(row)]) for row in rows])
            return len(rows)

        records = by_aiohttp(url, size, calls, read)
        file.flush()
        os.fsync(file.fileno())
        return records


def parquet_by_hand(url: str, size: int, calls: int) -> int:
    """Arrow, a column at a time and a page at a time."""
    import pyarrow as pa  # noqa: PLC0415 - only where it is compared
    from pyarrow import parquet  # noqa: PLC0415 - as above

    kinds = {column.name: column.kinds for column in COLUMNS}
    arrow = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), float: pa.float64()}
    types = [arrow[float if len(kinds[name]) > 1 else next(iter(kinds[name]))] for name in _TYPED]
    schema = pa.schema([*zip(_TYPED, types, strict=True), *((name, pa.string()) for name in _OPEN)])
    readers, decode = [attrgetter(name) for name in (*_TYPED, *_OPEN)], _decoder()
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as directory,
        Path(directory, "calls.parquet").open("wb") as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):

        def read(body: bytes) -> int:
            rows = decode(body).results
            columns = [list(map(value_of, rows)) for value_of in readers]
            for index in range(len(_TYPED), len(columns)):
                columns[index] = [str(value, "utf-8") for value in columns[index]]
            arrays = [pa.array(*column) for column in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            return len(rows)

        records = by_aiohttp(url, size, calls, read)
        writer.close()
        file.flush()
        os.fsync(file.fileno())
        return records


def encoded(url: str, size: int, calls: int, ending: str) -> int:
    """The same file as a pull, each page split into its records and encoded as it comes."""
    page = msgspec.defstruct("Page", [("results", list[msgspec.Raw])])
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(page).decode
    encoder = {".csv": CsvEncoder, ".parquet": ParquetEncoder}[ending](check_columns(None))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        encoder.open(Path(directory, f"calls{ending}"))

        def read(body: bytes) -> int:
            lines = list(map(bytes, decode(body).results))
            encoder.write(Batch(lines, IST))
            return len(lines)

        records = by_aiohttp(url, size, calls, read)
        encoder.close()
        return records
