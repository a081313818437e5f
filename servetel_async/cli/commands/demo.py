"""``servetel demo``: the emulator, a pull and a report, all on this computer."""

from __future__ import annotations

import json
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from servetel_async import IST, CallQuery, ServetelClient
from servetel_async.cli.options.connection import Connection
from servetel_async.cli.output.terminal import put, say
from servetel_async.cli.output.watch import Watch
from servetel_async.cli.run import run
from servetel_async.emulator import Dataset, Emulator

if TYPE_CHECKING:
    from servetel_async.bulk.receipt import PullReceipt

MONTH = "2024-05"
_BUSIEST = "SELECT substr(time, 1, 2), count(*) FROM call_records GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
_EXAMPLE = "SELECT department_name, count(*) FROM call_records GROUP BY 1 ORDER BY 2 DESC"
_AGENTS = """
    SELECT agent_name, count(*) FROM call_records
    WHERE agent_name <> '' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5
"""


@click.command()
@click.option(
    "--calls", default=20_000, show_default=True, type=click.IntRange(1, 2_000_000), help="Calls in the month."
)
@click.option(
    "--db",
    default=Path("calls.db"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The SQLite database to write; a second run brings it up to date.",
)
def demo(calls: int, db: Path) -> None:
    """Start the emulator, pull a month of made-up calls from it, and report.

    Nothing leaves this computer. The pull runs through the same code that would get your calls.
    """
    _check_suffix(db)
    say(f"Making up {calls:,} calls of {MONTH} ...")
    dataset = Dataset.month(MONTH, calls=calls)
    _check_is_ours(db, dataset)
    receipt = run(_pull(dataset, db))
    _report(db, dataset, receipt)


async def _pull(dataset: Dataset, db: Path) -> PullReceipt:
    watch = Watch(Connection(rate=0))
    async with Emulator(dataset) as api:
        say(f"Pulling them from {api.base_url} into {db.name} ...")
        client = ServetelClient(api.token, base_url=api.base_url, rate=None, zone=IST, on_event=watch.note)
        async with client, watch.shown():
            return await client.pull(db, query=CallQuery.month(MONTH), on_progress=watch.show)


def _check_suffix(db: Path) -> None:
    if db.suffix.lower() not in (".db", ".sqlite"):
        raise click.UsageError("the demo writes a database: give --db a name that ends in .db or .sqlite")


def _check_is_ours(db: Path, dataset: Dataset) -> None:
    """Refuse a database of real calls: made-up calls must never be mixed into them."""
    if not db.exists():
        return
    try:
        with closing(sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro", uri=True)) as database:
            others = database.execute(
                "SELECT 1 FROM call_records WHERE accountid IS NOT ? LIMIT 1", (dataset.centre.account,)
            ).fetchone()
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise click.UsageError(
                f"{db.name} cannot be looked into now, so it is not known whose calls it holds"
            ) from None
        return  # no such table or column, or not a database: the sink says what is wrong with it
    if others is not None:
        raise click.UsageError(f"{db.name} holds calls of a real account; give the demo another --db")


def _report(db: Path, dataset: Dataset, receipt: PullReceipt) -> None:
    with closing(sqlite3.connect(db)) as database:
        with database:  # rows of an earlier demo: its emulator had another port, so it is another account
            database.execute(
                "DELETE FROM call_records WHERE account IS NOT ? OR id NOT IN (SELECT value FROM json_each(?))",
                (receipt.account, json.dumps(dataset.ids)),
            )
            for table in ("servetel_ledger", "servetel_pulls"):
                database.execute(f"DELETE FROM {table} WHERE account IS NOT ?", (receipt.account,))  # noqa: S608
        total, answered = database.execute(
            "SELECT count(*), count(*) FILTER (WHERE status = 'answered') FROM call_records"
        ).fetchone()
        hour, in_hour = database.execute(_BUSIEST).fetchone()
        agents = database.execute(_AGENTS).fetchall()
    put(f"{db.name}: {total:,} made-up calls of {MONTH}")
    put(f"  answered  {answered:>9,}  {answered / total:6.1%}")
    put(f"  missed    {total - answered:>9,}  {1 - answered / total:6.1%}")
    put(f"  busiest   {in_hour:>9,}  from {hour}:00 to {hour}:59")
    put("  agents with the most calls")
    for name, count in agents:
        put(f"            {count:>9,}  {name}")
    put("Look further, for example:")
    put(f'  sqlite3 {shlex.quote(str(db))} "{_EXAMPLE}"')
    for line in reversed(str(receipt).splitlines()):
        put(line)
