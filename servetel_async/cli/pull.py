"""``servetel pull``: a range of calls into a file or a database."""

# ruff: noqa: PLC0415 - imported where needed, so that --help loads no HTTP client

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from servetel_async.cli import exits
from servetel_async.cli.terminal import put, say, standard_output
from servetel_async.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.query import CallQuery
    from servetel_async.transport.transport import Event

_LAST = re.compile(r"(\d{1,5})([dh])")
_BRANDS = ("servetel", "smartflo", "acefone", "acefone-uk")
_FILTERS = (
    ("--direction", "inbound or outbound.", False),
    ("--call-type", "c (answered) or m (missed).", False),
    ("--agents", "An agent's id; may be given several times.", True),
    ("--department", "A department's id; may be given several times.", True),
    ("--ivr", "An IVR's id; may be given several times.", True),
    ("--callerid", "The client's number.", False),
    ("--destination", "The account's number that was called.", False),
    ("--did-number", "The number a call was routed from.", False),
    ("--duration", "Seconds with an operator, for example '>=60'.", False),
    ("--services", "A service; may be given several times.", True),
    ("--broadcast", "true or false.", False),
    ("--call-id", "One call, by the id other systems know.", False),
)


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, text, multiple in reversed(_FILTERS):
        command = click.option(flag, help=text, multiple=multiple, metavar="TEXT")(command)
    return command


@dataclass(frozen=True, kw_only=True)
class _Orders:
    """What was asked for on the command line, filters and range apart."""

    dest: str
    rate: float
    page_size: int
    concurrency: int
    timeout: float | None
    base_url: str | None
    brand: str | None
    token_file: str | None
    overwrite: bool
    no_resume: bool
    strict: bool
    dry_run: bool
    as_json: bool
    quiet: bool


@click.command(short_help="Get a range of calls into a file or a database.")
@click.argument("dest")
@click.option("--month", metavar="YYYY-MM", help="A month of the account's calendar.")
@click.option(
    "--from-date", metavar="D", help="First moment: YYYY-MM-DD or 'YYYY-MM-DD HH:MM:SS', the account's clock."
)
@click.option("--to-date", metavar="D", help="Last moment, inclusive; by default now.")
@click.option("--yesterday", is_flag=True, help="Yesterday, on the account's calendar.")
@click.option("--last", metavar="7d", help="The time just passed, in days or hours: 7d, 12h.")
@_filters
@click.option(
    "--rate", default=2.0, show_default=True, type=click.FloatRange(0), help="Requests per second; 0 for no limit."
)
@click.option("--concurrency", default=4, show_default=True, type=click.IntRange(1), help="Requests at the same time.")
@click.option("--page-size", default=100, show_default=True, type=click.IntRange(1), help="Calls per request.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds that one request may take."
)
@click.option("--dry-run", is_flag=True, help="Count and estimate; write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists; databases are always kept current.")
@click.option("--no-resume", is_flag=True, help="Begin anew. An interrupted pull does so anyway in this version.")
@click.option("--strict", is_flag=True, help="Fail, and write nothing, where the output would not be complete.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per event on standard output, the receipt last.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--base-url", metavar="URL", help="Where the API stands; else SERVETEL_BASE_URL or the profile.")
@click.option("--brand", type=click.Choice(_BRANDS, case_sensitive=False), help="Or the brand.")
@click.option("--token-file", metavar="FILE", help="A file that only you may read; else SERVETEL_TOKEN or the profile.")
def pull(
    month: str | None,
    from_date: str | None,
    to_date: str | None,
    yesterday: bool,
    last: str | None,
    **options: Any,
) -> int:
    """Get every call of a range into DEST.

    DEST is told by its ending: .ndjson and .jsonl (one call per line, as the API sent it), .db and .sqlite (the table
    call_records); or - for NDJSON on standard output.

    A token never stands on the command line, where others can read it: SERVETEL_TOKEN, --token-file, or a profile.
    """
    names = {flag.removeprefix("--").replace("-", "_") for flag, _, _ in _FILTERS}
    filters = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
    orders = _Orders(**options)
    if orders.as_json and orders.dest == "-":
        raise click.UsageError("--json and - both want standard output: pull into a file, or leave --json out")
    says = _Json() if orders.as_json else None
    job = _Job(orders, says)
    try:
        query = _query(month, from_date, to_date, last, yesterday=yesterday, filters=filters)
        return job.estimate(query) if orders.dry_run else job.pull(query)
    except click.ClickException:
        raise
    except exits.Stopped as stopped:
        if says is not None:
            says.put("interrupted", exit_code=128 + stopped.signal)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes an exit code
        code = exits.report_error(error, started=job.started)
        if says is not None:
            says.error(error, code)
        return code


