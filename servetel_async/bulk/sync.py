"""Sync: keep a database current. Check again what may have changed, and read again what has changed.

1. The ledger and the server's clock decide what to do (``ledger.due``). So no pause, no pull of another range and no
   killed run leaves a gap.
2. Seconds that were younger than a day when they were read are read again in full: a call's notes, charges and
   recording come after the call.
3. A window that was older than a day when it was read, but younger than the look-back, is counted again. Each window is
   counted on its own: one deleted and one late call of a day would cancel out in the day's count. Windows that differ
   or were not proved are read again.
4. Calls are upserted by account and ``id``. Calls that the account has deleted stay in the database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from servetel_async.aio.tasks import run_together
from servetel_async.bulk.frame import Frame
from servetel_async.bulk.job import Job, Settings
from servetel_async.bulk.journal import claim_of
from servetel_async.bulk.ledger import OPEN_END, due
from servetel_async.bulk.run import conclude, writing
from servetel_async.bulk.shelf import Shelf
from servetel_async.errors import ConfigurationError
from servetel_async.protocol.account import resolve
from servetel_async.protocol.tokens import as_secret
from servetel_async.protocol.windows import Window
from servetel_async.sinks.destination import sink_for
from servetel_async.transport.callbacks import Listener

if TYPE_CHECKING:
    from servetel_async.bulk.job import OnProgress
    from servetel_async.bulk.ledger import Due, Reading
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.bulk.run import OnReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Database


async def sync(
    client: ServetelClient,
    destination: Destination,
    query: CallQuery,
    *,
    lookback: timedelta = timedelta(days=7),
    on_progress: OnProgress | None = None,
    fast: bool = False,
    mask: Mask | None = None,
    settle: float = 7200.0,
    patience: float = 1800.0,
    on_receipt: OnReceipt | None = None,
) -> PullReceipt:
    """Bring a database up to date.

    Args:
        client: the client; it is not closed.
        destination: the database.
        query: the filters, without dates.
        lookback: how far back calls are expected to arrive or to change.
        on_progress: callback after each page and each window.
        fast: see ``pull``.
        mask: see ``pull``; it must be the mask of the calls in the database.
        settle: see ``pull``.
        patience: see ``pull``.
        on_receipt: see ``pull``.

    Raises:
        ConfigurationError: if the destination is not a database, the query has dates, or ``on_progress`` is ``async``.
        OutputLockedError: if another run is writing the database.
        ResumeMismatchError: if the database holds calls under another mask.
        ServetelError: if the requests fail. What was committed stays.
    """
    destination = as_secret(destination)  # an address may hold a password
    told = None if on_progress is None else Listener("on_progress", on_progress)
    if query.from_date is not None or query.to_date is not None:
        raise ConfigurationError("sync takes no dates", why="it looks back from now", fix="say how far: --lookback 7d")
    if lookback <= timedelta(0):
        raise ConfigurationError("the look-back must be longer than nothing", fix="for example --lookback 7d")
    sink = sink_for(destination)
    if not hasattr(sink, "ledger"):
        raise ConfigurationError(
            "only a database can be kept current",
            why="a file is written once, from end to end",
            fix="give a .db, .sqlite or .duckdb file, or postgresql://...",
        )
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
        await writer.run(sink.open)
        shelf = Shelf(sink)
        await writer.run(shelf.load)
        account = resolve(shelf.accounts, await client.identify())
        shelf.check_mask(account.label, settings.mask_name)
        claim = claim_of(query, client.zone, account.label, shape=[settings.mask_name], range_name="sync")
        await writer.run(sink.resume, claim)
        found = await job.look_at_now()
        now = found.window.end
        assert now is not None  # noqa: S101 - for the type checker: it is closed
        plan = due(shelf.readings(account.label, claim.scope), now, lookback)
        found = found._replace(window=plan.window, asked_last=OPEN_END)
        read, unchanged = await _compare(job, plan)
        header = job.header(claim, account, found)
        await writer.run(cast("Database", sink).begin, msgspec.json.encode(header), keep=True)
        frame = Frame(
            account=account,
            scope=claim.scope,
            mask=settings.mask_name,
            range=found,
            here=job.here,
            asked_first=plan.since,
        )
        await job.sync(frame, read, unchanged)
        await shelf.settle(job, claim, writer)
        return await conclude(
            job, sink, writer, query, strict=False, overwritten=shelf.overwritten, on_receipt=on_receipt
        )


async def _compare(job: Job, plan: Due) -> tuple[list[Window], list[Reading]]:
    """Count the plan's readings again; return the windows to read, newest first, and the readings that agree."""
    windows = [reading.window for reading in plan.recount]
    if windows:  # count with the conventions that this server has
        await job.calibration.ensure(Window.of(windows[-1].first, windows[0].last), job.extra)
    counts = await run_together([job.fetcher.count(window, job.extra) for window in windows])
    pairs = list(zip(plan.recount, counts, strict=True))
    changed = [reading.window for reading, count in pairs if reading.counted != count]
    read = sorted([*plan.read, *changed], key=lambda window: window.last, reverse=True)
    return read, [reading for reading, count in pairs if reading.counted == count]
