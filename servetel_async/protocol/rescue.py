"""Rescue one record, field by field, where the strict decoder fails. Rare, so it may be slow; it loses nothing.

Unknown keys go to ``extra``. A field that cannot be typed becomes None and its raw value goes to ``extra``. A number
in a text field is taken as written; PHP's ``[]`` for an empty object and its objects for lists are read as they were
meant.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.records import EXTRA, ZONE, CallRecord, Circle, FlowStep, Id
from servetel_async.protocol.reply import MOST_STRANGE, values_in
from servetel_async.protocol.undecodable import UNDECODABLE, is_utf8, repair_utf8

if TYPE_CHECKING:
    from collections.abc import Callable

#: Most values of one call: its flow may have thousands of steps.
MANY_VALUES = 20_000
#: The typed value holds everything that was sent: ``extra`` need not keep it.
NOTHING_LOST: Any = object()

split = msgspec.json.Decoder(list[msgspec.Raw]).decode
split_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode


def in_numeric_order(items: dict[str, Any]) -> list[Any]:
    """Read an object as the list that PHP meant: by number if its keys are numbers, else in its own order."""
    if all(key.isascii() and key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=lambda key: (len(key.lstrip("0")), key.lstrip("0")))]
    return list(items.values())


def _text(raw: msgspec.Raw) -> str:
    """Take a number as written: ``1714657799.11930963`` would lose digits as a float."""
    written = bytes(raw).decode()
    if written[:1] in "-0123456789":
        return written
    raise msgspec.ValidationError


def _circle(raw: msgspec.Raw) -> Circle | None:
    """Read PHP's empty object, ``[]``, as no circle."""
    if _any(raw) == []:
        return None
    raise msgspec.ValidationError


def _list(raw: msgspec.Raw) -> tuple[Any, ...]:
    """Read a list that PHP wrote as an object with numbers for keys."""
    items = split_object(raw)
    if not all(key.isdigit() for key in items):
        raise msgspec.ValidationError
    return tuple(_any(item) for item in in_numeric_order(items))


def _flow(raw: msgspec.Raw) -> tuple[FlowStep, ...]:
    steps = in_numeric_order(split_object(raw)) if bytes(raw)[:1] == b"{" else split(raw)
    return tuple(_rescue_step(step) for step in steps)


def _rescue_step(raw: msgspec.Raw) -> FlowStep:
    fields, extra = _rescue_fields(split_object(raw), _STEP_FIELDS)
    return FlowStep(**fields, extra=extra)


Reader = tuple["str", "Callable[[Any], Any]", "Callable[[Any], Any] | None"]


def _readers(struct: type[msgspec.Struct], special: dict[str, Callable[[Any], Any]]) -> dict[str, Reader]:
    """For each wire key, return the attribute, its own lax decoder, and the fallback."""
    readers: dict[str, Reader] = {}
    for field in msgspec.structs.fields(struct):
        if field.encode_name in (EXTRA, ZONE):
            continue
        decode = msgspec.json.Decoder(field.type, strict=False).decode
        is_text = field.type in (str, Id, str | None)
        readers[field.encode_name] = (field.name, decode, special.get(field.name, _text if is_text else None))
    return readers


_STEP_FIELDS = _readers(FlowStep, {})
_RECORD_FIELDS = _readers(
    CallRecord, {"circle": _circle, "missed_agents": _list, "transfer_missed_agent": _list, "call_flow": _flow}
)
#: The reference's table has one name, its sample the other. If both come, that of the sample counts.
_ALIASES = {"account_id": "accountid"}
_RECORD_FIELDS["account_id"] = _RECORD_FIELDS["accountid"]
#: Keys that are never learnt.
KNOWN_KEYS = frozenset({*_RECORD_FIELDS, EXTRA, ZONE})


