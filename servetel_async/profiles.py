"""Sources of settings that are not given: the environment, then a profile.

Nothing is read from the working directory: a stray ``.env`` must not decide whose calls are pulled. Every key of a
profile is checked: with a misspelt ``base_url`` the token would go to the default address.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST, name_zone
from servetel_async.protocol.tokens import Secret, as_secret, as_secrets, kind_of
from servetel_async.protocol.zone_names import read_zone
from servetel_async.secret_files import SecretFile, expand, read_private
from servetel_async.settings import Brand, check_base_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from pathlib import Path

#: Keys of a profile.
KEYS = ("account", "base_url", "brand", "email", "password", "password_file", "token", "token_file", "zone")
_VARIABLES = ("TOKEN", "TOKEN_FILE", "BASE_URL", "ZONE", "PROFILE", "CONFIG")
#: A profile with an ``account`` has one of these keys.
_CREDENTIALS = ("token", "token_file", "email")
#: The zone of a client without ``zone=``: India's, unless a variable, the profile or the brand decides otherwise.
#: It is not the object ``IST``, so that a given ``IST`` is obeyed.
DEFAULT_ZONE = timezone(timedelta(hours=5, minutes=30), "IST")
#: Largest number of profiles in an error.
_NAMED = 10
#: Possible sources of a login or an address.
_PROFILE, _CHOSEN, _ENVIRONMENT, _CALL = "the profile", "the chosen profile", "the environment", "the call"


@dataclass(frozen=True, slots=True)
class Sources:
    """Settings from the environment and the chosen profile; each may be missing. All are hidden from tracebacks.

    Attributes:
        token: the token, or the file that holds it.
        email: the address of a login, with ``password``; never together with a token.
        password: the password, or the file that holds it.
        base_url: the API's address; never together with a brand.
        brand: the brand's name.
        account: the name of the account of this token or login.
        zone: the name of the account's zone.
        login_from: the source of the token or login; None without one.
        address_from: the source of ``base_url``; None without one.
    """

    token: str | SecretFile | None = None
    email: str | None = None
    password: str | SecretFile | None = None
    base_url: str | None = None
    brand: str | None = None
    account: str | None = None
    zone: str | None = None
    login_from: str | None = field(default=None, compare=False)
    address_from: str | None = field(default=None, compare=False)

    def with_login(
        self, token: SecretFile | None = None, email: str | None = None, password: SecretFile | None = None
    ) -> Sources:
        """Return the same with the caller's token or login. A profile does not name its account."""
        return replace(
            self,
            token=token,
            email=email,
            password=password,
            account=account_of_environment(),
            login_from=_CALL,
        )


def account_of_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the account's name from ``SERVETEL_ACCOUNT``; None if it is not set."""
    given = os.environ if environment is None else environment
    return given.get("SERVETEL_ACCOUNT") or None


def read_sources(environment: Mapping[str, str] | None = None, *, profile: str | None = None) -> Sources:
    """Read ``SERVETEL_TOKEN``, ``..._TOKEN_FILE``, ``..._BASE_URL``, ``..._ZONE``, then the profile ``..._PROFILE``.

    A profile given by name was chosen for this run, so its settings take precedence over those of the environment.
    A profile names its own account, with its key ``account`` or with its own name, except ``default``. It does not name
    the account of a token or login from elsewhere.

    Profiles are in ``~/.config/servetel/config.toml`` (``SERVETEL_CONFIG`` names another file)::

        [profiles.default]
        brand = "smartflo"             # or base_url = "https://..."
        token_file = "~/.config/servetel/token"
        zone = "Asia/Kolkata"          # or "+05:30"; an account in India needs none

    Files of tokens and passwords are not read here.

    Args:
        environment: variables in place of those of the process.
        profile: the name of a profile, in place of ``SERVETEL_PROFILE``.

    Raises:
        ConfigurationError: if the file of profiles is named and missing, unreadable, or readable for others; if the
            profile is unknown, has an unknown key, a value that is not text, or settings that contradict each other.
    """
    given = os.environ if environment is None else environment
    told = {name: as_secret(given.get(f"SERVETEL_{name}") or None) for name in _VARIABLES}
    account = account_of_environment(given)
    del given, environment  # a later traceback would print every variable
    chosen = _read_profile(told, profile)
    own = Sources(
        chosen.get("token") or _file(chosen.get("token_file")),
        chosen.get("email"),
        chosen.get("password") or _file(chosen.get("password_file"), "the password file"),
        chosen.get("base_url"),
        chosen.get("brand"),
        chosen.get("account") or _own_name(told["PROFILE"] if profile is None else profile),
        chosen.get("zone"),
    )
    token = told["TOKEN"] or _file(told["TOKEN_FILE"])
    other = Sources(token, base_url=told["BASE_URL"], account=account, zone=told["ZONE"])
    first, second = (other, own) if profile is None else (own, other)
    who = first if _has_login(first) else second
    where = first if first.base_url is not None or first.brand is not None else second
    called = (first.account or second.account) if who is own and _has_login(own) else account
    zone = first.zone or second.zone
    names = {id(own): _PROFILE if profile is None else _CHOSEN, id(other): _ENVIRONMENT}
    return replace(
        who,
        base_url=where.base_url,
        brand=where.brand,
        account=called,
        zone=zone,
        login_from=names[id(who)] if _has_login(who) else None,
        address_from=None if where.base_url is None else names[id(where)],
    )


