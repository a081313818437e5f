"""Bytes to records: a strict fast pass, and a rescue of each record where that fails.

1. The body is skimmed once, in the page task: that proves the JSON whole (a cut body is retried) and reads the
   envelope. Nothing else is decoded there.
2. Records are decoded when the consumer takes them: a small page whole, a large one 64 at a time, so that they are
   still in the cache when they are used, and the loop is never held for long.
3. Where the strict decoder fails, and only there, each record is read on its own: unknown keys go to ``extra``, a
   field that cannot be typed becomes None and its raw value goes to ``extra``. One bad record never costs its page.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec

from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.clock import IST, name_zone
from servetel_async.protocol.records import EXTRA, ZONE, CallRecord, Circle, FlowStep, Id
from servetel_async.protocol.reply import Reply, says_no, server_message
from servetel_async.protocol.verdict import Unacceptable, judge_refusal, malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import tzinfo

    from servetel_async.protocol.pages import Edges

#: Bodies up to this size are decoded whole (about 128 records of 2 KB).
SMALL_BODY = 256 * 1024
SLICE = 64

_FAILURES = (msgspec.DecodeError, UnicodeDecodeError)


class _Envelope(msgspec.Struct, gc=False):
    results: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    count: Any = None
    limit: Any = None
    size: Any = None
    page: Any = None
    success: Any = None


class _WideEnvelope(_Envelope, gc=False):
    results: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]


_skim = msgspec.json.Decoder(_Envelope).decode
_split_envelope = msgspec.json.Decoder(_WideEnvelope).decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_split_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_page = msgspec.json.Decoder(tuple[CallRecord, ...], strict=False).decode
_record = msgspec.json.Decoder(CallRecord, strict=False).decode
_any = msgspec.json.Decoder().decode


class PageBody:
    """A page whose JSON is proved whole; its records are decoded as they are taken.

    Attributes:
        body: as the server sent it (UTF-8).
        count: total of the query, limit: echoed page size, size, page: echoed number; None where not a whole number.
    """

    __slots__ = ("_records", "_rows", "body", "count", "limit", "page", "size")

    def __init__(self, body: bytes, envelope: _Envelope, rows: msgspec.Raw | list[msgspec.Raw]) -> None:
        self.body = body
        self._rows = rows
        self._records: tuple[CallRecord, ...] | None = None
        self.count = _whole(envelope.count)
        self.limit = _whole(envelope.limit)
        self.size = _whole(envelope.size)
        self.page = _whole(envelope.page)

    def rows(self) -> list[msgspec.Raw]:
        """Each record's own bytes, as sent."""
        if not isinstance(self._rows, list):
            self._rows = _split(self._rows)
        return self._rows

    def open(self) -> Edges:
        """Decode a small page whole; of a large one only both ends. Gives first id, last id and how many there are."""
        if not isinstance(self._rows, list):
            try:
                records = self._records = _page(self._rows)
            except (*_FAILURES, RecursionError):
                self.rows()
            else:
                return (records[0].id, records[-1].id, len(records)) if records else ("", "", 0)
        rows = self.rows()
        return (_id_of(rows[0]), _id_of(rows[-1]), len(rows)) if rows else ("", "", 0)

    def slices(self, zone: tzinfo = IST) -> Iterator[list[CallRecord] | tuple[CallRecord, ...]]:
        """Decode piece by piece what ``open`` has not; an empty page gives nothing.

        Raises:
            MalformedResponseError: a record that nobody can read; names its place, never its content.
        """
        records, self._records = self._records, None
        if records is not None:
            if records:
                yield _in_zone(records, zone)
            return
        rows = self.rows()
        for start in range(0, len(rows), SLICE):
            yield _in_zone(_decode_each(rows[start : start + SLICE], start), zone)


def _id_of(row: msgspec.Raw) -> str:
    """Give what tells a row from others: its id as written, or its content where it has none."""
    try:
        raw = _split_object(row).get("id")
    except (*_FAILURES, RecursionError):
        raw = None
    written = b"" if raw is None else bytes(raw)
    if written in (b"", b"null", b'""'):
        return hashlib.sha256(row).hexdigest()
    return written.decode("ascii", "backslashreplace").strip('"')


def _in_zone(records: Any, zone: tzinfo) -> Any:
    if zone is not IST:
        name = name_zone(zone)
        for record in records:
            msgspec.structs.force_setattr(record, "zone", name)
    return records


def _decode_each(rows: list[msgspec.Raw], start: int) -> list[CallRecord]:
    records: list[CallRecord] = []
    for index, row in enumerate(rows, start):
        record = _strict(row)
        records.append(record if record is not None else rescue(row, index))
    return records


