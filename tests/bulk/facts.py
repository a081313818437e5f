"""Short builders of ledger facts: windows of May 2024, read long after."""

from __future__ import annotations

from servetel_async.bulk.ledger import FORMAT, Reading
from servetel_async.protocol.account import Account

ACCOUNT = Account("https://api.servetel.in", "0123456789ab", "subject", None)


def reading(first, last, clock="2024-06-20 12:00:00", *, until=None, **changes):
    """A reading of three calls.

    Args:
        first: stamp of its first second.
        last: stamp of its last second.
        clock: the server's clock at the reading.
        until: the end of the requested range; by default that of the window.
        changes: other fields.
    """
    given = {
        "format": FORMAT,
        "account": ACCOUNT,
        "scope": "s",
        "here": clock,
        "asked_first": first,
        "asked_last": last if until is None else until,
        "counted": 3,
        "records": 3,
        "digest": "",
        "kinds": {"leaf": 1},
        "at": "",
        "version": "",
    }
    return Reading(first=first, last=last, clock=clock, **{**given, **changes})
