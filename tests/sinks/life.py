"""The steps of a sink's life that all tests share."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from servetel_async import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servetel_async.sinks.sink import Output, PullIdentity, Saved, Sink


def open_for(sink: Sink, claim: PullIdentity, *, fresh: bool = False) -> Saved | None:
    """Open a sink for a pull; returns the state that an interrupted one has left."""
    sink.open(fresh=fresh)
    return sink.resume(claim)


def finished(sink: Sink, receipt: bytes = b'{"destination":"a"}') -> Output:
    """Make the output final; returns the input of its receipt."""
    outputs: list[Output] = []

    def receipt_of(output: Output) -> bytes:
        outputs.append(output)
        return receipt

    sink.finish(receipt_of)
    return outputs[-1]


def named_without_receipt(sink: Sink, target: Path) -> None:
    """Name the output, and stop before its receipt is named, like a kill between the two."""
    with receipt_is_refused(target), pytest.raises(OutputError, match="is written, but its receipt cannot be saved"):
        finished(sink)


@contextmanager
def receipt_is_refused(target: Path) -> Iterator[None]:
    """Make the system refuse the receipt its name."""
    rename = Path.replace

    def replace(path: Path, place: Path) -> Path:
        if path.name == f"{target.name}.receipt.json.part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, place)

    with mock.patch.object(Path, "replace", replace):
        yield
