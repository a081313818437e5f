"""The data that all readings of one run share, and the facts that are made from it and a window."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.ledger import FORMAT, Reading, Unreadable
from servetel_async.bulk.pull_range import PullRange  # noqa: TC001 - msgspec reads it
from servetel_async.protocol.account import Account  # noqa: TC001 - msgspec reads it
from servetel_async.protocol.clock import stamp
from servetel_async.protocol.reply import MOST_STRANGE
from servetel_async.version import __version__

if TYPE_CHECKING:
    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.windows.certified import Certified
    from servetel_async.protocol.rows import RawRecord
    from servetel_async.sinks.sink import Span


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The data that all readings of one run share.

    Attributes:
        account, scope, mask, asked_first: see ``Reading``.
        range: the range that the run reads.
        here: this computer's clock, on the account's wall clock.
    """

    account: Account
    scope: str
    mask: str
    range: PullRange
    here: str
    asked_first: str

    def fact(self, span: Span, found: Certified, cost: Cost, digest: str) -> Reading:
        """Make the fact of a window that was read.

        Args:
            span: the window's first and last second.
            found: the calls that were read, and their proof.
            cost: the cost of the reading.
            digest: the digest of the lines that are written.
        """
        sound = [row for row in found.calls if row.reason is None]
        unreadable = tuple(Unreadable(row.reason, self._raw(row)) for row in found.calls if row.reason is not None)
        return Reading(
            format=FORMAT,
            account=self.account,
            scope=self.scope,
            mask=self.mask,
            asked_first=self.asked_first,
            asked_last=self.range.asked_last,
            first=span.first,
            last=span.last,
            clock=stamp(self.range.clock),
            here=self.here,
            counted=found.counted,
            records=len(sound),
            digest=digest,
            duplicates=found.duplicates,
            reused_ids=len(sound) - len({row.id for row in sound}),
            undated=_outside(span, sound),
            kinds=dict(found.kinds),
            flaws=tuple(found.flaws),
            quarantined=unreadable,
            conventions=found.conventions,
            pages=cost.pages,
            requests=cost.requests,
            retries=cost.retries,
            received=cost.received,
            at=now_in_utc(),
            version=__version__,
        )

    def confirmed(self, reading: Reading) -> Reading:
        """Make the fact that a reading was counted again, with the same result."""
        return msgspec.structs.replace(
            reading,
            asked_first=self.asked_first,
            asked_last=self.range.asked_last,
            clock=stamp(self.range.clock),
            here=self.here,
            recounted=True,
            at=now_in_utc(),
            version=__version__,
        )

    def _raw(self, row: RawRecord) -> str:
        """Return a record as text; if masked or huge, its length and digest, because its fields cannot be masked."""
        if self.mask or len(row.line) > MOST_STRANGE:
            return f"{len(row.line)} bytes, sha256 {hashlib.sha256(row.line).hexdigest()}"
        return row.line.decode("utf-8", "replace")


def _outside(span: Span, rows: list[RawRecord]) -> int:
    """Count the rows whose moment lies outside the window. The rows are in order, so the two ends show it."""
    if not rows or (rows[0].moment <= span.last and span.first <= rows[-1].moment):
        return 0
    return sum(not span.first <= row.moment <= span.last for row in rows)


def now_in_utc() -> str:
    """Return this computer's time in UTC, as text."""
    return datetime.now(UTC).isoformat(timespec="seconds")
