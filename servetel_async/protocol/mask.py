"""Masks: hide the numbers, names and addresses of a record, so that it no longer identifies a person.

Rule 1: a value passes only if its key is known and it has the shape of this key's values (``mask_rules.py``).
Rule 2: everything else is hidden, numbers too, at every level. Null, true, false and empty values pass.
Rule 3: the record keeps its key, ``id``; so masked calls can still be counted and distinguished.
Rule 4: a mask never fails. If a line is not a JSON object, only the key is left.

Under a key that holds a phone number, the last three digits stay, so that people who know it can recognise it. With
pseudonyms, a number, a name or a reference becomes a token instead, the same one everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from servetel_async.errors import ConfigurationError, MalformedResponseError
from servetel_async.protocol.harmless import is_key
from servetel_async.protocol.mask_rules import RECORD, masked_fields
from servetel_async.protocol.rescue import rescue
from servetel_async.protocol.tokens import SecretBytes, as_secret, kind_of
from servetel_async.protocol.undecodable import UNDECODABLE

#: Fewest bytes of a key for pseudonyms: with a shorter one the numbers behind the tokens could be found by trial.
SHORTEST_KEY = 16
#: Most digits of an id that is a whole number.
_LONGEST_ID = 100

_RULES = {name: kind.apply for name, kind in RECORD.items()}
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Mask:
    """The way a pull hides persons: completely, or with pseudonyms.

    Attributes:
        name: ``masked``, or ``pseudonyms:`` and eight hex digits that distinguish keys; for receipts and ledgers.
        key: key of the tokens; None for a mask that hides. It does not print.
    """

    name: str
    key: SecretBytes | None = field(default=None, repr=False)

    @classmethod
    def hidden(cls) -> Mask:
        """Make a mask that hides."""
        return cls("masked")

    @classmethod
    def keyed(cls, key: str | bytes) -> Mask:
        """Make a mask that gives equal numbers and equal names equal tokens.

        Args:
            key: a random text or bytes, at least 16 bytes; the same key gives the same tokens.

        Raises:
            ConfigurationError: if the key is of another type, too short, or not text in UTF-8.
        """
        key = as_secret(key)
        secret = _secret_key(key)
        return cls(f"pseudonyms:{hmac.digest(secret, b'fingerprint', 'sha256')[:4].hex()}", secret)

    @classmethod
    def chosen(cls, mask: bool, pseudonyms: str | bytes | None) -> Mask | None:
        """Make the mask that two arguments ask for, None for no mask; pseudonyms imply a mask.

        Raises:
            ConfigurationError: see ``keyed``.
        """
        if pseudonyms is not None:
            return cls.keyed(pseudonyms)
        return cls.hidden() if mask else None

    def __reduce__(self) -> Any:
        """Refuse pickling: a key must not travel inside a task queue's payload."""
        raise TypeError("a mask cannot be pickled: it may hold a key")

    def line(self, line: bytes) -> bytes:
        """Mask one record: JSON in, JSON out, in UTF-8 on one line, the same keys in the same order. Never fails."""
        record = _read(line)
        if record is None:
            return _encode({"id": self._id(line)})
        masked = masked_fields(self.key, record, _RULES)
        found = record.get("id")
        if not (isinstance(found, str) and is_key(found)) and not _is_whole_key(found):
            masked["id"] = self._id(line)
        return _encode(masked)

    def _id(self, line: bytes) -> str:
        """Return the key that a record without a usable ``id`` has in any destination. It must differ between calls."""
        try:
            key = rescue(line).id
        except MalformedResponseError:
            return f"sha256-{hashlib.sha256(line).hexdigest()[:24]}"
        if is_key(key):
            return key
        text = key.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(text) if self.key is None else hmac.new(self.key, text, "sha256")
        return f"sha256-{digest.hexdigest()[:24]}"


def _secret_key(key: Any) -> SecretBytes:
    if not isinstance(key, str | bytes):
        raise ConfigurationError(
            f"the key for pseudonyms is of type {kind_of(key)}", fix="give it as a text or as bytes"
        )
    secret = None
    with suppress(UnicodeEncodeError):
        secret = SecretBytes(key if isinstance(key, bytes) else key.encode())
    if secret is None:
        raise ConfigurationError("the key for pseudonyms is not a text in UTF-8", fix="give it as bytes")
    if len(secret) < SHORTEST_KEY:
        raise ConfigurationError(
            "the key for pseudonyms is too short",
            why=f"with fewer than {SHORTEST_KEY} bytes the numbers could be found by trying keys",
            fix="make a random one, for example with: openssl rand -hex 32",
        )
    return secret


def _is_whole_key(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_LONGEST_ID


def _read(line: bytes) -> dict[str, Any] | None:
    """Read an object. If a number has more digits than Python keeps, each number is read as text."""
    try:
        found = _decode(line)
    except (*UNDECODABLE, RecursionError):
        return _read_as_texts(line)
    if not isinstance(found, dict):
        return None
    record = cast("dict[str, Any]", found)
    # As a float 1714657799.11930963 would lose digits.
    return _read_as_texts(line) if isinstance(record.get("call_id"), float) else record


def _read_as_texts(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        text = line.decode("utf-8", "replace")
        found = json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=str)
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None
    return None
