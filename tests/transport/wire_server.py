"""A raw socket server that plays an act for each request. It counts requests, connections and played acts.

It sends bytes that no HTTP library would send. An act is data. ``WireServer(script)`` takes one act for all requests, a
list (the last one stays), or a function from the request to its act. With ``tls=`` it is the same behind a handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlsplit

PATH = "/v1/call/records"


# What is sent ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes, at once."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Drip:
    """Bytes one by one, so slowly that only the total timeout ends it."""

    data: bytes = field(repr=False)
    seconds: float = 0.02


@dataclass(frozen=True, slots=True)
class Flood:
    """One chunk again and again."""

    chunk: bytes = field(repr=False)
    times: int


class Fin:
    """The orderly end of the connection."""


class Reset:
    """A reset of the connection, by RST."""


class Abort:
    """The end of the connection without the TLS close notify."""


class Hang:
    """Nothing more, until the client hangs up or ``release()`` is called."""


@dataclass(frozen=True, slots=True)
class Act:
    """What to do with one request; the name is for counting."""

    name: str
    steps: tuple[Send | Drip | Flood | Fin | Reset | Abort | Hang, ...]


def call(number: int = 1, **fields: object) -> dict[str, object]:
    """One call record."""
    minute, second = divmod(number, 60)
    record: dict[str, object] = {
        "id": f"66{0xFFFFFF - number:06x}{number:016x}",
        "call_id": f"17146577.{number}",
        "date": "2024-05-02",
        "time": f"{23 - minute // 60:02}:{59 - minute % 60:02}:{59 - second:02}",
        "direction": "inbound",
        "status": "answered",
    }
    return record | fields


def page(*records: dict[str, object], count: int | None = None, number: int = 1, **fields: object) -> bytes:
    """A page of these calls."""
    head = {"count": len(records) if count is None else count, "limit": 100, "size": len(records), "page": number}
    return json.dumps({**head, "results": list(records), **fields}).encode()


PAGE = page(call(1), count=1)
"""A good page of one call."""


def http(
    body: bytes = PAGE,
    status: int | str = 200,
    *headers: tuple[str, str],
    content_type: str | None = "application/json",
    length: int | bool | None = True,
    version: str = "1.1",
) -> bytes:
    """An HTTP/1.1 reply; ``length`` may be wrong, or None to leave it out."""
    lines = [f"HTTP/{version} {status} X" if isinstance(status, int) else f"HTTP/{version} {status}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length is True else int(length)}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reply(body: bytes = PAGE, status: int | str = 200, *headers: tuple[str, str], **options: object) -> Act:
    """A correct reply."""
    return Act(f"reply {status}", (Send(http(body, status, *headers, **options)),))


def chunked(*chunks: bytes, end: bool = True) -> bytes:
    """A chunked reply; without ``end`` it is cut between two chunks."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + (b"0\r\n\r\n" if end else b"")


