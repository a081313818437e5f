"""The outcome of a run as data, and the receipt that is built from it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.bulk.journal import scope_of
from servetel_async.bulk.receipt import PullReceipt, WindowReceipt, describe
from servetel_async.bulk.verdict import counted_in, total
from servetel_async.protocol.clock import stamp
from servetel_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.job import Job
    from servetel_async.bulk.ledger import Reading
    from servetel_async.bulk.pull_range import PullRange
    from servetel_async.bulk.verdict import Verdict
    from servetel_async.protocol.account import Account
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Output


class PullOutcome(NamedTuple):
    """The outcome of a run.

    Attributes:
        destination: name of the output, without its directory.
        query, zone, account: the query, the wall clock and the account.
        range: the range that was read.
        readings: the readings, newest window first.
        verdict: the verdict on the readings.
        counted_before: the API's first count; None if it is not known.
        cost: pages, requests, retries and bytes received.
        waited: see ``PullReceipt``.
        begun: when the run began, by the monotonic clock.
        mask: the name of the mask; empty without one.
    """

    destination: str
    query: CallQuery
    zone: tzinfo
    account: Account
    range: PullRange
    readings: Sequence[Reading]
    verdict: Verdict
    counted_before: int | None
    cost: Cost
    waited: float
    begun: float
    mask: str


def outcome_of(job: Job, destination: str, query: CallQuery, verdict: Verdict) -> PullOutcome:
    """Return the outcome of a finished run."""
    frame = job.frame
    return PullOutcome(
        destination=destination,
        query=query,
        zone=job.fetcher.source.zone,
        account=frame.account,
        range=frame.range,
        readings=job.in_order(),
        verdict=verdict,
        counted_before=job.counted_before,
        cost=job.cost,
        waited=job.fetcher.waited,
        begun=job.begun,
        mask=frame.mask,
    )


def build_receipt(outcome: PullOutcome, output: Output) -> PullReceipt:
    """Build the receipt of an outcome and its output."""
    readings, pulled, cost = outcome.readings, outcome.range, outcome.cost
    return PullReceipt(
        destination=outcome.destination,
        account=outcome.account.label,
        identity=outcome.account,
        query=describe(outcome.query),
        fingerprint=outcome.query.fingerprint(outcome.zone),
        scope=scope_of(outcome.query, outcome.zone),
        mask=outcome.mask,
        from_date=pulled.window.first,
        to_date=pulled.window.last,
        asked_to=None if pulled.is_over else pulled.asked_last,
        clock=stamp(pulled.clock),
        final_until=stamp(pulled.final_until),
        counted_before=outcome.counted_before,
        counted=counted_in(readings),
        records=total(readings, "records"),
        duplicates=total(readings, "duplicates"),
        reused_ids=total(readings, "reused_ids"),
        undated=total(readings, "undated"),
        quarantined=sum(len(reading.quarantined) for reading in readings),
        windows=tuple(_window(reading, stamp(pulled.final_until)) for reading in readings),
        pages=cost.pages,
        requests=cost.requests,
        retries=cost.retries,
        waited=round(outcome.waited, 3),
        seconds=round(time.monotonic() - outcome.begun, 3),
        bytes=output.size,
        received=cost.received,
        sha256=output.sha256,
        files=output.files,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        complete=outcome.verdict.is_complete,
        reason=outcome.verdict.reason,
        certified=outcome.verdict.text,
    )


def _window(reading: Reading, final_until: str) -> WindowReceipt:
    return WindowReceipt(
        reading.first,
        reading.last,
        reading.counted,
        reading.records,
        ", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in sorted(reading.kinds.items())),
        tuple(f"{flaw.first} to {flaw.last}: {flaw.why}" for flaw in reading.flaws),
        reading.last <= final_until,
        reading.digest,
        reading.conventions,
    )
