"""The start of a range that has none: the first second of the day of the oldest call.

The list is newest first, so the oldest call is the last of the last page. That page may be wrong: it comes empty, or
another page comes in its place. So calls before the start that was found are requested, until there is no such call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.bulk.fetching.fetcher import PageLostError, PageTooSlowError
from servetel_async.errors import RequestRejectedError
from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.clock import EARLIEST, SECOND, is_wall_stamp
from servetel_async.protocol.pages import find_last_page
from servetel_async.protocol.rows import rows_of
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from datetime import datetime

    from servetel_async.bulk.fetching.cost import Cost
    from servetel_async.bulk.fetching.fetcher import Fetcher
    from servetel_async.protocol.decoding import PageBody

#: Most searches, each before the start that was found.
_LOOKS = 8
#: Requests for a page that comes empty although the count says that it holds calls.
_TRIES = 2


async def find_start(fetcher: Fetcher, asked: Window, first: PageBody, last: str, cost: Cost) -> Window:
    """Close the range at the beginning of the day of its oldest call.

    Args:
        fetcher: the source of pages.
        asked: the open range.
        first: its first page.
        last: the last second of the range; if all calls are later, the range begins on that day.
        cost: the cost to add to.

    Raises:
        ServetelError: if a page does not come.
    """
    oldest, found, looks = last, asked, 0
    while looks < _LOOKS:
        before = oldest
        page, refused = await _oldest_page(fetcher, asked, first, cost)
        is_limited = refused or may_be_capped(first.count)
        oldest = min([oldest, *(row.start for row in rows_of(page) if is_wall_stamp(row.start))])
        found = Window.of(f"{oldest[:10]} 00:00:00", last)
        assert found.start is not None  # noqa: S101 - for the type checker: it was made of a stamp
        if found.start == EARLIEST:
            break
        asked = _before(found.start)
        looks += not (is_limited and oldest < before)  # if the server shows only part of a range, the page was right
        first = await fetcher.sure_page(asked, 1, cost)
        if not _calls_of(first):
            break
    return found


def _before(start: datetime) -> Window:
    """Return the window of all seconds before a moment."""
    return Window(None, start - SECOND)


async def count_before(fetcher: Fetcher, start: datetime, cost: Cost) -> int:
    """Ask how many calls lie before a moment; at least one if there are some and the server sends no total.

    Raises:
        ServetelError: if the page does not come.
    """
    if start == EARLIEST:
        return 0
    return _calls_of(await fetcher.sure_page(_before(start), 1, cost, size=1))


def _calls_of(page: PageBody) -> int:
    return max(page.count or 0, page.open()[2])


async def _oldest_page(fetcher: Fetcher, asked: Window, first: PageBody, cost: Cost) -> tuple[PageBody, bool]:
    """Find the last page with rows. If the page size is halved meanwhile, begin again with the first page.

    Raises:
        ServetelError: if a page does not come.
    """
    size = fetcher.page_size
    while True:
        try:
            if size != fetcher.page_size:
                size = fetcher.page_size
                first = await fetcher.careful_page(asked, 1, cost, size=size)
            return await _last_page(fetcher, asked, first, cost, size)
        except PageTooSlowError:
            continue
        except PageLostError as lost:
            error = lost.error
        raise error


async def _last_page(fetcher: Fetcher, asked: Window, first: PageBody, cost: Cost, size: int) -> tuple[PageBody, bool]:
    """Return the last page with rows, or the first page; and whether deeper pages were refused."""
    rows = first.open()[2]
    if not rows or first.count == rows < size:
        return first, False
    refused = False
    if first.count is not None and first.count > rows:
        for _ in range(_TRIES):
            page = await _deep_page(fetcher, asked, -(-first.count // rows), cost, size)
            if page is None:
                refused = True
                break
            if page.open()[2]:
                return page, False
    search, last = find_last_page(), first
    number = next(search)
    while True:
        page = await _deep_page(fetcher, asked, number, cost, size)
        refused = refused or page is None
        found = 0 if page is None else page.open()[2]
        last = page if page is not None and found else last  # each page with rows is deeper than the one before
        try:
            number = search.send(found)
        except StopIteration:
            return last, refused


async def _deep_page(fetcher: Fetcher, asked: Window, number: int, cost: Cost, size: int) -> PageBody | None:
    """Fetch a page after the first; None if the server refuses it, perhaps because it is too deep."""
    try:
        return await fetcher.careful_page(asked, number, cost, size=size)
    except RequestRejectedError:
        return None
    except PageLostError as lost:
        if isinstance(lost.error, RequestRejectedError):
            return None
        raise
