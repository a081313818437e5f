"""What a pull writes down so that it can be gone on from: one header, and one entry for each window.

A destination keeps both as texts and commits an entry together with its window's calls (``sinks/sink.py``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from servetel_async.bulk.certified import Flaw  # noqa: TC001 - msgspec reads it
from servetel_async.errors import ResumeMismatchError
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.sinks.sink import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Saved

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A pull that began.

    Attributes:
        format: of headers and entries.
        pull: tells pulls apart.
        what: the same for people; holds no number and no name.
        first, last: the frozen range.
        final_until: calls that started later may still arrive.
        began_at: UTC.
        version: of this package.
    """

    format: int = FORMAT
    pull: str
    what: str
    first: str
    last: str
    final_until: str
    began_at: str
    version: str


class Unreadable(msgspec.Struct, frozen=True):
    """A record that nobody can read: what it is, and why."""

    reason: str
    raw: str

    def __repr__(self) -> str:
        """Show the reason, and not the record."""
        return f"Unreadable(reason={self.reason!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no more where rich prints it."""
        return [("reason", self.reason)]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A window that was read.

    Attributes:
        first, last: its seconds, both of it.
        counted: what the API counts in it; None where it sends no total.
        records: different calls that were written.
        duplicates, reused_ids, undated: see ``PullReceipt``.
        kinds: how its parts were proved.
        flaws: the parts that were not.
        quarantined: records that nobody can read.
        final: whether nothing is expected to arrive any more.
        pages, requests, retries, received: what it cost.
        at: UTC.
    """

    first: str
    last: str
    counted: int | None
    records: int
    duplicates: int = 0
    reused_ids: int = 0
    undated: int = 0
    kinds: dict[str, int] = {}
    flaws: tuple[Flaw, ...] = ()
    quarantined: tuple[Unreadable, ...] = ()
    final: bool = True
    pages: int = 0
    requests: int = 0
    retries: int = 0
    received: int = 0
    at: str

    @property
    def lost(self) -> bool:
        """Whether calls of it are missing because pages did not come."""
        return any(flaw.lost for flaw in self.flaws)


_header = msgspec.json.Decoder(Header).decode
_entry = msgspec.json.Decoder(Entry).decode


def claim_of(query: CallQuery, zone: tzinfo, *, shape: Sequence[str], range_name: str | None) -> Claim:
    """Name a pull.

    Args:
        query: which calls.
        zone: the account's wall clock.
        shape: what else decides what is written: columns, mask.
        range_name: how the caller names the range where its dates are other ones each time ("last 7d").
    """
    scope = scope_of(query, zone)
    asked = query.fingerprint(zone) if range_name is None else f"{scope} {range_name}"
    return Claim(hashlib.sha256("\0".join([asked, str(zone), *shape]).encode()).hexdigest()[:16], scope)


def claim_of_pull(
    query: CallQuery, zone: tzinfo, *, columns: Sequence[str] | None, mask: Mask | None, range_name: str | None
) -> Claim:
    """Name a pull by what decides its output."""
    return claim_of(query, zone, shape=[*(columns or ()), "" if mask is None else mask.name], range_name=range_name)


def scope_of(query: CallQuery, zone: tzinfo) -> str:
    """Name a query without its range."""
    return query.replace(from_date=None, to_date=None).fingerprint(zone)


def read_saved(saved: Saved, claim: Claim, name: str) -> tuple[Header, list[Entry]]:
    """Read what an interrupted pull left.

    Raises:
        ResumeMismatchError: it was another pull, or another version's.
    """
    begin_anew = "run that one again to its end, say --no-resume (resume=False) to drop it, or name another destination"
    try:
        header = _header(saved.header)
        entries = [_entry(entry) for entry in saved.entries]
    except UNDECODABLE:
        header, entries = None, []
    if header is None or header.format != FORMAT:
        raise ResumeMismatchError(
            f"{name} holds an interrupted pull that cannot be gone on from",
            why="another version of this program began it",
            fix=begin_anew,
        )
    if header.pull != claim.pull:
        raise ResumeMismatchError(
            f"{name} holds an interrupted pull of something else",
            why=f"that one was: {header.what}",
            fix=begin_anew,
        )
    return header, entries


def read_entries(texts: Sequence[bytes]) -> list[Entry]:
    """Read entries that a database kept; what another version wrote is left out."""
    entries: list[Entry] = []
    for text in texts:
        try:
            entries.append(_entry(text))
        except UNDECODABLE:
            continue
    return entries
