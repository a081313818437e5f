"""The rules of a mask: for each known key, which values pass, and what remains of the others.

``RECORD`` and the tables of nested fields are all the rules; the documentation shows them. A key in none of them is
unknown, and its value is hidden.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from servetel_async.protocol import harmless
from servetel_async.protocol.harmless import FEW_DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HIDDEN = "***"
_KEPT_DIGITS = 3
#: Most digits of an extension or a service number; more may be a phone number.
_SHORT_NUMBER = 5
#: Numbers are equal if their last digits are: ``+91 98765 43210``, ``09876543210`` and ``9876543210``.
_COMPARED_DIGITS = 10
_LONGEST_NUMBER = 40
_LONGEST_REFERENCE = _LONGEST_KEY = 100

_number = re.compile(r"(Extension-|\()?(\+?[0-9][0-9 ().\u00a0-]{4,}[0-9])").fullmatch
_short_number = re.compile(rf"\+?[0-9*#]{{1,{_SHORT_NUMBER}}}").fullmatch
_masked_number = re.compile(r"(?:Extension-|\()?\*+[0-9]{3}").fullmatch
_token = re.compile(r"p_[a-z2-7]{12}").fullmatch
_url = re.compile(r"(https?)://(?:[^/?#@]*@)?([A-Za-z0-9.-]+)(?::[0-9]*)?(?:[/?#].*)?", re.DOTALL).fullmatch
_not_digits = re.compile(r"[^0-9]+")
_NO_NUMBER = frozenset({"anonymous", "private", "restricted", "unknown", "unavailable", "withheld", "n.a.", "na"})
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
#: Ten bits as two characters: takes a quarter of the time of ``base64``.
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]

#: The key of pseudonyms; None to hide.
Key: TypeAlias = "bytes | None"
Rule: TypeAlias = "Callable[[Key, Any], Any]"


class Kind(NamedTuple):
    """The treatment of the values of some keys.

    Attributes:
        what: a description of the values, for people.
        left: what remains of such a value, for people; anything else is hidden.
        why: the reason, for people.
        apply: the function that masks a value.
    """

    what: str
    left: str
    why: str
    apply: Rule


def masked_fields(key: Key, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Mask an object: each known key by its rule; the value of an unknown key is hidden."""
    masked: dict[str, Any] = {}
    for name, value in values.items():
        rule = rules.get(name)
        if rule is not None:
            masked[name] = rule(key, value)
        else:
            masked[_masked_key(name)] = _hide(key, value)
    return masked


def _masked_key(name: str) -> str:
    """Hide an unknown key that holds a number or an address."""
    if len(name) > _LONGEST_KEY or "@" in name or not name.isprintable():
        return HIDDEN
    return name if sum(map(str.isnumeric, name)) <= FEW_DIGITS else HIDDEN


def _token_of(key: bytes, kind: str, text: str) -> str:
    """Return the token of a text: 60 bits of its HMAC in base32. Equal texts of two kinds have two tokens."""
    digest = hmac.digest(key, f"{kind}\0{text}".encode("utf-8", "surrogatepass"), "sha256")
    bits = int.from_bytes(digest[:8])
    pairs = [_PAIRS[bits >> shift & 1023] for shift in (54, 44, 34, 24, 14, 4)]
    return f"p_{''.join(pairs)}"


def _hide(_key: Key, value: Any) -> Any:
    """Hide a value, but show that there is one."""
    if value is None or isinstance(value, bool) or value in ("", [], {}):
        return value
    return HIDDEN


def _pass(_key: Key, value: Any) -> Any:
    return value


def _hide_personal(key: Key, value: Any) -> Any:
    return HIDDEN if isinstance(value, bool) else _hide(key, value)


def _shaped(what: str, why: str, shape: harmless.Shape) -> Kind:
    def apply(key: Key, value: Any) -> Any:
        return value if shape(value) else _hide(key, value)

    return Kind(what, "passes", why, apply)