def _own_name(profile: str | None) -> str | None:
    """Return a profile's name for the account. ``default`` is not such a name: it is the profile used without one."""
    return None if profile == "default" else profile


def _has_login(sources: Sources) -> bool:
    return sources.token is not None or sources.email is not None


def read_missing(*, login: bool, address: bool) -> Sources:
    """Read the settings that the caller did not give. A profile does not name the account of a given login.

    Args:
        login: whether a token or a login is missing.
        address: whether the base URL or the brand is missing.

    Raises:
        ConfigurationError: see ``read_sources``. The profile is read only if needed.
    """
    sources = read_sources() if login or address else Sources()
    return sources if login else sources.with_login()


def _file(name: str | None, what: str = "the token file") -> SecretFile | None:
    return None if name is None else SecretFile(name, what)


def _read_profile(told: Mapping[str, str | None], given: str | None) -> Mapping[str, str]:
    file = expand(told["CONFIG"] or "~/.config/servetel/config.toml")
    try:
        found = file.is_file()
    except OSError:  # a home directory that this user may not read
        found = False
    asked, where = (told["PROFILE"], "SERVETEL_PROFILE") if given is None else (given, "--profile")
    if not found:
        if asked is not None or told["CONFIG"]:
            raise ConfigurationError(
                "the profile's file does not exist", fix=f"write {file}, or set neither {where} nor SERVETEL_CONFIG"
            )
        return {}
    profiles = _parse_profiles(read_private(file, "the profile's file"), file)
    name = "default" if asked is None else asked
    if name in profiles:
        return _check_profile(profiles[name], file)
    if asked is not None:
        known = ", ".join(_shown(each) for each in list(profiles)[:_NAMED])
        raise ConfigurationError(
            f"{file} has no profile of that name",
            fix=f"set {where} to one of: {known}" if known else f"write the profile, or unset {where}",
        )
    return {}


def _parse_profiles(text: Secret, file: Path) -> dict[str, dict[str, Any]]:
    content = _parse(text)
    if content is None:
        raise ConfigurationError(f"{file} is not TOML", fix="see the how-to about logging in")
    profiles = content.pop("profiles", {})
    for key in content:
        raise ConfigurationError(
            f"{file} has an unknown key, '{_shown(key)}'",
            why="it would be ignored, and the token might go to another address than you mean",
            fix="write profiles as tables, for example [profiles.default]",
        )
    if not isinstance(profiles, dict) or not all(isinstance(each, dict) for each in cast("Any", profiles).values()):
        raise ConfigurationError(
            f"{file} holds a profile that is not a table", fix="write it as a table, for example [profiles.default]"
        )
    return cast("dict[str, dict[str, Any]]", profiles)


