"""``servetel check``: is the pulled data still there, and does the API still count the same?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from servetel_async.bulk.check import check as check_counts
from servetel_async.cli import exits
from servetel_async.cli.options.connection import Connection, connection_flags
from servetel_async.cli.options.filters import filter_flags, take_filters
from servetel_async.cli.output.terminal import put
from servetel_async.cli.output.watch import Watch
from servetel_async.cli.run import run
from servetel_async.protocol.query import CallQuery

if TYPE_CHECKING:
    from servetel_async.bulk.check_report import CheckReport
    from servetel_async.client import ServetelClient


@click.command()
@click.argument("dest")
@filter_flags
@click.option("--quiet", is_flag=True, help="No progress; the result is still printed.")
@connection_flags
def check(**options: Any) -> int:
    """Compare what is in DEST with what was written, and ask the API for the count of each window again.

    If the pull had filters, give the same ones: neither a receipt nor a ledger keeps their values.
    """
    connection = Connection.take(options)
    watch = Watch(connection, quiet=options["quiet"])
    try:
        query = CallQuery(**take_filters(options))
        report = run(_check(connection.client(watch.note), options["dest"], query, watch))
        for line in str(report).splitlines():
            put(line)
    except Exception as error:  # noqa: BLE001 - any error becomes an exit code
        return exits.report_error(error, started=watch.started)
    return exits.COMPLETE if report.agrees else exits.DISAGREES


async def _check(client: ServetelClient, destination: str, query: CallQuery, watch: Watch) -> CheckReport:
    async with client, watch.shown():
        return await check_counts(client, destination, query)
