"""The window scheduler: reads several windows at once, cuts those that are too large, and commits them in order.

The order is newest first, as the API gives them. A finished window waits until all before it are committed. So a
destination always holds the newest part of the range without a gap, and a kill loses only the windows in the line.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from servetel_async.aio.tasks import end, error_of
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import PageLostError, PageTooSlowError
from servetel_async.bulk.windows.certified import Certified
from servetel_async.bulk.windows.lying_counts import find_lie
from servetel_async.bulk.windows.plan import pieces_for
from servetel_async.errors import RequestRejectedError
from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.clock import DAY
from servetel_async.protocol.conventions import Bounds, Conventions
from servetel_async.protocol.evidence import MisfiledError, check_inside, out_of_window
from servetel_async.ranges import RangeLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.bulk.windows.certifier import Certifier
    from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.rows import RawRecord
    from servetel_async.protocol.windows import Window

    Commit = Callable[["Window", "Certified", "Cost"], Awaitable[None]]

#: Readings of a window that brought a call whose filing moment lies outside it.
READINGS = 3
#: Rounds of confirming the conventions and reading again what was read under others.
ROUNDS = 3
#: Committed calls that are released in one loop iteration: to release ten thousand takes ten milliseconds.
CALLS_IN_AN_ITERATION = 1_000


@dataclass(eq=False, slots=True)
class Slot:
    """A window's place in the line."""

    window: Window
    whole: bool = False  # not to be cut: it replaces one that was committed before
    cut: bool = False  # a piece of another window, whose count is that of all its pieces
    capped: bool = False  # its count may be a limit, less than the sum of its pieces
    too_long: bool = False  # longer than this server allows: it is cut before it is counted
    lie: str = ""  # why its count is wrong: it is walked
    cost: Cost = field(default_factory=Cost)
    task: asyncio.Task[Certified | list[Window]] | None = None