def _mask_number(key: Key, value: Any) -> Any:
    if isinstance(value, str):
        return _mask_number_text(key, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _hide(key, value)
    if abs(value) >= 10**_LONGEST_NUMBER:
        return HIDDEN
    if isinstance(value, float) and not value.is_integer():
        return value if len(repr(abs(value))) <= _SHORT_NUMBER else HIDDEN
    written = str(int(value))
    digits = written.lstrip("-")
    if len(digits) <= _SHORT_NUMBER:
        return value
    return _token_of(key, "number", digits[-_COMPARED_DIGITS:]) if key is not None else _starred(written)


def _mask_number_text(key: Key, value: str) -> str:
    text = value if value.isascii() else _with_ascii_digits(value[: _LONGEST_NUMBER + 1])
    if len(text) > _LONGEST_NUMBER:
        return HIDDEN
    found = _number(text)
    if found is not None and key is None:
        return f"{found[1] or ''}{_starred(found[2])}"
    if not text or _short_number(text) or _masked_number(text) or text.casefold() in _NO_NUMBER:
        return text
    if key is None:
        return HIDDEN
    digits = _not_digits.sub("", text)
    if found is not None or (len(digits) > _SHORT_NUMBER and not any(map(str.isalpha, text)) and "@" not in text):
        return _token_of(key, "number", digits[-_COMPARED_DIGITS:])
    return text if _token(text) else HIDDEN


def _with_ascii_digits(text: str) -> str:
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)


def _starred(number: str) -> str:
    return "*" * (len(number) - _KEPT_DIGITS) + number[-_KEPT_DIGITS:]


def _mask_name(key: Key, value: Any) -> Any:
    if key is None or not isinstance(value, str) or value in ("", HIDDEN) or _token(value):
        return value if isinstance(value, str) and key is not None else _hide(key, value)
    return _token_of(key, "name", " ".join(unicodedata.normalize("NFKC", value).casefold().split()))


def _mask_reference(key: Key, value: Any) -> Any:
    if key is None or isinstance(value, bool) or not isinstance(value, str | int):
        return _hide(key, value)
    if value in ("", HIDDEN) or (isinstance(value, str) and _token(value)):
        return value
    if isinstance(value, int) and abs(value) >= 10**_LONGEST_REFERENCE:
        return HIDDEN
    return _token_of(key, "reference", str(value).rpartition("|")[2].strip())


def _mask_recording(key: Key, value: Any) -> Any:
    found = _url(value) if isinstance(value, str) else None
    if found is None or sum(map(str.isdigit, found[2])) > FEW_DIGITS:
        return _hide(key, value)
    return f"{found[1]}://{found[2]}/{HIDDEN}".lower()


