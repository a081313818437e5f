"""The receipt of a pull: what was counted, what was read, and how the two were proved to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.account import Account  # noqa: TC001 - msgspec reads it
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from servetel_async.protocol.query import CallQuery

#: Filters whose values are words of the API. Of all others only the names are noted.
_PLAIN = ("direction", "call_type", "duration")
_PERSONAL = ("agents", "department", "ivr", "callerid", "destination", "did_number", "services", "broadcast", "call_id")
_MINUTE = 60


class WindowReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One window of a pull.

    Attributes:
        first, last: its first and last second, on the account's wall clock; both belong to it.
        counted: the API's count; None if it sent no total.
        records: calls that were written.
        proof: the kind of proof: "leaf" (a one-page window), "counted", "repaired" (with boundary seconds repaired),
            "repeated", "walked"; several if it was read in parts; empty if it could not be proved.
        flaws: the parts that could not be proved, each with its reason.
        final: False if calls may still arrive.
        digest: order-independent digest of the lines that were written, 16 hex digits.
        conventions: how the server read the dates of its requests.
    """

    first: str
    last: str
    counted: int | None
    records: int
    proof: str
    flaws: tuple[str, ...] = ()
    final: bool = True
    digest: str = ""
    conventions: str = ""


class PullReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of a pull. Frozen and picklable; holds no number, no name and no token.

    ``str(receipt)`` has two lines; the first is "37,431 of the 37,431 the API counted". The receipt is saved as JSON
    beside the output, as ``DEST.receipt.json``.

    Attributes:
        destination: name of the output, without its directory.
        account: label of the account: its name, or a fingerprint.
        identity: address, fingerprint, kind of identity and name of the account, to recognise it.
        query: the filters that were set; values that could be personal are left out.
        fingerprint: twelve hex digits that distinguish queries.
        scope: the fingerprint of the filters alone, without the dates.
        mask: the name of the mask; empty without one.
        from_date: first second of the range on the account's wall clock. A sync may complete older ranges too: they
            are among ``windows`` and in the numbers.
        to_date: last second that was read; the server's clock if the range was not over.
        asked_to: the last second that was asked for if the range was not over, ``~`` if it has no end; else None.
        clock: the server's clock when the run began.
        final_until: the watermark; calls that started later may still arrive.
        counted_before: the API's first count; None if it is not known.
        counted: the API's last count; None if it sent no usable count.
        records: distinct calls that were written.
        duplicates: records that came again and were dropped.
        reused_ids: calls whose ``id`` another call has.
        undated: calls without a readable date, which could not be checked to lie in the range.
        quarantined: undecodable records; they are in ``DEST.quarantine.ndjson``.
        windows: each window with its count and proof, newest first.
        pages: pages read.
        requests: requests sent, retries included.
        retries: requests that repeated another.
        waited: seconds of backoffs, of all requests together.
        seconds: seconds from the start of the run to its receipt; only of the last run if the pull was resumed.
        bytes: size of the output; of a database, all of it.
        received: bytes of the replies.
        sha256: digest of the output; of a directory, of the names and digests of all its files; None for a database.
        files: SHA-256 of each file of a directory, by its path in it.
        finished_at: the end of the run in UTC, ISO 8601.
        version: the version of this package.
        complete: whether the output holds every call that the API counted from ``from_date`` to ``to_date``.
        reason: the verdict for programs: ``complete``, ``lost``, ``unproved``, ``moved``, ``conventions``,
            ``before_start``, ``reused_ids`` or ``quarantined``.
        certified: the proof of completeness, or what is wrong.
    """

    destination: str
    account: str
    identity: Account
    query: str
    fingerprint: str
    scope: str
    mask: str
    from_date: str
    to_date: str
    asked_to: str | None
    clock: str
    final_until: str
    counted_before: int | None
    counted: int | None
    records: int
    duplicates: int
    reused_ids: int
    undated: int
    quarantined: int
    windows: tuple[WindowReceipt, ...]
    pages: int
    requests: int
    retries: int
    waited: float
    seconds: float
    bytes: int
    received: int
    sha256: str | None
    files: dict[str, str]
    finished_at: str
    version: str
    complete: bool
    reason: str
    certified: str

    def __str__(self) -> str:
        if self.counted is None:
            first = f"{self.records:,} calls; the API sent no usable count"
        else:
            first = f"{self.records:,} of the {self.counted:,} the API counted"
        cost = f"{plural(self.requests, 'request')}, {plural(self.retries, 'retry', 'retries')}"
        older = sum(window.last < self.from_date for window in self.windows)
        span = f"{self.from_date} to {self.to_date}" + (f" and {plural(older, 'older window')}" if older else "")
        return f"{first}\n{self.destination}, {span}: {cost}, {duration(self.seconds)}; {self.verdict}"

    @property
    def verdict(self) -> str:
        """The verdict for people. A range that is not over is complete up to the server's clock, and no further."""
        if not self.complete:
            return f"NOT COMPLETE: {self.certified}"
        up_to = "" if self.asked_to is None else f" up to {self.to_date}"
        return f"complete{up_to}: {self.certified}"


def read_receipt(text: bytes, name: str) -> PullReceipt:
    """Read the receipt of the output with this name.

    Raises:
        ConfigurationError: if the text is not a receipt of this version.
    """
    try:
        receipt = msgspec.json.decode(text, type=PullReceipt)
        for each in receipt.windows:
            Window.of(each.first, each.last)
    except (*UNDECODABLE, ValueError, RecursionError):
        raise ConfigurationError(
            f"the receipt of {name} cannot be read",
            why="another version of this program wrote it",
            fix="pull again",
        ) from None
    return receipt


def describe(query: CallQuery) -> str:
    """Name the filters of a query, without values that could be personal."""
    said: list[str] = []
    for name in _PLAIN:
        value = getattr(query, name)
        if value is not None:
            parts: tuple[object, ...] = (value,) if isinstance(value, str) else value
            said.append(f"{name}={''.join(map(str, parts))}")
    said += [f"{name}=..." for name in _PERSONAL if getattr(query, name) is not None]
    return ", ".join(said) or "all calls"


def duration(seconds: float) -> str:
    """Format seconds for people: ``4.2 s``, ``3 min 12 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, _MINUTE)
    return f"{minutes} min {rest} s" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


def plural(number: int, one: str, many: str = "") -> str:
    """Format a number of things: ``1 window``, ``3,000 windows``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
