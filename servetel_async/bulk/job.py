"""One run: the first request, the windows, the reconciliation.

A run reads the part of its range that no reading of the ledger covers. So a resumed run differs from a first run only
in what is left to read.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from servetel_async.aio.tasks import CONTROLLING
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.frame import Frame, now_in_utc
from servetel_async.bulk.journal import Header
from servetel_async.bulk.ledger import FORMAT, Reading, digest_of, half_read
from servetel_async.bulk.printed import Printed
from servetel_async.bulk.progress import PullProgress
from servetel_async.bulk.pull_range import PullRange, account_clock, clock_matters, range_at
from servetel_async.bulk.receipt import describe, plural
from servetel_async.bulk.windows.certified import Flaw
from servetel_async.bulk.windows.certifier import Certifier
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.bulk.windows.earliest import count_before, find_start
from servetel_async.bulk.windows.plan import width_for, windows_of
from servetel_async.bulk.windows.reconcile import find_changed
from servetel_async.bulk.windows.scheduler import WindowScheduler
from servetel_async.protocol.account import Account  # noqa: TC001 - msgspec reads it
from servetel_async.protocol.clock import DAY, on_wall, shift, stamp
from servetel_async.protocol.windows import Window
from servetel_async.sinks.sink import Batch, Span
from servetel_async.transport.callbacks import callback_failed
from servetel_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from servetel_async.bulk.sink_thread import SinkThread
    from servetel_async.bulk.windows.certified import Certified
    from servetel_async.errors import ServetelError
    from servetel_async.page_source import PageSource
    from servetel_async.protocol.mask import Mask
    from servetel_async.protocol.query import CallQuery
    from servetel_async.sinks.sink import PullIdentity, Sink
    from servetel_async.transport.callbacks import Listener

    OnProgress = Callable[[PullProgress], object]

#: Rounds of reconciliation: count again, and read again what has changed.
RECONCILIATIONS = 3


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a pull.

    Attributes:
        page_size, concurrency: those of the client.
        fast: see ``Certifier``.
        mask: the mask of each record before anything is written; None for none.
        settle: allowed lateness in seconds.
        patience: seconds without any good reply after which the pull gives up.
    """

    page_size: int
    concurrency: int
    fast: bool = False
    mask: Mask | None = None
    settle: float = 7200.0
    patience: float = 1800.0

    @property
    def mask_name(self) -> str:
        """The mask's name in the ledger; empty without a mask."""
        return "" if self.mask is None else self.mask.name


