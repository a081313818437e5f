"""``servetel emulate``: the API on loopback until Ctrl-C."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from servetel_async.cli import exits
from servetel_async.cli.output.terminal import put, say
from servetel_async.cli.run import run
from servetel_async.emulator import IST, Dataset, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import Callable


#: Flag, type, default, help. The names are those of ``Emulator``'s arguments; a default of None is not shown.
_KNOBS: tuple[tuple[str, Any, Any, str], ...] = (
    ("--port", click.IntRange(0, 65535), 8000, "0 takes a free one."),
    ("--seed", int, 1, "Of the calls and of everything random."),
    ("--token", str, None, "The token to accept; else one is made up. It opens nothing but this emulator."),
    ("--email", str, None, "With --password: the login that is accepted."),
    ("--password", str, None, "See --email."),
    ("--expires-in", int, 3600, "Seconds that a token from a login lives."),
    ("--token-requests", int, None, "Requests after which a token has expired."),
    (
        "--expiry",
        click.Choice(["401", "200", "400", "403", "422", "500", "gateway"]),
        "401",
        "How the emulator answers an expired token.",
    ),
    ("--login-lock", float, 60.0, "Seconds that logins are refused after five failures."),
    ("--default-limit", int, 20, "Calls of a page where no limit is asked for."),
    ("--limit-cap", int, None, "Calls that a page never exceeds."),
    ("--echo-limit", click.Choice(["asked", "served"]), "asked", "Which limit a capped page reports."),
    ("--count-mode", click.Choice(["total", "page", "missing"]), "total", "What the field count means."),
    ("--size-mode", click.Choice(["rows", "limit"]), "rows", "What the field size means."),
    ("--knows-call-id/--ignores-call-id", bool, True, "Whether call_id is a filter."),
    ("--max-range-days", float, None, "Longest range that is not refused."),
    ("--latency", float, 0.0, "Seconds before each answer."),
    ("--jitter", float, 0.0, "Mean of random seconds on top."),
    ("--offset-cost", float, 0.0, "Seconds on top for every 1,000 calls that a page skips."),
    ("--rate-limit", float, None, "Requests per second; more get a 429."),
    ("--burst", float, None, "Requests that may come at once."),
    ("--retry-after", str, None, "The Retry-After of a 429."),
    ("--insert-every", int, None, "A new call before every N-th page."),
    ("--late-every", int, None, "A late call before every N-th page."),
    ("--delete-every", int, None, "A call disappears before every N-th page."),
    ("--shuffle-ties/--stable-ties", bool, False, "Whether calls of one second change places."),
    ("--bounds", click.Choice(["inclusive", "end_exclusive", "start_exclusive"]), "inclusive", "How dates are read."),
    ("--filed-by", click.Choice(["start", "end", "insertion"]), "start", "Which moment of a call the dates mean."),
    ("--order", click.Choice(["start", "end", "insertion"]), None, "How the list is sorted; else as --filed-by."),
    ("--now", str, None, "What the Date header shows, as YYYY-MM-DD HH:MM:SS."),
)


def _knobs(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, kind, default, text in reversed(_KNOBS):
        shown = default is not None
        command = click.option(flag, type=kind, default=default, show_default=shown, help=text)(command)
    return command


@click.command()
@click.option("--calls", default=10_000, show_default=True, type=click.IntRange(0), help="How many calls there are.")
@click.option("--month", metavar="YYYY-MM", help="The month of the calls; else the 30 days up to now.")
@click.option("--php-quirks", is_flag=True, help="Give the calls every odd form that was seen in the field.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[:KEY=VALUE,...]",
    help="What goes wrong, for example status:page=3,status=503,times=1; may be given several times.",
)
@_knobs
def emulate(calls: int, month: str | None, php_quirks: bool, faults: tuple[str, ...], **knobs: Any) -> int:
    """Serve made-up calls on 127.0.0.1. Address and token are printed as lines to paste into another terminal."""
    wrong = [_fault(text) for text in faults]
    say(f"Making up {calls:,} calls ...")
    dataset = _dataset(month, calls=calls, seed=knobs["seed"], php_quirks=php_quirks)
    try:
        api = Emulator(dataset, faults=wrong, **knobs)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        run(api.run_forever(_announce))
    except exits.Stopped as stopped:
        say(f"Stopped after {len(api.requests):,} requests.")
        return exits.COMPLETE if stopped.signal.name == "SIGINT" else 128 + stopped.signal
    except OSError:
        raise click.UsageError(
            f"port {knobs['port']} cannot be listened on; give another --port, 0 takes a free one"
        ) from None
    return exits.COMPLETE


def _dataset(month: str | None, *, calls: int, seed: int, php_quirks: bool) -> Dataset:
    try:
        if month is not None:
            return Dataset.month(month, calls=calls, seed=seed, php_quirks=php_quirks)
        now = datetime.now(IST)
        first, last = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (now - timedelta(days=30), now))
        return Dataset.range(first, last, calls=calls, seed=seed, php_quirks=php_quirks)
    except ValueError:
        raise click.UsageError("--month is not a month; write it as YYYY-MM") from None


def _announce(api: Emulator) -> None:
    put(f"export SERVETEL_BASE_URL={api.base_url}")
    put(f"export SERVETEL_TOKEN={api.token}")
    say("Serving until Ctrl-C.")


def _fault(text: str) -> Fault:
    """Read ``KIND[:KEY=VALUE,...]``."""
    kind, _, rest = text.partition(":")
    known = {field.name: field for field in dataclasses.fields(Fault) if field.name not in ("kind", "body", "headers")}
    values: dict[str, Any] = {}
    for pair in rest.split(",") if rest else ():
        name, equals, value = pair.partition("=")
        if name not in known or not equals:
            raise click.UsageError(f"--fault knows these keys: {', '.join(sorted(known))}")
        values[name] = _value(name, value, str(known[name].type))
    try:
        return Fault(kind, **values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it is checked there
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"--fault: {error}") from None


def _value(name: str, text: str, annotation: str) -> Any:
    if "str" in annotation and "float" not in annotation:
        return text
    try:
        return float(text) if "float" in annotation else int(text)
    except ValueError:
        raise click.UsageError(f"--fault: {name} needs a number") from None