def rescue(raw: msgspec.Raw | bytes, index: int = 0) -> CallRecord:
    """Read one record field by field.

    Raises:
        MalformedResponseError: if the record is not an object, or holds no key of a call.
    """
    if is_too_large(raw):
        raise unreadable(raw, index, "it is too large for a call")
    pairs = _pairs_of(raw)
    if pairs is None and not is_utf8(raw):  # a bad byte in a key
        pairs = _pairs_of(repair_utf8(raw))
    if pairs is None:
        raise unreadable(raw, index, "it is no JSON object, or nested too deeply")
    if not pairs.keys() & _RECORD_FIELDS.keys():
        raise unreadable(raw, index, "it holds no key of a call")
    fields: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    with suppress(RecursionError):
        fields, extra = _rescue_fields(pairs, _RECORD_FIELDS)
    if fields is None:
        raise unreadable(raw, index, "it is nested too deeply")
    if not fields.get("id"):
        fields["id"] = _derived_id(fields, raw)
        extra.setdefault("id", None)
    return CallRecord(**fields, extra=extra)


def _derived_id(fields: dict[str, Any], raw: msgspec.Raw | bytes) -> str:
    """Make the key of a call without an id, so that it counts once, even if it is read again.

    The ids that other systems know come first: the content may change with each reply, as the token of a recording URL
    does.
    """
    for name in ("call_id", "uuid"):
        if fields.get(name):
            return f"{name}-{fields[name]}"
    return "sha256-" + hashlib.sha256(raw).hexdigest()[:24]


def _pairs_of(raw: msgspec.Raw | bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return split_object(raw)
    except (*UNDECODABLE, RecursionError):
        return None


def is_too_large(raw: msgspec.Raw | bytes) -> bool:
    """Whether reading the record would take much memory; checked here, so that no frame of an error holds its bytes."""
    return len(raw) > MOST_STRANGE or (len(raw) > MANY_VALUES and values_in(bytes(raw)) > MANY_VALUES)


def _rescue_fields(pairs: dict[str, msgspec.Raw], readers: dict[str, Reader]) -> tuple[dict[str, Any], dict[str, Any]]:
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, raw in pairs.items():
        reader = readers.get(key)
        if reader is None or (key in _ALIASES and _says_something(pairs, _ALIASES[key])):
            extra[key] = _any_value(raw)
            continue
        name, decode, special = reader
        try:
            value = decode(raw)
        except UNDECODABLE:
            value, lost = _rescue_value(raw, decode, special)
            if lost is not NOTHING_LOST:
                extra[key] = lost
            fields[name] = value
        else:
            if value is not None or fields.get(name) is None:
                fields[name] = value
    return fields, extra


def _rescue_value(
    raw: msgspec.Raw, decode: Callable[[Any], Any], special: Callable[[Any], Any] | None
) -> tuple[Any, Any]:
    """Read a value that its decoder refuses. Return the value and the part that ``extra`` must keep."""
    lost, readers = NOTHING_LOST, [special]
    if not is_utf8(raw):
        lost = bytes(raw).decode("ascii", "backslashreplace")
        raw, readers = msgspec.Raw(repair_utf8(raw)), [decode, special]
    for read in readers:
        if read is not None:
            with suppress(*UNDECODABLE):
                return read(raw), lost
    value = _loose_circle(raw) if special is _circle else None
    return value, _any_value(raw) if lost is NOTHING_LOST else lost


def _says_something(pairs: dict[str, msgspec.Raw], key: str) -> bool:
    return key in pairs and bytes(pairs[key]) not in (b"null", b'""')


def _loose_circle(raw: msgspec.Raw) -> Circle | None:
    value = _any_value(raw)
    if not isinstance(value, dict):
        return None
    known = cast("dict[str, Any]", value)
    texts = {name: known[name] for name in ("operator", "circle") if isinstance(known.get(name), str)}
    return Circle(**texts)


def _any_value(raw: msgspec.Raw) -> Any:
    """Convert any JSON value to Python's own; a number out of range stays text."""
    try:
        return _any(raw)
    except UNDECODABLE:
        return bytes(raw).decode("ascii", "backslashreplace")


def unreadable(raw: msgspec.Raw | bytes, index: int, why: str) -> MalformedResponseError:
    digest = hashlib.sha256(raw).hexdigest()[:12]
    return MalformedResponseError(
        f"record {index + 1} of the page cannot be read",
        why=f"{why} ({len(bytes(raw))} bytes, sha256 {digest})",
        fix="report it; the page's other records are sound",
    )
