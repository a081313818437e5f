"""The flags for the account, the address and the speed, of every command that asks the API."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from servetel_async import ServetelClient, Timeouts
from servetel_async.cli.options.durations import Duration
from servetel_async.cli.options.numbers import Number
from servetel_async.errors import ConfigurationError
from servetel_async.profiles import DEFAULT_ZONE, choose_base_url, no_token, read_sources
from servetel_async.protocol.tokens import as_secret
from servetel_async.protocol.zone_names import read_zone
from servetel_async.secret_files import SecretFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta, tzinfo

    from servetel_async.profiles import Sources
    from servetel_async.transport.endpoint import Event

_BRANDS = ("servetel", "smartflo", "acefone", "acefone-uk")
_FLAGS = (
    click.option(
        "--rate",
        default=2.0,
        show_default=True,
        metavar="N",
        type=Number(0.001, 1000, zero="no limit"),
        help="Requests per second; 0 for no limit.",
    ),
    click.option(
        "--concurrency",
        default=4,
        show_default=True,
        metavar="N",
        type=Number(1, 256, whole=True),
        help="Requests at the same time.",
    ),
    click.option(
        "--page-size",
        default=100,
        show_default=True,
        metavar="N",
        type=Number(1, 100_000, whole=True),
        help="Calls per request.",
    ),
    click.option("--timeout", type=Number(0.001, 86_400), metavar="S", help="Seconds that one request may take."),
    click.option(
        "--max-range",
        metavar="7d",
        type=Duration("hd"),
        help="The longest range of one request; by default it is learnt.",
    ),
    click.option("--base-url", metavar="URL", help="Where the API is; by default SERVETEL_BASE_URL or the profile."),
    click.option(
        "--brand", type=click.Choice(_BRANDS, case_sensitive=False), help="The brand, in place of --base-url."
    ),
    click.option(
        "--zone",
        metavar="ZONE",
        help="The account's wall clock, such as Europe/London or +05:30; else SERVETEL_ZONE, the profile, or India's.",
    ),
    click.option(
        "--token-file", metavar="FILE", help="A file that only you may read; else SERVETEL_TOKEN or the profile."
    ),
    click.option("--email", metavar="ADDRESS", help="Log in instead of using a token; with --password-file."),
    click.option("--password-file", metavar="FILE", help="A file with the password; only you may read it."),
    click.option("--profile", metavar="NAME", help="The profile to use; else SERVETEL_PROFILE or the default one."),
    click.option("--account", metavar="NAME", help="The name of the account; else SERVETEL_ACCOUNT or the profile."),
)


def connection_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the connection flags to a command."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The values of the connection flags."""

    rate: float = 2.0
    concurrency: int = 4
    page_size: int = 100
    timeout: float | None = None
    max_range: timedelta | None = None
    base_url: str | None = None
    brand: str | None = None
    zone: str | None = None
    token_file: str | None = None
    email: str | None = None
    password_file: str | None = None
    profile: str | None = None
    account: str | None = None

    @classmethod
    def take(cls, options: dict[str, Any]) -> Connection:
        """Take the connection flags out of a command's options."""
        return cls(**{field.name: options.pop(field.name) for field in fields(cls)})

    def sources(self) -> Sources:
        """Choose where the token or login and the address come from: the flags, the environment or the profile.

        Raises:
            ConfigurationError: if the flags contradict each other, or the profile is wrong.
        """
        if self.token_file is not None and (self.email is not None or self.password_file is not None):
            raise ConfigurationError(
                "both a token and a login are given", fix="give --token-file, or --email and --password-file"
            )
        if (self.email is None) != (self.password_file is None):
            raise ConfigurationError(
                "half a login is given",
                why="a login needs an e-mail address and a password",
                fix="give both --email and --password-file",
            )
        found = read_sources(profile=self.profile)
        if self.token_file is None and self.email is None:
            return found
        if self.token_file is not None:
            return found.with_login(SecretFile(self.token_file))
        password = SecretFile(str(self.password_file), "the password file")
        return found.with_login(email=as_secret(self.email), password=password)

    def address(self, sources: Sources) -> str:
        """Choose the address of the API: from the flags, else from these sources.

        Raises:
            ConfigurationError: if both flags are given, or the address is not valid.
        """
        return choose_base_url(self.base_url, None if self.brand is None else self.brand.replace("-", "_"), sources)

    def given_zone(self, sources: Sources) -> tzinfo:
        """Read the zone of the flag, the environment or the profile; ``DEFAULT_ZONE`` if no zone is named.

        Raises:
            ConfigurationError: if there is no such zone.
        """
        name = sources.zone if self.zone is None else self.zone
        return DEFAULT_ZONE if name is None else read_zone(name)

    def client(self, on_event: Callable[[Event], object] | None = None) -> ServetelClient:
        """Make the client.

        Raises:
            ConfigurationError: if a setting is wrong; nothing was sent.
        """
        sources = self.sources()
        if sources.token is None and sources.email is None:  # the client would look into the default profile
            raise no_token()
        password = sources.password.read() if isinstance(sources.password, SecretFile) else sources.password
        seconds = self.timeout
        timeouts = Timeouts() if seconds is None else Timeouts(connect=min(10.0, seconds), read=seconds, total=seconds)
        return ServetelClient(
            sources.token,
            email=sources.email,
            password=password,
            base_url=self.address(sources),
            max_concurrency=self.concurrency,
            rate=self.rate or None,
            timeouts=timeouts,
            page_size=self.page_size,
            zone=self.given_zone(sources),
            max_range=self.max_range,
            on_event=on_event,
            account=sources.account if self.account is None else self.account,
        )