def _nested(what: str, why: str, rules: Mapping[str, Kind], scalar: Rule = _hide) -> Kind:
    """Make the rules for an object, for a list of objects, and for a list that PHP wrote as an object."""
    applied = {name: kind.apply for name, kind in rules.items()}

    def one(key: Key, value: Any) -> Any:
        return masked_fields(key, cast("Any", value), applied) if isinstance(value, dict) else scalar(key, value)

    def apply(key: Key, value: Any) -> Any:
        if isinstance(value, list):
            return [one(key, each) for each in cast("list[Any]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value)
            if all(name.isascii() and name.isdigit() and len(name) <= FEW_DIGITS for name in items):
                return {name: one(key, each) for name, each in items.items()}
        return one(key, value)

    return Kind(what, "each value by its own key", why, apply)


_MOMENT = _shaped("a date, a time, or both", "says when, not who", harmless.is_moment)
_EPOCH = _shaped("seconds since 1970, from 2014 to 2049", "says when, not who", harmless.is_epoch)
_AMOUNT = _shaped(
    "a number of at most 9 digits, or of 4 digits and 4 decimal places; `N.A.`", "to be added up", harmless.is_amount
)
_WORD = _shaped("words without blanks, with at most 4 digits in all", "a word of the API", harmless.is_word)
_SENTENCE = _shaped("a known sentence", "others may hold a name or a number", harmless.is_sentence)
_CAUSE = _shaped(
    "words without blanks, with at most 4 digits in all; a known sentence", "a word of the API", harmless.is_cause
)
_LABEL = _shaped(
    "a text of at most 80 characters, with at most 4 digits and without `@`", "names no person", harmless.is_label
)
_MENU = _shaped("at most 2 keys of a telephone", "more may be a PIN", harmless.is_menu_choice)
_STEP_VALUE = _shaped(
    "at most 2 keys of a telephone, or the call's id", "more may be a PIN or a number", harmless.is_step_value
)
_FLAG = _shaped("0 or 1", "says nothing about a person", harmless.is_flag)
_SMALL_ID = _shaped("a number of at most 6 digits", "a campaign is no person", harmless.is_small_id)
_ID = _shaped("an id that is no phone number", "other systems know the call by it", harmless.is_id)
_ACCOUNT = _shaped(
    "an id that is no phone number, or a text as for a department", "the account is yours", harmless.is_account
)
_KEY = Kind("an id", "passes", "destinations know the call by it", _pass)
_NUMBER = Kind(
    "a phone number", f"stars and the last {_KEPT_DIGITS} digits; or a token", "people know it by them", _mask_number
)
_NAME = Kind("a name", f"`{HIDDEN}`, or a token", "may name a person", _mask_name)
_REFERENCE = Kind("an id", f"`{HIDDEN}`, or a token", "may lead to a person, or be a number", _mask_reference)
_RECORDING = Kind(
    "a link", f"`https://recordings.example.com/{HIDDEN}`", "with the rest of it anyone can listen", _mask_recording
)
_PERSONAL = Kind("anything", f"`{HIDDEN}`", "free text, or leads to a person", _hide_personal)

STEP: dict[str, Kind] = {
    **dict.fromkeys(("type", "subtype", "dialst", "status"), _WORD),
    **dict.fromkeys(("time", "anstime"), _EPOCH),
    "readableTime": _MOMENT,
    "value": _STEP_VALUE,
    "dtmf": _MENU,
    **dict.fromkeys(("id", "s_id"), _REFERENCE),
    "name": _NAME,
    **dict.fromkeys(("num", "number", "extension"), _NUMBER),
    "email": _PERSONAL,
}
AGENT: dict[str, Kind] = {
    "id": _REFERENCE,
    **dict.fromkeys(("name", "agent_name"), _NAME),
    **dict.fromkeys(("num", "number", "extension", "agent_number"), _NUMBER),
}
CIRCLE: dict[str, Kind] = {"operator": _LABEL, "circle": _LABEL}
HANGUP: dict[str, Kind] = {"code": _WORD}
RECORD: dict[str, Kind] = {
    "id": _KEY,
    **dict.fromkeys(("call_id", "uuid"), _ID),
    **dict.fromkeys(("date", "time", "end_stamp"), _MOMENT),
    **dict.fromkeys(("call_duration", "answered_seconds", "minutes_consumed", "charges", "agent_ring_time"), _AMOUNT),
    **dict.fromkeys(("direction", "status", "service", "call_hint"), _WORD),
    **dict.fromkeys(("reason", "hangup_cause"), _CAUSE),
    **dict.fromkeys(("description", "detailed_description"), _SENTENCE),
    **dict.fromkeys(("support_api_call", "is_incoming_from_broadcast", "voicemail_recording", "is_whatsapp"), _FLAG),
    "dtmf_input": _MENU,
    "broadcast_id": _SMALL_ID,
    "department_name": _LABEL,
    **dict.fromkeys(("accountid", "account_id"), _ACCOUNT),
    "circle": _nested("an object", "see below", CIRCLE),
    "call_flow": _nested("a list of steps", "see below", STEP),
    **dict.fromkeys(
        ("missed_agents", "transfer_missed_agent"), _nested("a list of agents", "see below", AGENT, _mask_number)
    ),
    "agent_hangup_data": _nested("a code, or an object", "see below", HANGUP, _WORD.apply),
    **dict.fromkeys(
        (
            *("client_number", "did_number", "caller_id_num", "agent_number", "agent_number_with_prefix"),
            *("caller_id", "caller_id_number", "call_to_number", "customer_number", "answered_agent_number"),
        ),
        _NUMBER,
    ),
    **dict.fromkeys(
        ("agent_name", "client_name", "caller_name", "customer_name", "contact_name", "answered_agent_name", "sname"),
        _NAME,
    ),
    **dict.fromkeys(("blocked_number_id", "lead_id", "sid"), _REFERENCE),
    "recording_url": _RECORDING,
    **dict.fromkeys(
        (
            *("notes", "contact_details", "dialer_call_details", "custom_status", "lead_data"),
            *("sip_agent_ids", "aws_call_recording_identifier"),
        ),
        _PERSONAL,
    ),
}
