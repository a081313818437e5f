"""The account behind a token or a login, and which of the known accounts it is.

1. A token that is a JWT names its account: ``CLAIMS``, in this order. They outlive a renewal of the token. ``iss`` is
   left out: it names the address that issued the token, and one account's logins and portal tokens differ in it.
2. Another login is identified by its e-mail address, without regard to case.
3. Another token is identified by itself. A renewed one cannot be recognised: then a name says whose it is.
3. Another token is identified by itself. A renewed one cannot be recognised: then a name identifies the account.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Literal, NamedTuple

from servetel_async.errors import ConfigurationError, ResumeMismatchError
from servetel_async.protocol.tokens import Secret, claims

if TYPE_CHECKING:
    from collections.abc import Sequence

KnownBy = Literal["subject", "login", "token"]

#: Claims of a JWT that name its account, the best first.
CLAIMS = ("sub", "accountid", "account_id", "user_id", "userid", "client_id")
#: Characters of such a claim.
LONGEST_CLAIM = 256
#: Characters of a name.
LONGEST_NAME = 64
#: About 30 ms. PBKDF2 is in every build of OpenSSL, also in one that is restricted to FIPS.
_ROUNDS = 150_000
_PURPOSE = "servetel_async account"
_DIGITS = 12
#: Accounts that an error names.
_NAMED = 10
_URL = re.compile(r"(https?)://(\[[^\]]*\]|[^/:]*)(?::([0-9]+))?(/.*)?", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Account(NamedTuple):
    """An account that a client asks for. Holds no token, no e-mail address and no subject.

    Attributes:
        origin: the API's address, for example ``"https://api.servetel.in"``: lower case, without the default port. It
            includes the path of the base URL: one proxy may serve two APIs.
        fingerprint: 12 hex digits, a slow salted hash of the identity.
        known_by: the kind of identity: ``"subject"``, a claim of the token; ``"login"``, the e-mail address; or
            ``"token"``, the token itself, because nothing else is known.
        name: the name that the caller or the profile gives it.
    """

    origin: str
    fingerprint: str
    known_by: KnownBy
    name: str | None = None

    @property
    def label(self) -> str:
        """Its name, else its fingerprint: the label in rows and messages."""
        return self.fingerprint if self.name is None else self.name


def identify(base_url: str, token: str, email: str | None = None, name: str | None = None) -> Account:
    """Identify the account behind a token. This takes about 30 ms of CPU time: do it in a thread.

    Args:
        base_url: the API's address, checked.
        token: the token in use, in the form that the API expects.
        email: the address of the login that gave the token; None without a login.
        name: the account's name, checked.
    """
    known_by, identity = _identity(token, email)
    origin = origin_of(base_url)
    return Account(origin, _fingerprint(origin, known_by, identity), known_by, name)


def _identity(token: str, email: str | None) -> tuple[KnownBy, Secret]:
    subject = _subject(token)
    if subject is not None:
        return "subject", subject
    return ("token", Secret(token)) if email is None else ("login", Secret(email.strip().casefold()))


def _subject(token: str) -> Secret | None:
    """Return the claim that names the account, with the claim's own name; None without a usable claim."""
    found = claims(token)
    for claim in CLAIMS:
        value = found.get(claim)
        if isinstance(value, bool) or not isinstance(value, int | str):
            continue
        text = str(value).strip()
        if text and len(text) <= LONGEST_CLAIM and text.isprintable():  # a lone surrogate is not printable
            return Secret(f"{claim}={text}")
    return None


def _fingerprint(origin: str, known_by: str, identity: Secret) -> str:
    salt = f"{_PURPOSE} {origin}".encode()
    return hashlib.pbkdf2_hmac("sha256", f"{known_by}:{identity}".encode(), salt, _ROUNDS).hex()[:_DIGITS]