def _strict(row: msgspec.Raw) -> CallRecord | None:
    try:
        return _record(row)
    except (*_FAILURES, RecursionError):
        return None


def read_page(reply: Reply, now: float) -> PageBody:
    """Prove that a 200 holds a whole page.

    Raises:
        Unacceptable: it does not; carries the verdict.
    """
    wide = len(reply.body) > SMALL_BODY
    try:
        body = reply.json_bytes()
        envelope = _split_envelope(body) if wide else _skim(body)
    except (msgspec.DecodeError, UnicodeError):
        return _read_strange(reply, now)
    except RecursionError:
        raise Unacceptable(_not_a_page(reply, "it is nested too deeply", retries=0)) from None
    rows: msgspec.Raw | list[msgspec.Raw] | msgspec.UnsetType = cast("Any", envelope.results)
    if envelope.success is not None and says_no({"success": envelope.success}):
        raise Unacceptable(judge_refusal(reply, reply.payload(), now))
    if rows is msgspec.UNSET:
        payload = reply.payload()
        if server_message(payload):
            raise Unacceptable(judge_refusal(reply, payload, now))
        raise Unacceptable(_not_a_page(reply, "it has no list of results"))
    if isinstance(rows, list):
        return PageBody(body, envelope, rows)
    try:
        return _with_rows(reply, body, envelope, rows)
    except UnicodeDecodeError:
        return _read_strange(reply, now)


def _with_rows(reply: Reply, body: bytes, envelope: _Envelope, rows: msgspec.Raw) -> PageBody:
    first = bytes(rows)[:1]
    if first == b"[":
        return PageBody(body, envelope, rows)
    if first == b"{":  # PHP writes a list whose keys have gaps as an object
        return PageBody(body, envelope, _in_numeric_order(_split_object(rows)))
    if first == b"n" and _whole(envelope.count) == 0 and _whole(envelope.size) in (0, None):
        return PageBody(body, envelope, [])
    raise Unacceptable(_not_a_page(reply, "its results are not a list"))


def _read_strange(reply: Reply, now: float) -> PageBody:
    """Read a body that is not strict JSON: PHP's NaN, raw control characters, lone surrogates, bad UTF-8.

    Reading it leniently proves it whole, so it is no cut body and another request would bring the same again.
    """
    payload: Any = None
    try:
        payload = json.loads(
            reply.json_bytes().decode("utf-8", "replace"), strict=False, parse_constant=str, parse_float=str
        )
        if isinstance(payload, dict) and not says_no(cast("dict[str, Any]", payload)):
            strict = msgspec.json.encode(_without_surrogates(payload))
            envelope = _skim(strict)
            if envelope.results is not msgspec.UNSET:
                return _with_rows(reply, strict, envelope, envelope.results)
    except RecursionError:
        raise Unacceptable(_not_a_page(reply, "it is nested too deeply", retries=0)) from None
    except (ValueError, msgspec.MsgspecError):
        payload = None
    if says_no(payload):
        raise Unacceptable(judge_refusal(reply, payload, now))
    head = reply.body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not head:
        raise Unacceptable(_not_a_page(reply, "it is empty"))
    if head == b"<":
        raise Unacceptable(_not_a_page(reply, "it is a web page: a login, a maintenance note or a proxy", retries=1))
    raise Unacceptable(_not_a_page(reply, "it is not whole JSON"))


def _not_a_page(reply: Reply, why: str, *, retries: int = 3) -> Any:
    digest = hashlib.sha256(reply.body).hexdigest()[:12]
    verdict = malformed(
        "the reply is not a page of calls", retries=retries, why=f"{why} ({len(reply.body)} bytes, sha256 {digest})"
    )
    cast("MalformedResponseError", verdict.error).status = reply.status
    return verdict


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which no file and no database takes, by U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_without_surrogates(item) for item in items]
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {cast("str", _without_surrogates(key)): _without_surrogates(item) for key, item in pairs}
    return value


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 2**63 else None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) < 19 else None  # noqa: PLR2004 - digits of 2**63
    return None


def _in_numeric_order(items: dict[str, Any]) -> list[Any]:
    if all(key.isascii() and key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=lambda key: (len(key.lstrip("0")), key.lstrip("0")))]
    return list(items.values())


# The rescue: one record, field by field. Rare, so it may be slow; it must not lose anything.


def _text(raw: msgspec.Raw) -> str:
    """Take a number as it is written: ``1714657799.11930963`` would lose digits as a float."""
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
    items = _split_object(raw)
    if not all(key.isdigit() for key in items):
        raise msgspec.ValidationError
    return tuple(_any(item) for item in _in_numeric_order(items))