class Job:
    """One run; see the module.

    Attributes:
        entries: readings of the windows that are committed, by span.
        before_start: calls that the API counts before the oldest one that it gave.
        moved: readings of windows that were still changing after the last reconciliation.
        written: spans of the windows that this run has read and committed.
        here: this computer's clock when the run began, on the account's wall clock.
        calibration: the probe of how the server reads dates.
        confirmed: whether the run's conventions held to its end.
    """

    def __init__(  # noqa: PLR0917 - what a run is made of
        self,
        source: PageSource,
        query: CallQuery,
        sink: Sink,
        writer: SinkThread,
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
        self.entries: dict[Span, Reading] = {}
        self.before_start = 0
        self.moved: list[Reading] = []
        self.written: set[Span] = set()
        self.confirmed = True
        self.extra = Cost()  # cost of requests that belong to no window
        self.begun = time.monotonic()
        self.here = stamp(_here(source.zone))
        self._query = query
        self._zone: tzinfo = source.zone
        self._sink = sink
        self._writer = writer
        self._settings = settings
        self._listener = told
        self.frame: Frame  # set once the account and the server's clock are known
        self._printed = None if sink.resumable else Printed()
        self._certifier = Certifier(self.fetcher, fast=settings.fast)
        self.calibration = DateBoundsProbe(self.fetcher)
        width = width_for(settings.page_size, settings.concurrency)
        self._line = WindowScheduler(self.fetcher, self._certifier, self.calibration, self._commit, width)
        self._committed = 0
        self._is_resumed = False
        self._resumed = self._told = 0
        self._before = Cost()
        self._tops: list[Window] = []
        self.fetcher.on_page = self._tell

    async def look(self) -> PullRange:
        """Find the range of a pull: ask for the newest calls, the server's clock and the oldest call.

        Raises:
            ConfigurationError: if the range has not begun yet.
            ServetelError: if the requests fail.
        """
        asked, here = self._query.window(self._zone), _here(self._zone)
        if asked.end is not None and asked.end > shift(here, DAY):  # a window far in the future would show nothing
            asked_now = Window(None if asked.start is None else min(asked.start, here), shift(here, DAY))
        else:
            asked_now = asked
        newest, page = await self.fetcher.first_look(asked_now, self.extra)
        clock = await self._clock(asked, page.date, here)
        found = range_at(asked, clock, self._zone, self._settings.settle)
        if asked.start is None:
            window = await find_start(self.fetcher, asked_now, page, found.window.last, self.extra)
            return found._replace(window=window)
        if newest.last == found.window.last:
            self._line.known[newest] = page
        return found

    async def look_at_now(self) -> PullRange:
        """Find the range of a sync: ask for the calls of the last hour, to learn the server's clock.

        Raises:
            ServetelError: if the request fails.
        """
        here = _here(self._zone)
        page = await self.fetcher.sure_page(Window(shift(here, -timedelta(hours=1)), here), 1, self.extra)
        asked = Window(shift(here, -timedelta(hours=1)), None)
        clock = await self._clock(asked, page.date, here)
        return range_at(Window(None, None), clock, self._zone, self._settings.settle)

    async def _clock(self, asked: Window, date: str | None, here: datetime) -> datetime:
        """Return the server's clock. If it looks wrong, ask twice more and return the middle one of the three."""
        clocks = [account_clock(date, self._zone)]
        if clock_matters(asked, on_wall(clocks[0].astimezone(self._zone)), here):
            hour = Window(shift(here, -timedelta(hours=1)), here)
            for _ in range(2):
                page = await self.fetcher.sure_page(hour, 1, self.extra, size=1)
                clocks.append(account_clock(page.date, self._zone))
        return sorted(clocks)[len(clocks) // 2]

    def header(self, claim: PullIdentity, account: Account, found: PullRange) -> Header:
        """Describe the pull that begins."""
        return Header(
            format=FORMAT,
            pull=claim.pull,
            account=account,
            what=f"{describe(self._query)}, {self._query.window(self._zone)}",
            first=found.window.first,
            began_at=now_in_utc(),
            version=__version__,
        )

    async def read(self, frame: Frame) -> None:
        """Read what is not committed yet, then reconcile the range.

        Args:
            frame: the frame of this run.

        Raises:
            ServetelError: if the pull cannot continue; what was committed stays.
        """
        self.frame = frame
        whole = frame.range.window
        if self._sink.done:  # the output has its name already: nothing can be added, but it is counted again
            await self.calibration.ensure(whole, self.extra)
            await self._reconcile(whole, read_again=False)
            return
        await self.reread(half_read(self.in_order(), frame.range.clock))
        kept = [reading.window for reading in self.entries.values()]
        await self._read_all(whole.without([*self._query.left_out(self._zone), *kept]))
        await self._confirm_conventions(whole)
        await self._reconcile(whole)

    def keep(self, kept: list[Reading]) -> None:
        """Take over the readings that an interrupted run committed."""
        self.entries = {_span(reading): reading for reading in kept}
        self._committed = self._resumed = sum(reading.records for reading in self.entries.values())
        for reading in kept:
            self._before.add(Cost(reading.pages, reading.requests, reading.retries, reading.received))
            self._certifier.expect(max(reading.counted or 0, reading.records))
        self._is_resumed = bool(kept)
        if kept:
            self._tell()

    async def _read_all(self, windows: list[Window]) -> None:
        final_until, longest = self.frame.range.final_until, self.fetcher.source.longest_range
        self._tops = [window for part in windows for window in windows_of(part, final_until, longest)]
        await self._line.run(self._tops)

    async def sync(self, frame: Frame, read: list[Window], unchanged: list[Reading]) -> None:
        """Read windows, and commit for each unchanged reading that it was counted again.

        Args:
            frame: the frame of this run.
            read: the windows to read, newest first.
            unchanged: the readings whose count has not changed.
        """
        self.frame = frame
        for reading in unchanged:
            fact = self.frame.confirmed(reading)
            span = _span(reading)
            await self._writer.run(self._sink.commit, Batch([], self._zone), span, msgspec.json.encode(fact))
            self.entries[span] = fact
        self._tops = [day for part in read for day in part.days()]  # so that the next run finds the same windows
        await self._line.run(self._tops)
        self.confirmed = await self._line.confirm(self.extra)

    async def _confirm_conventions(self, whole: Window) -> None:
        """Confirm the conventions, and read again what was read under others."""
        source = self.fetcher.source
        if self._is_resumed and source.conventions is None:
            await self.calibration.ensure(whole, self.extra)
        self.confirmed = await self._line.confirm(self.extra)
        believed = "" if source.conventions is None else source.conventions.text
        other = [each.window for each in self.in_order() if believed and each.conventions not in ("", believed)]
        await self.reread(other)

    async def reread(self, windows: list[Window]) -> None:
        """Read these windows again, each as a whole."""
        await self._line.run(windows, whole=True)

    async def _reconcile(self, whole: Window, *, read_again: bool = True) -> None:
        """Compare the count of the range with the counts of its windows, and read again what has changed."""
        if self._query.from_date is None and whole.start is not None:
            self.before_start = await count_before(self.fetcher, whole.start, self.extra)
        if self._certifier.walks or not (self.fetcher.source.count_is_total or self._is_resumed):
            # Without totals, the windows of an interrupted run cannot be counted again, so they are read again.
            kept = [each.window for each in self.in_order() if read_again and _span(each) not in self.written]
            await self.reread(kept)
            return
        if read_again:
            await self.reread([reading.window for reading in self.in_order() if _was_walked(reading)])
        for _ in range(RECONCILIATIONS):
            final = [reading for reading in self.in_order() if self._is_final(reading) and reading.counted is not None]
            if len(final) < (1 if self._is_resumed else 2):  # a single window of this run was counted when it was read
                return
            self.moved = await find_changed(self.fetcher, final, self.extra)
            # Once the cost limit is reached, another reading could bring fewer calls than there are.
            if not self.moved or not read_again or self._certifier.is_spent():
                return
            await self.reread([reading.window for reading in self.moved])

    def _is_final(self, reading: Reading) -> bool:
        """Whether no late call is expected in a window any more, by the clock of this run and not of its reading."""
        return reading.last <= stamp(self.frame.range.final_until)

    def in_order(self) -> list[Reading]:
        """Return the readings of this run, newest window first."""
        return sorted(self.entries.values(), key=lambda reading: reading.last, reverse=True)

    async def _commit(self, window: Window, found: Certified, cost: Cost) -> None:
        span = Span(window.first, window.last)
        fact = await self._writer.run(self._write, span, found, cost)
        before = self.entries.get(span)
        self.entries[span] = fact
        self.written.add(span)
        self._committed += fact.records - (before.records if before is not None else 0)
        self._tell()

    def _write(self, span: Span, found: Certified, cost: Cost) -> Reading:
        """Write a window; runs in the sink thread."""
        sound = [row for row in found.calls if row.reason is None]
        if self._printed is not None:
            sound = self._printed.add(span, sound)
        lines = [row.line for row in sound]
        if self._settings.mask is not None:
            lines = list(map(self._settings.mask.line, lines))
        if self._printed is not None and (gone := self._printed.gone(span, found.calls)):
            found.flaws.append(Flaw(span.first, span.last, f"{plural(gone, 'printed call')} left the list since"))
        fact = self.frame.fact(span, found, cost, digest_of(lines))
        self._sink.commit(Batch(lines, self._zone), span, msgspec.json.encode(fact))
        return fact

    @property
    def counted_before(self) -> int | None:
        """The API's first count of the range; None if it is not known, or not yet."""
        if self._certifier.walks or not self.fetcher.source.count_is_total:
            return None
        counts = [self._line.counted(window) for window in self._tops]
        known = [count for count in counts if count is not None]
        return self._resumed + sum(known) if self._tops and len(known) == len(counts) else None

    @property
    def cost(self) -> Cost:
        """The cost of this run, and of the windows that it found committed."""
        cost = Cost()
        cost.add(self._before)
        cost.add(self.fetcher.total)
        return cost

    @property
    def is_spent(self) -> bool:
        """Whether the run has reached its cost limit."""
        return self._certifier.is_spent()

    @property
    def lost(self) -> ServetelError | None:
        """The error of the last page that was given up; None if no page was."""
        return self._certifier.lost

    def _tell(self) -> None:
        """Call ``on_progress``. Its error ends the pull; one that looks like an exit or a cancellation is wrapped."""
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
        """Return the progress so far."""
        total, fetcher = self.counted_before, self.fetcher
        read = self._committed + self._line.read_ahead
        if total is not None:  # pages that were read again count twice
            read = min(read, max(total, self._committed))
        self._told = max(self._told, read)
        return PullProgress(
            records=self._told,
            total=total,
            windows=len(self.entries),
            kept=self._committed,
            pages=fetcher.total.pages,
            requests=fetcher.total.requests,
            retries=fetcher.total.retries,
            received=fetcher.total.received,
            waited=fetcher.waited,
            seconds=time.monotonic() - self.begun,
        )


def _span(reading: Reading) -> Span:
    return Span(reading.first, reading.last)


def _was_walked(reading: Reading) -> bool:
    """Whether a window was read before this server was known to count."""
    return reading.counted is None and not reading.lost


def _here(zone: tzinfo) -> datetime:
    """Return this computer's time on the account's wall clock."""
    return on_wall(datetime.now(UTC).astimezone(zone).replace(microsecond=0))