def origin_of(base_url: str) -> str:
    """Return a text that is equal for equal addresses of the API: scheme, host, port and path, no default port."""
    match = _URL.fullmatch(base_url)
    assert match is not None  # noqa: S101 - for the type checker: the address was checked
    scheme, host, path = match[1].lower(), match[2].lower().rstrip("."), (match[4] or "").rstrip("/")
    port = None if match[3] is None else int(match[3])
    return f"{scheme}://{host}{'' if port in (None, _DEFAULT_PORTS[scheme]) else f':{port}'}{path}"


def check_name(name: object) -> str | None:
    """Check the name of an account. Surrounding blanks are removed, and the text is normalised (NFC).

    Raises:
        ConfigurationError: if it is not text, empty, longer than 64 characters, or holds a control character.
    """
    if name is None:
        return None
    if not isinstance(name, str):
        raise ConfigurationError(
            f"the name of the account is of type {type(name).__name__}", fix='for example account="delhi"'
        )
    text = unicodedata.normalize("NFC", name.strip())
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise ConfigurationError(
            "the name of the account cannot be used",
            why=f"a name has 1 to {LONGEST_NAME} characters, and each of them can be printed",
            fix='for example account="delhi" or SERVETEL_ACCOUNT=delhi',
        )
    return text


def resolve(known: Sequence[Account], this: Account) -> Account:
    """Decide which account of a destination this one is.

    A known fingerprint decides. Else a known name decides, unless both identities outlive a renewal and differ. Else it
    is a new account; without a name only if it surely differs from every known one.

    Args:
        known: the accounts whose calls the destination holds. No two have the same label.
        this: the account that the client asks for.

    Returns:
        The known account, with its name in the destination; or ``this``, which is new.

    Raises:
        ResumeMismatchError: if the name belongs to another account, or if it is unclear whether this is a known one.
    """
    same = next((each for each in known if _is_same(each, this)), None)
    named = None if this.name is None else next((each for each in known if each.label == this.name), None)
    if named is not None and (
        named.origin != this.origin or (_surely_differ(named, this) if same is None else named != same)
    ):
        raise _name_is_taken(named, this, same)
    if same is not None or named is not None:
        return same or named  # type: ignore[return-value]  # one of them is there
    if this.name is None:
        doubtful = [each for each in known if each.label == this.label or _may_be_same(each, this)]
        if doubtful:
            raise _cannot_tell(doubtful, this)
    return this


def _is_same(one: Account, other: Account) -> bool:
    return (one.origin, one.fingerprint) == (other.origin, other.fingerprint)


def _surely_differ(one: Account, other: Account) -> bool:
    """Whether two fingerprints at one address are certainly two accounts: both identities outlive a renewal."""
    return one.known_by == other.known_by != "token"


def _may_be_same(one: Account, other: Account) -> bool:
    return one.origin == other.origin and not _surely_differ(one, other)


def _name_is_taken(named: Account, this: Account, same: Account | None) -> ResumeMismatchError:
    if named.origin != this.origin:
        why = f"its calls came from {named.origin}, and this client asks {this.origin}"
    elif same is not None:
        why = f"the token or the login belongs to the account '{same.label}' there"
    else:
        why = f"the {'token' if this.known_by == 'subject' else 'login'} names another account than the one before"
    return ResumeMismatchError(
        f"the name '{named.label}' belongs to another account in this destination",
        why=why,
        fix='use that account\'s token or login, or give this account a name of its own, for example account="second"',
    )


def _cannot_tell(doubtful: Sequence[Account], this: Account) -> ResumeMismatchError:
    labels = [f"'{each.label}'" for each in doubtful[:_NAMED]]
    return ResumeMismatchError(
        f"cannot tell whether this {'login' if this.known_by == 'login' else 'token'} belongs to an account that is "
        "already there",
        why=f"there are calls of {', '.join(labels)}, and a renewed token looks like the token of another account",
        fix=f'give its name, for example account="{doubtful[0].label}", or a new name if it is another account',
    )
