"""What has to be known of a server before its answers prove anything: whether it counts the bounds of a range in.

A record is looked up by its own second. A server that takes one of the bounds out would lose the calls of one second
at the edge of every window; it is asked for a second more on that side from then on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from servetel_async.page_source import Bounds
from servetel_async.protocol.clock import SECOND, is_wall_stamp
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.fetcher import Fetcher, Tally
    from servetel_async.protocol.rows import Row

_GUESSES = (Bounds(0, 0), Bounds(0, 1), Bounds(1, 0), Bounds(1, 1))
#: Records that are looked up; the first one may have been deleted meanwhile.
_TRIES = 2


class Calibration:
    """Looks once, with the first records there are; the client remembers it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._looking = asyncio.Lock()

    async def check_bounds(self, rows: Sequence[Row], tally: Tally) -> bool:
        """Look with these records; gives whether what was asked before must be asked again."""
        source = self._fetcher.source
        async with self._looking:
            if source.bounds is not None:
                return False
            for row in [row for row in reversed(rows) if is_wall_stamp(row.start)][:_TRIES]:
                found = await self._find(row.start, tally)
                if found is not None:
                    source.bounds = found
                    return found != Bounds()
        return False

    async def _find(self, second: str, tally: Tally) -> Bounds | None:
        alone = Window.of(second, second)
        assert alone.start is not None  # noqa: S101 - for the type checker: it was made of a stamp
        assert alone.end is not None  # noqa: S101
        for guess in _GUESSES:
            wider = Window(alone.start - guess.start * SECOND, alone.end + guess.end * SECOND)
            page = await self._fetcher.sure_page(wider, 1, tally)
            if page.open()[2]:
                return guess
        return None
