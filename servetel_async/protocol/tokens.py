"""Tokens: pasted text, normalised for the API; and text that does not print itself."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, cast

from servetel_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import SupportsIndex

    from typing_extensions import Buffer

_PREFIX = re.compile(r"^(?:Authorization\s*[:=]\s*)?Bearer[ =:]+", re.IGNORECASE)
_OUTER = " \t\r\n"
_SHORTEST = 8
HOUR = 3600.0
#: Seconds: thirty years.
LONGEST_LIFE = 10**9
_DIGITS = 30


class Secret(str):
    """Text whose ``repr`` is ``***``: it reaches the wire, but no traceback, log or error that prints locals.

    Code that prints locals cuts long texts first. So slices, encoded forms and sums are secret too.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        """Return the text itself only if it is not cut, filled or aligned: we never send it so."""
        return format("***", spec) if spec else str.__str__(self)

    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> Secret:
        return Secret(super().__getitem__(key))

    def __iter__(self) -> Iterator[Secret]:
        return map(Secret, super().__iter__())

    def __add__(self, other: str) -> Secret:
        return Secret(super().__add__(other))

    def __radd__(self, other: str) -> Secret:
        return Secret(str.__add__(other, self))

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> SecretBytes:
        return SecretBytes(super().encode(encoding, errors))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        """Keep the value: a copy of a request's headers must still work, and stays hidden."""
        return self

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        """Pickle without the value: a secret must not travel inside a task queue's payload."""
        return Secret, ("***",)


class SecretBytes(bytes):
    """Bytes whose ``repr`` is ``***``; slices and sums are secret too."""

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> str:
        return "***"

    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> Any:
        part: Any = super().__getitem__(key)
        return SecretBytes(part) if isinstance(part, bytes) else part

    def __add__(self, other: Buffer) -> SecretBytes:
        return SecretBytes(super().__add__(other))

    def __radd__(self, other: bytes) -> SecretBytes:
        return SecretBytes(other.__add__(self))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> Secret:
        return Secret(super().decode(encoding, errors))

    def __reduce__(self) -> tuple[type[SecretBytes], tuple[bytes]]:
        """Pickle without the value, as ``Secret`` does."""
        return SecretBytes, (b"***",)


def as_secret(value: Any) -> Any:
    """Make text a ``Secret``, so that no traceback prints it; return other values unchanged."""
    if isinstance(value, bytes):
        return SecretBytes(value)
    return Secret(str.__str__(value)) if isinstance(value, str) else value  # not the ``__str__`` of an enum


def as_secrets(value: Any) -> Any:
    """Hide every text of a JSON or TOML value."""
    if isinstance(value, dict):
        return {key: as_secrets(each) for key, each in cast("dict[str, Any]", value).items()}
    return [as_secrets(each) for each in cast("list[Any]", value)] if isinstance(value, list) else as_secret(value)


def kind_of(value: object) -> str:
    """Name a value's type, for an error; a secret has the name of the type that it hides."""
    return "bytes" if isinstance(value, SecretBytes) else type(value).__name__


def normalise_token(text: object) -> Secret:
    """Accept ``Bearer x``, ``Bearer=x`` and surrounding blanks or a line end; refuse anything that cannot be a token.

    The error never shows the text.

    Raises:
        ConfigurationError: if it is not text, is masked, or has characters that no token or header may hold.
    """
    text = as_secret(text)
    if not isinstance(text, str):
        raise ConfigurationError(f"the token is of type {kind_of(text)}", fix="give it as a text")
    token = Secret(_PREFIX.sub("", text.strip(_OUTER), count=1).strip(_OUTER))
    if "*" in token or "•" in token:
        raise ConfigurationError(
            "the token is masked",
            why="it holds the stars that the portal shows in place of the real one",
            fix="use the portal's copy button, not the text on the page",
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            "the token holds a character that no token has",
            why="there is a space, a line end, a control character or a letter outside ASCII in it",
            fix="copy it again, in one piece and on one line",
        )
    if len(token) < _SHORTEST:
        raise ConfigurationError("the token is too short to be one", fix="copy it again from the portal")
    return token


def claims(token: str) -> Mapping[str, object]:
    """Return the claims of a JWT, read without verifying; empty for any other token."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return {}
    try:
        payload: object = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return cast("dict[str, object]", payload) if isinstance(payload, dict) else {}


def expires_at(token: str) -> float | None:
    """Return epoch seconds from the ``exp`` of a JWT, read without verifying; None without one."""
    exp = claims(token).get("exp")
    return float(exp) if isinstance(exp, int | float) and not isinstance(exp, bool) and 0 < exp < 10**11 else None


def lifetime(expires_in: object) -> float:
    """Return the seconds of a login's ``expires_in``; an hour if it is not a length of time.

    The result is bounded, so it can be added to any clock: an integer in JSON may have hundreds of digits.
    """
    if isinstance(expires_in, str) and expires_in.isascii() and expires_in.isdigit() and len(expires_in) <= _DIGITS:
        expires_in = int(expires_in)
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not expires_in > 0:
        return HOUR
    return float(min(expires_in, LONGEST_LIFE))
