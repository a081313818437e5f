"""The journal of a pull: a header that says which pull it is, and one fact of the ledger for each window.

A destination keeps both as texts and commits a fact together with its window's calls (``sinks/sink.py``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.ledger import FORMAT, Reading, read_fact
from servetel_async.errors import ResumeMismatchError
from servetel_async.protocol.account import Account, resolve
from servetel_async.protocol.clock import is_wall_stamp
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.sinks.sink import PullIdentity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Saved

_BEGIN_ANEW = "run that one again to its end, say --no-resume (resume=False) to drop it, or name another destination"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a pull's journal.

    Attributes:
        format: the version of headers and facts.
        pull: the pull's identity; see ``PullIdentity``.
        account: the account of the calls.
        what: a description of the query, for people; holds no number and no name.
        first: the first second of the range.
        began_at: the time when the pull began, in UTC.
        version: the version of this package.
    """

    format: int
    pull: str
    account: Account
    what: str
    first: str
    began_at: str
    version: str


_header = msgspec.json.Decoder(Header).decode


def claim_of(
    query: CallQuery, zone: tzinfo, account: str, *, shape: Sequence[str], range_name: str | None
) -> PullIdentity:
    """Identify a pull.

    Args:
        query: the calls to pull.
        zone: the account's wall clock.
        account: the account's label.
        shape: other options that decide what is written: columns, mask.
        range_name: the caller's name of a range whose dates differ each time ("last 7d").
    """
    scope = scope_of(query, zone)
    asked = query.fingerprint(zone) if range_name is None else f"{scope} {range_name}"
    pull = hashlib.sha256("\0".join([asked, str(zone), *shape]).encode()).hexdigest()[:16]
    return PullIdentity(pull, scope, account)


def scope_of(query: CallQuery, zone: tzinfo) -> str:
    """Identify a query without its dates."""
    return query.replace(from_date=None, to_date=None).fingerprint(zone)


def read_saved(saved: Saved, claim: PullIdentity, name: str) -> tuple[Header, list[Reading]]:
    """Read the state of an interrupted pull.

    Raises:
        ResumeMismatchError: if the state is another pull's, or another version's.
    """
    try:
        header = _header(saved.header)
    except (*UNDECODABLE, RecursionError):
        header = None
    readings = [read_fact(text) for text in saved.entries]
    facts = [reading for reading in readings if reading is not None]
    is_sound = header is not None and header.format == FORMAT and is_wall_stamp(header.first)
    if header is None or not is_sound or len(facts) < len(readings):
        raise ResumeMismatchError(
            f"the interrupted pull in {name} cannot be resumed",
            why="another version of this program began it, or it is damaged",
            fix=_BEGIN_ANEW,
        )
    if header.pull != claim.pull:
        raise ResumeMismatchError(
            f"{name} holds an interrupted pull of something else",
            why=f"that one was: {header.what}",
            fix=_BEGIN_ANEW,
        )
    return header, facts


def account_of(header: Header, identity: Account, name: str) -> Account:
    """Return the account of an interrupted pull, which must be this one.

    Raises:
        ResumeMismatchError: if the pull is another account's.
    """
    account = resolve([header.account], identity)
    if account != header.account:
        raise ResumeMismatchError(
            f"{name} holds an interrupted pull of another account",
            why=f"that one is {header.account.label} at {header.account.origin}; this one is {account.label}",
            fix=f"use that account's token or profile; or {_BEGIN_ANEW}",
        )
    return account
