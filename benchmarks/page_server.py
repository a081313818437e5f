"""A server that is never the bottleneck: it joins records that were encoded beforehand.

    python -m benchmarks.page_server CALLS

It serves a month of the emulator's varied calls, obeys dates, page and limit, and prints its address.
The first part of the path selects its behaviour, so that every contender uses the same server:

- ``/plain``, and ``/gzip`` for compressed pages;
- ``/learn``: every record has a key that no client knows yet;
- ``/slow-100-0``: answers after 100 ms; ``/slow-70-30``: after 70 ms and an exponential of 30 ms more;
- ``/rate-5-NAME``: allows 5 requests a second, with a burst of one second's worth; ``/count-NAME`` returns its counts;
- ``/taken-5-2-NAME``: the same, but another program uses 2 of the 5 from the third to the sixth second.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
import time
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from benchmarks.measure import SERVER_CORE, pin
from servetel_async.emulator import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

MONTH = "2024-05"
#: The most bytes of whole replies that are cached.
KEPT = 3_000_000_000
#: Between these seconds of its life another program uses a part of a rate.
TAKEN_FROM, TAKEN_UNTIL = 3.0, 6.0


@dataclass
class Bucket:
    """A rate limit, and its counts."""

    rate: float
    begun: float
    taken: float = 0.0
    level: float = 0.0
    at: float = 0.0
    served: int = 0
    refused: int = 0
    last: float = 0.0

    def take(self, now: float) -> bool:
        """Whether this request may pass."""
        rate = self.rate - (self.taken if TAKEN_FROM <= now - self.begun < TAKEN_UNTIL else 0.0)
        self.level = max(0.0, self.level - (now - self.at) * rate)
        self.at = now
        if self.level + 1 > max(1.0, rate) + 1e-6:
            self.refused += 1
            return False
        self.level += 1
        self.served += 1
        self.last = now
        return True


class Pages:
    """The replies of one account."""

    def __init__(self, calls: int) -> None:
        data = Dataset.month(MONTH, calls=calls)
        self._bodies = [call.body for call in data.calls]
        stamps = [(record["date"], record["time"]) for record in data.records()]
        self._ascending = [f"{date} {moment}" for date, moment in reversed(stamps)]
        self._kept: dict[tuple[str, str], bytes] = {}
        self._room = KEPT
        self._buckets: dict[str, Bucket] = {}

    def answer(self, target: str) -> tuple[float, bytes]:
        """Seconds to wait, and the reply."""
        kind, _, rest = target[1:].partition("/")
        if kind.startswith("count-"):
            bucket = self._buckets[kind.partition("-")[2]]
            seen = {"served": bucket.served, "refused": bucket.refused, "seconds": bucket.last - bucket.begun}
            return 0.0, _reply(json.dumps(seen).encode())
        delay = 0.0
        if kind.startswith("slow-"):
            _, fixed, mean = kind.split("-")
            delay = float(fixed) / 1e3 + (random.expovariate(1e3 / float(mean)) if float(mean) else 0.0)
        if kind.startswith(("rate-", "taken-")) and not self._bucket(kind).take(time.monotonic()):
            return 0.0, _reply(b'{"message":"Too Many Attempts."}', status="429 Too Many Requests")
        form = kind if kind in ("gzip", "learn") else ""
        reply = self._kept.get((form, rest))
        if reply is None:
            reply = self._make(form, rest)
            if self._room > len(reply):
                self._room -= len(reply)
                self._kept[form, rest] = reply
        return delay, reply

    def _bucket(self, kind: str) -> Bucket:
        parts = kind.split("-")
        if parts[-1] not in self._buckets:
            now = time.monotonic()
            taken = float(parts[2]) if parts[0] == "taken" else 0.0
            self._buckets[parts[-1]] = Bucket(float(parts[1]), now, taken, at=now)
        return self._buckets[parts[-1]]

    def _make(self, form: str, rest: str) -> bytes:
        asked = dict(parse_qsl(rest.partition("?")[2]))
        low = bisect_left(self._ascending, _bound(asked.get("from_date", ""), "00:00:00"))
        high = bisect_right(self._ascending, _bound(asked.get("to_date", "9999"), "23:59:59"))
        number, limit, total = int(asked.get("page", 1)), int(asked.get("limit", 20)), len(self._ascending)
        first = total - high + (number - 1) * limit
        rows = self._bodies[first : min(first + limit, total - low)]
        if form == "learn":
            rows = [row[:-1] + b',"sentiment_of_a_later_release":"neutral"}' for row in rows]
        head = b'{"count":%d,"limit":%d,"page":%d,"results":[' % (high - low, limit, number)
        body = head + b",".join(rows) + b"]}"
        return _reply(gzip.compress(body, 6), packed=True) if form == "gzip" else _reply(body)


def _bound(text: str, clock: str) -> str:
    return f"{text} {clock}" if len(text) == len("2024-05-01") else text


def _reply(body: bytes, *, packed: bool = False, status: str = "200 OK") -> bytes:
    more = "Content-Encoding: gzip\r\n" if packed else ""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One of its connections; requests have no body."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, self._unread = self._unread.partition(b"\r\n\r\n")
            delay, reply = self._pages.answer(head.split(b" ", 2)[1].decode())
            if delay:
                asyncio.get_running_loop().call_later(delay, self._write, reply)
            else:
                self._write(reply)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


async def serve(calls: int) -> None:
    """Serve until the process is ended."""
    pages = Pages(calls)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(pages), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


@contextmanager
def serving(calls: int) -> Iterator[str]:
    """Run it in a process of its own, on a core of its own; returns its address."""
    server = Popen([sys.executable, "-m", "benchmarks.page_server", str(calls)], stdout=PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(serve(int(sys.argv[1])))
