"""The common parts of pull and sync: the sink thread, and the end of a run."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.outcome import build_receipt, outcome_of
from servetel_async.bulk.quarantine import save_quarantine
from servetel_async.bulk.sink_thread import SinkThread
from servetel_async.bulk.verdict import Evidence, counted_in, judge, named
from servetel_async.errors import CountDriftError, PagingError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from servetel_async.bulk.job import Job
    from servetel_async.bulk.outcome import PullOutcome
    from servetel_async.bulk.receipt import PullReceipt
    from servetel_async.errors import ServetelError
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Output, Sink

    OnReceipt = Callable[[PullReceipt], object]


@asynccontextmanager
async def writing(sink: Sink) -> AsyncGenerator[SinkThread]:
    """Provide the thread that writes into a destination, and release the destination at the end."""
    writer = SinkThread()
    try:
        yield writer
    finally:
        # Also after a cancelled ``open``: the thread has run it to its end.
        try:
            await writer.run(sink.abandon)
        finally:
            writer.close()


async def conclude(
    job: Job,
    sink: Sink,
    writer: SinkThread,
    query: CallQuery,
    *,
    strict: bool,
    overwritten: int,
    on_receipt: OnReceipt | None = None,
) -> PullReceipt:
    """Judge a run, make its output final, and keep its receipt.

    Raises:
        ServetelError: if pages did not come; with ``strict``, if the output would not be complete.
        OutputError: if the output or its receipt cannot be written.
    """
    readings = job.in_order()
    verdict = judge(
        Evidence(
            readings,
            moved=job.moved,
            before_start=job.before_start,
            overwritten=overwritten,
            keyed_by_id=sink.keyed_by_id,
            confirmed=job.confirmed,
            is_closed=sink.done,
        )
    )
    if verdict.reason == "lost" and job.lost is not None:
        raise _explained(job, job.lost)
    if strict and not verdict.is_complete:
        kind = CountDriftError if counted_in(readings) is not None else PagingError
        raise kind("the output would not be complete", why=verdict.text, fix="run it again, or without --strict")
    outcome = outcome_of(job, sink.name, query, verdict)
    return await writer.run(_finish, sink, outcome, on_receipt)


def _finish(sink: Sink, outcome: PullOutcome, on_receipt: OnReceipt | None) -> PullReceipt:
    """Make the output and keep its receipt; runs in the sink thread."""
    receipts: list[PullReceipt] = []

    def receipt_of(output: Output) -> bytes:
        receipts.append(build_receipt(outcome, output))
        return msgspec.json.format(msgspec.json.encode(receipts[-1])) + b"\n"

    save_quarantine(sink, [reading for reading in outcome.readings if reading.quarantined])
    sink.finish(receipt_of)
    if on_receipt is not None:
        on_receipt(receipts[-1])
    return receipts[-1]


def _explained(job: Job, error: ServetelError) -> ServetelError:
    lost = [reading for reading in job.in_order() if reading.lost]
    error.why = f"other pages came, but not these: {named(lost)}"
    error.fix = "do the same again: what was read is kept, and only what is missing is asked for"
    return error
