"""Masking: a record whose numbers, names and addresses no longer tell who it is about.

Calls can still be counted, and told apart by ``id``; the last three digits of a number stay, so that people who know it
can recognise it. Keys, ids and moments are left as they are.
"""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

_NUMBER = re.compile(r"\+?[0-9][0-9 ().\u00a0-]{4,}[0-9]")
_MAIL = re.compile(r"(?<!\S)\S*@\S+")  # from the beginning of a word only: else a long one is read again at each letter
#: Keys whose texts are ids, moments or words of the API, although some look like numbers.
_PLAIN = frozenset(
    {
        "id",
        "call_id",
        "uuid",
        "date",
        "time",
        "end_stamp",
        "anstime",
        "readableTime",
        "direction",
        "status",
        "service",
        "reason",
        "hangup_cause",
        "call_hint",
        "type",
        "dialst",
        "value",
        "s_id",
        "broadcast_id",
        "blocked_number_id",
        "lead_id",
        "accountid",
        "account_id",
        "department_name",
        "operator",
        "circle",
        "aws_call_recording_identifier",
        "charges",
        "minutes_consumed",
        "call_duration",
        "answered_seconds",
        "agent_ring_time",
        "subtype",
    }
)
#: Keys below which everything is personal.
_PERSONAL = frozenset({"notes", "contact_details", "dialer_call_details", "custom_status", "lead_data"})
_KEPT_DIGITS = 3
#: Levels of nesting that a call has at most; whatever lies deeper is hidden as a whole.
_DEEPEST = 50


def mask_line(line: bytes) -> bytes:
    """Mask one record: JSON in, JSON out, the same keys in the same order."""
    return msgspec.json.encode(_mask(msgspec.json.decode(line), "", 0))


def _mask(value: Any, key: str, depth: int) -> Any:
    if depth > _DEEPEST:
        return _hidden(value)
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {
            _key(name): _hidden(item) if name in _PERSONAL else _mask(item, name, depth + 1) for name, item in pairs
        }
    if isinstance(value, list):
        return [_mask(item, key, depth + 1) for item in cast("list[Any]", value)]
    return value if key in _PLAIN else _masked(value, key)


def _masked(value: Any, key: str) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and len(str(abs(value))) > _KEPT_DIGITS + 2:
        return _digits(str(value))
    if isinstance(value, float) and abs(value) >= 10 ** (_KEPT_DIGITS + 2):
        return _digits(f"{value:.0f}")
    if not isinstance(value, str) or not value:
        return value
    if key == "recording_url":
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.hostname}/***" if parts.hostname else "***"
    if "name" in key:
        return "***"
    return _MAIL.sub("***", _NUMBER.sub(lambda match: _digits(match[0]), value))


def _key(name: str) -> str:
    return _NUMBER.sub(lambda match: _digits(match[0]), name)


def _digits(text: str) -> str:
    return "*" * (len(text) - _KEPT_DIGITS) + text[-_KEPT_DIGITS:]


def _hidden(value: Any) -> Any:
    """Hide whatever is written there, and leave that something is."""
    return value if value in (None, "", [], {}) else "***"
