"""What a run that ended early has left in its destination, and the words for it."""

# ruff: noqa: PLC0415 - imported where needed, so that --help loads no HTTP client

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from servetel_async.errors import ServetelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Claim, Database, Sink


class Kept(NamedTuple):
    """What is there.

    Attributes:
        calls: of windows that are committed, by a pull that is not finished.
        windows: how many of them.
        receipt: of a pull that did finish, at the last moment.
    """

    calls: int = 0
    windows: int = 0
    receipt: PullReceipt | None = None


def claim_of_pull(query: CallQuery, columns: Sequence[str] | None, name: str | None, *, mask: Mask | None) -> Claim:
    """Name a pull as ``bulk.pull`` does."""
    from servetel_async.bulk import journal
    from servetel_async.protocol.clock import IST

    return journal.claim_of_pull(query, IST, columns=columns, mask=mask, range_name=name)


def look(destination: str, claim: Claim, since: datetime) -> Kept:
    """Look what the run that began at ``since`` has left. Never raises: nothing that can be read is nothing."""
    from servetel_async.bulk.journal import read_saved
    from servetel_async.sinks.destination import sink_for

    with suppress(ServetelError):
        sink = sink_for(destination, overwrite=True)
        if not sink.resumable:
            return Kept()
        try:
            saved = sink.open(claim)
            if saved is None:
                return Kept(receipt=_receipt(sink, claim, since))
            entries = {(each.first, each.last): each for each in read_saved(saved, claim, sink.name)[1]}
            return Kept(sum(each.records for each in entries.values()), len(entries))
        finally:
            sink.abandon()
    return Kept()


def _receipt(sink: Sink, claim: Claim, since: datetime) -> PullReceipt | None:
    import msgspec

    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.protocol.undecodable import UNDECODABLE

    try:
        if sink.place is not None:
            text: bytes | None = sink.place.with_name(f"{sink.place.name}.receipt.json").read_bytes()
        else:
            text = cast("Database", sink).load_receipt()
        receipt = msgspec.json.decode(text or b"null", type=PullReceipt)
    except (OSError, *UNDECODABLE, RecursionError):
        return None
    ours = receipt.scope == claim.scope and receipt.finished_at >= since.isoformat(timespec="seconds")
    return receipt if ours else None
