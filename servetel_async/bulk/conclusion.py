"""The conclusion of a pull: from what was read to the receipt, and what it is worth."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from servetel_async.bulk.journal import scope_of
from servetel_async.bulk.receipt import PullReceipt, WindowReceipt, describe, plural
from servetel_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from servetel_async.bulk.job import Job
    from servetel_async.bulk.journal import Entry, Header
    from servetel_async.errors import ServetelError
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import Sink

#: Windows that are named in a message; the receipt names all of them.
_NAMED = 3


class Conclusion:
    """What the entries of a pull amount to.

    Attributes:
        lost: why calls are missing, where pages did not come: then the output is not made; None where they did.
        flaw: why the output is not complete; None if it is.
    """

    def __init__(self, job: Job, header: Header, sink: Sink) -> None:
        self._job = job
        self._header = header
        self._sink = sink
        self._entries = sorted(job.entries.values(), key=lambda entry: entry.last, reverse=True)
        self.lost = self._find_lost()
        self.flaw = self._find_flaw()

    def _find_lost(self) -> ServetelError | None:
        lost, error = [entry for entry in self._entries if entry.lost], self._job.lost
        if not lost or error is None:
            return None
        error.why = f"other pages came, but not these: {_named(lost)}"
        error.fix = "do the same again: what was read is kept, and only what is missing is asked for"
        return error

    def _find_flaw(self) -> str | None:  # noqa: PLR0911 - one return for each reason
        entries = self._entries
        flawed = [entry for entry in entries if entry.flaws]
        quarantined = _sum(entries, "quarantined")
        if flawed:
            first = flawed[0].flaws[0]
            return f"{_named(flawed)} could not be proved; the first of it, {first.first} to {first.last}: {first.why}"
        if self._job.moved:
            return f"{_named(self._job.moved)} did not stop changing while it was read"
        if not self._job.confirmed:
            return "how the API reads dates could not be established, so calls at the edges of windows may be missing"
        if self._job.before_start:
            return f"the API counts {self._job.before_start:,} calls before the oldest one that it gave"
        if self._sink.keyed_by_id and _sum(entries, "reused_ids"):
            reused = _sum(entries, "reused_ids")
            return f"the API gave {reused:,} calls an id that another call has, and the table keeps one of each"
        if quarantined:
            kept = "it is kept apart, as it was sent" if quarantined == 1 else "they are kept apart, as they were sent"
            return f"{plural(quarantined, 'record')} cannot be read; {kept}"
        return None

    @property
    def quarantined(self) -> list[Entry]:
        """Windows with records that nobody can read."""
        return [entry for entry in self._entries if entry.quarantined]

    @property
    def counted(self) -> int | None:
        """What the API counts in the range; None where it sends no total."""
        counts = [entry.counted for entry in self._entries]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def receipt(self, query: CallQuery, zone: tzinfo) -> PullReceipt:
        """Write it down; the sink is finished, if it is to be."""
        job, header, entries = self._job, self._header, self._entries
        cost = job.cost
        return PullReceipt(
            destination=self._sink.name,
            query=describe(query),
            fingerprint=query.fingerprint(zone),
            scope=scope_of(query, zone),
            from_date=header.first,
            to_date=header.last,
            final_until=header.final_until,
            counted_before=job.counted_before,
            counted=self.counted,
            records=_sum(entries, "records"),
            duplicates=_sum(entries, "duplicates"),
            reused_ids=_sum(entries, "reused_ids"),
            undated=_sum(entries, "undated"),
            quarantined=_sum(entries, "quarantined"),
            windows=tuple(_window(entry) for entry in entries),
            pages=cost.pages,
            requests=cost.requests,
            retries=cost.retries,
            waited=round(job.fetcher.waited, 3),
            seconds=round(time.monotonic() - job.begun, 3),
            bytes=self._sink.size,
            received=cost.received,
            sha256=self._sink.sha256,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            complete=self.flaw is None,
            certified=self.flaw if self.flaw is not None else self._proof(),
        )

    def _proof(self) -> str:
        if self.counted is None:
            return "the pages were read to an empty one"
        windows = len(self._entries)
        repaired = sum(entry.kinds.get("repaired", 0) for entry in self._entries)
        proof = f"{plural(windows, 'window')} certified"
        return f"{proof}, {repaired:,} with page edges read again" if repaired else proof


def _sum(entries: Sequence[Entry], name: str) -> int:
    values = [getattr(entry, name) for entry in entries]
    return sum(value if isinstance(value, int) else len(value) for value in values)


def _window(entry: Entry) -> WindowReceipt:
    return WindowReceipt(
        entry.first,
        entry.last,
        entry.counted,
        entry.records,
        ", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in sorted(entry.kinds.items())),
        tuple(f"{flaw.first} to {flaw.last}: {flaw.why}" for flaw in entry.flaws),
        entry.final,
    )


def _named(entries: Sequence[Entry]) -> str:
    names = [f"{entry.first} to {entry.last}" for entry in entries[:_NAMED]]
    more = f" and {len(entries) - _NAMED:,} more" if len(entries) > _NAMED else ""
    return f"{', '.join(names)}{more}"
