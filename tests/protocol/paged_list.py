"""A list of calls behind a page number, as a server may serve it, and a reader of it without a network.

The server answers at once, from the list as it is at that moment. The reader takes the answers later, in order or not, with a window of
outstanding pages, exactly as ``servetel_async.streaming.reader`` does. So concurrency is only interleaving, and every run repeats.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.protocol.decoding import SLICE
from servetel_async.protocol.pages import Paginator, Step
from servetel_async.protocol.window_filter import WindowFilter
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

MAY = "2024-05-10"


class Call(NamedTuple):
    """What the window filter reads."""

    id: str
    date: str = MAY
    time: str = "10:00:00"
    end_stamp: str | None = None
    zone: str | None = None


class Page(NamedTuple):
    """What the paginator reads."""

    calls: list[Call]
    count: int | None
    echo: int | None

    @property
    def edges(self) -> tuple[str, str, int]:
        return (self.calls[0].id, self.calls[-1].id, len(self.calls)) if self.calls else ("", "", 0)


class EndlessError(AssertionError):
    """More requests than any reading may send."""


def some(number: int) -> list[Call]:
    """That many calls, newest first."""
    return [Call(f"c{index:05}") for index in range(number, 0, -1)]


COUNTS: dict[str, Callable[[int, int], int | None]] = {
    "total": lambda total, rows: total,
    "page-only": lambda total, rows: rows,
    "missing": lambda total, rows: None,
    "half": lambda total, rows: total // 2,
    "one less": lambda total, rows: max(0, total - 1),
    "one": lambda total, rows: min(1, total),
    "one more": lambda total, rows: total + 1,
    "double": lambda total, rows: 2 * total + 1,
}
"""What a server may send as ``count``."""


@dataclasses.dataclass
class PagedList:
    """A server: its calls and its habits.

    Attributes:
        count: name of an entry of ``COUNTS``.
        cap: the most rows on a page, whatever the limit of the request.
        end: the pages past the last one: ``"empty"`` or ``"clamp"`` (the last page again).
        echo: whether a page says its number.
        before: called before each answer; may change ``calls``.
        damage: called with page number, number of requests for it, and the page; returns the page that is sent.
    """

    calls: list[Call]
    count: str = "total"
    cap: int | None = None
    end: str = "empty"
    echo: bool = True
    before: Callable[[PagedList], object] = lambda server: None
    damage: Callable[[int, int, Page], Page] = lambda number, times, page: page
    asked: list[int] = dataclasses.field(default_factory=list)
    most: int = 0

    def page(self, number: int, size: int) -> Page:
        """Answer for one page."""
        self.before(self)
        self.asked.append(number)
        size = min(size, self.cap or size)
        pages = -(-len(self.calls) // size)
        self.most = max(self.most, 3 * (pages + pages // 20 + 12) + 30)
        if len(self.asked) > self.most:
            raise EndlessError(f"{len(self.asked)} requests for {pages} pages")
        shown = max(1, min(number, pages)) if self.end == "clamp" else number
        rows = self.calls[(shown - 1) * size : shown * size]
        page = Page(rows, COUNTS[self.count](len(self.calls), len(rows)), shown if self.echo else None)
        return self.damage(number, self.asked.count(number), page)


def read(
    server: PagedList,
    size: int = 20,
    *,
    window: int = 8,
    dice: Random | None = None,
    walk: Paginator | None = None,
    sieve: WindowFilter | None = None,
) -> list[Call]:
    """Read the whole list; with ``dice``, take the pages in any order."""
    walk = walk if walk is not None else Paginator(size)
    sieve = sieve if sieve is not None else WindowFilter(Window(None, None))
    pending: dict[int, Page] = {}
    got: list[Call] = []

    def ask_ahead(in_hand: int = 0) -> None:
        while len(pending) < window and (number := walk.next_page(len(pending) + in_hand)) is not None:
            pending[number] = server.page(number, size)

    while True:
        ask_ahead()
        if not pending:
            if walk.conclude():
                return got
            if not walk.front:
                sieve.begin_pass()
            continue
        number = min(pending) if dice is None else dice.choice(sorted(pending))
        page = pending.pop(number)
        step = walk.accept(number, rows=len(page.calls), count=page.count, echo=page.echo, edges=page.edges)
        if step is Step.AGAIN:
            pending[number] = server.page(number, size)
        elif step is Step.DELIVER:
            ask_ahead(in_hand=1)
            for start in range(0, len(page.calls), SLICE):
                fresh, new_in_pass = sieve.sift(page.calls[start : start + SLICE])
                walk.sifted(new=len(fresh), new_in_pass=new_in_pass, number=number)
                got += fresh
