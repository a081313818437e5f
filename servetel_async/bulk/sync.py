"""Sync: keep a database current. What may have changed is looked at again, what has changed is read again.

1. The look-back is counted from where the last run of the same query ended, to a midnight: so a pause, however long,
   leaves no gap, and what came late to the last run's calls meanwhile is found.
2. From a day before that on everything is read in full: a call's notes, charges and recording come after the call.
3. Of each older window the count is asked for again, window by window: one deleted and one late call of the same day
   would cancel out in the day's count. Those that differ are read again, and so is what could not be proved last time.
4. Everything is upserted by ``id``. What the account has deleted stays in the database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from servetel_async.bulk.conclusion import Conclusion
from servetel_async.bulk.job import Job, Settings
from servetel_async.bulk.journal import claim_of, read_entries, read_saved
from servetel_async.bulk.plan import Frozen, freeze
from servetel_async.bulk.pull import finish
from servetel_async.bulk.writer import Writer
from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import shift, stamp
from servetel_async.protocol.tokens import hide
from servetel_async.protocol.windows import Window
from servetel_async.sinks.destination import sink_for
from servetel_async.transport.callbacks import Listener
from servetel_async.transport.tasks import run_together

if TYPE_CHECKING:
    from servetel_async.bulk.job import OnProgress
    from servetel_async.bulk.journal import Entry
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Database

#: How much of the newest is read in full each time.
IN_FULL = timedelta(days=1)


async def sync(
    client: ServetelClient,
    destination: Destination,
    query: CallQuery,
    *,
    lookback: timedelta = timedelta(days=7),
    on_progress: OnProgress | None = None,
    fast: bool = False,
    settle: float = 7200.0,
    patience: float = 1800.0,
) -> PullReceipt:
    """Bring a database up to date.

    Args:
        client: it is used and not closed.
        destination: a database.
        query: filters, without dates.
        lookback: how far back calls are expected to arrive or to change.
        on_progress: called after each page and each window.
        fast: see ``pull``.
        settle: see ``pull``.
        patience: see ``pull``.

    Raises:
        ConfigurationError: the destination is no database, the query has dates, or ``on_progress`` is ``async``.
        OutputLockedError: another run is writing it.
        ServetelError: whatever ended the requests. What was committed stays.
    """
    destination = hide(destination)  # an address may hold a password
    told = None if on_progress is None else Listener("on_progress", on_progress)
    if query.from_date is not None or query.to_date is not None:
        raise ConfigurationError("sync takes no dates", why="it looks back from now", fix="say how far: --lookback 7d")
    if lookback <= timedelta(0):
        raise ConfigurationError("the look-back must be longer than nothing", fix="for example --lookback 7d")
    sink = sink_for(destination)
    if not hasattr(sink, "windows"):
        raise ConfigurationError(
            "only a database can be kept current",
            why="a file is written once, from end to end",
            fix="give a .db, .sqlite or .duckdb file, or postgresql://...",
        )
    database = cast("Database", sink)
    settings = Settings(
        page_size=client.page_size, concurrency=client.max_concurrency, fast=fast, settle=settle, patience=patience
    )
    claim = claim_of(query, client.zone, shape=(), range_name="sync")
    writer = Writer()
    job = Job(client, query, database, writer, settings, told)
    try:
        saved = await writer.run(database.open, claim)
        entries = read_entries(await writer.run(database.windows, claim.scope))
        now = await _now(job, client, settle)
        seen_to = _seen_to(entries, now)
        start = shift(seen_to, -lookback).replace(hour=0, minute=0, second=0)
        if saved is not None:  # the last run was killed, perhaps on its way over a long pause
            begun = Window.of(*[read_saved(saved, claim, database.name)[0].first] * 2).start
            start = min(start, begun or start)
        header = job.header(claim, Frozen(Window(start, now.window.end), now.final_until))
        unchanged = await _unchanged(job, _newest(entries, header.first, stamp(shift(seen_to, -IN_FULL))))
        await writer.run(database.begin, msgspec.json.encode(header), keep=True)
        await job.sync(header, unchanged)
        return await writer.run(finish, Conclusion(job, header, database), database, query, client, strict=False)
    finally:
        try:
            await writer.run(database.abandon)
        finally:
            writer.close()


async def _now(job: Job, client: ServetelClient, settle: float) -> Frozen:
    """The server's clock; this computer's only says where to look for it."""
    here = datetime.now(UTC).astimezone(client.zone).replace(tzinfo=None, microsecond=0)
    page = await job.fetcher.sure_page(Window(shift(here, -timedelta(hours=1)), here), 1, job.extra)
    final_until = freeze(Window(here, None), page.date, client.zone, settle).final_until
    now = shift(final_until, timedelta(seconds=settle))
    return Frozen(Window(now, now), final_until)


def _seen_to(entries: list[Entry], now: Frozen) -> datetime:
    """Where the last run ended: in the present of its newest window, which was not final; that of an old month was."""
    end = now.window.end
    assert end is not None  # noqa: S101 - for the type checker: it is closed
    last = max((entry.last for entry in entries if not entry.final), default="")
    seen = Window.of(last, last).end if last else None
    return end if seen is None else min(seen, end)


def _newest(entries: list[Entry], first: str, until: str) -> list[Entry]:
    """Windows that lie in the range, before what is read in full; of two that overlap, the one that was read later."""
    kept: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry.at, reverse=True):
        if entry.last < first or entry.last > until:
            continue
        if all(entry.last < other.first or entry.first > other.last for other in kept):
            kept.append(entry)
    return kept


async def _unchanged(job: Job, entries: list[Entry]) -> list[Entry]:
    """Those whose count is still what was read. One that reaches beyond the range is looked at as a whole."""
    sound = [entry for entry in entries if not entry.flaws and entry.counted is not None]
    if sound:  # count with the bounds that this server needs
        whole = Window.of(min(entry.first for entry in sound), max(entry.last for entry in sound))
        await job.calibration.ensure(whole, job.extra)
    counts = await run_together([job.fetcher.count(Window.of(entry.first, entry.last), job.extra) for entry in sound])
    return [entry for entry, count in zip(sound, counts, strict=True) if entry.counted == count]
