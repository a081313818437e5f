"""Whose calls, and how fast: the flags of every command that asks the API."""

# ruff: noqa: PLC0415 - imported where needed, so that --help loads no HTTP client

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from servetel_async.cli.durations import Duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from servetel_async.client import ServetelClient
    from servetel_async.transport.transport import Event

_BRANDS = ("servetel", "smartflo", "acefone", "acefone-uk")
_FLAGS = (
    click.option(
        "--rate", default=2.0, show_default=True, type=click.FloatRange(0), help="Requests per second; 0 for no limit."
    ),
    click.option(
        "--concurrency", default=4, show_default=True, type=click.IntRange(1), help="Requests at the same time."
    ),
    click.option("--page-size", default=100, show_default=True, type=click.IntRange(1), help="Calls per request."),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), metavar="S", help="Seconds that one request may take."
    ),
    click.option(
        "--max-range", metavar="7d", type=Duration("hd"), help="The longest range of one request; else it is learnt."
    ),
    click.option("--base-url", metavar="URL", help="Where the API stands; else SERVETEL_BASE_URL or the profile."),
    click.option("--brand", type=click.Choice(_BRANDS, case_sensitive=False), help="Or the brand."),
    click.option(
        "--token-file", metavar="FILE", help="A file that only you may read; else SERVETEL_TOKEN or the profile."
    ),
)


def connection_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What the flags said."""

    rate: float = 2.0
    concurrency: int = 4
    page_size: int = 100
    timeout: float | None = None
    max_range: timedelta | None = None
    base_url: str | None = None
    brand: str | None = None
    token_file: str | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Connection:
        """Take them out of a command's options."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls)})

    def client(self, on_event: Callable[[Event], object] | None = None) -> ServetelClient:
        """Make the client.

        Raises:
            ConfigurationError: whatever can be known to be wrong before anything is sent.
        """
        from servetel_async import ServetelClient, Timeouts
        from servetel_async.settings import read_sources

        token = None
        if self.token_file is not None:
            token = read_sources({"SERVETEL_TOKEN_FILE": self.token_file}).token
        seconds = self.timeout
        timeouts = Timeouts() if seconds is None else Timeouts(connect=min(10.0, seconds), read=seconds, total=seconds)
        return ServetelClient(
            token,
            base_url=self.base_url,
            brand=None if self.brand is None else self.brand.replace("-", "_"),
            max_concurrency=self.concurrency,
            rate=self.rate or None,
            timeouts=timeouts,
            page_size=self.page_size,
            max_range=self.max_range,
            on_event=on_event,
        )
