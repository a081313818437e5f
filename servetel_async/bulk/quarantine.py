"""The quarantine: records that nobody can read, as they were sent, with the reason, for their owner only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servetel_async.errors import OutputError
from servetel_async.sinks.files import reason_of, save_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.ledger import Reading
    from servetel_async.sinks.sink import Sink


def save_quarantine(sink: Sink, readings: Sequence[Reading]) -> None:
    """Write ``DEST.quarantine.ndjson``, where there is anything to write and a place beside the output.

    Raises:
        OutputError: it cannot be written; the output itself is whole.
    """
    lines = [
        msgspec.json.encode({"reason": each.reason, "first": reading.first, "last": reading.last, "raw": each.raw})
        for reading in readings
        for each in reading.quarantined
    ]
    if not lines or sink.place is None:
        return
    path = sink.place.with_name(f"{sink.place.name}.quarantine.ndjson")
    try:
        save_private(path, b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise OutputError(
            f"the unreadable records of {sink.name} cannot be saved",
            why=f"{reason_of(error)}; the output itself is written",
            fix="make space, then run the same command again",
        ) from error
