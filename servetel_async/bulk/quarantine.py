"""The quarantine: undecodable records as they were sent, with the reason, readable by their owner only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servetel_async.errors import OutputError
from servetel_async.sinks.files.atomic import QUARANTINE, check_place, reason_of, remove, save_private

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.ledger import Reading
    from servetel_async.sinks.sink import Sink


def save_quarantine(sink: Sink, readings: Sequence[Reading]) -> None:
    """Write ``DEST.quarantine.ndjson``, if there is a place beside the output.

    The quarantine of a replaced file is removed. The quarantine of a database stays: it may be of another range.

    Raises:
        OutputError: if the quarantine cannot be written; what was read is kept.
    """
    lines = [
        msgspec.json.encode({"reason": each.reason, "first": reading.first, "last": reading.last, "raw": each.raw})
        for reading in readings
        for each in reading.quarantined
    ]
    if sink.place is None:
        return
    path = sink.place.with_name(f"{sink.place.name}{QUARANTINE}")
    try:
        if lines:
            save_private(path, b"".join(line + b"\n" for line in lines))
        elif not sink.keyed_by_id:
            check_place(path)
            remove(path)
    except OSError as error:
        raise OutputError(
            f"the unreadable records of {sink.name} cannot be saved",
            why=f"{reason_of(error)}; what was read is kept",
            fix="make space, then run the same command again",
        ) from error
