"""``servetel sync``: keep a database current, once or repeatedly."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from servetel_async.bulk.sync import sync as sync_calls
from servetel_async.cli import exits
from servetel_async.cli.job import Job
from servetel_async.cli.options.connection import Connection, connection_flags
from servetel_async.cli.options.durations import PATIENCE, SETTLE, Duration, rough
from servetel_async.cli.options.filters import filter_flags, take_filters
from servetel_async.cli.options.masking import choose_mask, mask_flags
from servetel_async.cli.output.events import Events
from servetel_async.cli.output.terminal import say
from servetel_async.cli.output.watch import Watch
from servetel_async.cli.run import run
from servetel_async.protocol.query import CallQuery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient

#: Exit codes of failures that may have passed by the next run.
_PASSING = (exits.INCOMPLETE, exits.TEMPORARY, exits.DISAGREES)


@click.command()
@click.argument("dest")
@click.option(
    "--lookback", default="7d", show_default=True, type=Duration("hd"), help="How far back calls arrive or change."
)
@click.option("--every", metavar="15m", type=Duration(), help="Repeat the sync after this time, until a signal.")
@filter_flags
@click.option("--fast", is_flag=True, help="Save requests: do not read again the seconds that two pages share.")
@mask_flags
@SETTLE
@PATIENCE
@click.option("--json", "as_json", is_flag=True, help="One JSON object per event on standard output, the receipt last.")
@click.option("--quiet", is_flag=True, help="No progress.")
@connection_flags
def sync(**options: Any) -> int:
    """Bring DEST, a database, up to date: .db, .sqlite, .duckdb or postgresql://...

    A window that was less than a day old when it was read is read again. An older window within the look-back is
    counted again, and read again if its count differs. A pause of any length leaves no gap.
    """
    connection = Connection.take(options)
    events = Events() if options["as_json"] else None
    every: timedelta | None = options["every"]
    patience: timedelta = options["patience"]
    watch = Watch(connection, events, quiet=options["quiet"] or every is not None, patience=patience.total_seconds())
    job = Job(options["dest"], events, watch)
    try:
        query = CallQuery(**take_filters(options))
        client = connection.client(watch.note)
        return _run(client, query, options, job, watch)
    except exits.Stopped as stopped:
        if every is None:
            return job.stopped(stopped)
        return exits.report_stop(stopped.signal, f"what is committed stays; resume with: {exits.again(sys.argv[1:])}")
    except Exception as error:  # noqa: BLE001 - any error becomes an exit code
        return job.failed(error)


def _run(client: ServetelClient, query: CallQuery, options: dict[str, Any], job: Job, watch: Watch) -> int:
    every: timedelta | None = options["every"]

    async def once() -> PullReceipt:
        async with watch.shown():
            return await sync_calls(
                client,
                options["dest"],
                query,
                lookback=options["lookback"],
                on_progress=watch.show,
                fast=options["fast"],
                settle=options["settle"].total_seconds(),
                mask=choose_mask(options["mask"], options["pseudonyms"]),
                patience=options["patience"].total_seconds(),
                on_receipt=watch.take,
            )

    async def work() -> PullReceipt | int:
        async with client:
            return await once() if every is None else await _repeat(once, every, job)

    result = run(work())
    return result if isinstance(result, int) else job.finished(result)


async def _repeat(once: Callable[[], Awaitable[PullReceipt]], every: timedelta, job: Job) -> int:
    """Sync again and again until a failure is permanent; return the exit code. Other failures are tried again."""
    while True:
        begun = time.monotonic()
        try:
            job.line(await once())
        except Exception as error:  # noqa: BLE001 - most failures have passed by the next run
            code = await asyncio.to_thread(job.failed, error)
            if code not in _PASSING:
                return code
        left = max(0.0, every.total_seconds() - (time.monotonic() - begun))
        say(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  next run in {rough(left)}")
        await asyncio.sleep(left)