def _query(
    month: str | None,
    from_date: str | None,
    to_date: str | None,
    last: str | None,
    *,
    yesterday: bool,
    filters: dict[str, Any],
) -> CallQuery:
    """Make the query of one of the ways to name a range."""
    from servetel_async import IST, CallQuery

    ways = [bool(month), bool(from_date or to_date), yesterday, bool(last)]
    if sum(ways) != 1:
        raise click.UsageError(
            "say which calls: --month, --from-date (with --to-date), --yesterday or --last, one of them"
        )
    if month:
        return CallQuery.month(month, **filters)
    if yesterday:
        return CallQuery.day((datetime.now(IST) - timedelta(days=1)).date(), **filters)
    if last:
        match = _LAST.fullmatch(last)
        if match is None:
            raise click.UsageError("--last needs days or hours, for example --last 7d or --last 12h")
        days, hours = (int(match[1]), 0) if match[2] == "d" else (0, int(match[1]))
        return CallQuery.last(days=days, hours=hours, **filters)
    if not from_date:
        raise click.UsageError("--to-date needs --from-date: the whole history is never asked for by accident")
    until = to_date or datetime.now(IST).strftime("%Y-%m-%d %H:%M:%S")
    return CallQuery(from_date=from_date, to_date=until, **filters)


class _Json:
    """Events as JSON lines on standard output. Nobody may be listening: that must not end a pull."""

    #: Seconds between two progress events.
    EVERY = 1.0

    def __init__(self) -> None:
        self._next = 0.0
        self.failed = False

    def put(self, event: str, **fields: Any) -> None:
        import msgspec

        if sys.stdout is None:
            return
        # JSON escapes control characters itself, and the line goes out as bytes, whatever the terminal's encoding.
        line = msgspec.json.encode({"event": event, **fields}) + b"\n"
        try:
            with standard_output():
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except OutputError as error:
            self.failed = True
            say(f"No more events: {error.what} ({error.why})")

    def progress(self, progress: PullProgress) -> None:
        from dataclasses import asdict

        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.EVERY
            self.put("progress", **asdict(progress))

    def wait(self, event: Event) -> None:
        self.put("wait", page=event.page, error=event.error, status=event.status, seconds=round(event.seconds, 3))

    def receipt(self, receipt: PullReceipt) -> None:
        import msgspec

        self.put("receipt", **msgspec.to_builtins(receipt))

    def error(self, error: BaseException, code: int) -> None:
        said = {name: getattr(error, name, "") for name in ("what", "why", "fix")}
        self.put("error", error=type(error).__name__, exit_code=code, **said)


class _Job:
    """One run of the command."""

    def __init__(self, orders: _Orders, says: _Json | None) -> None:
        from servetel_async.cli.progress import display

        self.started = False
        self._orders = orders
        self._json = says
        self._display = display(quiet=orders.quiet or orders.as_json or orders.dry_run)

    def pull(self, query: CallQuery) -> int:
        from servetel_async.cli.running import run

        if self._json is not None:
            from servetel_async.bulk.receipt import describe
            from servetel_async.protocol.clock import IST

            self._json.put("start", query=describe(query), range=str(query.window(IST)))
        receipt = run(self._pull(self._client(), query))
        if self._json is not None:
            self._json.receipt(receipt)
        else:
            for line in str(receipt).splitlines():
                say(line)
        if receipt.complete:
            return exits.COMPLETE
        return exits.DISAGREES if receipt.reused_ids else exits.INCOMPLETE

    async def _pull(self, client: ServetelClient, query: CallQuery) -> PullReceipt:
        orders = self._orders
        async with client:
            self._display.start()
            try:
                return await client.pull(
                    orders.dest,
                    query=query,
                    overwrite=orders.overwrite,
                    resume=not orders.no_resume,
                    on_progress=self._show,
                    strict=orders.strict,
                )
            finally:
                self._display.stop()

    def estimate(self, query: CallQuery) -> int:
        """Count, and say what a pull would cost."""
        from servetel_async.bulk.receipt import duration
        from servetel_async.cli.running import run
        from servetel_async.sinks.destination import sink_for

        orders = self._orders
        sink_for(orders.dest)
        calls = run(self._count(self._client(), query))
        requests = -(-calls // orders.page_size) + 1  # one more than the pages: it proves the end
        seconds = requests / orders.rate if orders.rate else None
        if self._json is not None:
            self._json.put("estimate", calls=calls, requests=requests, seconds=seconds)
            return exits.TEMPORARY if self._json.failed else exits.COMPLETE
        time_needed = "as fast as the API answers" if seconds is None else f"about {duration(seconds)}"
        put(f"{calls:,} calls, about {requests:,} requests, {time_needed}; nothing was written")
        return exits.COMPLETE

    async def _count(self, client: ServetelClient, query: CallQuery) -> int:
        async with client:
            return await client.count(query=query)

    def _client(self) -> ServetelClient:
        from servetel_async import ServetelClient, Timeouts
        from servetel_async.settings import read_sources

        orders = self._orders
        token = None
        if orders.token_file is not None:
            token = read_sources({"SERVETEL_TOKEN_FILE": orders.token_file}).token
        seconds = orders.timeout
        timeouts = Timeouts() if seconds is None else Timeouts(connect=min(10.0, seconds), read=seconds, total=seconds)
        return ServetelClient(
            token,
            base_url=orders.base_url,
            brand=None if orders.brand is None else orders.brand.replace("-", "_"),
            max_concurrency=orders.concurrency,
            rate=orders.rate or None,
            timeouts=timeouts,
            page_size=orders.page_size,
            on_event=self._note,
        )

    def _show(self, progress: PullProgress) -> None:
        self._display.show(progress)
        if self._json is not None:
            self._json.progress(progress)

    def _note(self, event: Event) -> None:
        self.started = True
        self._display.note(event)
        if self._json is not None and event.kind == "wait":
            self._json.wait(event)