OK = reply()
HALF = PAGE[: len(PAGE) // 2]
HEAD_PART = b"HTTP/1.1 200 OK\r\nContent-Type: appl"
GZIPPED = gzip.compress(PAGE)
GZIP = (("Content-Encoding", "gzip"),)
BOMB = gzip.compress(b'{"results":[' + b" " * (64 << 20), 9)
MEGABYTE = b" " * (1 << 20)

ACTS: dict[str, Act] = {
    act.name: act
    for act in (
        Act("reset before head", (Reset(),)),
        Act("fin before head", (Fin(),)),
        Act("fin mid head", (Send(HEAD_PART), Fin())),
        Act("reset mid head", (Send(HEAD_PART), Reset())),
        Act("short body, fin", (Send(http(HALF, length=len(PAGE))), Fin())),
        Act("short body, reset", (Send(http(HALF, length=len(PAGE))), Reset())),
        Act("long body", (Send(http(PAGE + b"POISON" * 20, length=len(PAGE))),)),
        Act("no length, fin", (Send(http(HALF, length=None)), Fin())),
        Act("no length, reset", (Send(http(HALF, length=None)), Reset())),
        Act("no length, abort", (Send(http(HALF, length=None)), Abort())),
        Act("http 1.0 cut", (Send(http(HALF, length=None, version="1.0")), Fin())),
        Act("chunked, cut between", (Send(chunked(HALF, end=False)), Fin())),
        Act("chunked, cut inside", (Send(chunked(PAGE, end=False)[:-30]), Fin())),
        Act("bad chunk size", (Send(chunked(HALF, end=False) + b"zz\r\nxx\r\n"), Fin())),
        Act("garbage", (Send(b"\x00\x01\x02 nonsense \xff\xfe\r\n\r\n"), Fin())),
        Act("ssh banner", (Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Hang())),
        Act("two lengths", (Send(http(PAGE, 200, ("Content-Length", "7"))), Fin())),
        Act("negative length", (Send(http(PAGE, length=-5)), Fin())),
        Act("head hangs", (Hang(),)),
        Act("body hangs", (Send(http(HALF, length=len(PAGE))), Hang())),
        Act("drip", (Send(http(b"", length=len(PAGE))), Drip(PAGE))),
        Act("interim", (Send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + http()),)),
        Act("continue", (Send(b"HTTP/1.1 100 Continue\r\n\r\n" + http()),)),
        Act("extra reply", (Send(http() + http(page(call(2, call_id="POISON"), count=1))),)),
        Act("huge header", (Send(http(PAGE, 200, ("X-Huge", "x" * 20_000))), Fin())),
        Act("many headers", (Send(http(PAGE, 200, *((f"X-{n}", "y") for n in range(400)))), Fin())),
        Act("endless headers", (Send(b"HTTP/1.1 200 OK\r\n"), Flood(b"X-Endless: 1\r\n" * 100, 2_000), Fin())),
        Act("gzip corrupt", (Send(http(GZIPPED[:20] + b"\xff" * 20 + GZIPPED[40:], 200, *GZIP)),)),
        Act("gzip crc", (Send(http(GZIPPED[:-8] + b"\0" * 8, 200, *GZIP)),)),
        Act("not gzip", (Send(http(PAGE, 200, *GZIP)),)),
        Act("gzip truncated", (Send(http(GZIPPED[: len(GZIPPED) // 2], 200, *GZIP)),)),
        Act("unknown encoding", (Send(http(bytes(255 - byte for byte in PAGE), 200, ("Content-Encoding", "x-rot"))),)),
        Act("gzip bomb", (Send(http(BOMB, 200, *GZIP)),)),
        Act(
            "gzip bomb, chunked", (Send(chunked(BOMB).replace(b"json\r\n", b"json\r\nContent-Encoding: gzip\r\n", 1)),)
        ),
        Act("giant, announced", (Send(http(b"{", length=300 << 20)), Hang())),
        Act("giant, no length", (Send(http(b"{", length=None)), Flood(MEGABYTE, 300), Fin())),
        Act("giant, chunked", (Send(chunked(end=False)), Flood(b"100000\r\n" + MEGABYTE + b"\r\n", 300), Fin())),
        Act("giant error page", (Send(http(b"<html>", 500, length=None)), Flood(MEGABYTE, 300), Fin())),
    )
}
"""Every act that needs no state, by name."""


# The server --------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Request:
    """One request as it arrived. Its ``repr`` shows no header, because tests print their variables."""

    number: int
    connection: int
    on_connection: int
    method: str
    target: str = field(repr=False)
    headers: list[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """The path alone."""
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded parameters."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


Script = Act | Sequence[Act] | Callable[[Request], Act]


class WireServer:
    """See the module.

    Attributes:
        requests: all that arrived, in order; connections: how many were accepted; open: how many are open.
        fired: how often each act was played.
        peak: the most requests that were unanswered at once.
        handshakes_failed: connections that ended before TLS was agreed.
    """

    def __init__(
        self,
        script: Script = OK,
        *,
        tls: ssl.SSLContext | None = None,
        greeting: Act | None = None,
        name: str = "127.0.0.1",
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.fired: Counter[str] = Counter()
        self.connections = self.open = self.peak = self.unanswered = self.handshakes_failed = 0
        self._tls = tls
        self._greeting = greeting
        self._name = name
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._released = asyncio.Event()
        self._answer = b""
        self._listener: asyncio.Server

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(Exception):
            await self._listener.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self._tls else 'http'}://{self._name}:{self.port}"

    @property
    def asked(self) -> int:
        """How many requests arrived."""
        return len(self.requests)

    def release(self, answer: bytes | None = None) -> None:
        """Answer all hanging requests, now and later, with a good page or with this."""
        self._answer = http() if answer is None else answer
        self._released.set()

    async def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        """Wait for the state of this server to fulfil a condition."""
        async with asyncio.timeout(within):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

    def _changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        self._changed()
        try:
            await self._serve(reader, writer, self.connections)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the server is closing; asyncio.start_server would log it
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.transport.abort() if self._tls else writer.close()
            self._changed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        if self._greeting is not None:
            self.fired[self._greeting.name] += 1
            await self._play(self._greeting, reader, writer)
            return
        if self._tls is not None:
            try:
                await writer.start_tls(self._tls)
            except (OSError, ssl.SSLError):
                self.handshakes_failed += 1
                return
        on_connection = 0
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head[:-4].split("\r\n")
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            body = await reader.readexactly(length)
            method, target, _ = first.split(" ")
            on_connection += 1
            request = Request(len(self.requests) + 1, connection, on_connection, method, target, headers, body)
            self.requests.append(request)
            self.unanswered += 1
            self.peak = max(self.peak, self.unanswered)
            self._changed()
            act = self._act(request)
            self.fired[act.name] += 1
            try:
                goes_on = await self._play(act, reader, writer)
            finally:
                self.unanswered -= 1
                self._changed()
            if not goes_on:
                return

    def _act(self, request: Request) -> Act:
        if isinstance(self.script, Act):
            return self.script
        if callable(self.script):
            return self.script(request)
        return self.script[min(request.number, len(self.script)) - 1]

    async def _play(self, act: Act, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for step in act.steps:
            match step:
                case Send(data):
                    writer.write(data)
                    await writer.drain()
                case Flood(chunk, times):
                    for _ in range(times):
                        writer.write(chunk)
                        await writer.drain()
                case Drip(data, seconds):
                    for index in range(len(data)):
                        if writer.is_closing():  # uvloop raises when written to then
                            return False
                        writer.write(data[index : index + 1])
                        await writer.drain()
                        await asyncio.sleep(seconds)
                case Hang():
                    if not await self._hang(reader):
                        return False
                    writer.write(self._answer)
                case Reset():
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return False
                case Abort():
                    writer.transport.abort()
                    return False
                case Fin():
                    return False
        return True

    async def _hang(self, reader: asyncio.StreamReader) -> bool:
        """Wait for either end: False if the client hung up."""
        gone = asyncio.ensure_future(reader.read())
        released = asyncio.ensure_future(self._released.wait())
        try:
            await asyncio.wait({gone, released}, return_when=asyncio.FIRST_COMPLETED)
            return released.done() and not gone.done()
        finally:
            for task in (gone, released):
                task.cancel()
            await asyncio.gather(gone, released, return_exceptions=True)


def closed_port() -> int:
    """A loopback port without a listener."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
