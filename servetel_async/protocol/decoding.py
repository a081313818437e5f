"""Decode bytes to records: a strict fast pass, and a rescue of each record where that fails.

1. A page is opened where its records are consumed: a page decoded ahead would have left the cache by then. The framing
   shows that it came whole. Opening it shows that its JSON is whole; if not, it is requested again, and proved on
   arrival. A page that does not look whole, or is large, is opened at once.
2. A small page is decoded in one pass. The records of a larger one are split, and decoded a few at a time as they are
   taken: they are still in the cache when they are used, and the loop is never blocked for long.
3. Only where the strict decoder fails, each record is read on its own: unknown keys go to ``extra``; a field that
   cannot be typed becomes None and its raw value goes to ``extra``. One bad record never costs its page.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from servetel_async.protocol.clock import IST, name_zone
from servetel_async.protocol.record_reader import RecordReader
from servetel_async.protocol.reply import HUGE, MOST_STRANGE, Reply, says_no, server_message, values_in
from servetel_async.protocol.rescue import MANY_VALUES, in_numeric_order, split_object
from servetel_async.protocol.token_refusal import refuses_token
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.protocol.verdict import Unacceptable, judge_refusal, malformed, too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import tzinfo

    from servetel_async.errors import MalformedResponseError
    from servetel_async.protocol.pages import PageFingerprint
    from servetel_async.protocol.records import CallRecord

#: Records to decode at a time: some 300 KB of objects.
SLICE = 64
#: Largest page in bytes that is decoded in one pass: some 128 records, whose objects still fit into a core's cache.
SMALL = 256 * 1024
#: Largest reply in bytes that may be anything, such as a refusal or a note. It is read on arrival.
SHORT = 4 * 1024
#: Slices of at least this many bytes are decoded record by record.
LARGE_SLICE = 512 * 1024
#: Most commas of a page, and so most records: about as many values as the largest body holds.
MOST_ROWS = 700_000
#: Most commas of a page in its dense places, where they are closer than in any call.
MOST_DENSE = 200_000
#: A page with fewer bytes per comma is dense. Real calls have some 25.
DENSE = 8
#: Most records of a page whose list is an object. It is sorted; PHP writes one only if it left some calls out.
MOST_KEYED = 20_000
#: Most values of a page that is not strict JSON in UTF-8: reading and rewriting takes a microsecond for each.
MOST_STRANGE_VALUES = 100_000


class _Envelope(msgspec.Struct, gc=False):
    results: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    count: Any = None
    limit: Any = None
    size: Any = None
    page: Any = None
    success: Any = None


class _WideEnvelope(_Envelope, gc=False):
    results: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]


@functools.lru_cache(maxsize=32)
def _page_decoder(struct: type[CallRecord]) -> Callable[[bytes], _Envelope]:
    """Make the decoder of a whole page whose records have this shape."""
    results: Any = (tuple[struct, ...] | msgspec.UnsetType, msgspec.UNSET)  # type: ignore[valid-type]
    page = msgspec.defstruct("Page", [("results", *results)], bases=(_Envelope,), gc=False)
    return cast("Callable[[bytes], _Envelope]", msgspec.json.Decoder(page, strict=False).decode)


_Split: TypeAlias = "tuple[bytes, _Envelope, msgspec.Raw | list[msgspec.Raw]]"
_skim = msgspec.json.Decoder(_Envelope).decode
_split_envelope = msgspec.json.Decoder(_WideEnvelope).decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PageBody:
    """A page of calls. Open it before using it; its records are decoded as they are taken.

    Attributes:
        body: the body as the server sent it; in UTF-8 once the page is open.
        count: total of the query, limit: echoed page size, size, page: echoed number; None if not a whole number.
        date: the server's clock, from its ``Date`` header; None without one.
        reader: the reader of its records.
    """

    __slots__ = ("_records", "_reply", "_rows", "body", "count", "date", "limit", "page", "reader", "size")

    def __init__(self, reply: Reply, reader: RecordReader) -> None:
        self.body = reply.body
        self.date = reply.headers.get("date")
        self.reader = reader
        self.count: int | None = None
        self.limit: int | None = None
        self.size: int | None = None
        self.page: int | None = None
        self._reply: Reply | None = reply
        self._rows: msgspec.Raw | list[msgspec.Raw] | None = None
        self._records: tuple[CallRecord, ...] | None = None

    def open(self) -> PageFingerprint:
        """Prove that the page is whole, and return its fingerprint: first call, last call and number of records.

        A call is identified by id and start: two calls may share an id.

        Raises:
            Unacceptable: if the page is not whole.
        """
        reply, self._reply = self._reply, None
        if reply is not None and not self._decode(reply):
            self.split(reply, time.time())
        if self._records is not None:
            records = self._records
            return (_key_of(records[0]), _key_of(records[-1]), len(records)) if records else ("", "", 0)
        rows = self.rows()
        return (_written_key_of(rows[0]), _written_key_of(rows[-1]), len(rows)) if rows else ("", "", 0)

    def split(self, reply: Reply, now: float) -> None:
        """Prove that it is a whole page, and split it into records.

        Args:
            reply: the reply that holds the page.
            now: epoch seconds of this computer.

        Raises:
            Unacceptable: if the page is not whole; carries the verdict.
        """
        self._reply = None
        self.body, envelope, self._rows = _split_page(reply, now)
        self._take(envelope)

    def _decode(self, reply: Reply) -> bool:
        """Decode a small page in one pass; False if that is not possible."""
        if len(reply.body) > SMALL:
            return False
        shape = self.reader.shape
        try:
            body = reply.json_bytes()
            envelope = _page_decoder(shape.struct)(body)
        except (*UNDECODABLE, UnicodeError, RecursionError):
            return False
        records: Any = envelope.results
        if records is msgspec.UNSET or says_no({"success": envelope.success}):
            return False
        if sum([len(record.call_flow) for record in records if record.call_flow]) > MANY_VALUES:
            return False  # perhaps of one record, which is too large
        self.body, self._records = body, shape.finished(records)
        self._take(envelope)
        return True

    def _take(self, envelope: _Envelope) -> None:
        self.count = _whole(envelope.count)
        self.limit = _whole(envelope.limit)
        self.size = _whole(envelope.size)
        self.page = _whole(envelope.page)

    def rows(self) -> list[msgspec.Raw]:
        """Each record's own bytes, as sent."""
        if self._rows is None:  # it was decoded in one pass
            self._rows = cast("list[msgspec.Raw]", _split_envelope(self.body).results)
        if not isinstance(self._rows, list):
            self._rows = _split(self._rows)
        return self._rows

    def slices(self, zone: tzinfo = IST) -> Iterator[Sequence[CallRecord]]:
        """Decode piece by piece; an empty page gives nothing.

        Raises:
            MalformedResponseError: if a record is undecodable; names its place, never its content.
        """
        if self._records is not None:
            records, self._records = self._records, None  # freed: the next page reuses their memory
            if records:
                yield _in_zone(records, zone)
            return
        rows = self.rows()
        for start in range(0, len(rows), SLICE):
            piece = rows[start : start + SLICE]
            step = SLICE if sum(map(len, piece)) <= LARGE_SLICE else 1
            for first in range(0, len(piece), step):
                yield _in_zone(self.reader.read(piece[first : first + step], start + first), zone)

    def records(self, zone: tzinfo = IST) -> list[CallRecord]:
        """Decode all records at once; see ``slices``."""
        return [record for piece in self.slices(zone) for record in piece]


