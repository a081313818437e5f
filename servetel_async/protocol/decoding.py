"""Bytes to records: a strict fast pass, and a rescue of each record where that fails.

1. A page is only split into records when it comes: that proves the JSON whole (a cut body is retried).
2. It is decoded a few records at a time as the consumer takes them: they are still in the cache when they are used, and
   the loop is never held for long. Pages that are decoded ahead of their consumer have left the cache until he comes.
3. Where the strict decoder fails, and only there, each record is read on its own: unknown keys go to ``extra``, a
   field that cannot be typed becomes None and its raw value goes to ``extra``. One bad record never costs its page.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from servetel_async.protocol.clock import IST, name_zone
from servetel_async.protocol.record_reader import RecordReader
from servetel_async.protocol.reply import MOST_STRANGE, Reply, says_no, server_message
from servetel_async.protocol.rescue import in_numeric_order, split_object
from servetel_async.protocol.verdict import Unacceptable, judge_refusal, malformed, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo

    from servetel_async.errors import MalformedResponseError
    from servetel_async.protocol.pages import Edges
    from servetel_async.protocol.records import CallRecord

#: Records that are decoded at a time: some 150 KB of objects.
SLICE = 32
#: Bytes of a slice from which on its records are decoded one by one.
LARGE_SLICE = 512 * 1024
#: Commas of a page, and so records: about what the largest body holds of values. Each record has its own bounds.
MOST_ROWS = 700_000

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


_Split: TypeAlias = "tuple[bytes, _Envelope, msgspec.Raw | list[msgspec.Raw]]"
_skim = msgspec.json.Decoder(_Envelope).decode
_split_envelope = msgspec.json.Decoder(_WideEnvelope).decode
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class PageBody:
    """A page whose JSON is proved whole; its records are decoded as they are taken.

    Attributes:
        body: as the server sent it (UTF-8).
        count: total of the query, limit: echoed page size, size, page: echoed number; None where not a whole number.
        date: the server's clock, as its ``Date`` header has it; None without one.
        reader: reads its records.
    """

    __slots__ = ("_rows", "body", "count", "date", "limit", "page", "reader", "size")

    def __init__(
        self,
        body: bytes,
        envelope: _Envelope,
        rows: msgspec.Raw | list[msgspec.Raw],
        reader: RecordReader,
    ) -> None:
        self.body = body
        self._rows = rows
        self.count = _whole(envelope.count)
        self.limit = _whole(envelope.limit)
        self.size = _whole(envelope.size)
        self.page = _whole(envelope.page)
        self.date: str | None = None
        self.reader = reader

    def rows(self) -> list[msgspec.Raw]:
        """Each record's own bytes, as sent."""
        if not isinstance(self._rows, list):
            self._rows = _split(self._rows)
        return self._rows

    def open(self) -> Edges:
        """Tell pages apart: first id, last id and how many there are."""
        rows = self.rows()
        return (_id_of(rows[0]), _id_of(rows[-1]), len(rows)) if rows else ("", "", 0)

    def slices(self, zone: tzinfo = IST) -> Iterator[Sequence[CallRecord]]:
        """Decode piece by piece; an empty page gives nothing.

        Raises:
            MalformedResponseError: a record that nobody can read; names its place, never its content.
        """
        rows = self.rows()
        for start in range(0, len(rows), SLICE):
            piece = rows[start : start + SLICE]
            step = SLICE if sum(map(len, piece)) <= LARGE_SLICE else 1
            for first in range(0, len(piece), step):
                yield _in_zone(self.reader.read(piece[first : first + step], start + first), zone)

    def records(self, zone: tzinfo = IST) -> list[CallRecord]:
        """Decode all of it at once; see ``slices``."""
        return [record for piece in self.slices(zone) for record in piece]


def _id_of(row: msgspec.Raw) -> str:
    """Give what tells a row from others: its id as written, or its content where it has none."""
    try:
        raw = split_object(row).get("id")
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


class PageReader:
    """Reads pages, and remembers which keys came in them: a client has one."""

    def __init__(self) -> None:
        self._records = RecordReader()

    def read(self, reply: Reply, now: float) -> PageBody:
        """Prove that a 200 holds a whole page, and split it into records.

        Args:
            reply: what came.
            now: epoch seconds of this computer.

        Raises:
            Unacceptable: it does not; carries the verdict.
        """
        body, envelope, rows = _split_page(reply, now)
        page = PageBody(body, envelope, rows, self._records)
        page.date = reply.headers.get("date")
        return page


def _split_page(reply: Reply, now: float) -> _Split:
    # A list of so many bytes has at most half as many items; to count is the dearest step of all for a large page.
    if len(reply.body) > 2 * MOST_ROWS and reply.body.count(b",") >= MOST_ROWS:
        raise Unacceptable(too_large("it holds more values than any page of calls"))
    try:
        body = reply.json_bytes()
        envelope = _split_strictly(body)
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
        return body, envelope, rows
    try:
        return _with_rows(reply, body, envelope, rows)
    except UnicodeDecodeError:
        return _read_strange(reply, now)


def _split_strictly(body: bytes) -> _Envelope:
    with suppress(msgspec.ValidationError):  # its results are no list
        return _split_envelope(body)
    return _skim(body)


def _with_rows(reply: Reply, body: bytes, envelope: _Envelope, rows: msgspec.Raw) -> _Split:
    first = bytes(rows)[:1]
    if first == b"[":
        return body, envelope, rows
    if first == b"{":  # PHP writes a list whose keys have gaps as an object
        return body, envelope, in_numeric_order(split_object(rows))
    if first == b"n" and _whole(envelope.count) == 0 and _whole(envelope.size) in (0, None):
        return body, envelope, []
    raise Unacceptable(_not_a_page(reply, "its results are not a list"))


def _read_strange(reply: Reply, now: float) -> _Split:
    """Read a body that is not strict JSON: PHP's NaN, raw control characters, lone surrogates, bad UTF-8.

    Reading it leniently proves it whole, so it is no cut body and another request would bring the same again.
    """
    payload: Any = None
    if len(reply.body) > MOST_STRANGE:
        if reply.body[-100:].rstrip()[-1:] == b"}":
            raise Unacceptable(too_large("it is no strict JSON in UTF-8, so that reading it would take much memory"))
        raise Unacceptable(_not_a_page(reply, "it is not whole JSON"))
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


def _strict_bytes(payload: Any) -> bytes:
    """Write it again; lone surrogates, which no file and no database takes, become U+FFFD."""
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
