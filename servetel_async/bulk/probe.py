"""The probe of ``servetel doctor``: learns in about ten requests what this account's server really does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.receipt import plural
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.errors import RequestRejectedError
from servetel_async.protocol.capping import may_be_capped
from servetel_async.protocol.clock import SECOND
from servetel_async.protocol.query import CallQuery
from servetel_async.protocol.rows import rows_of
from servetel_async.protocol.windows import LONGEST, Window

if TYPE_CHECKING:
    from datetime import timedelta

    from servetel_async.client import ServetelClient
    from servetel_async.protocol.conventions import Bounds, FiledBy
    from servetel_async.protocol.decoding import PageBody
    from servetel_async.protocol.rows import RawRecord

_FILED_BY = {
    "start": "the start of a call",
    "end": "the end of a call (end_stamp)",
    "insertion": "the insertion of its record (the time in its id)",
    None: "not known: no such calls",
}
#: The page size that is requested, to see how many calls come.
ASKED = 1000
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Probe:
    """The findings of a probe; None where the calls do not show them.

    Attributes:
        asked: the page size that was requested.
        rows: calls that came on a page.
        page_cap: most calls of a page; None if as many came as were requested, or there were no more.
        count_is_total: whether ``count`` is a total and not a page count.
        bounds: seconds by which dates must be widened; both 0 if the server includes both bounds.
        filed_by: the moment of a call that the server compares with the dates; None if no call shows it.
        newest_first: whether a page is ordered by start.
        ties_stable: whether calls of one second came in the same order each time.
        calls: the server's count of all calls, or of the calls in the longest range it allows.
        longest_range: the longest range it allows; None if it answers a request without a range.
    """

    asked: int
    rows: int
    page_cap: int | None
    count_is_total: bool | None
    bounds: Bounds | None
    newest_first: bool | None
    ties_stable: bool | None
    calls: int | None
    longest_range: timedelta | None = None
    filed_by: FiledBy | None = None

    def __str__(self) -> str:
        cap = (
            f"not known: a page had {self.rows:,} calls"
            if self.page_cap is None
            else f"{self.page_cap:,} calls at most"
        )
        if self.rows >= self.asked:
            cap = f"at least {self.asked:,} calls"
        if self.asked < ASKED:
            cap = f"{cap}; larger pages are too slow"
        total = {True: "the total", False: "not the total", None: "not known: too few calls"}[self.count_is_total]
        counted = "" if self.calls is None else f": {self.calls:,} calls"
        if may_be_capped(self.calls):
            counted += " or more: a round number may be a limit"
        bounds = "not known: no calls"
        if self.bounds is not None:
            out = [name for name, seconds in zip(("from_date", "to_date"), self.bounds, strict=True) if seconds]
            bounds = f"{' and '.join(out)} left out; a pull asks for a second more" if out else "both counted in"
        ranges = "everything at once"
        if self.longest_range is not None:
            hours = int(self.longest_range.total_seconds()) // 3600
            ranges = f"{plural(hours // 24, 'day') if hours % 24 == 0 else plural(hours, 'hour')} at most"
        words = {True: "yes", False: "no", None: "not known: no such calls"}
        return "\n".join(
            [
                f"page size   {cap}",
                f"count       {total}{counted}",
                f"dates       {bounds}",
                f"filed by    {_FILED_BY[self.filed_by]}",
                f"ranges      {ranges}",
                f"newest up   {words[self.newest_first]}",
                f"same order  {words[self.ties_stable]}",
            ]
        )


async def probe(client: ServetelClient) -> Probe:
    """Probe the server, and let the client remember the findings.

    Raises:
        ServetelError: if the requests fail.
    """
    fetcher = Fetcher(client, CallQuery(), page_size=ASKED, concurrency=client.max_concurrency, patience=0.0)
    fetcher.page_size, cost = ASKED, Cost()
    everything, first = await _first_look(fetcher, cost)
    asked = fetcher.page_size  # smaller than at first if such pages were too slow
    rows = rows_of(first)
    one = await fetcher.sure_page(everything, 1, cost, size=1)
    total = None if one.count is None or len(rows) < 2 else one.count > 1  # noqa: PLR2004 - one call tells nothing
    if total:
        client.count_is_total = True
    cap = len(rows) if first.count is not None and total and len(rows) < min(asked, first.count) else None
    client.page_cap = cap if cap is not None else client.page_cap
    calibration = DateBoundsProbe(fetcher)
    await calibration.check(everything, rows, cost)
    conventions = client.conventions
    starts = [row.start for row in rows if row.start]
    return Probe(
        asked=asked,
        rows=len(rows),
        page_cap=cap,
        count_is_total=total if one.count is not None else False,
        bounds=None if conventions is None else conventions.bounds,
        filed_by=conventions.filed_by if conventions is not None and calibration.tells_moment else None,
        newest_first=all(former >= latter for former, latter in pairwise(starts)) if len(starts) > 1 else None,
        ties_stable=await _ties_are_stable(fetcher, rows, cost),
        calls=one.count if total else None,
        longest_range=None if everything.start is None else client.longest_range,
    )


async def _first_look(fetcher: Fetcher, cost: Cost) -> tuple[Window, PageBody]:
    """Ask for all calls in one range; for the last month, or less, if the server refuses that."""
    everything = Window(None, None)
    try:
        return everything, await fetcher.sure_page(everything, 1, cost)
    except RequestRejectedError:
        now = datetime.now(UTC).astimezone(fetcher.source.zone).replace(tzinfo=None, microsecond=0)
    return await fetcher.first_look(Window(now - LONGEST + SECOND, now), cost)


async def _ties_are_stable(fetcher: Fetcher, rows: list[RawRecord], cost: Cost) -> bool | None:
    """Read the newest second that has several calls a few times, and compare the orders."""
    second = next((former.start for former, latter in pairwise(rows) if former.start == latter.start != ""), None)
    if second is None:
        return None
    orders: set[tuple[str, ...]] = set()
    for _ in range(_LOOKS):
        page = await fetcher.sure_page(Window.of(second, second), 1, cost)
        orders.add(tuple(row.id for row in rows_of(page)))
    return len(orders) == 1
