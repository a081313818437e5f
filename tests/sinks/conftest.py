"""The input of a destination, without a server: windows of lines, claims, entries."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from servetel_async.emulator import Dataset
from servetel_async.protocol.clock import IST
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rows import rows_of
from servetel_async.sinks.sink import Batch, PullIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo

INDIA = timezone(timedelta(hours=5, minutes=30))
NUMBERS = {"call_duration", "answered_seconds", "minutes_consumed"}
SWITCHES = {"support_api_call", "is_incoming_from_broadcast", "voicemail_recording"}
OPEN = {
    "notes",
    "contact_details",
    "missed_agents",
    "agent_ring_time",
    "agent_hangup_data",
    "transfer_missed_agent",
    "sip_agent_ids",
    "dialer_call_details",
    "custom_status",
}
UNKNOWN = {"sid", "sname", "is_whatsapp", "lead_data", "call_tags"}


#: The longest field that any test writes.
MEGABYTE = 1_000_000

_TEXTS = {
    "nul": r"a\u0000b",
    "lone high": r"a\ud800b",
    "lone low": r"a\udc00b",
    "pair": r"a\ud83d\ude00b",
    "escape": r"\u001b[31mred\u001b]0;title\u0007",
    "line separator": r"a\u2028b\u2029c\u0085d",
    "raw line separator": "a\u2028b",
    "line ends": r"a\nb\r\nc\rd",
    "quotes": r"a\",\"b,c;d'e",
    "tab first": r"\t=1+1",
    "return first": r"\r=1+1",
    "newline first": r"\n=1+1",
    "nul first": r"\u0000=1+1",
    "phone": "+919876543210",
    "digits": "919876543210",
    "phone and formula": "+919876543210+1",
    "formula": "=HYPERLINK(0)",
    "plus": "+1+cmd",
    "minus": "-1+cmd",
    "at": "@SUM(1)",
    "byte order mark": "\ufeff=1+1",
    "full width": "\uff1d1+1",
    "quote first": "'=1",
    "empty": "",
    "blank": "  ",
    "long": "x" * MEGABYTE,
}
#: Fields of every kind: plain text, open-ended, and within lists.
_PLACES = (
    b'"agent_name":"%s"',
    b'"notes":"%s"',
    b'"contact_details":{"%s":"%s"}',
    b'"missed_agents":["%s"]',
    b'"call_flow":[{"type":"%s","name":"%s","value":"%s","time":"%s"}]',
    b'"circle":{"operator":"%s","circle":"%s"}',
    b'"agent_ring_time":"%s"',
    b'"call_duration":"%s"',
    b'"charges":"%s"',
    b'"date":"%s","time":"%s"',
    b'"end_stamp":"%s"',
    b'"support_api_call":"%s"',
    b'"id":"i%s"',
    b'"a new key":"%s"',
    b'"%s":1',
)
_NUMBERS = (
    b'"call_duration":9223372036854775807,"charges":999999999999999,"answered_seconds":-9223372036854775808',
    b'"call_duration":9223372036854775808,"charges":1e15,"agent_ring_time":9223372036854775807',
    b'"call_duration":99999999999999999999,"notes":99999999999999999999,"charges":-0.0',
    b'"call_duration":-5,"charges":-1.25,"minutes_consumed":1e400,"notes":1e400',
    b'"date":"2024-05-02","time":"24:00:00","end_stamp":"00/00/0000"',
    b'"date":"0001-01-01","time":"00:00:00","end_stamp":"9999-12-31 23:59:59"',
    b'"circle":[],"call_flow":{"0":{"type":"init"}},"missed_agents":{"1":{"a":1},"0":{"a":0}}',
    b'"call_flow":[{"type":"x","id":9223372036854775808,"odd":[1]},{"time":1.5},{"time":"1.50"},{"id":7}]',
)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=INDIA)


def _expected(line: bytes, name: str) -> Any:
    """Return the value; JSON values stay Python's, so that the caller can parse and compare them."""
    call = json.loads(line)
    if name == "started_at":
        return _moment(f"{call['date']} {call['time']}")
    if name == "ended_at":
        return _moment(call["end_stamp"])
    if name == "extra":
        return {key: value for key, value in call.items() if key in UNKNOWN} or None
    if name == "accountid":
        return call.get("accountid", call.get("account_id"))
    value = call.get(name)
    if value is None or name in OPEN or name == "call_flow":
        return value
    if name == "circle":
        return value or None
    if name in NUMBERS:
        return int(value)
    if name == "charges":
        return float(value)
    if name in SWITCHES:
        return bool(int(value))
    return str(value)


def window(lines: Iterable[bytes], zone: tzinfo = IST) -> Batch:
    """Build a window from a page as a pull does: invalid JSON is fixed before a sink sees it."""
    page = PageReader().read(Reply(200, b'{"count":1,"results":[%s]}' % b",".join(lines)), 0.0)
    return Batch([row.line for row in rows_of(page)], zone)


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """Make a window from calls as the server sent them."""

    def make(*lines: bytes, zone: tzinfo = IST) -> Batch:
        return window(lines, zone)

    return make


@pytest.fixture
def claim() -> PullIdentity:
    """The claim of a pull."""
    return PullIdentity("pull", "scope", "account")


@pytest.fixture(scope="session")
def realistic() -> Batch:
    """250 calls of a month in every odd form seen in the field, newest first."""
    return window(bytes(call.body) for call in Dataset.month("2024-05", calls=250, php_quirks=True).calls)


@pytest.fixture(scope="session")
def hostile() -> Batch:
    """Texts and numbers that harm some reader, in fields of every kind."""
    lines: list[bytes] = []
    for name, text in _TEXTS.items():
        for index, place in enumerate(_PLACES):
            if name == "long" and index > 1:
                continue
            field = place.replace(b"%s", text.encode())
            own = b"" if field.startswith(b'"id"') else b'"id":"h%d",' % len(lines)
            lines.append(b"{" + own + field + b"}")
    lines += [b'{"id":"n%d",%s}' % (index, numbers) for index, numbers in enumerate(_NUMBERS)]
    # Each on its own page: one lone surrogate causes its whole page to be rewritten.
    return Batch([line for each in lines for line in window([each]).lines], IST)


@pytest.fixture(scope="session")
def expected() -> Callable[[bytes, str], Any]:
    """The expected table row of a realistic call, computed from the server's JSON alone."""
    return _expected
