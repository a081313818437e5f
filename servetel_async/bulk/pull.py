"""A pull: a range of calls into one destination, certified window by window, with a receipt.

It may be killed at any moment: each window is committed with its fact of the ledger, and the same pull resumes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.frame import Frame
from servetel_async.bulk.job import Job, Settings
from servetel_async.bulk.journal import account_of, claim_of, read_saved
from servetel_async.bulk.run import conclude, writing
from servetel_async.bulk.shelf import Shelf
from servetel_async.protocol.account import resolve
from servetel_async.protocol.tokens import as_secret
from servetel_async.protocol.windows import Window
from servetel_async.sinks.destination import sink_for
from servetel_async.transport.callbacks import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.job import OnProgress
    from servetel_async.bulk.journal import Header
    from servetel_async.bulk.ledger import Reading
    from servetel_async.bulk.pull_range import PullRange
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.bulk.run import OnReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.destination import Destination


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
    on_receipt: OnReceipt | None = None,
) -> PullReceipt:
    """Pull every call of a query into a file or a database.

    A range that is not over is read up to the server's clock. A resumed pull reads up to the clock at that time.

    Args:
        client: the client; it is not closed.
        destination: a path whose ending decides the format, an address, or ``"-"`` for NDJSON on standard output.
        query: the calls to pull.
        overwrite: replace a file that exists; databases are always kept current.
        resume: continue an interrupted pull of the same query; False drops what it left.
        on_progress: callback after each page and each window.
        strict: raise if the receipt would not be complete; then no output is made.
        fast: do not repair boundary seconds, as long as the counts agree.
        columns: the columns of a CSV or Parquet file.
        mask: the mask of each record before anything is written; None for none.
        settle: allowed lateness in seconds; calls in this time are pulled, but their windows are not final.
        patience: seconds without any good reply after which the pull gives up.
        range_name: the caller's name of a range whose dates differ each time. A resumed pull then reads from the start
            of the interrupted one.
        on_receipt: callback in the sink thread when the output is final, even if the caller is cancelled then.

    Raises:
        ConfigurationError: if the destination's kind is not known, ``on_progress`` is ``async``, or the range has not
            begun yet.
        OutputError: if the destination exists, cannot be written, or the disk is full.
        OutputLockedError: if another run is writing the destination.
        ResumeMismatchError: if the destination holds another pull, another account, or calls under another mask.
        ServetelError: if the requests fail. What was committed is kept for the next run.
    """
    destination = as_secret(destination)  # an address may hold a password
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
    async with writing(sink) as writer:
        job = Job(client, query, sink, writer, settings, told)
        await writer.run(sink.open, fresh=not resume)
        shelf = Shelf(sink)
        await writer.run(shelf.load)
        identity = await client.identify()
        account = resolve(shelf.accounts, identity)
        shelf.check_mask(account.label, settings.mask_name)
        shape = [*(columns or ()), settings.mask_name]
        claim = claim_of(query, client.zone, account.label, shape=shape, range_name=range_name)
        saved = await writer.run(sink.resume, claim)
        header, kept = (None, []) if saved is None else read_saved(saved, claim, sink.name)
        if header is not None:
            account = account_of(header, identity, sink.name)
        job.keep(kept)
        found = await job.look()
        if header is None or not kept:
            header = job.header(claim, account, found)
            await writer.run(sink.begin, msgspec.json.encode(header))
        else:
            found = _resumed(found, header, kept, is_done=sink.done)
        frame = Frame(
            account=account,
            scope=claim.scope,
            mask=settings.mask_name,
            range=found,
            here=job.here,
            asked_first=found.window.first,
        )
        await job.read(frame)
        await shelf.settle(job, claim, writer)
        return await conclude(
            job, sink, writer, query, strict=strict, overwritten=shelf.overwritten, on_receipt=on_receipt
        )


def _resumed(found: PullRange, header: Header, kept: Sequence[Reading], *, is_done: bool) -> PullRange:
    """Return the range of a resumed pull: from its first start to the server's clock, or a finished output's end."""
    first = min(header.first, found.window.first)
    last = max(reading.last for reading in kept) if is_done else max(found.window.last, first)
    return found._replace(window=Window.of(first, last))
