"""Shapes of values that say nothing about a person: a date, a duration, a status, an id.

A mask shows a value only if its key is known and the value has the key's shape. Text of any other shape may hold a
number or a name, so no shape admits five digits that could be part of a phone number, in any script.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[Any], Any]

#: Most digits of a word or a label: too few to recognise a number by.
FEW_DIGITS = 4
#: Most digits of a duration or a charge: fewer than a phone number has.
_AMOUNT_DIGITS = 9
#: Most decimal places of a charge, and digits before them.
_PLACES = 4
_LONGEST_LABEL = 80
#: Most digits of an id that has letters or separators between them, as a number may have.
_ID_DIGITS = 7


def _fullmatch(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(pattern, re.ASCII).fullmatch


_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = rf"(?:{_YEAR}-{_MONTH}-{_DAY}|{_DAY}-{_MONTH}-{_YEAR}|0000-00-00)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:?\d\d)?"
_moment = _fullmatch(rf"{_DATE}(?:[ T]{_TIME})?|{_TIME}")
_epoch = _fullmatch(r"(?:1[4-9]|2[0-4])\d{8}(?:\.\d{1,6})?")
_amount = _fullmatch(rf"-?(?:\d{{1,{_AMOUNT_DIGITS}}}(?:\.0+)?|\d{{1,{_PLACES}}}\.\d{{1,{_PLACES}}})|N\.?/?A\.?")
_words = _fullmatch(rf"(?!(?:[^0-9]*[0-9]){{{FEW_DIGITS + 1}}})[A-Za-z0-9][A-Za-z0-9_,-]{{0,79}}")
_menu = _fullmatch(r"[0-9*#A-D]{1,2}")
_flag = _fullmatch(r"[01]|true|false|yes|no")
_small_id = _fullmatch(r"[0-9]{1,6}")
_hex = r"[0-9a-f]"
_UNIQUE = (
    rf"[4-7]{_hex}{{12}}"  # PHP's uniqid: microseconds since 1970
    rf"|{_hex}{{24}}|{_hex}{{32}}"
    rf"|(?i:{_hex}{{8}}-{_hex}{{4}}-{_hex}{{4}}-{_hex}{{4}}-{_hex}{{12}})"
)
_SWITCH = r"(?:[A-Za-z][A-Za-z0-9]{0,9}(?:\.[0-9]{1,3})?-)?1\d{8,9}\.\d{1,12}"  # the second, and a serial number
_known_id = _fullmatch(rf"{_UNIQUE}|{_SWITCH}")
_switch_id = _fullmatch(_SWITCH)
_other_id = _fullmatch(r"(?=[^0-9]*[0-9])[A-Za-z0-9](?:[A-Za-z0-9._:|-]{0,62}[A-Za-z0-9])?")
_not_digits = re.compile(r"[^0-9]+")
#: With an Indian or British code or a 0 in front, or an Indian mobile number; or longer than any without a code.
_phone = _fullmatch(r"0{0,2}(?:91|44)0?\d{9,10}|0\d{9,10}|[6-9]\d{9}|\d{13,}")
#: Ids of records: text that a program would make, and no person would write.
is_key = _fullmatch(r"[!-*,-?A-~]{1,128}")

#: Sentences that telephone systems write, in lower case.
PHRASES = frozenset(
    {
        *("call answered", "call answered by agent", "call answered by agents", "call answered by customer"),
        *("call missed", "call missed by agent", "call missed by agents", "call missed by customer"),
        *("call disconnected by caller", "call disconnected by callee", "call disconnected by agent"),
        *("call disconnected by customer", "disconnected by caller", "disconnected by callee"),
        *("normal clearing", "normal call clearing", "normal, unspecified", "normal unspecified"),
        *("unspecified. no other cause codes applicable.", "unspecified", "no answer", "user busy", "busy"),
        *("no user responding", "user alerting, no answer", "no answer from user (user alerted)", "call rejected"),
        *("subscriber absent", "number changed", "destination out of order", "invalid number format"),
        *("unallocated (unassigned) number", "unallocated number", "no route to destination", "no route to transit"),
        *("no circuit/channel available", "circuit/channel congestion", "network out of order", "temporary failure"),
        *("switching equipment congestion", "recovery on timer expire", "protocol error, unspecified"),
        *("interworking, unspecified", "facility rejected", "facility not subscribed", "facility not implemented"),
        *("bearer capability not available", "incompatible destination", "mandatory ie missing", "unknown", "failure"),
        *("originator cancel", "lose race", "request cancelled", "media timeout", "attended transfer", "crash"),
    }
)


def is_moment(value: Any) -> Any:
    """Match a date, a time, or both: ``2024-05-02``, ``19:19:59``, ``02-05-2024 19:20:03``."""
    return isinstance(value, str) and _moment(value)


def is_epoch(value: Any) -> Any:
    """Match seconds since 1970, from 2014 to 2049; as text or a number."""
    if isinstance(value, str):
        return _epoch(value)
    return isinstance(value, int | float) and 1_400_000_000 <= value < 2_500_000_000  # noqa: PLR2004 - 2014 to 2049


def is_amount(value: Any) -> Any:
    """Match a duration or a charge: at most nine digits, or four and four decimal places; ``N.A.`` too."""
    if isinstance(value, str):
        return _amount(value)
    if isinstance(value, float) and not value.is_integer():
        # A sum of two binary fractions ends in noise: 0.30000000000000004.
        return abs(value) < 10**_PLACES and abs(value - round(value, _PLACES)) < 1e-9  # noqa: PLR2004
    return isinstance(value, int | float) and abs(value) < 10**_AMOUNT_DIGITS


def is_word(value: Any) -> Any:
    """Match a word of the API without blanks, or several with commas: ``answered``, ``IVR,Department``; a code."""
    if isinstance(value, str):
        return _words(value)
    return isinstance(value, int) and abs(value) < 10**FEW_DIGITS


def is_sentence(value: Any) -> bool:
    """Match a known sentence of a telephone system, word for word."""
    return isinstance(value, str) and value.casefold() in PHRASES


def is_cause(value: Any) -> Any:
    """Match a word of the API, or a sentence."""
    return is_word(value) or is_sentence(value)


def is_label(value: Any) -> bool:
    """Match a short text without ``@`` and with at most four digits: a department, an operator, a region."""
    if not isinstance(value, str):
        return False
    return (
        len(value) <= _LONGEST_LABEL
        and "@" not in value
        and value.isprintable()
        and sum(map(str.isnumeric, value)) <= FEW_DIGITS
    )


def is_menu_choice(value: Any) -> Any:
    """Match at most two keys of a telephone: more may be a PIN."""
    return _menu(value) if isinstance(value, str) else isinstance(value, int) and 0 <= value < 100  # noqa: PLR2004


def is_step_value(value: Any) -> Any:
    """Match the value of a step: the choice in a menu, or the call's id."""
    return is_menu_choice(value) or (isinstance(value, str) and _switch_id(value))


def is_flag(value: Any) -> Any:
    """Match a boolean of PHP: 0, 1, as a number or text."""
    return _flag(value) if isinstance(value, str) else isinstance(value, int) and value in (0, 1)


def is_small_id(value: Any) -> Any:
    """Match at most six digits."""
    return _small_id(value) if isinstance(value, str) else isinstance(value, int) and 0 <= value < 1_000_000  # noqa: PLR2004


def is_id(value: Any) -> Any:
    """Match an id that is not a phone number: ``1714657799.11930963``, ``66339a0b7cfde``, a UUID, ``AC870728``."""
    if isinstance(value, int):
        if value < 0 or value > 10**30:
            return False
        value = str(value)
    if not isinstance(value, str):
        return False
    if _known_id(value):
        return True
    if not _other_id(value):
        return False
    digits = _not_digits.sub("", value)
    return len(digits) <= _ID_DIGITS or (digits == value and not _phone(digits))


def is_account(value: Any) -> Any:
    """Match the account: an identifier, or a label."""
    return is_id(value) or is_label(value)