def _parse(text: Secret) -> dict[str, Any] | None:
    """Read TOML; None if it is invalid, because the parser's error would contain the text."""
    try:
        return cast("dict[str, Any]", as_secrets(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _check_profile(profile: Mapping[str, Any], file: Path) -> Mapping[str, str]:
    for key, value in profile.items():
        if key not in KEYS:
            raise ConfigurationError(
                f"the profile in {file} has an unknown key, '{_shown(key)}'",
                why="it would be ignored, and the token might go to another address than you mean",
                fix=f"the keys are: {', '.join(map(repr, KEYS))}",
            )
        if not isinstance(value, str) or not value.strip():
            kind = "empty" if isinstance(value, str) else f"of type {kind_of(value)}"
            raise ConfigurationError(
                f"in the profile of {file}, '{key}' is {kind}", fix="give it as a text, or leave it out"
            )
    for one, other in (
        *(("base_url", "brand"), ("token", "token_file"), ("password", "password_file")),
        *((token, login) for token in ("token", "token_file") for login in ("email", "password", "password_file")),
    ):
        if one in profile and other in profile:
            raise ConfigurationError(
                f"the profile in {file} has both '{one}' and '{other}'",
                why="only one of them can be used",
                fix="leave one of them out",
            )
    if "account" in profile and not any(key in profile for key in _CREDENTIALS):
        raise ConfigurationError(
            f"the profile in {file} has 'account' and neither a token nor a login",
            why="it names the account of the profile's own token or login",
            fix="give the token or the login there too, or set SERVETEL_ACCOUNT instead",
        )
    if ("email" in profile) != ("password" in profile or "password_file" in profile):
        raise ConfigurationError(
            f"the profile in {file} has half a login",
            why="a login needs an e-mail address and a password",
            fix="give 'email', and 'password' or 'password_file'",
        )
    return profile


def _shown(key: str) -> str:
    """Return a name from the file, safe to print."""
    return "".join(each if each.isprintable() else "?" for each in key[:40])


def no_token() -> ConfigurationError:
    """Return the error for a client that is given no token and finds none."""
    return ConfigurationError(
        "there is no token",
        why="none was given, and SERVETEL_TOKEN, SERVETEL_TOKEN_FILE and the profile hold none",
        fix="give token=, or email= and password=, or set SERVETEL_TOKEN",
    )


def choose_base_url(base_url: str | None, brand: Brand | str | None, sources: Sources) -> str:
    """Choose the API's address: the argument, then the environment, then the profile, then Servetel.

    A token or login goes to a ``base_url`` of its own source, or to one given for this call. A token or login given for
    this call also goes to ``SERVETEL_BASE_URL``. A brand is the vendor's own address: any token may go there.

    Raises:
        ConfigurationError: if the address is not valid, if two were given, or if it is not meant for the token.
    """
    if base_url is not None and brand is not None:
        raise ConfigurationError("both base_url and brand are given", fix="give one of them")
    if brand is None and base_url is None:
        base_url, brand = sources.base_url, sources.brand
        if base_url is not None:
            _refuse_mixture(sources.login_from, sources.address_from)
    if base_url is not None:
        return check_base_url(base_url)
    return (Brand.SERVETEL if brand is None else Brand.named(brand)).base_url


def _refuse_mixture(login_from: str | None, address_from: str | None) -> None:
    if login_from in (None, address_from) or (login_from == _CALL and address_from != _PROFILE):
        return
    if address_from == _ENVIRONMENT:
        fix = "write the address into the profile as base_url, or unset SERVETEL_BASE_URL"
    else:
        fix = "write the token into the profile too, or give the address in the call as well: base_url="
    raise ConfigurationError(
        f"the token or login comes from {login_from}, and the address from {address_from}",
        why="the token might go to a server that it is not meant for",
        fix=fix,
    )


def choose_zone(zone: tzinfo, base_url: str, sources: Sources) -> tzinfo:
    """Choose the account's zone: the argument, then ``SERVETEL_ZONE``, then the profile, then the brand's.

    An address of no brand is assumed to be in India.

    Args:
        zone: ``DEFAULT_ZONE`` if none was given.
        base_url: the API's address.
        sources: the settings that were read.

    Raises:
        ConfigurationError: if the zone has no name or is unknown, or if the brand needs one and none is given.
    """
    if zone is not DEFAULT_ZONE:
        name_zone(zone)
        return zone
    name = sources.zone or os.environ.get("SERVETEL_ZONE")  # sources are not read if token and address are given
    if name:
        return read_zone(name)
    brand = Brand.at(base_url)
    default = IST if brand is None else brand.zone
    if default is None:
        raise ConfigurationError(
            "the account's zone is not given",
            why="Acefone UK is not in India, and in a wrong zone a pull misses the newest hours",
            fix="give zone=ZoneInfo(\"Europe/London\"), or set SERVETEL_ZONE or 'zone' in the profile",
        )
    return default