def _key_of(record: CallRecord) -> str:
    return " ".join([part for part in (record.id, record.date, record.time) if part])


#: Values of a missing id on the wire.
_NO_ID = (b"", b"null", b'""')


class _WrittenKey(msgspec.Struct, gc=False):
    """The keys that identify a call, as sent. The other keys are skipped: a record may have half a million of them."""

    id: msgspec.Raw = msgspec.Raw()
    date: msgspec.Raw = msgspec.Raw()
    time: msgspec.Raw = msgspec.Raw()
    call_id: msgspec.Raw = msgspec.Raw()
    uuid: msgspec.Raw = msgspec.Raw()


_written_key = msgspec.json.Decoder(_WrittenKey).decode


def _written_key_of(row: msgspec.Raw) -> str:
    """Return the same for a record that is not decoded: its id, date and time as sent; without an id, its content."""
    try:
        key = _written_key(row)
    except (*UNDECODABLE, RecursionError):
        key = _WrittenKey()
    ids = [bytes(raw) for raw in (key.id, key.call_id, key.uuid)]
    first = next((written for written in ids if written not in _NO_ID), None)
    if first is None:
        return hashlib.sha256(row).hexdigest()
    written = [first, bytes(key.date), bytes(key.time)]
    parts = [part.decode("ascii", "backslashreplace").strip('"') for part in written if part != b"null"]
    return " ".join([part for part in parts if part])


