"""One pull: a range of calls into one destination, whole or not at all, and the receipt.

The calls come from one stream, page by page, which proves its own end (``protocol/pages.py``); each page goes to the
sink in a thread while the next ones are under way. The output appears when the last page is in and on the disk. A pull
that fails or is interrupted leaves nothing behind and begins anew the next time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.meter import Meter
from servetel_async.bulk.progress import PullProgress
from servetel_async.bulk.receipt import PullReceipt, describe
from servetel_async.bulk.writer import Writer
from servetel_async.errors import OutputError, PagingError
from servetel_async.protocol.clock import stamp
from servetel_async.sinks.destination import receipt_path, sink_for
from servetel_async.sinks.files import check_place, reason_of, save_private
from servetel_async.stream import CallStream
from servetel_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servetel_async.client import ServetelClient
    from servetel_async.protocol.query import CallQuery
    from servetel_async.reading import StreamStats
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Sink

    OnProgress = Callable[[PullProgress], object]


async def pull(
    client: ServetelClient,
    destination: Destination,
    query: CallQuery,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    strict: bool = False,
) -> PullReceipt:
    """Pull every call of a query into a file or a database.

    Args:
        client: it is used and not closed.
        destination: a path whose ending decides the format, or ``"-"`` for NDJSON on standard output.
        query: which calls.
        overwrite: replace a file that exists; databases are always kept current.
        on_progress: called after each page.
        strict: raise where the receipt would not be complete; then nothing is written.

    Raises:
        ConfigurationError: the destination's kind is not known. Like all errors of opening it, before any request.
        OutputError: it exists, cannot be written, or the disk is full.
        OutputLockedError: another run is writing it.
        ServetelError: whatever ends a stream; then nothing was written.
    """
    sink = sink_for(destination, overwrite=overwrite)
    job = _Job(client, query, sink, on_progress)
    writer = Writer()
    try:
        receipt_file = receipt_path(destination)
        await writer.run(sink.open)
        await writer.run(job.check, receipt_file)
        await job.read(writer)
        return await writer.run(job.finish, receipt_file, strict=strict)
    finally:
        # Also after a cancelled open: it had run to its end before the cancellation arrived.
        try:
            await writer.run(sink.abandon)
        finally:
            writer.close()


class _Job:
    """What one pull knows while it runs."""

    def __init__(self, client: ServetelClient, query: CallQuery, sink: Sink, on_progress: OnProgress | None) -> None:
        self._query = query
        self._sink = sink
        self._on_progress = on_progress
        self._zone = client.zone
        self._meter = Meter(client)
        self._stream = CallStream(self._meter, query, page_size=client.page_size)
        self._begun = time.monotonic()

    def check(self, receipt_file: Path | None) -> None:
        """See that the receipt has a place, before anything is asked for."""
        try:
            if receipt_file is not None:
                check_place(receipt_file)
        except OSError as error:
            raise OutputError(
                f"the receipt of {self._sink.name} could not be saved",
                why=reason_of(error),
                fix="clear its place beside the output, or give the output another name",
            ) from error

    async def read(self, writer: Writer) -> None:
        """Read to the proved end, page by page."""
        async with self._stream.pages() as pages:
            async for page in pages:
                await writer.run(self._sink.write, page)
                if self._on_progress is not None:
                    self._on_progress(self._progress())

    def finish(self, receipt_file: Path | None, *, strict: bool) -> PullReceipt:
        """Commit the output, then save its receipt."""
        certified = self._certify()
        if strict and certified is None:
            raise PagingError("the output would not be complete", why=self._flaw(), fix="pull into an .ndjson file")
        self._sink.commit()
        receipt = self._receipt(certified)
        if receipt_file is not None:
            try:
                save_private(receipt_file, msgspec.json.format(msgspec.json.encode(receipt)) + b"\n")
            except Exception as error:
                reason = reason_of(error) if isinstance(error, OSError) else type(error).__name__
                there = "written and complete" if receipt.complete else "written"
                raise OutputError(
                    f"the receipt of {self._sink.name} cannot be saved",
                    why=f"{reason}; the output itself is {there}",
                    fix="use the output: the calls need not be pulled again",
                ) from error
        return receipt

    @property
    def _stats(self) -> StreamStats:
        return self._stream.stats

    def _counted(self) -> int | None:
        """The API's count, where it is one: some servers send the rows of the page, or nothing."""
        stats = self._stats
        if stats.count is None or self._meter.count_is_total or stats.count == stats.records:
            return stats.count
        return None

    def _progress(self) -> PullProgress:
        stats = self._stats
        return PullProgress(
            records=stats.records,
            total=stats.count if self._meter.count_is_total else None,
            pages=stats.pages,
            requests=self._meter.requests,
            retries=self._meter.retries,
            received=stats.size,
            seconds=time.monotonic() - self._begun,
        )

    def _certify(self) -> str | None:
        """Say how it is known that every call is there; None if it is not. The stream has proved its end by now."""
        stats, counted = self._stats, self._counted()
        if self._sink.keyed_by_id and stats.reused_ids:
            return None
        if counted is None:
            return "the pages were read to an empty one"
        certified = "as many calls as counted, and the end was proved"
        if stats.records > counted:
            gone = stats.records - counted
            certified = f"the list changed while it was read; {gone:,} of these calls have left it since"
        return f"{certified}, in {stats.rereadings + 1} readings" if stats.rereadings else certified

    def _flaw(self) -> str:
        reused = self._stats.reused_ids
        return f"the API gave {reused:,} calls an id that another call has, and the table keeps one of each"

    def _receipt(self, certified: str | None) -> PullReceipt:
        stats, window = self._stats, self._query.window(self._zone)
        return PullReceipt(
            destination=self._sink.name,
            query=describe(self._query),
            fingerprint=self._query.fingerprint(self._zone),
            from_date=None if window.start is None else stamp(window.start),
            to_date=None if window.end is None else stamp(window.end),
            counted=self._counted(),
            records=stats.records,
            duplicates=stats.duplicates,
            reused_ids=stats.reused_ids,
            undated=stats.undated,
            pages=stats.pages,
            requests=self._meter.requests,
            retries=self._meter.retries,
            seconds=round(time.monotonic() - self._begun, 3),
            bytes=self._sink.size,
            received=stats.size,
            sha256=self._sink.sha256,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            complete=certified is not None,
            certified=self._flaw() if certified is None else certified,
        )
