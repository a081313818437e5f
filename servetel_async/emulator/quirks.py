"""Every odd form that a PHP backend was seen to give a record, spread evenly over the data.

Key number `k` is odd in the records whose serial + k is divisible by four, and takes its odd forms in rotation: so
every form of every key appears within a few dozen records, most records have some, and none has all.
"""

import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

__all__ = ["encode_as_php", "roughen"]

_EVERY: Final = 4
_FIRST_INT_ID: Final = 7_000_000


#: The odd forms of a key's honest value, in rotation.
_Forms: TypeAlias = tuple[Callable[[Any], Any], ...]


def _constantly(value: object) -> Callable[[Any], Any]:
    return lambda _: value


def _listed(value: object) -> Any:
    return [] if value is None else [value]


def _as_json_text(value: object) -> str:
    return "" if value is None else msgspec.json.encode(value).decode()


def _as_digit(value: object) -> str:
    return "1" if value else "0"


def _as_float(value: float) -> float:
    return value + 0.5


_NULL: Final = _constantly(None)
_BOOLEANS: Final[_Forms] = (int, _as_digit, _NULL)
_INTEGERS: Final[_Forms] = (str, _NULL)
_OBJECTS: Final[_Forms] = (_constantly({"text": "seen/heard", "by": "सुनीता"}), _listed, _as_json_text, _NULL)

_FORMS: Final[dict[str, _Forms]] = {
    "call_duration": _INTEGERS,
    "answered_seconds": _INTEGERS,
    "minutes_consumed": _INTEGERS,
    "charges": (str, _as_float, _NULL),
    "recording_url": (_constantly(""), _NULL),
    "agent_ring_time": (_constantly("N.A."), _constantly("12"), _constantly(12), _constantly(""), _NULL),
    "agent_number": (_constantly("Extension-0602141810277"), _NULL),
    "circle": (_NULL, _constantly({"operator": None, "circle": None}), _constantly([])),
    "notes": _OBJECTS,
    "contact_details": _OBJECTS,
    "dialer_call_details": _OBJECTS,
    "missed_agents": (_constantly([{"id": 501, "name": "आरव", "number": "+910000000000"}]), _NULL),
    "transfer_missed_agent": (_constantly([{"id": None, "name": "Zoya/Sales"}]), _NULL),
    "agent_hangup_data": (_constantly({"code": 16}), _constantly([{"code": "16"}]), _constantly("16")),
    "custom_status": (_constantly({"label": "won"}), _constantly(["won"]), _constantly("won")),
    "sip_agent_ids": (_constantly({"0": "0602"}), _constantly(["0602"]), _constantly("0602")),
    "support_api_call": _BOOLEANS,
    "is_incoming_from_broadcast": _BOOLEANS,
    "voicemail_recording": _BOOLEANS,
}

_UNKNOWN: Final = (
    ("sid", "1746"),
    ("sname", "शाखा"),
    ("is_whatsapp", False),
    ("lead_data", {"source": "web/form", "score": 7}),
    ("call_tags", ["vip", "callback"]),
)

_STEP_EXTRAS: Final = (
    ("dtmf", "3"),
    ("email", "desk@example.invalid"),
    ("s_id", 12),
    ("status", "success"),
    ("dialst", "Busy"),
    ("value", None),
)


def roughen(record: dict[str, Any], serial: int) -> None:
    """Change a record in place as the backend would; ids that become ints stay unique."""
    turn = serial // _EVERY
    for number, (key, forms) in enumerate(_FORMS.items()):
        if (serial + number) % _EVERY == 0:
            record[key] = forms[turn % len(forms)](record[key])
    if serial % 5 == 0:
        record["id"] = _FIRST_INT_ID + serial
    if serial % 6 == 1:
        record["account_id"] = record.pop("accountid")
    if serial % 7 == 1:
        key, value = _UNKNOWN[serial // 7 % len(_UNKNOWN)]
        record[key] = value
    if serial % 11 == 1:
        record["call_flow"] = None
    elif serial % 3 == 0:
        _roughen_steps(record["call_flow"], serial)


def _roughen_steps(steps: list[dict[str, Any]], serial: int) -> None:
    """Mix the types of `time` and `id` within one list, and add a key that only some steps have."""
    for number, step in enumerate(steps):
        step["time"] = (int, str, float)[(serial + number) % 3](step["time"])
        if "id" in step:
            step["id"] = (int(step["id"]) if step["id"] else None, None, step["id"])[(serial // 3 + number) % 3]
    key, value = _STEP_EXTRAS[serial // 3 % len(_STEP_EXTRAS)]
    steps[-2][key] = value


def encode_as_php(record: dict[str, Any], serial: int) -> bytes:
    r"""Encode as `json_encode` does, whose flags differ between versions: `\/` and `\u0939`, `\/` alone, or neither."""
    style = serial % 3
    if style == 0:
        return json.dumps(record, separators=(",", ":")).replace("/", r"\/").encode()
    encoded = msgspec.json.encode(record)
    return encoded.replace(b"/", rb"\/") if style == 1 else encoded
