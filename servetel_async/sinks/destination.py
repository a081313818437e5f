"""From ``DEST`` to a sink: the ending decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from servetel_async.errors import ConfigurationError
from servetel_async.sinks.ndjson import NdjsonSink, StdoutSink
from servetel_async.sinks.sqlite import SqliteSink

if TYPE_CHECKING:
    from servetel_async.sinks.sink import Sink

STDOUT = "-"
_FILES = (".ndjson", ".jsonl")
_DATABASES = (".db", ".sqlite")
_LATER = (
    *(f"{ending}{packed}" for ending in (".ndjson", ".jsonl", ".csv") for packed in ("", ".gz", ".zst")),
    ".parquet",
    ".duckdb",
)
_KNOWN = ".ndjson, .jsonl, .db, .sqlite, or - for standard output"

Destination = str | os.PathLike[str]


def sink_for(destination: Destination, *, overwrite: bool = False) -> Sink:
    """Choose the sink; touches nothing.

    Raises:
        ConfigurationError: no text and no path, or an ending that is not known, or not yet.
    """
    text = _text(destination)
    if text == STDOUT:
        return StdoutSink()
    path = Path(text)
    ending = path.suffix.lower()
    if ending in _FILES:
        return NdjsonSink(path, overwrite=overwrite)
    if ending in _DATABASES:
        return SqliteSink(path)
    # Neither the path nor an address is repeated in a message: it may hold a password.
    if text.lower().endswith(_LATER) or text.lower().startswith(("postgresql:", "postgres:")):
        raise ConfigurationError("this kind of destination comes with a later version", fix=f"what works now: {_KNOWN}")
    raise ConfigurationError(
        "the destination's ending is not known", why="the ending decides the format", fix=f"use {_KNOWN}"
    )


def receipt_path(destination: Destination) -> Path | None:
    """Where the receipt of a pull is saved: beside the output; nowhere for standard output."""
    text = _text(destination)
    path = Path(text)
    return None if text == STDOUT else path.with_name(f"{path.name}.receipt.json")


def _text(destination: object) -> str:
    if not isinstance(destination, str | os.PathLike):
        raise ConfigurationError(f"the destination is a {type(destination).__name__}", fix="give a path, or '-'")
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
