"""A server of a few calls whose every answer a test may write: for habits that the emulator lacks."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

#: Second of the day, id.
Call = tuple[str, str]


def calls_at(*seconds: str) -> list[Call]:
    """Calls that start at these stamps, newest first; calls of one second in the order given."""
    numbered = [(start, f"call-{number:04}") for number, start in enumerate(seconds)]
    return sorted(numbered, key=lambda call: call[0], reverse=True)


@dataclass
class Asked:
    """A request, and the calls in its range."""

    first: str
    last: str
    page: int
    limit: int
    nth: int
    found: list[Call]

    @property
    def rows(self) -> list[Call]:
        """The calls of an honest page."""
        return self.found[(self.page - 1) * self.limit : self.page * self.limit]

    @property
    def window(self) -> tuple[str, str]:
        return self.first, self.last


@dataclass
class Answer:
    """The reply to send: an honest page unless a field says otherwise."""

    rows: list[Call] | None = None
    count: Any = None
    status: int = 200
    body: bytes | None = None
    after: float = 0.0
    until: asyncio.Event | None = None
    no_count: bool = False
    page: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


HONEST = Answer()


def inclusive(start: str, first: str, last: str) -> bool:
    """Include both bounds, as the API documents."""
    return first <= start <= last


def capped(most: int) -> Callable[[Asked], Answer]:
    """Count and return at most so many calls of a range."""

    def habit(asked: Asked) -> Answer:
        first = (asked.page - 1) * asked.limit
        return Answer(rows=asked.found[:most][first : first + asked.limit], count=min(most, len(asked.found)))

    return habit


def hiding(most: int) -> Callable[[Asked], Answer]:
    """Send no count, and return at most so many calls of a range."""

    def habit(asked: Asked) -> Answer:
        first = (asked.page - 1) * asked.limit
        return Answer(rows=asked.found[:most][first : first + asked.limit], no_count=True)

    return habit


def shallow(most: int) -> Callable[[Asked], Answer]:
    """Count all calls of a range, and refuse pages that reach beyond so many."""

    def habit(asked: Asked) -> Answer:
        too_deep = asked.page * asked.limit > most
        return Answer(status=400, body=b'{"success": false, "message": "too deep"}') if too_deep else HONEST

    return habit


def bare(*, times: int, when: Callable[[Asked], bool]) -> Callable[[Asked], Answer]:
    """Replace the first answers to some requests by an empty page without a count."""
    left = [times]

    def habit(asked: Asked) -> Answer:
        if not (left[0] and when(asked)):
            return HONEST
        left[0] -= 1
        return Answer(rows=[], no_count=True)

    return habit


class SmallServer:
    """Serves ``calls``; ``habit`` may write the answer to each request.

    Attributes:
        asked: every request, in the order of arrival.
        windows: how often each window was asked for.
        peak: the most requests at one time.
    """

    def __init__(
        self,
        calls: list[Call],
        habit: Callable[[Asked], Answer] | None = None,
        *,
        inside: Callable[[str, str, str], bool] = inclusive,
        date: str | None = None,
    ) -> None:
        self.calls = calls
        self.habit = habit or (lambda _asked: HONEST)
        self.asked: list[Asked] = []
        self.peak = 0
        self.in_flight = 0
        self._inside = inside
        self._date = date
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def base_url(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def windows(self) -> Counter[tuple[str, str]]:
        return Counter(asked.window for asked in self.asked)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.query
        first, last = query.get("from_date", ""), query.get("to_date", "~")
        found = [call for call in self.calls if self._inside(call[0], first, last)]
        asked = Asked(first, last, int(query["page"]), int(query["limit"]), len(self.asked) + 1, found)
        self.asked.append(asked)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            answer = self.habit(asked)
            if answer.after:
                await asyncio.sleep(answer.after)
            if answer.until is not None:
                await answer.until.wait()
            return self._reply(asked, answer)
        finally:
            self.in_flight -= 1

    def _reply(self, asked: Asked, answer: Answer) -> web.Response:
        headers = {"Content-Type": "application/json", **answer.headers}
        if self._date is not None:
            headers["Date"] = self._date
        if answer.body is not None or answer.status != 200:
            return web.Response(status=answer.status, body=answer.body or b"", headers=headers)
        rows = asked.rows if answer.rows is None else answer.rows
        page: dict[str, Any] = {"count": len(asked.found) if answer.count is None else answer.count}
        if answer.no_count:
            page = {}
        page |= {"limit": asked.limit, "size": len(rows), "page": asked.page if answer.page is None else answer.page}
        page["results"] = [{"id": key, "date": start[:10], "time": start[11:]} for start, key in rows]
        return web.Response(body=json.dumps(page).encode(), headers=headers)
