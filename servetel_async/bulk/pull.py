"""A pull: a range of calls into one destination, window by window, each of them certified, and the receipt.

It may be killed at any moment: each window is committed with its journal entry, and the same pull goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.conclusion import Conclusion
from servetel_async.bulk.job import Job, Settings
from servetel_async.bulk.journal import claim_of_pull, read_saved
from servetel_async.bulk.quarantine import save_quarantine
from servetel_async.bulk.writer import Writer
from servetel_async.errors import CountDriftError, PagingError
from servetel_async.protocol.tokens import hide
from servetel_async.sinks.destination import sink_for
from servetel_async.transport.callbacks import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.job import OnProgress
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Sink


async def pull(
    client: ServetelClient,
    destination: Destination,
    query: CallQuery,
    *,
    overwrite: bool = False,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    strict: bool = False,
    fast: bool = False,
    columns: Sequence[str] | None = None,
    mask: Mask | None = None,
    settle: float = 7200.0,
    patience: float = 1800.0,
    range_name: str | None = None,
) -> PullReceipt:
    """Pull every call of a query into a file or a database.

    Args:
        client: it is used and not closed.
        destination: a path whose ending decides the format, an address, or ``"-"`` for NDJSON on standard output.
        query: which calls.
        overwrite: replace a file that exists; databases are always kept current.
        resume: go on from what an interrupted pull of the same query left; False drops it.
        on_progress: called after each page and each window.
        strict: raise where the receipt would not be complete; then no output is made.
        fast: do not read the seconds again that page edges cut, as long as the counts agree.
        columns: of a CSV or Parquet file.
        mask: applied to each record before anything is written; None for none.
        settle: seconds; calls younger than that may still arrive, so they are pulled and not called final.
        patience: seconds without any good reply after which it gives up.
        range_name: how the caller names a range whose dates are other ones each time.

    Raises:
        ConfigurationError: the destination's kind is not known, or ``on_progress`` is ``async``. Like all errors of
            opening it, before any request.
        OutputError: it exists, cannot be written, or the disk is full.
        OutputLockedError: another run is writing it.
        ResumeMismatchError: it holds the state of another pull.
        ServetelError: whatever ended the requests. What was committed is kept for the next run.
    """
    destination = hide(destination)  # an address may hold a password
    told = None if on_progress is None else Listener("on_progress", on_progress)
    sink = sink_for(destination, overwrite=overwrite, columns=columns)
    settings = Settings(
        page_size=client.page_size,
        concurrency=client.max_concurrency,
        fast=fast,
        mask=mask,
        settle=settle,
        patience=patience,
    )
    claim = claim_of_pull(query, client.zone, columns=columns, mask=mask, range_name=range_name)
    writer = Writer()
    job = Job(client, query, sink, writer, settings, told)
    try:
        saved = await writer.run(sink.open, claim, fresh=not resume)
        header, entries = (None, []) if saved is None else read_saved(saved, claim, sink.name)
        if header is None:
            header = job.header(claim, await job.freeze())
            await writer.run(sink.begin, msgspec.json.encode(header))
        await job.read(header, entries)
        conclusion = Conclusion(job, header, sink)
        return await writer.run(finish, conclusion, sink, query, client, strict=strict)
    finally:
        # Also after a cancelled open: it had run to its end before the cancellation arrived.
        try:
            await writer.run(sink.abandon)
        finally:
            writer.close()


def finish(
    conclusion: Conclusion, sink: Sink, query: CallQuery, client: ServetelClient, *, strict: bool
) -> PullReceipt:
    """Make the output and keep its receipt; both in the writer's thread."""
    if conclusion.lost is not None:
        raise conclusion.lost
    if strict and conclusion.flaw is not None:
        kind = CountDriftError if conclusion.counted is not None else PagingError
        raise kind("the output would not be complete", why=conclusion.flaw, fix="run it again, or without --strict")
    sink.finish()
    save_quarantine(sink, conclusion.quarantined)
    receipt = conclusion.receipt(query, client.zone)
    sink.save_receipt(msgspec.json.format(msgspec.json.encode(receipt)) + b"\n")
    return receipt