def _in_zone(records: Any, zone: tzinfo) -> Any:
    if zone is not IST:
        name = name_zone(zone)
        for record in records:
            msgspec.structs.force_setattr(record, "zone", name)
    return records


class PageReader:
    """Read pages, and remember their keys: a client has one."""

    def __init__(self) -> None:
        self._records = RecordReader()

    def read(self, reply: Reply, now: float) -> PageBody:
        """Prove that a 200 holds a whole page, and split it into records.

        Args:
            reply: the reply.
            now: epoch seconds of this computer.

        Raises:
            Unacceptable: if it does not hold one; carries the verdict.
        """
        page = PageBody(reply, self._records)
        page.split(reply, now)
        return page

    def take(self, reply: Reply, now: float) -> PageBody:
        """Return a page for its consumer to open, if it looks whole; else see ``read``.

        Raises:
            Unacceptable: if the body is not a page.
        """
        body = reply.body
        if SHORT <= len(body) <= HUGE and body[:1] == b"{" and body[-1:] == b"}":
            return PageBody(reply, self._records)
        return self.read(reply, now)


def _split_page(reply: Reply, now: float) -> _Split:
    if _has_too_many_values(reply.body):
        raise Unacceptable(too_large("it holds more values than any page of calls"))
    try:
        body = reply.json_bytes()
        envelope = _split_strictly(body)
    except (*UNDECODABLE, UnicodeError):
        return _read_strange(reply, now)
    except RecursionError:
        raise Unacceptable(_not_a_page(reply, "it is nested too deeply", retries=0)) from None
    rows: msgspec.Raw | list[msgspec.Raw] | msgspec.UnsetType = cast("Any", envelope.results)
    if envelope.success is not None and says_no({"success": envelope.success}):
        raise Unacceptable(judge_refusal(reply, reply.payload(), now))
    if rows is msgspec.UNSET:
        payload = reply.payload()
        if server_message(payload) or refuses_token(reply, payload):
            raise Unacceptable(judge_refusal(reply, payload, now))
        raise Unacceptable(_not_a_page(reply, "it has no list of results"))
    if isinstance(rows, list):
        return body, envelope, rows
    try:
        return _with_rows(reply, body, envelope, rows)
    except UNDECODABLE:  # a bad byte in a key of the results
        return _read_strange(reply, now)


def _has_too_many_values(body: bytes) -> bool:
    """Sample an eighth of the body at random places: counting all of its commas takes as long as splitting it."""
    if len(body) < 2 * MOST_DENSE:  # a value takes two bytes
        return False
    block, step = 4096, 8 * 4096
    places = (start + random.randrange(step - block + 1) for start in range(0, len(body), step))  # noqa: S311 - no secret
    commas = [body.count(b",", place, place + block) for place in places]
    if 8 * sum(count for count in commas if count * DENSE >= block) >= MOST_DENSE:
        return True
    return 8 * sum(commas) >= MOST_ROWS // 2 and body.count(b",") >= MOST_ROWS


