"""One reply of the server, and what it shows without its request."""

from __future__ import annotations

import codecs
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from servetel_async.protocol.clock import IST
from servetel_async.protocol.undecodable import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_LENGTH = 200
#: Largest body in bytes that is read a second time, leniently.
SMALL_BODY = 64 * 1024
#: Most values of a body that is read for its message: each takes half a microsecond.
MOST_SAID = 50_000
#: Most bytes to read leniently as one text: a body that is not strict JSON in UTF-8 takes sixteen times its size.
MOST_STRANGE = 2 * 1024 * 1024
#: A body of this many bytes is read by a thread: any pass over it takes several milliseconds.
HUGE = 3 * 1024 * 1024
_NO_HEADERS: dict[str, str] = {}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)
_DIGITS = re.compile(r"\d[\d\s().-]{4,}\d")
_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{16,}(?:\.[A-Za-z0-9+/_=-]+)*")
_MAIL = re.compile(r"(?<!\S)\S*@\S+")  # only from the start of a word: else a long word is scanned again at each letter
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Names of UTF-8, and of ASCII, its subset.
_UTF8 = ("utf-8", "utf8", "utf8mb4", "ascii", "us-ascii")
#: Charsets to convert. Python knows a hundred more: some take quadratic time, some are not charsets.
_CONVERTED = {
    **dict.fromkeys(("utf-16", "utf16"), "utf-16"),
    **dict.fromkeys(("utf-16le", "utf-16-le"), "utf-16-le"),
    **dict.fromkeys(("utf-16be", "utf-16-be"), "utf-16-be"),
    **dict.fromkeys(("utf-32", "utf32"), "utf-32"),
    **dict.fromkeys(("utf-32le", "utf-32-le"), "utf-32-le"),
    **dict.fromkeys(("utf-32be", "utf-32-be"), "utf-32-be"),
    **dict.fromkeys(("iso-8859-1", "iso8859-1", "latin-1", "latin1"), "latin-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "cp1252"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers (lower-case names; a repeated header's values joined by a comma) and body."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)

    def json_bytes(self) -> bytes:
        """Return the body as UTF-8 without a byte-order mark.

        Raises:
            UnicodeError: if the charset is unknown or wrong, or if it is not UTF-8 and the body is large.
        """
        body = self.body
        if body.startswith(codecs.BOM_UTF8):
            return body[len(codecs.BOM_UTF8) :]
        if body.startswith(_UTF16):
            _check_size(body)
            return body.decode("utf-16").encode()
        charset = self._charset
        if charset in _UTF8:
            return body
        if charset not in _CONVERTED:
            raise UnicodeError("the charset is unknown")
        _check_size(body)
        return body.decode(_CONVERTED[charset]).encode()

    @property
    def _charset(self) -> str:
        match = _CHARSET.search(self.headers.get("content-type", ""))
        return "utf-8" if match is None else match[1].lower().replace("_", "-")

    @property
    def has_known_charset(self) -> bool:
        """Whether its charset can be read: UTF-8, UTF-16, UTF-32, Latin-1 or cp1252."""
        return self.body.startswith((codecs.BOM_UTF8, *_UTF16)) or self._charset in (*_UTF8, *_CONVERTED)

    def payload(self) -> Any:
        """Read a small body as JSON; None for anything else (HTML, nothing, garbage).

        A number too large for a float, or PHP's ``NaN``, becomes text: it must not hide the rest.
        """
        is_large = len(self.body) > SMALL_BODY
        if is_large and values_in(self.body) > MOST_SAID:
            return None
        with suppress(*UNDECODABLE, UnicodeError, RecursionError):
            return msgspec.json.decode(self.json_bytes())
        if is_large:
            return None
        try:
            text = self.json_bytes().decode("utf-8", "replace")
            return json.loads(text, strict=False, parse_constant=str, parse_float=str, parse_int=_integer)
        except (ValueError, RecursionError):
            return None

    def retry_after(self, now: float) -> float | None:
        """Return the seconds that the server asks us to wait: the header (seconds or date), else ``retry_after``.

        Args:
            now: epoch seconds of this computer, used if the reply has no ``Date``.

        Returns:
            Seconds, never negative for a date in the past; None for any value that is not a length of time.
        """
        try:
            clock = _http_date(self.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            clock = now
        header = self.headers.get("retry-after")
        if header is not None:
            return _seconds(header) if _seconds(header) is not None else _until(header, clock)
        payload = self.payload()
        value = cast("dict[str, Any]", payload).get("retry_after") if isinstance(payload, dict) else None
        if isinstance(value, str) and _seconds(value) is None:
            return _until(value, clock)
        return _seconds(value)


def _integer(text: str) -> int | str:
    """Read an integer; leave it as text if it has thousands of digits, which Python refuses to read."""
    return int(text) if len(text) < 1000 else text  # noqa: PLR2004


def _check_size(body: bytes) -> None:
    if len(body) > MOST_STRANGE:
        raise UnicodeError("too large for another charset")


def values_in(text: bytes) -> int:
    """Return an upper bound for the values of a JSON text: each may take two bytes of text, but far more memory."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _seconds(value: object) -> float | None:
    """Read whole or decimal seconds; nothing negative, infinite or signed, and no boolean."""
    if isinstance(value, str):
        text = value.strip()
        return min(float(text), 1e12) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**12:
        return float(value)
    return None


def _http_date(text: str) -> datetime:
    """Read an HTTP date as GMT, even without a zone; never as this computer's zone."""
    moment = parsedate_to_datetime(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _until(text: str, clock: float) -> float | None:
    """Return seconds from ``clock`` to an HTTP date, or to an IST wall-clock stamp as the login throttle sends it."""
    try:
        moment = _http_date(text)
    except (ValueError, TypeError, OverflowError):
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=IST)
    return max(0.0, moment.timestamp() - clock)


def server_message(payload: Any) -> str:
    """Return the server's message, safe to show: one line, at most 200 characters, no control character.

    Numbers as long as a phone number, e-mail addresses and anything that looks like a token are masked.
    """
    if not isinstance(payload, dict):
        return ""
    said = cast("dict[str, Any]", payload)
    text = " ".join(_texts(said.get("message") or said.get("Message") or said.get("errors") or said.get("error") or ""))
    text = "".join(character if character.isprintable() else " " for character in text[: 8 * MESSAGE_LENGTH])
    for pattern in (_MAIL, _TOKEN, _DIGITS):
        text = pattern.sub("…", text)
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def _texts(value: Any, depth: int = 0) -> list[str]:
    """Flatten a text, a list of texts, or ``{field: [texts]}``."""
    if isinstance(value, str):
        return [value]
    if depth < 3 and isinstance(value, list):  # noqa: PLR2004 - deeper than that is not a message
        items = cast("list[Any]", value)
        return [text for item in items for text in _texts(item, depth + 1)]
    if depth < 3 and isinstance(value, dict):  # noqa: PLR2004
        fields = cast("dict[str, Any]", value)
        return [f"{name}: {text}" for name, item in fields.items() for text in _texts(item, depth + 1)]
    return []


def says_no(payload: Any) -> bool:
    """Whether ``success`` is a failure in any of PHP's spellings."""
    if not isinstance(payload, dict) or "success" not in payload:
        return False
    success: Any = cast("dict[str, Any]", payload)["success"]
    return success in (False, 0, "0") or (isinstance(success, str) and success.strip().lower() == "false")
