"""The steps of a sink's life that every test takes in one way."""

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
    """Open it for a pull; returns what an interrupted one has left."""
    sink.open(fresh=fresh)
    return sink.resume(claim)


def finished(sink: Sink, receipt: bytes = b'{"destination":"a"}') -> Output:
    """Make the output final; returns what its receipt is made of."""
    outputs: list[Output] = []

    def receipt_of(output: Output) -> bytes:
        outputs.append(output)
        return receipt

    sink.finish(receipt_of)
    return outputs[-1]


def named_without_receipt(sink: Sink, target: Path) -> None:
    """Give the output its name, and stop before its receipt has one, as a kill between the two does."""
    with receipt_is_refused(target), pytest.raises(OutputError, match="is written, but its receipt cannot be saved"):
        finished(sink)


@contextmanager
def receipt_is_refused(target: Path) -> Iterator[None]:
    """Have the system refuse to give the receipt its name."""
    rename = Path.replace

    def replace(path: Path, place: Path) -> Path:
        if path.name == f"{target.name}.receipt.json.part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, place)

    with mock.patch.object(Path, "replace", replace):
        yield
