"""A page server on loopback: the API's envelope over raw sockets. A test can hold, fail and count its pages.

It serves a scripted list of calls, newest first, and honours ``page``, ``limit``, ``from_date`` and ``to_date``. A page can be *held* until
it is released, so a test waits for events and never for time. The server notices a disconnected client at once, so it is the server, not
the client, that shows that no request is left.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, cast
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

MAY = ("2024-05-01", "2024-05-31")
"""The range that holds every scripted call."""

_NEWEST = dt.datetime(2024, 5, 31, 23, 0)  # noqa: DTZ001  # the wall clock of the account, as the API sends it
_APART = dt.timedelta(minutes=5)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Unavailable"}


@functools.cache
def call_id(number: int) -> str:
    """The ``id`` of the call at this place of the list: 24 hex digits, like those of MongoDB."""
    return f"66{0xFFFFFF - number:06x}{number:016x}"


@functools.cache
def _row(number: int, padding: int, stray: bool) -> tuple[str, bytes]:
    """One call: its start by the server's index, and its JSON, with another year if it is a stray."""
    indexed = start = _NEWEST - number * _APART
    if stray:
        start = start.replace(year=2019)
    call = {
        "id": call_id(number),
        "call_id": f"17146577.{number}",
        "date": f"{start:%Y-%m-%d}",
        "time": f"{start:%H:%M:%S}",
        "end_stamp": f"{start + dt.timedelta(seconds=54):%Y-%m-%d %H:%M:%S}",
        "direction": "inbound",
        "status": "answered",
    }
    if padding:
        call["description"] = "x" * padding
    return f"{indexed:%Y-%m-%d %H:%M:%S}", json.dumps(call).encode()


def _at_once(_page: int) -> float:
    return 0.0


@dataclass(eq=False, slots=True)
class _Request:
    """A request that has arrived and is not answered yet."""

    connection: _Connection
    page: int
    reply: bytes
    timer: asyncio.TimerHandle | None = None


class _Connection(asyncio.Protocol):
    """One client connection: keep-alive, one request at a time."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.connections.add(self)
        self.server.changed()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, self.buffer = self.buffer[:end], self.buffer[end + 4 :]
            self.server.asked_for(self, head.split(b" ", 2)[1].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self.server.hung_up(self)


@dataclass(eq=False)
class PageServer:
    """The server; ``async with PageServer(200) as server`` listens at ``server.url``.

    Attributes:
        count: how many calls the list has.
        latency: seconds before a page is answered, by page number.
        failing: statuses other than 200, by page number; 0 cuts the connection.
        padding: bytes of ballast in each call.
        stray: the place of a call outside every window.
        total: requests that arrived.
        asked: how often each exact request target arrived: a page fetched twice counts 2.
        pages: the requested page numbers, in order of arrival.
        peak: the largest number of requests that were unanswered at once.
        connections: those that are open now.
    """

    count: int
    latency: Callable[[int], float] = _at_once
    failing: Mapping[int, int] = field(default_factory=dict)
    padding: int = 0
    stray: int | None = None
    total: int = 0
    peak: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    pages: list[int] = field(default_factory=list)
    connections: set[_Connection] = field(default_factory=set)
    url: str = ""

    def __post_init__(self) -> None:
        self._unanswered: set[_Request] = set()
        self._held: Container[int] = ()
        self._parked: list[_Request] = []
        self._waiters: set[asyncio.Future[None]] = set()
        self._windows: dict[tuple[str, str], list[bytes]] = {}
        self._listener: asyncio.Server

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for connection in tuple(self.connections):
            connection.transport.abort()
        await self.until(lambda: not self.connections)
        await self._listener.wait_closed()

    # What a test scripts -------------------------------------------------------------------------------------------------

    def load(
        self, count: int, latency: Callable[[int], float] | None = None, failing: Mapping[int, int] | None = None
    ) -> None:
        """Serve another list from now on, and count from zero."""
        self.count, self.failing, self.stray = count, failing or {}, None
        self.latency = latency or _at_once
        self._windows.clear()
        self.forget()

    def forget(self) -> None:
        """Count from zero."""
        self.total = self.peak = 0
        self.asked.clear()
        self.pages.clear()

    def hold(self, pages: Container[int]) -> None:
        """Do not answer these pages before ``release()``."""
        self._held = pages

    def release(self) -> None:
        """Answer the held pages, and hold no more."""
        self._held = ()
        parked, self._parked = self._parked, []
        for request in parked:
            self._answer(request)

    # What a test asks ----------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        """The ids of all calls, in the order a complete stream delivers them."""
        return [call_id(number) for number in range(self.count)]

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer on a connection that is still open."""
        return len(self._unanswered)

    async def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        """Wait until the state of this server fulfils a condition."""
        async with asyncio.timeout(within):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

    # What the connections say --------------------------------------------------------------------------------------------

    def changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def asked_for(self, connection: _Connection, target: str) -> None:
        url = urlsplit(target)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        page, limit = int(query.get("page", 1)), int(query.get("limit", 20))
        status = 404 if url.path != "/v1/call/records" else self.failing.get(page, 200)
        body = self._page(query, page, limit) if status == 200 else b'{"success": false, "message": "scripted failure"}'
        request = _Request(connection, page, _reply(status, body) if status else b"")
        self.total += 1
        self.asked[target] += 1
        self.pages.append(page)
        self._unanswered.add(request)
        self.peak = max(self.peak, self.in_flight)
        seconds = self.latency(page)
        if page in self._held:
            self._parked.append(request)
        elif seconds > 0:
            request.timer = asyncio.get_running_loop().call_later(seconds, self._answer, request)
        else:
            self._answer(request)
        self.changed()

    def hung_up(self, connection: _Connection) -> None:
        for request in [request for request in self._unanswered if request.connection is connection]:
            self._unanswered.discard(request)
            if request.timer is not None:
                request.timer.cancel()
        self.changed()

    def _answer(self, request: _Request) -> None:
        if request not in self._unanswered:
            return
        self._unanswered.discard(request)
        if request.reply:
            request.connection.transport.write(request.reply)
        else:
            request.connection.transport.abort()
        self.changed()

    def _page(self, query: Mapping[str, str], page: int, limit: int) -> bytes:
        window = query.get("from_date", ""), query.get("to_date", "~")
        if window not in self._windows:
            calls = (_row(number, self.padding, number == self.stray) for number in range(self.count))
            self._windows[window] = [call for start, call in calls if window[0] <= start <= window[1]]
        calls = self._windows[window]
        rows = calls[(page - 1) * limit : page * limit]
        head = {"count": len(calls), "limit": limit, "size": len(rows), "page": page}
        return json.dumps(head).encode()[:-1] + b', "results": [' + b", ".join(rows) + b"]}"


def _reply(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body
