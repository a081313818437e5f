"""``servetel pull``: a range of calls into a file or a database."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from servetel_async.bulk.pull import pull as pull_calls
from servetel_async.bulk.receipt import describe
from servetel_async.cli import exits
from servetel_async.cli.job import Job
from servetel_async.cli.options.connection import Connection, connection_flags
from servetel_async.cli.options.durations import PATIENCE, SETTLE
from servetel_async.cli.options.filters import filter_flags, take_filters
from servetel_async.cli.options.masking import choose_mask, mask_flags
from servetel_async.cli.options.ranges import Range, range_flags, take_range
from servetel_async.cli.output.estimates import Estimate
from servetel_async.cli.output.events import Events
from servetel_async.cli.output.terminal import put
from servetel_async.cli.output.watch import Watch
from servetel_async.cli.run import run
from servetel_async.errors import ConfigurationError
from servetel_async.sinks.destination import sink_for

if TYPE_CHECKING:
    from datetime import timedelta

    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.mask import Mask


@dataclass(frozen=True, kw_only=True)
class _Orders:
    """The options of a pull: all flags except those of the range, the filters and the connection."""

    dest: str
    columns: str | None
    mask: bool
    pseudonyms: str | None
    fast: bool
    settle: timedelta
    patience: timedelta
    overwrite: bool
    no_resume: bool
    strict: bool
    allow_quarantine: bool
    dry_run: bool
    as_json: bool
    quiet: bool

    @property
    def chosen(self) -> list[str] | None:
        """The columns; None for all of them."""
        return None if self.columns is None else [name.strip() for name in self.columns.split(",")]

    @cached_property
    def chosen_mask(self) -> Mask | None:
        """The mask; None for none."""
        return choose_mask(self.mask, self.pseudonyms)

    def check(self) -> None:
        """Refuse flags that contradict each other, and a mask that cannot be made."""
        _ = self.chosen_mask
        if self.as_json and self.dest == "-":
            raise ConfigurationError(
                "--json and - both want standard output",
                why="calls and events would be mixed",
                fix="pull into a file, or leave --json out",
            )
        if self.allow_quarantine and self.dest == "-":
            raise ConfigurationError(
                "--allow-quarantine needs a file beside the output",
                why="standard output has none, so a record that cannot be read would be lost",
                fix="pull into a file, or leave --allow-quarantine out",
            )
        if self.strict and self.allow_quarantine:
            raise ConfigurationError(
                "--strict and --allow-quarantine contradict each other",
                why="--strict makes no output if a record cannot be read, --allow-quarantine accepts such records",
                fix="give one of them",
            )


@click.command()
@click.argument("dest")
@range_flags
@filter_flags
@click.option("--columns", metavar="A,B,...", help="Columns of a CSV or Parquet file, for example id,date,time.")
@mask_flags
@click.option("--fast", is_flag=True, help="Save requests: do not read again the seconds that two pages share.")
@SETTLE
@PATIENCE
@click.option("--overwrite", is_flag=True, help="Replace a file that exists; databases are always kept current.")
@click.option("--no-resume", is_flag=True, help="Drop what an interrupted pull has left, and begin anew.")
@click.option("--strict", is_flag=True, help="Fail, and make no output, if the output would not be complete.")
@click.option("--allow-quarantine", is_flag=True, help="Exit with 0 if records that cannot be read are the only flaw.")
@click.option("--dry-run", is_flag=True, help="Count and estimate; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per event on standard output, the receipt last.")
@click.option("--quiet", is_flag=True, help="No progress.")
@connection_flags
def pull(**options: Any) -> int:
    """Get every call of a range into DEST. After an interruption the same command resumes the pull.

    The ending of DEST decides the format: .ndjson, .jsonl (one call per line, as the API sent it) and .csv, each also
    with .gz or .zst; .parquet, or a directory that ends in / for a Parquet file per day; .db, .sqlite and .duckdb (the
    table call_records); postgresql://...; or - for NDJSON on standard output.

    A token is never given on the command line, where others can read it: use SERVETEL_TOKEN, --token-file or a
    profile.
    """
    connection = Connection.take(options)
    filters = take_filters(options)
    orders = _Orders(**{field.name: options.pop(field.name) for field in fields(_Orders)})
    events = Events() if orders.as_json and orders.dest != "-" else None
    watch = Watch(
        connection,
        events,
        quiet=orders.quiet or orders.dry_run,
        estimate=not orders.dry_run,
        patience=orders.patience.total_seconds(),
    )
    job = Job(orders.dest, events, watch)
    try:
        orders.check()
        client = connection.client(watch.note)
        asked = take_range(options, filters, client.zone)
        if orders.dry_run:
            return _estimate(client, orders, asked, connection, events)
        return _pull(client, orders, asked, job, watch, events)
    except exits.Stopped as stopped:
        return job.stopped(stopped)
    except Exception as error:  # noqa: BLE001 - any error becomes an exit code
        return job.failed(error)


def _pull(  # noqa: PLR0917 - what a run is made of
    client: ServetelClient, orders: _Orders, asked: Range, job: Job, watch: Watch, events: Events | None
) -> int:
    if events is not None:
        events.put("start", query=describe(asked.query), range=str(asked.query.window(client.zone)))
    receipt = run(_work(client, orders, asked, watch))
    return job.finished(receipt, allow_quarantine=orders.allow_quarantine)


async def _work(client: ServetelClient, orders: _Orders, asked: Range, watch: Watch) -> PullReceipt:
    async with client, watch.shown():
        return await pull_calls(
            client,
            orders.dest,
            asked.query,
            overwrite=orders.overwrite,
            resume=not orders.no_resume,
            on_progress=watch.show,
            strict=orders.strict,
            fast=orders.fast,
            columns=orders.chosen,
            mask=orders.chosen_mask,
            settle=orders.settle.total_seconds(),
            patience=orders.patience.total_seconds(),
            range_name=asked.name,
            on_receipt=watch.take,
        )


def _estimate(
    client: ServetelClient, orders: _Orders, asked: Range, connection: Connection, events: Events | None
) -> int:
    """Count the calls, and print what a pull would cost."""
    _check_destination(orders)
    calls = run(_count(client, asked))
    estimate = Estimate.of(calls, page_size=connection.page_size, rate=connection.rate)
    if events is not None:
        events.estimate(estimate)
        return exits.TEMPORARY if events.failed else exits.COMPLETE
    put(f"{estimate}; nothing was written")
    return exits.COMPLETE


def _check_destination(orders: _Orders) -> None:
    """Check that the destination could be made. Existing databases stay closed: opening one for a pull adds tables."""
    sink = sink_for(orders.dest, overwrite=orders.overwrite, columns=orders.chosen)
    if sink.keyed_by_id and (sink.place is None or sink.place.exists()):
        return
    try:
        sink.open(fresh=orders.no_resume)
    finally:
        sink.abandon()


async def _count(client: ServetelClient, asked: Range) -> int:
    async with client:
        return await client.count(query=asked.query)
