"""Certified windows: read a window until it is proved that every call of it is there, or report that it is not.

1. A *one-page window* proves itself: one reply holds all of it, and nothing can move inside one reply.
2. Otherwise all its pages are read, the last page after all others, so that its count is the count afterwards. The
   proof (``evidence.py``): the count never changed, as many distinct calls came, and boundary seconds were repaired.
3. A window without a proof is read once more if its count did not change. Then it is cut into one-page windows, down to
   a single second. A second that holds more than a page is read until the union of its readings is as large as the
   count. If one call goes and one comes between two replies, all counts stay the same: only one-page windows are safe
   from this. So if counts change often, windows are read as one-page windows from the start.
4. A window that is still not proved is walked to an empty page, so that all calls that come are there. It is reported
   with the reason, never hidden. If counts are wrong everywhere, no more windows are cut.
5. If the server sends no total, a window is walked to an empty page, and again if calls came twice or a page had a
   hole. The first count that is more than its page ends this: it is a total, and the earlier signs were wrong.
6. A round count may be a limit of the server (``capping.py``) and proves nothing: the window is cut, down to a second.
7. A list may grow as fast as it is read. So the cost of a window is limited. If it reaches the limit it is reported:
   only then calls may be missing although no page was lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from servetel_async.aio.tasks import run_together
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import PageLostError, PageTooSlowError
from servetel_async.bulk.windows.certified import Certified, Flaw, merged, united
from servetel_async.bulk.windows.lying_counts import find_lie
from servetel_async.bulk.windows.uncounted import walk
from servetel_async.errors import PagingError
from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.evidence import Evidence, Key, ordered
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.errors import ServetelError
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.rows import RawRecord

#: Readings of a window before it is cut, of a second that one page holds, and of one that needs several pages.
READINGS, READINGS_OF_LEAF, READINGS_OF_SECOND = 2, 3, 30
#: Requests for one page whose length disagrees with the count.
PAGE_READINGS = 3
PASSES = 3
#: A list is restless if counts changed this often, and at least once in so many requests.
MOVES, REQUESTS_PER_MOVE = 2, 200
#: Windows with a stable but wrong count, after which no more are cut: the counts are wrong everywhere.
MOST_WRONG_COUNTS = 50
#: A window that counts at least twice the calls that came weighs as much as this many.
FAR_OFF = 10
_NO_LEAF = "one reply does not hold it whole"
_OUT_OF_ORDER = "its pages are not in the order of time"
_ROUND = "its count is a round number, so the API may not count further, and calls may be missing"
#: Reasons for which another reading of the same window would prove no more.
_NO_USE = (_NO_LEAF, _OUT_OF_ORDER, _ROUND)
#: Pages that a window may cost: for each page of its first count, and on top. A list may grow as it is read.
PAGES_PER_PAGE, MORE_PAGES = 40, 200
_TOO_FAST = "its list changed faster than it could be read"
#: Records from which on a thread puts a window in order.
LARGE = 2_000
#: How full the pieces of a window should be: each must fit on a page although calls are not spread evenly.
FILL = 0.75


class Certifier:
    """Reads and certifies windows; see the module.

    Args:
        fetcher: the source of pages.
        fast: do not repair boundary seconds, as long as the counts agree.

    Attributes:
        walks: whether the server sends no total, as far as is known.
        lost: the error of the last page that was given up.
    """

    def __init__(self, fetcher: Fetcher, *, fast: bool) -> None:
        self._fetcher = fetcher
        self._fast = fast
        self.walks = False
        self.lost: ServetelError | None = None
        self._leaves_only = False
        self._wrong_counts = 0
        self._moves = 0
        self._most_rows: float = 0

    def expect(self, counted: int) -> None:
        """Note the count of a part of the range before it is read: it limits the cost of the whole run."""
        # A list that grows as it is read is larger each time a window is read again, and so is its limit.
        self._most_rows += PAGES_PER_PAGE * counted + MORE_PAGES * self._fetcher.page_size

    def is_spent(self, cost: Cost | None = None) -> bool:
        """Whether a window, or the whole run, has reached its cost limit."""
        most = 0 if self.walks else self._most_rows
        return (cost is not None and cost.is_spent()) or 0 < most < self._fetcher.total.rows

    async def read(
        self,
        window: Window,
        cost: Cost,
        first: PageBody | None = None,
        *,
        leaves: bool = False,
        above: int | None = None,
    ) -> Certified:
        """Read a closed window, whole or in parts.

        Args:
            window: the seconds.
            cost: the cost to add to.
            first: its first page, if it was fetched already.
            leaves: whether to accept one-page windows only.
            above: the count of the window from which this one was cut.

        Raises:
            ServetelError: if the pull cannot continue.
        """
        seen: dict[Key, RawRecord] = {}
        flawed: Certified | None = None
        counted: int | None = None
        readings, reading = self._readings(window, None), 0
        while flawed is None or (reading < readings and not self.is_spent(cost)):
            try:
                flawed = await self._read_once(window, cost, first, leaves=leaves or self._restless())
            except PageTooSlowError:  # read it again, with smaller pages
                first = None
                continue
            except PageLostError as lost:
                self.lost = lost.error
                flawed = _lost(window, lost)
                break  # it was tried often enough
            first = None
            if not flawed.flaws:
                return flawed
            self.limit(cost, len(flawed.calls) if flawed.counted is None else flawed.counted)
            if (lie := await self._find_lie(window, cost, flawed, above)) is not None:
                return await self.walk_uncounted(window, cost, lie)
            if self._is_hopeless(flawed):
                break
            readings = max(readings, self._readings(window, flawed.counted))
            if window.seconds == 1 and flawed.counted is not None:
                if (whole := united(seen, flawed, counted)) is not None:
                    return whole
                counted = flawed.counted
            self._moves += flawed.moved
            if window.seconds > 1 and (flawed.moved or flawed.flaws[0].why in _NO_USE):
                break
            reading += 1
        return await self._cut(window, cost, flawed)

    async def _cut(self, window: Window, cost: Cost, flawed: Certified) -> Certified:
        """Read a window's parts if they can prove more; otherwise salvage its calls."""
        self._wrong_counts += flawed.wrong * (FAR_OFF if flawed.is_far_off else 1)
        is_spent = self.is_spent(cost) and not flawed.flaws[0].lost
        if is_spent:
            flawed.flaws = [Flaw(window.first, window.last, _TOO_FAST)]
        if is_spent or window.seconds == 1 or (flawed.wrong and self._is_wrong_everywhere):
            return await self._salvage(window, cost, flawed)
        return await self._read_parts(window, cost, flawed)

    def _readings(self, window: Window, counted: int | None) -> int:
        if window.seconds > 1:
            return READINGS
        return READINGS_OF_SECOND if (counted or 0) > self._fetcher.page_size else READINGS_OF_LEAF

    async def _find_lie(self, window: Window, cost: Cost, flawed: Certified, above: int | None) -> str | None:
        """Return why its count cannot be true; None if it may be true, or there is no reason to ask."""
        if not flawed.is_doubtful(above) or self._restless() or self._is_hopeless(flawed):
            return None
        return await find_lie(self._fetcher, window, flawed.counted or 0, cost)

    def _is_hopeless(self, flawed: Certified) -> bool:
        """Whether another reading of the same window would prove no more."""
        return flawed.flaws[0].why == _ROUND or (self._is_wrong_everywhere and flawed.wrong and flawed.is_far_off)

    @property
    def _is_wrong_everywhere(self) -> bool:
        return self._wrong_counts > MOST_WRONG_COUNTS

    def limit(self, cost: Cost, counted: int) -> None:
        """Set a window's cost limit once, from its first count or the calls that came first."""
        if cost.limit is None:
            pages = -(-counted // self._fetcher.page_size)
            cost.limit = cost.pages + PAGES_PER_PAGE * pages + MORE_PAGES

    def _restless(self) -> bool:
        return self._moves >= MOVES and self._moves * REQUESTS_PER_MOVE > self._fetcher.total.requests

    async def walk_uncounted(self, window: Window, cost: Cost, why: str) -> Certified:
        """Walk a window whose count says nothing: keep all calls that come, and report the window as not proved.

        Raises:
            ServetelError: if the pull cannot continue.
        """
        walked = Cost()  # the cost of counting must not end the walk early
        found = await self._salvage(window, walked, _flawed(window, Evidence(window), None, why))
        cost.add(walked)
        return found

    async def _salvage(self, window: Window, cost: Cost, flawed: Certified) -> Certified:
        """Add all calls that come of a window that cannot be proved."""
        if flawed.flaws[0].lost:
            return flawed
        evidence, is_walked = Evidence(window, self._fetcher.source.zone), False
        with suppress(PageLostError, PagingError):
            while not is_walked:
                with suppress(PageTooSlowError):  # repeat it with smaller pages
                    await walk(self._fetcher, window, cost, evidence, self._fetcher.page_size)
                    is_walked = True
        found = {(row.id, row.start): row for row in (*flawed.calls, *evidence.calls())}
        flawed.calls = ordered(found.values())
        return flawed

    async def _read_parts(self, window: Window, cost: Cost, flawed: Certified) -> Certified:
        leaf = max(1, int(FILL * self._fetcher.page_size))
        pieces = max(2, -(-(flawed.counted or 0) // leaf))
        counted = flawed.counted
        parts = [self.read(piece, cost, leaves=True, above=counted) for piece in window.cut(pieces)]
        return merged(await run_together(parts))

    async def _read_once(  # noqa: PLR0911 - one return for each way a window can turn out
        self, window: Window, cost: Cost, page: PageBody | None, *, leaves: bool
    ) -> Certified:
        fetcher, source = self._fetcher, self._fetcher.source
        asked = fetcher.page_size
        if self.walks:
            found = await self._walk(window, cost, asked)
            if not source.count_is_total:
                return found
            # A count was more than its page, so it is a total after all, and the earlier signs were wrong.
            self.walks, self._most_rows, page = False, inf, None
        if page is None:
            page = await fetcher.page(window, 1, cost, size=asked)
        evidence = Evidence(window, source.zone)
        rows = await fetcher.rows(page)
        evidence.add(1, rows, page.count)
        total = await self._total(window, cost, page, len(rows), asked)
        if total is None and source.count_is_total:
            return _flawed(window, evidence, None, "a page had no count")
        if total is None:
            self.walks = True
            return await self._read_once(window, cost, None, leaves=leaves)
        if may_be_capped(total):
            return _flawed(window, evidence, total, _ROUND)
        if total == len(rows):
            await self._see_end(window, cost, evidence, asked, total)
            return await _judge(window, evidence, "leaf")
        if (leaves or self._leaves_only) and window.seconds > 1 and total > asked:
            return _flawed(window, evidence, total, _NO_LEAF)
        size = await self._real_size(window, cost, evidence, total, len(rows), asked)
        if size is None:
            return _flawed(window, evidence, total, f"the API counts {total:,} and gave a first page of {len(rows):,}")
        return await self._read_pages(window, cost, evidence, total, size, asked)

    async def _see_end(self, window: Window, cost: Cost, evidence: Evidence, asked: int, total: int) -> None:
        """Check that the page after a full page is empty: the count of a full page may be wrong."""
        if len(evidence.calls()) >= asked and self._fetcher.source.count_is_total:
            page = await self._fetcher.page(window, 2, cost, size=asked)
            rows = await self._fetcher.rows(page)
            # This server counts, but leaves out the count of an empty page. The page was requested often enough.
            evidence.add(2, rows, total if page.count is None and not rows else page.count)

    async def _total(self, window: Window, cost: Cost, page: PageBody, rows: int, asked: int) -> int | None:
        """Return the count of a page if it is a total; else None."""
        source, count = self._fetcher.source, page.count
        if count is None or source.count_is_total:
            return count
        if count < rows:  # it is not a total, unless that was an accident
            again = await self._fetcher.page(window, 1, cost, size=asked)
            return None if (again.count or 0) < again.open()[2] else count
        # It may be a page count: the next page shows it. One empty page may be an accident, two are not.
        if await self._is_empty(window, cost, 2 if rows else 1, asked, 2 if rows else 1):
            return count
        return count if source.count_is_total else None

    async def _is_empty(self, window: Window, cost: Cost, number: int, asked: int, times: int) -> bool:
        for _ in range(times):
            if (await self._fetcher.page(window, number, cost, size=asked)).open()[2]:
                return False
        return True

    async def _real_size(  # noqa: PLR0917 - what is known of the first page
        self, window: Window, cost: Cost, evidence: Evidence, total: int, rows: int, asked: int
    ) -> int | None:
        """Return how many calls a full page has; None if the first page was not full."""
        source = self._fetcher.source
        if rows >= asked or rows == source.page_cap:
            return rows
        if rows == 0 or total < rows:
            return None
        second = await self._fetcher.page(window, 2, cost, size=asked)
        more = await self._fetcher.rows(second)
        if len(more) != min(rows, total - rows):
            return None
        evidence.add(2, more, second.count)
        source.page_cap = rows
        self._fetcher.page_size = min(self._fetcher.page_size, rows)
        return rows

    async def _read_pages(  # noqa: PLR0917 - as above
        self, window: Window, cost: Cost, evidence: Evidence, total: int, size: int, asked: int
    ) -> Certified:
        last = -(-total // size)

        async def read_page(number: int) -> None:
            expected = size if number < last else total - (last - 1) * size
            for _ in range(PAGE_READINGS):
                if len(evidence.counts) > 1:
                    return  # the count moved, or one count was wrong: more pages would prove nothing
                page = await self._fetcher.page(window, number, cost, size=asked)
                rows = await self._fetcher.rows(page)
                evidence.add(number, rows, page.count)
                if len(rows) == expected or page.count != total:
                    break

        await run_together([read_page(number) for number in range(2, last) if not evidence.has(number)])
        if not evidence.has(last):
            await read_page(last)  # last, so that its count is the count afterwards
        if len(evidence.counts) > 1:
            return await _judge(window, evidence, "counted")
        if not evidence.in_order():
            self._leaves_only = True
            return _flawed(window, evidence, total, _OUT_OF_ORDER)
        cut = [] if self._fast or window.seconds == 1 else evidence.cut_seconds()
        flaws = await self._repair(evidence, cut, cost)
        found = await _judge(window, evidence, "repaired" if cut else "counted")
        found.flaws += flaws
        return found

    async def _repair(self, evidence: Evidence, seconds: list[str], cost: Cost) -> list[Flaw]:
        """Repair boundary seconds: read each again on its own. Return the flaws of those that could not be proved."""
        alone = [Window.of(second, second) for second in seconds]
        parts = await run_together([self.read(window, cost) for window in alone])
        for second, part in zip(seconds, parts, strict=True):
            evidence.replace(second, part.calls)
        return [flaw for part in parts for flaw in part.flaws]

    async def _walk(self, window: Window, cost: Cost, asked: int) -> Certified:
        evidence = Evidence(window)
        for _ in range(PASSES):
            evidence = Evidence(window, self._fetcher.source.zone)
            if not await walk(self._fetcher, window, cost, evidence, asked, until_total=True):
                return _flawed(window, evidence, None, _TOO_FAST)
            flaws: list[Flaw] = []
            if not self._fast and window.seconds > 1 and evidence.in_order():
                flaws = await self._repair(evidence, evidence.cut_seconds(), cost)
            calls = evidence.calls()
            if may_be_capped(len(calls)):
                return _flawed(window, evidence, None, _ROUND)
            if not flaws and not evidence.has_hole() and not evidence.duplicates_left():
                return Certified(calls, None, evidence.duplicates, Counter(walked=1))
        why = "calls came twice or pages had holes, and the API sends no count to prove anything by"
        return _flawed(window, evidence, None, why)


async def _judge(window: Window, evidence: Evidence, kind: str) -> Certified:
    """Put a window in order and judge its proof; a large one in a thread, because sorting cannot yield to the loop."""
    if len(evidence) < LARGE:
        return _judged(window, evidence, kind)
    return await asyncio.to_thread(_judged, window, evidence, kind)


def _judged(window: Window, evidence: Evidence, kind: str) -> Certified:
    calls = evidence.calls()
    why = evidence.flaw(len(calls))
    counted = next(iter(evidence.counts)) if len(evidence.counts) == 1 else max(evidence.counts, key=lambda c: c or 0)
    found = Certified(calls, counted, evidence.duplicates, Counter({kind: 1}))
    if why is not None:
        found.moved = len(evidence.counts) > 1
        found.wrong = not found.moved
        found.kinds.clear()
        found.flaws.append(Flaw(window.first, window.last, why))
    return found


def _flawed(window: Window, evidence: Evidence, counted: int | None, why: str) -> Certified:
    flaws = [Flaw(window.first, window.last, why)]
    wrong = counted is not None and why not in _NO_USE
    return Certified(evidence.calls(), counted, evidence.duplicates, flaws=flaws, wrong=wrong)


def _lost(window: Window, lost: PageLostError) -> Certified:
    return Certified([], None, flaws=[Flaw(window.first, window.last, lost.error.what, lost=True)])
