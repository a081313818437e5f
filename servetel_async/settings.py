"""Settings as values: frozen, comparable, printable; every default states its reason."""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from urllib.parse import urlsplit

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST
from servetel_async.protocol.tokens import as_secret, kind_of
from servetel_async.protocol.windows import LONGEST, SHORTEST


class Brand(enum.Enum):
    """The brands of the one backend, by base URL."""

    SERVETEL = "https://api.servetel.in"
    SMARTFLO = "https://api-smartflo.tatateleservices.com"
    ACEFONE = "https://api.acefone.in"
    ACEFONE_UK = "https://api-account-uk.acefone.com"

    @property
    def base_url(self) -> str:
        """The address of this brand's API."""
        return self.value

    @property
    def zone(self) -> tzinfo | None:
        """The wall clock of its accounts: India's. None for Acefone UK, whose clock is not documented."""
        return None if self is Brand.ACEFONE_UK else IST

    @classmethod
    def at(cls, base_url: str) -> Brand | None:
        """Find the brand whose API is at an address; None for an address of no brand."""
        host = (urlsplit(base_url).hostname or "").rstrip(".")
        return next((brand for brand in cls if urlsplit(brand.base_url).hostname == host), None)

    @classmethod
    def named(cls, name: Brand | str) -> Brand:
        """Find a brand by its name, in any case and with ``-`` for ``_``."""
        if isinstance(name, Brand):
            return name
        try:
            return cls[name.upper().replace("-", "_")]
        except (KeyError, AttributeError):
            names = ", ".join(brand.name.lower().replace("_", "-") for brand in cls)
        raise ConfigurationError(
            "there is no such brand",
            why="the brand decides to which address the token is sent",
            fix=f"the brands are: {names}",
        )


def _check_positive(name: str, value: object, *, whole: bool = False, also: str = "") -> None:
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < float("inf"):
        what = "whole number" if whole else "number"
        raise ConfigurationError(f"{name} must be a {what} greater than 0{also}", fix="correct it, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Number of attempts of a request, and delays between them.

    Args:
        attempts: requests per page or call, including the first. 5: four backoffs outlast a gateway's restart.
        base: seconds; the n-th backoff is a random time up to ``base * 2**n`` (full jitter: it spreads a herd).
        cap: seconds; no backoff is longer.
        throttled_base: seconds; the base after a 429 that names no time.
        throttled_cap: seconds; the cap after a 429 that names no time.
        longest_wait: seconds; a longer ``Retry-After`` is raised, not waited for.
        budget: tokens of the retry budget. It bounds the retries of calls with a deadline in an outage. A retry costs
            14 (5 after a 429), and a call that succeeds returns the whole cost of its retries: 500 allow 35 failing
            retries. The clients of one account count their retries together, each against its own budget.
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
    """Seconds from when an attempt may start; waiting for a slot or for the rate does not count.

    Args:
        connect: for a connection, TLS included. 10: a working one takes less than 1.
        read: between two pieces of a reply. 30: slow pages of this API have taken 12.
        total: for a whole attempt. 60: a page that drips is not worth more.
        acquire: for a free slot and the account's rate; None waits as long as the call's deadline allows. For a stream
            it limits only the first page: later pages wait for the stream itself, which is not an overload.
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
    """The request rate of one account, for all clients of this process together.

    Args:
        per_second: requests per second; 0 for no limit. 2: the documented limit is 3, and placing calls uses it too.
        burst: requests that may be sent at once after a pause.
    """

    per_second: float = 2.0
    burst: int = 1

    def __post_init__(self) -> None:
        if self.per_second not in (0, float("inf")):
            _check_positive("RateLimit(per_second=)", self.per_second, also=", or 0 for no limit")
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


def choose_range(longest: object) -> timedelta:
    """Choose the longest range of one request; 31 days unless a shorter one is given.

    Raises:
        ConfigurationError: if it is not a ``timedelta`` of whole seconds from an hour to 31 days.
    """
    if longest is None:
        return LONGEST
    if not isinstance(longest, timedelta) or not SHORTEST <= longest <= LONGEST or longest.microseconds:
        raise ConfigurationError(
            "max_range must be a length of time from an hour to 31 days, in whole seconds",
            why="the API refuses longer ranges, and shorter ones cost too many requests",
            fix="for example max_range=timedelta(days=7)",
        )
    return longest


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse a plain number in place of a value object."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is of type {kind_of(value)}", fix=f"give {name}={kind.__name__}(...)")


#: Bytes of one page at most; 1,000 calls with long flows are about 3 MB.
LARGEST_PAGE = 16 * 1024 * 1024


def check_base_url(url: object) -> str:
    """Check the address that the token is sent to.

    Raises:
        ConfigurationError: if it has no scheme or host; has user info, a query or a fragment; or is plain HTTP beyond
            this computer.
    """
    url = as_secret(url)
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url is of type {kind_of(url)}", fix='for example "https://api.servetel.in"')
    example = 'write it like "https://api.servetel.in"'
    if "@" in url:
        raise ConfigurationError(
            "base_url holds user info",
            why="proxies would log the part before the @",
            fix="give the token as token=, or email= and password=",
        )
    if "?" in url or "#" in url:
        raise ConfigurationError("base_url holds a query or a fragment", fix=example)
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(
            "base_url cannot be read as a URL",
            why="it needs a scheme, http or https, and a host; it may hold no blank, backslash or letter outside ASCII",
            fix=f"{example}; write a name of another script as xn--...",
        )
    scheme, host, port, path = match["scheme"].lower(), match["host"].lower(), match["port"], match["path"]
    if scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(
            "base_url is plain http to another computer",
            why="the token would travel readable for everybody on the way",
            fix="use https",
        )
    if not _is_host(host):
        raise ConfigurationError(
            "base_url has a host that cannot exist",
            why="a name is at most 253 characters in parts of 1 to 63 letters, digits, - and _; or it is an IP address",
            fix=example,
        )
    if port is not None and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):  # noqa: PLR2004 - 16 bits
        raise ConfigurationError("base_url has a port that cannot be read", fix="use a number from 1 to 65535, or none")
    if not _PATH.fullmatch(path):
        raise ConfigurationError(
            "base_url has a path that no server can read",
            why="a path holds letters, digits, some signs, and % only before two hexadecimal digits",
            fix="percent-encode the other characters, or leave the path out",
        )
    return str(url).rstrip("/")


_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+(?:%[\w.~-]+)?\]|[^/:\[\]]+)(?::(?P<port>[^/]*))?(?P<path>(?:/[!-\[\]-~]*)?)",
    re.ASCII | re.IGNORECASE,
)
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?", re.ASCII)
_PATH = re.compile(r"(?:[\w.~!$&'()*+,;=:/-]|%[0-9a-fA-F]{2})*", re.ASCII)
_LONGEST_NAME = 253


def _is_host(host: str) -> bool:
    """Whether a host can be looked up or connected to. aiohttp would raise its own errors for any other host."""
    if host.startswith("[") or host.rstrip(".").rpartition(".")[2].isdigit():
        return _address(host) is not None
    return len(host.rstrip(".")) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.IPv6Address(host[1:-1]) if host.startswith("[") else ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback
