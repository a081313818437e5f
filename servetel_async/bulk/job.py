"""One pull at work: the first contact, the windows, the audit.

It reads what of the range is not committed yet; so a run that goes on from an interrupted one differs from a first run
only in what is left to read.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from servetel_async.bulk.audit import find_changed
from servetel_async.bulk.calibrate import Calibration
from servetel_async.bulk.certify import Certifier
from servetel_async.bulk.fetcher import Fetcher
from servetel_async.bulk.journal import Entry, Header, Unreadable
from servetel_async.bulk.line import Line
from servetel_async.bulk.plan import Frozen, freeze, width_for, windows_of
from servetel_async.bulk.progress import PullProgress
from servetel_async.bulk.receipt import describe
from servetel_async.bulk.start import count_before, find_start
from servetel_async.bulk.tally import Tally
from servetel_async.protocol.clock import stamp
from servetel_async.protocol.mask import mask_line
from servetel_async.protocol.reply import MOST_STRANGE
from servetel_async.protocol.windows import Window
from servetel_async.sinks.sink import Batch, Span
from servetel_async.transport.callbacks import callback_failed
from servetel_async.transport.tasks import CONTROLLING
from servetel_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from servetel_async.bulk.certified import Certified
    from servetel_async.bulk.writer import Writer
    from servetel_async.errors import ServetelError
    from servetel_async.page_source import PageSource
    from servetel_async.protocol.query import CallQuery
    from servetel_async.protocol.rows import Row
    from servetel_async.sinks.sink import Claim, Sink
    from servetel_async.transport.callbacks import Listener

    OnProgress = Callable[[PullProgress], object]

#: Rounds of counting again and reading again what has changed.
AUDITS = 3


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a pull is done.

    Attributes:
        page_size, concurrency: of the client.
        fast: see ``Certifier``.
        mask: hide numbers and names before anything is written.
        settle: seconds after which nothing is expected to arrive late any more.
        patience: seconds without any good reply after which the pull gives up.
    """

    page_size: int
    concurrency: int
    fast: bool = False
    mask: bool = False
    settle: float = 7200.0
    patience: float = 1800.0


class Job:
    """See the module.

    Attributes:
        entries: windows that are committed, by their span.
        before_start: calls that the API counts before the oldest one that it gave.
        moved: windows that were still changing after the last audit.
        calibration: finds out how the server reads dates.
        confirmed: whether what was believed of the server's dates held to the end.
    """

    def __init__(  # noqa: PLR0917 - what a pull is made of
        self,
        source: PageSource,
        query: CallQuery,
        sink: Sink,
        writer: Writer,
        settings: Settings,
        told: Listener[PullProgress] | None,
    ) -> None:
        self.fetcher = Fetcher(
            source,
            query,
            page_size=settings.page_size,
            concurrency=settings.concurrency,
            patience=settings.patience,
        )
        self.entries: dict[Span, Entry] = {}
        self.before_start = 0
        self.moved: list[Entry] = []
        self.confirmed = True
        self.extra = Tally()  # of requests that belong to no window
        self.begun = time.monotonic()
        self._query = query
        self._zone: tzinfo = source.zone
        self._sink = sink
        self._writer = writer
        self._settings = settings
        self._listener = told
        self._final_until = ""
        self._certifier = Certifier(self.fetcher, fast=settings.fast)
        self.calibration = Calibration(self.fetcher)
        width = width_for(settings.page_size, settings.concurrency)
        self._line = Line(self.fetcher, self._certifier, self.calibration, self._commit, width)
        self._committed = 0
        self._resumed = self._told = 0
        self._before = Tally()
        self._tops: list[Window] = []
        self.fetcher.on_page = self._tell

    async def freeze(self) -> Frozen:
        """Ask for the newest calls: what clock the server has, how far back the calls go, how it reads dates.

        Raises:
            ServetelError: nothing can be pulled from there.
        """
        asked = self._query.window(self._zone)
        newest, page = await self.fetcher.first_look(asked, self.extra)
        frozen = freeze(asked, page.date, self._zone, self._settings.settle)
        if asked.start is None:
            window = await find_start(self.fetcher, asked, page, frozen.window.last, self.extra)
            return Frozen(window, frozen.final_until)
        self._line.known[newest] = page
        return frozen

    def header(self, claim: Claim, frozen: Frozen) -> Header:
        """Describe the pull that begins."""
        return Header(
            pull=claim.pull,
            what=f"{describe(self._query)}, {self._query.window(self._zone)}",
            first=frozen.window.first,
            last=frozen.window.last,
            final_until=stamp(frozen.final_until),
            began_at=_now(),
            version=__version__,
        )

    async def read(self, header: Header, entries: list[Entry]) -> None:
        """Read what is not committed yet, then audit all of it.

        Raises:
            ServetelError: what ends a pull; what was committed stays.
        """
        self.entries = {Span(entry.first, entry.last): entry for entry in entries}
        self._committed = sum(entry.records for entry in self.entries.values())
        self._resumed = self._committed
        for entry in entries:
            self._before.add(Tally(entry.pages, entry.requests, entry.retries, entry.received))
        self._final_until = header.final_until
        flawed = [Window.of(*span) for span, entry in self.entries.items() if entry.flaws]
        if self._sink.done:
            return
        await self.reread(flawed)
        whole = Window.of(header.first, header.last)
        left = whole.without([Window.of(*span) for span in self.entries])
        until = Window.of(header.final_until, header.final_until).end
        assert until is not None  # noqa: S101 - for the type checker: it was made of a stamp
        self._tops = [window for part in left for window in windows_of(part, until, self.fetcher.source.longest_range)]
        await self._line.run(self._tops)
        self.confirmed = await self._line.confirm(self.extra)
        await self._audit(whole)

    async def sync(self, header: Header, known: list[Entry]) -> None:
        """Read what of the range is not covered by windows that are known and unchanged.

        Args:
            header: of the range.
            known: windows that need not be read again; they are journaled anew.
        """
        self._final_until = header.final_until
        for entry in known:
            span = Span(entry.first, entry.last)
            await self._writer.run(self._sink.commit, Batch([], self._zone), span, msgspec.json.encode(entry))
            self.entries[span] = entry
        left = Window.of(header.first, header.last).without([Window.of(*span) for span in self.entries])
        self._tops = [day for part in left for day in part.days()]  # so that the next run finds the same windows
        await self._line.run(self._tops)
        self.confirmed = await self._line.confirm(self.extra)

    async def reread(self, windows: list[Window]) -> None:
        """Read these windows again, each as a whole."""
        await self._line.run(windows, whole=True)

    async def _audit(self, whole: Window) -> None:
        if self._query.from_date is None and whole.start is not None:
            self.before_start = await count_before(self.fetcher, whole.start, self.extra)
        if self._certifier.walks or not self.fetcher.source.count_is_total:
            return
        await self.reread([Window.of(entry.first, entry.last) for entry in self._in_order() if _was_walked(entry)])
        for _ in range(AUDITS):
            final = [entry for entry in self._in_order() if entry.final and entry.counted is not None]
            if len(final) < 2:  # noqa: PLR2004 - a single window has counted itself
                return
            self.moved = await find_changed(self.fetcher, final, self.extra)
            if not self.moved or self._certifier.is_spent():  # then reading again would bring less than there is
                return
            await self.reread([Window.of(entry.first, entry.last) for entry in self.moved])

    def _in_order(self) -> list[Entry]:
        return sorted(self.entries.values(), key=lambda entry: entry.last, reverse=True)

    async def _commit(self, window: Window, found: Certified, tally: Tally) -> None:
        span = Span(window.first, window.last)
        entry = await self._writer.run(self._write, span, found, tally)
        before = self.entries.get(span)
        self.entries[span] = entry
        self._committed += entry.records - (before.records if before is not None else 0)
        self._tell()

    def _write(self, span: Span, found: Certified, tally: Tally) -> Entry:
        """Write a window, in the writer's thread."""
        entry = self._entry(span, found, tally)
        lines = [row.line for row in found.calls if row.reason is None]
        if self._settings.mask:
            lines = [mask_line(line) for line in lines]
        self._sink.commit(Batch(lines, self._zone), span, msgspec.json.encode(entry))
        return entry

    def _entry(self, span: Span, found: Certified, tally: Tally) -> Entry:
        sound = [row for row in found.calls if row.reason is None]
        unreadable = tuple(Unreadable(row.reason, self._raw(row)) for row in found.calls if row.reason is not None)
        return Entry(
            first=span.first,
            last=span.last,
            counted=found.counted,
            records=len(sound),
            duplicates=found.duplicates,
            reused_ids=len(sound) - len({row.id for row in sound}),
            undated=_outside(span, sound),
            kinds=dict(found.kinds),
            flaws=tuple(found.flaws),
            quarantined=unreadable,
            final=span.last <= self._final_until,
            pages=tally.pages,
            requests=tally.requests,
            retries=tally.retries,
            received=tally.received,
            at=_now(),
        )

    @property
    def counted_before(self) -> int | None:
        """What the API counted in the range when it was asked first; None where nobody knows, or not yet."""
        if self._certifier.walks or not self.fetcher.source.count_is_total:
            return None
        counts = [self._line.counted(window) for window in self._tops]
        known = [count for count in counts if count is not None]
        return self._resumed + sum(known) if self._tops and len(known) == len(counts) else None

    @property
    def cost(self) -> Tally:
        """What this run has cost, and what the windows had that it found committed."""
        cost = Tally()
        cost.add(self._before)
        cost.add(self.fetcher.total)
        return cost

    def _raw(self, row: Row) -> str:
        """A record that cannot be read cannot be masked field by field either: so it is named, as a huge one is."""
        if self._settings.mask or len(row.line) > MOST_STRANGE:
            return f"{len(row.line)} bytes, sha256 {hashlib.sha256(row.line).hexdigest()}"
        return row.line.decode("utf-8", "replace")

    @property
    def lost(self) -> ServetelError | None:
        """What the page met that was given up last."""
        return self._certifier.lost

    def _tell(self) -> None:
        """Call ``on_progress``. Its error ends the pull, unchanged unless it looks like an end or a cancellation."""
        if self._listener is None:
            return
        try:
            self._listener.tell(self.progress())
        except CONTROLLING as error:
            failure = callback_failed("on_progress", error)
        else:
            return
        raise failure

    def progress(self) -> PullProgress:
        """Say how far it is."""
        total, fetcher = self.counted_before, self.fetcher
        read = self._committed + self._line.read_ahead
        if total is not None:  # pages that were read again count twice
            read = min(read, max(total, self._committed))
        self._told = max(self._told, read)
        return PullProgress(
            records=self._told,
            total=total,
            windows=len(self.entries),
            pages=fetcher.total.pages,
            requests=fetcher.total.requests,
            retries=fetcher.total.retries,
            received=fetcher.total.received,
            waited=fetcher.waited,
            seconds=time.monotonic() - self.begun,
        )


def _was_walked(entry: Entry) -> bool:
    """Whether a window was read before anybody knew that this server counts."""
    return entry.counted is None and not any(flaw.lost for flaw in entry.flaws)


def _outside(span: Span, rows: list[Row]) -> int:
    """Count the rows whose start does not lie in it; they are sorted by it, so it shows at both ends."""
    if not rows or (rows[0].moment <= span.last and span.first <= rows[-1].moment):
        return 0
    return sum(not span.first <= row.moment <= span.last for row in rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
