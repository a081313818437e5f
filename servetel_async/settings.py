"""Settings as values, and where they come from when they are not given: the environment, then a profile.

Frozen, comparable, printable; every default says why. Nothing is read from the working directory: a ``.env`` that lies
around must not decide whose calls are pulled.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
import stat
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.tokens import Secret, hide, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class Brand(enum.Enum):
    """The brands of the one backend, by base URL. The zone of Acefone UK is not known: give ``zone=``."""

    SERVETEL = "https://api.servetel.in"
    SMARTFLO = "https://api-smartflo.tatateleservices.com"
    ACEFONE = "https://api.acefone.in"
    ACEFONE_UK = "https://api-account-uk.acefone.com"

    @property
    def base_url(self) -> str:
        """Where this brand's API stands."""
        return self.value

    @classmethod
    def named(cls, name: Brand | str) -> Brand:
        """Find a brand by its name, in any case and with ``-`` for ``_``."""
        if isinstance(name, Brand):
            return name
        try:
            return cls[name.upper().replace("-", "_")]
        except (KeyError, AttributeError):
            names = ", ".join(brand.name.lower() for brand in cls)
            raise ConfigurationError("there is no such brand", fix=f"the brands are: {names}") from None


def _check_positive(name: str, value: object, *, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
        what = "whole number" if whole else "number"
        raise ConfigurationError(f"{name} must be a {what} greater than 0", fix="correct it, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently a request is tried again.

    Args:
        attempts: requests per page or call, the first included. 5: four backoffs outlast a gateway's restart.
        base: seconds; the n-th backoff is a random time up to ``base * 2**n`` (full jitter: it spreads a herd).
        cap: seconds; no backoff is longer.
        throttled_base: seconds; the same after a 429 that names no time.
        throttled_cap: seconds; the same after a 429 that names no time.
        longest_wait: seconds; a ``Retry-After`` above it is not waited for but raised.
        budget: tokens of the retry budget. It bounds the retries of calls with a deadline in an outage. A retry costs
            14 (5 after a 429), and a call that succeeds gives back all that its retries cost: 500 allow 35 retries
            that lead to nothing. The clients of one account count their retries together, each against its own budget.
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 20.0
    throttled_base: float = 1.0
    throttled_cap: float = 60.0
    longest_wait: float = 900.0
    budget: int = 500

    def __post_init__(self) -> None:
        _check_positive("Retry(attempts=)", self.attempts, whole=True)
        if self.budget != 0:
            _check_positive("Retry(budget=)", self.budget, whole=True)
        for name in ("base", "cap", "throttled_base", "throttled_cap", "longest_wait"):
            _check_positive(f"Retry({name}=)", getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds, counted from when an attempt may start; waiting for a slot or for the rate is never charged to it.

    Args:
        connect: for a connection, TLS included. 10: a working one takes less than 1.
        read: between two pieces of a reply. 30: slow pages of this API have taken 12.
        total: for a whole attempt. 60: a page that drips is no page.
        acquire: for a turn: a free slot, and a turn of the account's rate; None waits as long as the call's deadline
            allows. Pages that a stream asks ahead wait for their own stream, which is no overload: only its first page
            is bound by this.
    """

    connect: float | None = 10.0
    read: float | None = 30.0
    total: float | None = 60.0
    acquire: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect", "read", "total", "acquire"):
            if getattr(self, name) is not None:
                _check_positive(f"Timeouts({name}=)", getattr(self, name))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How fast one account is asked, by all clients of this process together.

    Args:
        per_second: requests per second; 0 for no limit. 2: the documented one is 3, and placing calls draws on it too.
        burst: requests that may go at once after a pause.
    """

    per_second: float = 2.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.per_second not in (0, float("inf")):
            _check_positive("RateLimit(per_second=)", self.per_second)
            _check_positive("the time between two requests, 1 / per_second,", self.interval)
        _check_positive("RateLimit(burst=)", self.burst, whole=True)

    @property
    def interval(self) -> float:
        """Seconds from one request to the next."""
        return 1.0 / self.per_second if self.per_second else 0.0


def choose_rate(rate: RateLimit | float | None) -> RateLimit | None:
    """Read a plain number as requests per second; None and 0 are no limit."""
    limit = rate if rate is None or isinstance(rate, RateLimit) else RateLimit(per_second=rate)
    return limit if limit is not None and limit.per_second else None


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse a plain number where a value object is due."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is of type {kind_of(value)}", fix=f"give {name}={kind.__name__}(...)")


#: Bytes of one page at most; 1,000 calls with long flows are about 3 MB.
LARGEST_PAGE = 16 * 1024 * 1024


def check_base_url(url: object) -> str:
    """Check where to send the token.

    Raises:
        ConfigurationError: no scheme or host, user info, query or fragment, or plain HTTP beyond this computer.
    """
    url = hide(url)
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url is of type {kind_of(url)}", fix='for example "https://api.servetel.in"')
    example = 'write it like "https://api.servetel.in"'
    if "@" in url:
        raise ConfigurationError(
            "base_url holds user info",
            why="what stands before the @ would be logged by proxies",
            fix="give the token as token=, or email= and password=",
        )
    if "?" in url or "#" in url:
        raise ConfigurationError("base_url holds a query or a fragment", fix=example)
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("base_url cannot be read as a URL", fix=example) from None
    if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[!-\[\]-~]+", url):
        raise ConfigurationError("base_url needs a scheme, http or https, and a host", fix=example)
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(
            "base_url is plain http to another computer",
            why="the token would travel readable for everybody on the way",
            fix="use https",
        )
    return str(url).rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Sources:
    """What the environment and the chosen profile say; each may say nothing. All are hidden from tracebacks."""

    token: str | None = None
    base_url: str | None = None
    brand: str | None = None


_VARIABLES = ("TOKEN", "TOKEN_FILE", "BASE_URL", "PROFILE", "CONFIG")


def read_sources(environment: Mapping[str, str] | None = None) -> Sources:
    """Read ``SERVETEL_TOKEN``, ``SERVETEL_TOKEN_FILE``, ``SERVETEL_BASE_URL``, then the profile ``SERVETEL_PROFILE``.

    Profiles stand in ``~/.config/servetel/config.toml`` (``SERVETEL_CONFIG`` names another file)::

        [profiles.default]
        brand = "smartflo"             # or base_url = "https://..."
        token_file = "~/.config/servetel/token"

    Raises:
        ConfigurationError: a file that is named but missing, unreadable, or readable for others.
    """
    given = os.environ if environment is None else environment
    told = {name: hide(given.get(f"SERVETEL_{name}") or None) for name in _VARIABLES}
    del given, environment  # a traceback of what follows would print every variable there is
    profile = _read_profile(told)
    token = told["TOKEN"]
    file = told["TOKEN_FILE"] or (None if token else profile.get("token_file"))
    if token is None:
        token = Secret(_read_private(_expand(file), "the token file").strip()) if file else profile.get("token")
    url = told["BASE_URL"]
    return Sources(token, url or profile.get("base_url"), None if url else profile.get("brand"))


def _read_profile(told: Mapping[str, str | None]) -> Mapping[str, str]:
    file = _expand(told["CONFIG"] or "~/.config/servetel/config.toml")
    try:
        found = file.is_file()
    except OSError:  # a home that this user may not look into
        found = False
    if not found:
        if told["PROFILE"] or told["CONFIG"]:
            raise ConfigurationError(
                "the profile's file does not exist", fix=f"write {file}, or unset SERVETEL_PROFILE"
            )
        return {}
    profiles = _parse_profiles(_read_private(file, "the profile's file"))
    if profiles is None:
        raise ConfigurationError(f"{file} is not TOML", fix="see the how-to about logging in")
    profile = profiles.get(told["PROFILE"] or "default")
    if profile is None and told["PROFILE"]:
        raise ConfigurationError(f"{file} has no profile of that name", fix="check SERVETEL_PROFILE")
    return profile or {}


def _parse_profiles(text: str) -> dict[str, dict[str, str]] | None:
    """Read all profiles, their values hidden; None if it is not TOML: its error would carry the text along."""
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    profiles = content.get("profiles")
    tables = cast("dict[str, Any]", profiles) if isinstance(profiles, dict) else {}
    return {
        name: {key: hide(value) for key, value in cast("dict[str, Any]", table).items() if isinstance(value, str)}
        for name, table in tables.items()
        if isinstance(table, dict)
    }


def _expand(file: str) -> Path:
    try:
        return Path(file).expanduser()
    except RuntimeError:  # there is no such home directory
        return Path(file)


def _read_private(file: Path, what: str) -> str:
    """Read a file that may hold a secret: refused where others may read it too and we, its owner, can mend it."""
    try:
        found = file.stat()
        if sys.platform != "win32" and stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
            raise ConfigurationError(
                f"{what} may be read by other users", why="it holds a secret", fix=f"run: chmod 600 {file}"
            )
        return file.read_text("utf-8")
    except (OSError, UnicodeError):
        raise ConfigurationError(f"{what} cannot be read", fix=f"check that {file} exists and is yours") from None


def choose_base_url(base_url: str | None, brand: Brand | str | None, sources: Sources) -> str:
    """Choose where the API stands: what was given, then the environment, then the profile, then Servetel.

    Raises:
        ConfigurationError: the address cannot be one, or two were given.
    """
    if base_url is not None and brand is not None:
        raise ConfigurationError("both base_url and brand are given", fix="give one of them")
    if brand is None and base_url is None:
        base_url, brand = sources.base_url, sources.brand
    if base_url is not None:
        return check_base_url(base_url)
    return (Brand.SERVETEL if brand is None else Brand.named(brand)).base_url
