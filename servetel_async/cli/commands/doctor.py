"""``servetel doctor``: where the settings come from, what is installed, and whether the API answers."""

from __future__ import annotations

import os
import platform
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from servetel_async.bulk.probe import probe as find_out
from servetel_async.bulk.pull_range import server_clock
from servetel_async.cli import exits
from servetel_async.cli.options.connection import Connection, connection_flags
from servetel_async.cli.options.durations import rough
from servetel_async.cli.output.terminal import put
from servetel_async.cli.run import run
from servetel_async.page_source import PageRequest
from servetel_async.profiles import choose_zone
from servetel_async.protocol.clock import name_zone
from servetel_async.protocol.query import CallQuery
from servetel_async.protocol.tokens import expires_at, normalise_token
from servetel_async.secret_files import SecretFile
from servetel_async.version import __version__

if TYPE_CHECKING:
    from servetel_async.client import ServetelClient
    from servetel_async.profiles import Sources
    from servetel_async.protocol.account import Account
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.transport.call import Fetched

_PACKAGES = ("aiohttp", "msgspec", "tenacity", "anyio")
#: Each extra and its packages.
_EXTRAS = (
    ("cli", ("click", "rich")),
    ("parquet", ("pyarrow",)),
    ("duckdb", ("duckdb",)),
    ("postgres", ("asyncpg",)),
    ("zstd", ("backports.zstd",)),
)
#: What identifies an account, in words for people.
_KNOWN_BY = {
    "subject": "the subject that the token names",
    "login": "the e-mail address of the login",
    "token": "the token itself, so a renewed token looks like another account",
}
#: Seconds that two clocks may differ without a report: a Date header has whole seconds.
_CLOSE = 2.0


@click.command()
@click.option("--probe", is_flag=True, help="Find out in about ten requests what this account's server really does.")
@connection_flags
def doctor(**options: Any) -> int:
    """Say where the settings come from and what is installed, then ask the API for one call. Shows no secret."""
    connection = Connection.take(options)
    try:
        _show_installation()
        _show_settings(connection)
        run(_ask(connection.client(), probe=options["probe"]))
    except Exception as error:  # noqa: BLE001 - any error becomes an exit code
        return exits.report_error(error, started=True)
    return exits.COMPLETE


def _show_installation() -> None:
    _row("version", f"servetel-async {__version__}, Python {platform.python_version()}")
    _row("needs", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    for extra, names in _EXTRAS:
        built_in = extra == "zstd" and sys.version_info >= (3, 14)
        there = (
            "part of Python"
            if built_in
            else ", ".join(f"{name} {found}" for name in names if (found := _version(name)))
        )
        _row(f"[{extra}]", there or f'not installed: pip install "servetel-async[{extra}]"')


def _show_settings(connection: Connection) -> None:
    sources = connection.sources()
    if sources.email is not None:
        _row("login", f"from {'the flags' if connection.email is not None else 'the profile'}")
    elif sources.token is None:
        _row("token", "none")
    else:
        token = sources.token.read() if isinstance(sources.token, SecretFile) else sources.token
        _row("token", f"from {_token_source(connection, sources)}")
        _row("ends", _when(expires_at(normalise_token(token))))
    address = connection.address(sources)
    _row("address", f"{address} from {_address_source(connection, sources)}")
    zone = choose_zone(connection.given_zone(sources), address, sources)
    _row("zone", f"{name_zone(zone) or 'IST'} from {_zone_source(connection, sources)}")


def _token_source(connection: Connection, sources: Sources) -> str:
    if connection.token_file is not None:
        return "--token-file"
    if sources.token == os.environ.get("SERVETEL_TOKEN"):
        return "SERVETEL_TOKEN"
    named = os.environ.get("SERVETEL_TOKEN_FILE")
    is_named = bool(named) and sources.token == SecretFile(str(named))
    return "the file that SERVETEL_TOKEN_FILE names" if is_named else "the profile"


def _address_source(connection: Connection, sources: Sources) -> str:
    if connection.base_url is not None or connection.brand is not None:
        return "--base-url" if connection.base_url is not None else "--brand"
    if sources.brand is not None:
        return "the profile's brand"
    if sources.base_url is None:
        return "the default"
    return "SERVETEL_BASE_URL" if sources.base_url == os.environ.get("SERVETEL_BASE_URL") else "the profile"


def _zone_source(connection: Connection, sources: Sources) -> str:
    if connection.zone is not None:
        return "--zone"
    if os.environ.get("SERVETEL_ZONE"):
        return "SERVETEL_ZONE"
    return "the default" if sources.zone is None else "the profile"


def _when(end: float | None) -> str:
    if end is None:
        return "it does not say when"
    left = end - time.time()
    try:
        moment = f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "never, as it says"
    return f"{moment}, in {rough(left)}" if left > 0 else f"{moment}: it ended {rough(-left)} ago"


async def _ask(client: ServetelClient, *, probe: bool) -> None:
    async with client:
        _row("account", _whose(await client.identify()))
        query = CallQuery(from_date=datetime.now(UTC) - timedelta(days=1), to_date=datetime.now(UTC))
        fetched = await client.start_page(PageRequest(query, query.window(client.zone), 1, 1, None))
        _row("answers", f"yes, in {fetched.seconds * 1000:,.0f} ms")
        _row("last day", "no count" if fetched.value.count is None else f"{fetched.value.count:,} calls")
        _row("clock", _clock(fetched))
        if probe:
            for line in str(await find_out(client)).splitlines():
                put(line)


def _whose(account: Account) -> str:
    called = "" if account.name is None else f"{account.name}, "
    return f"{called}fingerprint {account.fingerprint} of {_KNOWN_BY[account.known_by]}"


def _clock(fetched: Fetched[PageBody]) -> str:
    if fetched.value.date is None:
        return "the server sends no Date header"
    ahead = (server_clock(fetched.value.date) - datetime.now(UTC)).total_seconds()
    if abs(ahead) < _CLOSE + fetched.seconds:
        return "the server's and this computer's agree"
    return f"the server's is {rough(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this computer's"


def _row(name: str, text: str) -> None:
    put(f"{name:<11} {text}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
