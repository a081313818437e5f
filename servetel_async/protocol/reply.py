"""One reply of the server, and what can be read off it without knowing what was asked."""

from __future__ import annotations

import codecs
import json
import re
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
#: Bytes of a body that is read a second time, leniently.
SMALL_BODY = 64 * 1024
#: Bytes that are read with care at most, as one text: what is no strict JSON in UTF-8 takes sixteen times its size.
MOST_STRANGE = 2 * 1024 * 1024
#: Bytes from which on a body is read by a thread: whatever is done with all of it takes several milliseconds.
HUGE = 3 * 1024 * 1024
_NO_HEADERS: dict[str, str] = {}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)
_DIGITS = re.compile(r"\d[\d\s().-]{4,}\d")
_TOKEN = re.compile(r"[A-Za-z0-9+/_=-]{16,}(?:\.[A-Za-z0-9+/_=-]+)*")
_MAIL = re.compile(r"(?<!\S)\S*@\S+")  # from the beginning of a word only: else a long one is read again at each letter
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers (lower-case names; a repeated header's values joined by a comma) and body."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)

    def json_bytes(self) -> bytes:
        """Give the body as UTF-8 without a byte-order mark.

        Raises:
            UnicodeError: the charset is unknown, or the body is not in it, or it is another and the body is large.
        """
        body = self.body
        if body.startswith(codecs.BOM_UTF8):
            return body[len(codecs.BOM_UTF8) :]
        if body.startswith(_UTF16):
            _check_size(body)
            return body.decode("utf-16").encode()
        match = _CHARSET.search(self.headers.get("content-type", ""))
        if match is None or match[1].lower() in ("utf-8", "utf8", "ascii", "us-ascii"):
            return body
        _check_size(body)
        try:
            return body.decode(match[1]).encode()
        except (LookupError, ValueError):
            raise UnicodeError("the charset is unknown") from None

    def payload(self) -> Any:
        """Read a small body as JSON; None for anything else (HTML, nothing, garbage).

        A number too large for a float, or PHP's ``NaN``, becomes a text: it must not hide the rest.
        """
        try:
            return msgspec.json.decode(self.json_bytes())
        except (*UNDECODABLE, UnicodeError, RecursionError):
            if len(self.body) > SMALL_BODY:
                return None
        try:
            text = self.json_bytes().decode("utf-8", "replace")
            return json.loads(text, strict=False, parse_constant=str, parse_float=str, parse_int=_integer)
        except (ValueError, RecursionError):
            return None

    def retry_after(self, now: float) -> float | None:
        """Seconds that the server asks us to wait: the header (seconds or date), else the body's ``retry_after``.

        Args:
            now: epoch seconds of this computer, used where the reply has no ``Date``.

        Returns:
            Seconds, never negative for a date in the past; None for whatever is not a length of time.
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
    """Python refuses to read thousands of digits."""
    return int(text) if len(text) < 1000 else text  # noqa: PLR2004


def _check_size(body: bytes) -> None:
    if len(body) > MOST_STRANGE:
        raise UnicodeError("too large for another charset")


def values_in(text: bytes) -> int:
    """Count, from above, the values of a JSON text: each takes many times the two bytes that it may be written with."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _seconds(value: object) -> float | None:
    """Whole or decimal seconds; nothing negative, infinite or signed, and no boolean."""
    if isinstance(value, str):
        text = value.strip()
        return min(float(text), 1e12) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**12:
        return float(value)
    return None


def _http_date(text: str) -> datetime:
    """An HTTP date is GMT, also where it does not say so; never this computer's zone."""
    moment = parsedate_to_datetime(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _until(text: str, clock: float) -> float | None:
    """Seconds from ``clock`` to an HTTP date, or to an IST wall-clock stamp as the login throttle sends it."""
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
    """Give what the server said, fit to be shown: one line, at most 200 characters, no control character.

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
