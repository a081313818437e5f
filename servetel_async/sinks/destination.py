"""The sink of a destination: the ending of ``DEST`` decides."""

from __future__ import annotations

import importlib
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.tokens import as_secret, kind_of
from servetel_async.sinks.extras import missing as missing  # noqa: PLC0414 - given on to the sinks
from servetel_async.sinks.files.file_sink import FileSink
from servetel_async.sinks.files.places import resolve
from servetel_async.sinks.formats.ndjson import LinesEncoder, StdoutSink
from servetel_async.sinks.table.columns import check_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.sinks.sink import Sink

STDOUT = "-"
POSTGRES = ("postgresql://", "postgres://")
_KNOWN = (
    ".ndjson, .jsonl or .csv (each also .gz or .zst), .parquet, a directory that ends in /, .db, .sqlite, .duckdb, "
    "postgresql://..., or - for standard output"
)

#: The module and the class of a database file, by its ending.
_DATABASES = {
    ".db": ("databases.sqlite", "SqliteSink"),
    ".sqlite": ("databases.sqlite", "SqliteSink"),
    ".duckdb": ("databases.duckdb", "DuckdbSink"),
}

Destination = str | os.PathLike[str]


def sink_for(destination: Destination, *, overwrite: bool = False, columns: Sequence[str] | None = None) -> Sink:
    """Choose the sink, and find its absolute path; writes nothing.

    Args:
        destination: a path, an address, or ``-``.
        overwrite: replace a file that exists.
        columns: the columns of a CSV or Parquet file; None for all of them.

    Raises:
        ConfigurationError: if the destination is neither a text nor a path, its ending is not known, it has no name of
            its own (``./``), a library is not installed, or a column does not exist.
    """
    destination = as_secret(destination)  # an address may hold a password
    text = _text(destination)
    chosen = check_columns(columns)
    sink, takes_columns = _choose(text, chosen, overwrite=overwrite)
    if columns is not None and not takes_columns:
        raise ConfigurationError(
            "this destination takes no choice of columns",
            why="NDJSON holds what the server sent, and a database keeps one table for all pulls",
            fix="pull into .csv or .parquet, or leave the columns out",
        )
    return sink


def _choose(text: str, columns: tuple[str, ...], *, overwrite: bool) -> tuple[Sink, bool]:  # noqa: PLR0911 - a table
    if text == STDOUT:
        return StdoutSink(), False
    if text.lower().startswith(POSTGRES):
        return _made("databases.postgres", "PostgresSink", text), False
    if "://" in text:
        raise _unknown()
    if text.endswith(("/", os.sep)):
        days = _made("formats.parquet", "DaysEncoder", columns)
        return FileSink(resolve(text), days, overwrite=overwrite, directory=True), True
    name = PurePath(text).name.lower()
    packing = next((ending for ending in (".gz", ".zst") if name.endswith(ending)), None)
    ending = PurePath(name.removesuffix(packing or "")).suffix
    if ending in (".ndjson", ".jsonl"):
        return FileSink(resolve(text), None if packing is None else LinesEncoder(packing), overwrite=overwrite), False
    if ending == ".csv":
        return FileSink(resolve(text), _made("formats.csv", "CsvEncoder", columns, packing), overwrite=overwrite), True
    if ending == ".parquet" and packing is None:
        return FileSink(resolve(text), _made("formats.parquet", "ParquetEncoder", columns), overwrite=overwrite), True
    if ending in _DATABASES and packing is None:
        return _made(*_DATABASES[ending], resolve(text)), False
    raise _unknown()


def _unknown() -> ConfigurationError:
    # Neither the path nor an address is repeated in a message: it may hold a password.
    return ConfigurationError(
        "the destination's ending is not known", why="the ending decides the format", fix=f"use {_KNOWN}"
    )


def _made(module: str, kind: str, *arguments: Any) -> Any:
    """Make an object of a sink module, imported only now: the libraries it needs may not be installed."""
    return getattr(importlib.import_module(f"servetel_async.sinks.{module}"), kind)(*arguments)


def _text(destination: object) -> str:
    if not isinstance(destination, str | os.PathLike):
        raise ConfigurationError(f"the destination is a {kind_of(destination)}", fix="give a path, or '-'")
    text: object = os.fspath(destination)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not isinstance(text, str) or "\0" in text:
        raise ConfigurationError("the destination is not a path", fix='give a text, for example "calls.db"')
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigurationError(
            "the destination is not a path", why="the file system cannot hold its letters", fix="give another name"
        ) from None
    return text
