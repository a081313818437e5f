"""What has to be known of a server before its answers prove anything: whether it counts the bounds of a range in.

A call is looked up by its own second. A server that takes one of the bounds out would lose the calls of one second at
the edge of every window; it is asked for a second more on that side from then on. Where a range looks empty, the
seconds at its two edges are looked at from both sides: they may be all there is.

A call that comes proves that its second is counted in; one that does not come may be a page that lied. So a bound is
taken for one that is left out only after two looks, and for good only as long as no page disproves it (``Fetcher``).
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING

from servetel_async.bulk.fetcher import PageLostError, PageTooSlowError
from servetel_async.page_source import Bounds
from servetel_async.protocol.clock import is_wall_stamp
from servetel_async.protocol.rows import rows_of
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.fetcher import Fetcher
    from servetel_async.bulk.tally import Tally
    from servetel_async.protocol.rows import Row

_GUESSES = (Bounds(0, 0), Bounds(0, 1), Bounds(1, 0), Bounds(1, 1))
#: Calls that are looked up; the first one may have been deleted meanwhile.
_TRIES = 2
#: Pages that are looked at for one second: its neighbours may fill the first.
_PAGES = 20


class Calibration:
    """Looks once, with the first calls there are; the client remembers it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._looking = asyncio.Lock()

    async def check_bounds(self, window: Window, rows: Sequence[Row], tally: Tally) -> bool:
        """Look, where nobody has yet; gives whether what was asked before must be asked again.

        Args:
            window: what was asked for.
            rows: what came.
            tally: takes the cost.
        """
        source = self._fetcher.source
        async with self._looking:
            if source.bounds is not None:
                return source.bounds != Bounds()
            dated = (row.start for row in reversed(rows) if is_wall_stamp(row.start))
            seconds = list(islice(dated, _TRIES))
            if not rows and window.start is not None and window.end is not None:
                edges = dict.fromkeys((window.last, window.first))
                seconds = [second for second in edges if await self._has(second, Bounds(1, 1), tally)]
            for second in seconds:
                guess = await self._first_that_brings(second, _GUESSES, tally)
                if guess is not None:
                    narrower = _GUESSES[: _GUESSES.index(guess)]
                    source.bounds = await self._first_that_brings(second, narrower, tally) or guess
                    return source.bounds != Bounds()
        return False

    async def _first_that_brings(self, second: str, guesses: Sequence[Bounds], tally: Tally) -> Bounds | None:
        for guess in guesses:
            if await self._has(second, guess, tally):
                return guess
        return None

    async def _has(self, second: str, guess: Bounds, tally: Tally) -> bool:
        """Whether a call of that second comes when its range is widened so.

        Raises:
            ServetelError: if a page cannot be fetched.
        """
        wider = guess.widen(Window.of(second, second))
        while True:
            try:
                return await self._look(second, wider, tally)
            except PageTooSlowError:  # repeat it with smaller pages
                continue
            except PageLostError as lost:
                error = lost.error
            raise error

    async def _look(self, second: str, wider: Window, tally: Tally) -> bool:
        seen, size = 0, self._fetcher.page_size
        for number in range(1, _PAGES + 1):
            page = await self._fetcher.careful_page(wider, number, tally, size=size)
            rows = rows_of(page)
            if any(row.start == second for row in rows):
                return True
            seen += len(rows)
            # A page that is not full is no end: this may be all that the server gives in one.
            if not rows or (self._fetcher.source.count_is_total and page.count is not None and page.count <= seen):
                return False
        return False