class WindowScheduler:
    """Schedules windows; see the module.

    Args:
        fetcher: the source of pages.
        certifier: the reader of a window.
        calibration: the probe that looks at the first records.
        commit: callback for each window that was read, in order.
        width: most windows that are read at the same time.

    Attributes:
        known: first pages that were fetched already.
        counts: the count on the first page of each window.
    """

    def __init__(
        self, fetcher: Fetcher, certifier: Certifier, calibration: DateBoundsProbe, commit: Commit, width: int
    ) -> None:
        self.known: dict[Window, PageBody] = {}
        self.counts: dict[Window, int | None] = {}
        self._fetcher = fetcher
        self._certifier = certifier
        self._calibration = calibration
        self._commit = commit
        self._width = width
        self._places: list[Slot] = []
        self._parts: dict[Window, list[Window]] = {}  # the parts of windows that were too long
        self._read_under: dict[Window, str] = {}  # the conventions under which each window was read
        self._uncounted: set[Window] = set()  # windows whose counts lie: another reading proves no more
        self._known_under: Bounds | None = None  # the bounds with which ``known`` was requested
        self._limit = RangeLimit(fetcher.source)

    def counted(self, window: Window) -> int | None:
        """Return the count from a window's first page, or the sum of its parts; None while a count is missing."""
        if window not in self._parts:
            return self.counts.get(window)
        counts = [self.counted(part) for part in self._parts[window]]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    @property
    def read_ahead(self) -> int:
        """Records of windows that are not committed yet."""
        return sum(place.cost.rows for place in self._places)

    async def run(self, windows: Iterable[Window], *, whole: bool = False) -> None:
        """Read and commit windows.

        Args:
            windows: the windows, newest first.
            whole: whether they must not be cut.

        Raises:
            ServetelError: if the pull cannot continue. Windows that were done before that are committed.
        """
        await self._run([window for window in windows if window not in self._uncounted], whole=whole)

    async def _run(self, windows: Iterable[Window], *, whole: bool) -> None:
        self._places = [Slot(window, whole) for window in windows]
        self._known_under = self._bounds
        try:
            while self._places:
                self._start()
                running = [place.task for place in self._places if place.task is not None and not place.task.done()]
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await self._settle()
        finally:
            tasks = [place.task for place in self._places if place.task is not None]
            await end(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()  # retrieved, so that asyncio logs nothing: one error is raised

    async def confirm(self, cost: Cost) -> bool:
        """Confirm the conventions, and read again what was read under other ones.

        Returns:
            Whether all windows were read under conventions that hold.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        for _ in range(ROUNDS):
            holds = await self._calibration.confirm(cost)
            stale = [window for window, text in self._read_under.items() if text != self._calibration.text]
            if holds and not stale:
                return True
            await self._run(stale, whole=True)
        return False

    def _start(self) -> None:
        """Start as many windows as there is room for, from the head on; pieces of a cut window come first."""
        room = self._width - sum(place.task is not None for place in self._places)
        for place in [place for place in self._places if place.task is None][:room]:
            place.task = asyncio.ensure_future(self._read(place))

    async def _settle(self) -> None:
        """Commit finished windows from the head on, up to the first unfinished one. Then raise an error that came."""
        while self._places:
            self._replace_cut()
            head = self._places[0]
            if head.task is None or not head.task.done() or error_of(head.task) is not None:
                break
            result = head.task.result()
            assert isinstance(result, Certified)  # noqa: S101 - for the type checker: cuts were replaced
            await self._commit(head.window, result, head.cost)
            self._read_under[head.window] = result.conventions
            if result.counted is None and self._fetcher.source.count_is_total:
                self._uncounted.add(head.window)
            del self._places[0]
            while result.calls:
                del result.calls[-CALLS_IN_AN_ITERATION:]
                await asyncio.sleep(0)
        for place in self._places:
            if place.task is not None and place.task.done() and (error := error_of(place.task)):
                raise error

    def _replace_cut(self) -> None:
        """Replace each window that was too large with its pieces."""
        line: list[Slot] = []
        for place in self._places:
            done = place.task is not None and place.task.done() and error_of(place.task) is None
            result = place.task.result() if done and place.task is not None else None
            if isinstance(result, list):
                is_cut = not (place.capped or place.too_long)
                line += [Slot(window, cut=is_cut, lie=place.lie) for window in result]
                if place.too_long:
                    self._parts[place.window] = result
            else:
                line.append(place)
        self._places = line

    async def _read(self, place: Slot) -> Certified | list[Window]:
        """Read a window, or return the pieces to cut it into.

        Raises:
            OutOfWindowError: if calls outside the window keep coming.
        """
        row: RawRecord | None = None
        for _ in range(READINGS):
            try:
                result = await self._read_checked(place)
            except MisfiledError as misfiled:
                row = misfiled.row
                await self._calibration.doubt([self._calibration.known(row)], place.cost)
                continue
            if isinstance(result, Certified):
                await self._calibration.note(result.calls, place.cost)
            return result
        assert row is not None  # noqa: S101 - for the type checker: it was read at least once
        raise out_of_window(place.window, row.start)

    async def _read_checked(self, place: Slot) -> Certified | list[Window]:
        longest = self._fetcher.source.longest_range
        if place.window.length > longest and not place.whole:
            place.too_long = True
            return list(place.window.split(longest))
        try:
            return await self._read_allowed(place)
        except RequestRejectedError as refusal:
            if place.whole:
                raise
            pieces = self._limit.cut(place.window, refusal)
        place.too_long = True
        return pieces

    async def _read_allowed(self, place: Slot) -> Certified | list[Window]:
        window, cost = place.window, place.cost
        first: PageBody | None = None
        if place.lie:
            return await self._certify(self._certifier.walk_uncounted(window, cost, place.lie))
        if self._certifier.walks:
            if _days(window) > 1 and not place.whole:
                return window.cut(_days(window))
            if not self._calibration.is_sure:
                await self._look(window, cost)  # only for the bounds: it is walked in any case
        else:
            first = await self._look(window, cost)
        if first is not None and not place.whole:
            rows, asked = first.open()[2], self._fetcher.page_size
            counted = first.count
            if not place.cut and counted is not None and (counted > rows or self._fetcher.source.count_is_total):
                self._certifier.expect(max(counted, rows))
            if counted is not None and (counted > rows or may_be_capped(counted)):
                pieces = await self._pieces(place, counted, rows or asked)
                if pieces:
                    return window.cut(pieces)
        if first is not None and first.count is not None and self._fetcher.source.count_is_total:
            self._certifier.limit(cost, first.count)
        return await self._certify(self._certifier.read(window, cost, first, leaves=place.whole))

    async def _pieces(self, place: Slot, counted: int, size: int) -> int:
        """Return into how many pieces to cut a window: by its count, by day if the count lies; 0 to read it whole."""
        pieces = pieces_for(place.window, counted, size)
        if pieces <= 1:
            return 0
        place.lie = await find_lie(self._fetcher, place.window, counted, place.cost) or ""
        place.capped = may_be_capped(counted)
        return _days(place.window) if place.lie else pieces

    async def _certify(self, reading: Awaitable[Certified]) -> Certified:
        """Read a window, and note the conventions if they were the same from its first page to its last."""
        before = self._calibration.text
        found = await reading
        found.conventions = before if self._calibration.text == before else ""
        return found

    @property
    def _bounds(self) -> Bounds:
        """The bounds of requests to this server now."""
        return (self._fetcher.source.conventions or Conventions()).bounds

    async def _look(self, window: Window, cost: Cost) -> PageBody | None:
        """Fetch the first page with this server's bounds; None if it does not come."""
        page, under = self.known.pop(window, None), self._known_under
        while True:
            try:
                if page is None:
                    under = self._bounds
                    page = await self._fetcher.page(window, 1, cost)
            except PageTooSlowError:
                continue
            except PageLostError:
                return None
            if not self._calibration.is_sure:
                rows = await self._fetcher.rows(page)
                with suppress(MisfiledError):
                    check_inside(window, rows, self._fetcher.source.zone)
                await self._calibration.check(window, rows, cost)
            if under != self._bounds:
                page = None
                continue
            self.counts[window] = page.count
            self._limit.came()
            return page


def _days(window: Window) -> int:
    """Return into how many pieces of at most a day to cut a window that is walked."""
    return -(-window.seconds // int(DAY / timedelta(seconds=1)))
