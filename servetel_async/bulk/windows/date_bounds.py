"""Finds out how a server reads dates: the moment under which it files a call, and the bounds that it leaves out.

1. A call that is known to exist is looked up by each of its moments, second by second. If it comes, the server files it
   under that moment. If it comes only for a wider range, the server leaves out a bound.
2. Only a page that agrees with its request is evidence: it has the requested number, each of its calls has a moment in
   the requested range, and it has as many calls as it counts. Any other page is requested again.
3. A conclusion needs two lookups that agree, of two different calls if there are two.
4. A call that comes proves that its second is included. A missing call may be an error of the server. So an error leads
   to a range that is too wide, never too narrow, and a page with too many calls disproves it (``Fetcher``).
5. Conventions set before, for example from a ledger, are a hint: one lookup of a call is enough to accept them.
6. A call whose moments are equal shows the bounds but not the moment. The next call that can show it is looked up.
7. At the end a call is looked up again (``confirm``).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING

from servetel_async.bulk.fetching.fetcher import LOOKS, PageLostError, PageTooSlowError
from servetel_async.protocol.conventions import Bounds, Conventions, KnownCall, known_call, lies_inside
from servetel_async.protocol.rows import rows_of
from servetel_async.protocol.windows import Window
from servetel_async.ranges import RangeWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.rows import RawRecord

_WIDEST = Bounds(1, 1)
_NARROWER = (Bounds(0, 0), Bounds(0, 1), Bounds(1, 0))
#: Most calls to look up, because some may be deleted meanwhile; most lookups until two agree.
_CALLS, _MOST_LOOKS = 3, 6
#: Digits of an id that says when the record was inserted.
_OBJECT_ID = 24
#: Most pages to read for one second: its neighbours may fill the first.
_PAGES = 20
#: Most requests for a page that does not agree with its request.
_REQUESTS = 4
#: Most windows whose calls are looked up to learn the moment.
_CHANCES = 3
#: Calls that are remembered for the last lookup.
_REMEMBERED = 8


class DateBoundsProbe:
    """The probe of one pull; see the module. The client remembers its findings.

    Attributes:
        is_sure: whether this pull has seen that the client's conventions hold.
        tells_moment: whether a call has shown under which of its moments the server files it.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self.is_sure = False
        self.tells_moment = False
        self._fetcher = fetcher
        self._looking = asyncio.Lock()
        self._known: deque[KnownCall] = deque(maxlen=_REMEMBERED)
        self._chances = _CHANCES
        self._unanswered = 0  # lookups without a page that agreed with its request
        self._is_blind = False  # such a lookup was at an edge of an empty range

    @property
    def text(self) -> str:
        """The current conventions, for ``Certified.conventions``; empty while they are unknown."""
        conventions = self._fetcher.source.conventions
        return "" if conventions is None else conventions.text

    async def check(self, window: Window, rows: Sequence[RawRecord], cost: Cost) -> None:
        """Find the conventions, unless they are known.

        Args:
            window: the requested window.
            rows: the rows that came.
            cost: the cost to add to.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        async with self._looking:
            if not self.is_sure:
                calls = self._best_of(rows) if rows else await self._calls_at_edges(window, cost)
                self._known.extend(calls[:1])
                await self._establish(calls, cost)

    async def ensure(self, window: Window, cost: Cost) -> None:
        """Find the conventions before counts are compared: look for calls in a range, newest first.

        Args:
            window: the range.
            cost: the cost to add to.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        fetcher = self._fetcher
        walk = RangeWalk(fetcher.source, window, lambda part: fetcher.sure_page(part, 1, cost))
        while not self.is_sure and (answer := await walk.next()) is not None:
            await self.check(answer[0], await fetcher.rows(answer[1]), cost)

    async def note(self, rows: Sequence[RawRecord], cost: Cost) -> None:
        """Remember the outermost calls of a window that was read, and look up one if it can show the moment.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        edges = self._best_of([*rows[:_CALLS], *rows[-_CALLS:]])
        self._known.extend(edges[:1])
        if self.tells_moment or not self._chances:
            return
        calls = [call for call in self._best_of(filter(_may_tell, rows)) if call.tells and call.is_clear]
        if calls:
            self._chances -= 1
            await self.doubt(calls, cost)

    async def doubt(self, calls: Sequence[KnownCall], cost: Cost) -> None:
        """Find the conventions again, with calls that may contradict them.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        async with self._looking:
            await self._establish(calls, cost, is_hint=False)

    async def confirm(self, cost: Cost) -> bool:
        """Look up a call that was read; return whether the conventions still hold.

        If not, find them again. Windows that were read under other conventions must then be read again.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        async with self._looking:
            believed = self._fetcher.source.conventions
            met = self._fetcher.met  # if a bound is left out, a call may have come although its window is empty
            known = self._known or ([] if met is None else [self.known(met)])
            calls = sorted(known, key=lambda call: not call.tells)[:_CALLS]
            if not calls:
                return not self._is_blind
            if believed is not None and await self._any_comes(calls, believed, cost):
                return True
            found = await self._agreed(calls, cost)
            if found is None:  # perhaps they were deleted
                return believed is not None
            self._fetcher.source.conventions = found
            return found == believed

    def known(self, row: RawRecord) -> KnownCall:
        """Collect the moments of a row."""
        return known_call(row.id, row.start, row.end, self._fetcher.source.zone)

    def _best_of(self, rows: Iterable[RawRecord]) -> list[KnownCall]:
        """Choose calls of different seconds to look up: first those that show the moment, then older ones."""
        found: dict[str, KnownCall] = {}
        unclear: dict[str, KnownCall] = {}
        for row in reversed(list(rows)):
            if row.start in found or (len(found) >= _CALLS and all(call.tells for call in found.values())):
                continue
            call = self.known(row)
            if call.is_clear:
                found[row.start] = call
            elif call.moments:
                unclear.setdefault(row.start, call)
        best = found or unclear  # a call with neighbouring moments is better than none
        return sorted(best.values(), key=lambda call: not call.tells)[:_CALLS]

    async def _calls_at_edges(self, window: Window, cost: Cost) -> list[KnownCall]:
        """Look for calls in the first and last second of an empty range: from both sides, twice."""
        if window.start is None or window.end is None:
            return []
        rows: list[RawRecord] = []
        for second in dict.fromkeys((window.last, window.first)):
            asked = _WIDEST.widen(Window.of(second, second))
            for _ in range(LOOKS):
                unanswered = self._unanswered
                found = await self._look(asked, lambda _: True, cost)
                rows += found
                self._is_blind = self._is_blind or unanswered < self._unanswered
                if found:
                    break
        return self._best_of(rows)

    async def _establish(self, calls: Sequence[KnownCall], cost: Cost, *, is_hint: bool = True) -> None:
        source = self._fetcher.source
        hint = source.conventions if is_hint else None
        if hint is not None and await self._any_comes(calls, hint, cost):
            self.is_sure = True
            return
        found = await self._agreed(calls, cost)
        if found is not None:
            source.conventions = found

    async def _agreed(self, calls: Sequence[KnownCall], cost: Cost) -> Conventions | None:
        """Look up calls until two lookups agree; None if the calls do not come."""
        left, seen, missed = list(calls), Counter[Conventions](), Counter[str]()
        latest: Conventions | None = None
        for _ in range(_MOST_LOOKS):
            if not left:
                break
            call = left.pop(0)
            found = await self._look_up(call, latest, cost)
            if found is None:
                missed[call.text] += 1
                if missed[call.text] < LOOKS:
                    left.append(call)
                continue
            left.append(call)
            latest = found
            seen[found] += 1
            if seen[found] >= LOOKS:
                # With neighbouring moments, one moment and its bounds may look like another moment and other bounds.
                shows_moment = call.tells and (call.is_clear or found.bounds == Bounds())
                self.is_sure, self.tells_moment = True, self.tells_moment or shows_moment
                return found
        return None

    async def _any_comes(self, calls: Iterable[KnownCall], guess: Conventions, cost: Cost) -> bool:
        """Whether the first call that has the guessed moment comes."""
        call = next((call for call in calls if guess.filed_by in call.moments), None)
        if call is None or not await self._comes(call, guess, cost):
            return False
        self.tells_moment = self.tells_moment or (call.tells and (call.is_clear or guess.bounds == Bounds()))
        return True

    async def _look_up(self, call: KnownCall, expected: Conventions | None, cost: Cost) -> Conventions | None:
        """Find the narrowest range for which a call comes; None if it comes for no range."""
        first = expected or Conventions()
        if not call.is_clear:  # a wider range could hold it for another reason, so narrower ones are requested first
            for bounds in (*_NARROWER, _WIDEST):
                for filed_by in call.moments:
                    if await self._comes(call, Conventions(filed_by, bounds), cost):
                        return Conventions(filed_by, bounds)
            return None
        if await self._comes(call, first, cost):
            return await self._narrowest(call, first, cost)
        for filed_by in call.moments:
            widest = Conventions(filed_by, _WIDEST)
            if widest != first and await self._comes(call, widest, cost):
                return await self._narrowest(call, widest, cost)
        return None

    async def _narrowest(self, call: KnownCall, found: Conventions, cost: Cost) -> Conventions:
        for bounds in _NARROWER:
            narrower = found._replace(bounds=bounds)
            if bounds.is_narrower(found.bounds) and await self._comes(call, narrower, cost):
                return narrower
        return found

    async def _comes(self, call: KnownCall, guess: Conventions, cost: Cost) -> bool:
        """Whether a call comes when the second of its moment is requested as guessed."""
        second = call.moments.get(guess.filed_by)
        if second is None:
            return False
        asked = guess.bounds.widen(Window.of(second, second))
        return (
            await self._look(asked, lambda row: self.known(row).shows(guess.filed_by, second, asked, call), cost) != []
        )

    async def _look(self, asked: Window, is_wanted: Callable[[RawRecord], bool], cost: Cost) -> list[RawRecord]:
        """Return the wanted calls of the first page of a range that has some.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        while True:
            try:
                return await self._look_once(asked, is_wanted, cost)
            except PageTooSlowError:  # repeat it with smaller pages
                continue
            except PageLostError as lost:
                error = lost.error
            raise error

    async def _look_once(self, asked: Window, is_wanted: Callable[[RawRecord], bool], cost: Cost) -> list[RawRecord]:
        seen, size = 0, self._fetcher.page_size
        for number in range(1, _PAGES + 1):
            rows, is_last = await self._consistent(asked, number, size, seen, cost)
            seen += len(rows)
            found = list(filter(is_wanted, rows))
            if found or is_last:
                return found
        return []

    async def _consistent(
        self, asked: Window, number: int, size: int, before: int, cost: Cost
    ) -> tuple[list[RawRecord], bool]:
        """Fetch a page that agrees with its request; return its rows and whether it is the last. Else return none."""
        for _ in range(_REQUESTS):
            page = await self._fetcher.careful_page(asked, number, cost, size=size, exact=True)
            rows = rows_of(page)
            if self._agrees(page, rows, asked, number, before):
                seen = before + len(rows)
                # A page that is not full need not be the last: the server may give no more in one page.
                return rows, not rows or (self._counts(page) and page.count is not None and page.count <= seen)
        self._unanswered += 1
        return [], True

    def _agrees(self, page: PageBody, rows: Sequence[RawRecord], asked: Window, number: int, before: int) -> bool:
        zone = self._fetcher.source.zone
        if page.page not in (None, number):
            return False
        if not all(lies_inside(asked, row.id, row.start, row.end, zone) for row in rows):
            return False
        if page.count is None or not self._counts(page):
            return True
        return bool(rows) or page.count <= before

    def _counts(self, page: PageBody) -> bool:
        return self._fetcher.source.count_is_total or (page.count is not None and page.count > page.open()[2])


def _may_tell(row: RawRecord) -> bool:
    """Whether a row may show the moment: a quick look before its moments are read."""
    return row.end not in ("", row.start) or len(row.id) == _OBJECT_ID