def _split_strictly(body: bytes) -> _Envelope:
    with suppress(msgspec.ValidationError):  # its results are not a list
        return _split_envelope(body)
    return _skim(body)


def _with_rows(reply: Reply, body: bytes, envelope: _Envelope, rows: msgspec.Raw) -> _Split:
    first = bytes(rows)[:1]
    if first == b"[":
        return body, envelope, rows
    if first == b"{":  # PHP writes a list whose keys have gaps as an object
        if len(body) > MOST_STRANGE or len(items := split_object(rows)) > MOST_KEYED:
            raise Unacceptable(too_large("its results are an object with too many keys"))
        return body, envelope, in_numeric_order(items)
    if first == b"n" and _whole(envelope.count) == 0 and _whole(envelope.size) in (0, None):
        return body, envelope, []
    raise Unacceptable(_not_a_page(reply, "its results are not a list"))


def _read_strange(reply: Reply, now: float) -> _Split:
    """Read a body that is not strict JSON: PHP's NaN, raw control characters, lone surrogates, bad UTF-8.

    Reading it leniently proves it whole: it was not cut, and another request would bring the same body again.
    """
    _check_strange(reply)
    payload: Any = None
    try:
        payload = json.loads(
            reply.json_bytes().decode("utf-8", "replace"), strict=False, parse_constant=str, parse_float=str
        )
        if isinstance(payload, dict) and not says_no(cast("dict[str, Any]", payload)):
            strict = _strict_bytes(payload)
            envelope = _skim(strict)
            if envelope.results is not msgspec.UNSET:
                return _with_rows(reply, strict, envelope, envelope.results)
    except RecursionError:
        raise Unacceptable(_not_a_page(reply, "it is nested too deeply", retries=0)) from None
    except (ValueError, *UNDECODABLE):
        payload = None
    if says_no(payload) or refuses_token(reply, payload):
        raise Unacceptable(judge_refusal(reply, payload, now))
    head = reply.body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if not head:
        raise Unacceptable(_not_a_page(reply, "it is empty"))
    if head == b"<":
        raise Unacceptable(_not_a_page(reply, "it is a web page: a login, a maintenance note or a proxy", retries=1))
    if not reply.has_known_charset:
        charsets = "UTF-8, UTF-16, UTF-32, Latin-1 or cp1252"
        raise Unacceptable(_not_a_page(reply, f"its charset is not {charsets}", retries=0))
    raise Unacceptable(_not_a_page(reply, "it is not whole JSON"))


def _check_strange(reply: Reply) -> None:
    """Refuse a body that would take much memory or time to read leniently."""
    if len(reply.body) > MOST_STRANGE:
        if reply.body[-100:].rstrip()[-1:] == b"}":
            raise Unacceptable(too_large("it is no strict JSON in UTF-8, so that reading it would take much memory"))
        raise Unacceptable(_not_a_page(reply, "it is not whole JSON"))
    if values_in(reply.body) > MOST_STRANGE_VALUES:
        raise Unacceptable(too_large("it is no strict JSON in UTF-8, and holds too many values to be read again"))


def _not_a_page(reply: Reply, why: str, *, retries: int = 3) -> Any:
    digest = hashlib.sha256(reply.body).hexdigest()[:12]
    verdict = malformed(
        "the reply is not a page of calls", retries=retries, why=f"{why} ({len(reply.body)} bytes, sha256 {digest})"
    )
    cast("MalformedResponseError", verdict.error).status = reply.status
    return verdict


def _strict_bytes(payload: Any) -> bytes:
    """Write the payload again; lone surrogates, which no file or database accepts, become U+FFFD."""
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 2**63 else None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) < 19 else None  # noqa: PLR2004 - digits of 2**63
    return None