def _flow(raw: msgspec.Raw) -> tuple[FlowStep, ...]:
    steps = _in_numeric_order(_split_object(raw)) if bytes(raw)[:1] == b"{" else _split(raw)
    return tuple(_rescue_step(step) for step in steps)


def _rescue_step(raw: msgspec.Raw) -> FlowStep:
    fields, extra = _rescue_fields(_split_object(raw), _STEP_FIELDS)
    return FlowStep(**fields, extra=extra)


Reader = tuple["str", "Callable[[Any], Any]", "Callable[[Any], Any] | None"]


def _readers(struct: type[msgspec.Struct], special: dict[str, Callable[[Any], Any]]) -> dict[str, Reader]:
    """For each wire key: the attribute, its own lax decoder, and what to try where that fails."""
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
#: The reference's table has the one name, its sample the other. Where both come, the one of the sample counts.
_ALIASES = {"account_id": "accountid"}
_RECORD_FIELDS["account_id"] = _RECORD_FIELDS["accountid"]


def rescue(raw: msgspec.Raw | bytes, index: int = 0) -> CallRecord:
    """Read one record field by field.

    Raises:
        MalformedResponseError: it is not an object, or holds no key of a call.
    """
    pairs: dict[str, msgspec.Raw] | None = None
    with contextlib.suppress(msgspec.DecodeError):
        try:
            pairs = _split_object(raw)
        except UnicodeDecodeError:  # in a key
            pairs = _split_object(bytes(raw).decode("utf-8", "replace").encode())
    if pairs is None:
        raise _unreadable(raw, index, "it is not a JSON object")
    if not pairs.keys() & _RECORD_FIELDS.keys():
        raise _unreadable(raw, index, "it holds no key of a call")
    fields: dict[str, Any] | None = None
    extra: dict[str, Any] = {}
    with contextlib.suppress(RecursionError):
        fields, extra = _rescue_fields(pairs, _RECORD_FIELDS)
    if fields is None:
        raise _unreadable(raw, index, "it is nested too deeply")
    if not fields.get("id"):
        # Without a key a call could be neither told from another nor counted once: its content is the key.
        fields["id"] = "sha256-" + hashlib.sha256(raw).hexdigest()[:24]
        extra.setdefault("id", None)
    return CallRecord(**fields, extra=extra)


def _rescue_fields(pairs: dict[str, msgspec.Raw], readers: dict[str, Reader]) -> tuple[dict[str, Any], dict[str, Any]]:
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, raw in pairs.items():
        reader = readers.get(key)
        if reader is None or (key in _ALIASES and _says_something(pairs, _ALIASES[key])):
            extra[key] = _whatever(raw)
            continue
        name, decode, special = reader
        try:
            value = decode(raw)
            if value is not None or fields.get(name) is None:
                fields[name] = value
        except UnicodeDecodeError:
            fields[name], extra[key] = _lossy(raw, decode), bytes(raw).decode("ascii", "backslashreplace")
        except msgspec.DecodeError:
            try:
                fields[name] = _refuse(raw) if special is None else special(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                fields[name] = _loose_circle(raw) if special is _circle else None
                extra[key] = _whatever(raw)
    return fields, extra


def _refuse(_raw: msgspec.Raw) -> Any:
    raise msgspec.ValidationError


def _says_something(pairs: dict[str, msgspec.Raw], key: str) -> bool:
    return key in pairs and bytes(pairs[key]) not in (b"null", b'""')


def _loose_circle(raw: msgspec.Raw) -> Circle | None:
    value = _whatever(raw)
    if not isinstance(value, dict):
        return None
    known = cast("dict[str, Any]", value)
    texts = {name: known[name] for name in ("operator", "circle") if isinstance(known.get(name), str)}
    return Circle(**texts)


def _lossy(raw: msgspec.Raw, decode: Callable[[Any], Any]) -> Any:
    try:
        return decode(bytes(raw).decode("utf-8", "replace").encode())
    except msgspec.DecodeError:
        return None


def _whatever(raw: msgspec.Raw) -> Any:
    """Give any JSON value as Python's own; what even that cannot read (a number beyond all bounds) as its text."""
    try:
        return _any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return bytes(raw).decode("ascii", "backslashreplace")


def _unreadable(raw: msgspec.Raw | bytes, index: int, why: str) -> MalformedResponseError:
    digest = hashlib.sha256(raw).hexdigest()[:12]
    return MalformedResponseError(
        f"record {index + 1} of the page cannot be read",
        why=f"{why} ({len(bytes(raw))} bytes, sha256 {digest})",
        fix="report it; the page's other records are sound",
    )
