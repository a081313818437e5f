"""A list of calls behind a wire server that fails a seeded share of all exchanges; the caller must not notice.

1. Faults are dealt from a shuffled deck that holds each once, so all of them occur equally often.
2. A fault comes alone, or with a second one for the same page right after it.
3. No page gets more faults than one call survives (see ``Kind``), so the reader of the list sees no error.
4. Faults that are temporary only at an address that has worked begin after the first good replies.

``python -m tests.torture.storm SEED [uvloop]`` prints the outcome, for an interpreter with other parts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from servetel_async import Retry, ServetelClient, Timeouts
from servetel_async.emulator import Dataset
from tests.torture.fault_table import CONNECTION, FAULTS, Fault, Kind
from tests.transport.wire_server import Act, Send, WireServer, http

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    import aiohttp

    from tests.transport.wire_server import Request

FIRST, LAST = "2024-05-06 08:00:00", "2024-05-06 19:59:59"
#: After this many good replies the client has certainly received one, even if some came too late.
PAST = 20
TOKEN = "token-of-the-storm"
PAGE_SIZE = 10
#: Enough calls that a stream and a pull of them meet each fault.
CALLS = 3_000
QUICK = Retry(attempts=20, base=0.001, cap=0.002, throttled_base=0.001, throttled_cap=0.002)
PATIENCE = Timeouts(connect=10, read=0.25, total=0.5)
#: Faults that one page may meet in a row.
MOST_IN_A_ROW = 5
#: A new connection follows most faults; one in this many of them is closed before it is used.
ONE_CONNECTION_IN = 8


class CallList:
    """The calls of one day, newest first, and any page of them as the API would serve it."""

    def __init__(self, calls: int, seed: int) -> None:
        dataset = Dataset.range(FIRST, LAST, calls=calls, seed=seed)
        self.ids = dataset.ids
        self.bodies = [call.body for call in dataset.calls]
        self._oldest_first = [dataset.clock.stamp(call.start) for call in reversed(dataset.calls)]

    def page(self, query: dict[str, str]) -> bytes:
        """The page of a query; both of its dates are inclusive."""
        number, limit = int(query.get("page", "1")), int(query.get("limit", "20"))
        end = len(self.bodies) - bisect_left(self._oldest_first, query.get("from_date", ""))
        begin = len(self.bodies) - bisect_right(self._oldest_first, query.get("to_date", "~"))
        rows = self.bodies[begin:end][(number - 1) * limit : number * limit]
        head = {"count": end - begin, "limit": limit, "size": len(rows), "page": number}
        return json.dumps(head).encode()[:-1] + b', "results": [' + b", ".join(rows) + b"]}"


@dataclass(slots=True)
class Trouble:
    """The faults of one page. A good reply does not reset them, because it may come after the client's timeout."""

    met: list[Fault] = field(default_factory=list)
    struck: bool = False  # by the last one
    due: bool = False

    def bears(self, fault: Fault) -> bool:
        return sum(former.kind is fault.kind for former in self.met) < fault.kind.borne


class Plan:
    """Which exchanges fail, and how.

    Args:
        faults: of which.
        seed: of all random choices here.
        rate: share of the exchanges.
        pairs: share of the faults that are followed by a second one.

    Attributes:
        paired: how often a fault hit a page right after another one.
    """

    def __init__(self, faults: Iterable[Fault], seed: str, rate: float = 0.35, pairs: float = 0.3) -> None:
        self.random = Random(f"storm {seed}")
        self.paired = 0
        self._faults = tuple(faults)
        self._rate = rate
        self._pairs = pairs
        self._honest = 0
        self._deck: list[Fault] = []
        self._troubles: dict[str, Trouble] = {}

    def deal(self, target: str) -> Fault | None:
        """The fault of this request; None for an honest reply."""
        trouble = self._troubles.setdefault(target, Trouble())
        fault = None
        if len(trouble.met) < MOST_IN_A_ROW and (trouble.due or self.random.random() < self._rate):
            fault = self._draw(trouble)
        if fault is None or fault.kind is Kind.HARMLESS:
            self._honest += 1
            trouble.struck = trouble.due = False
            return fault
        self.paired += trouble.struck
        trouble.struck = True
        trouble.due = not trouble.due and self.random.random() < self._pairs
        trouble.met.append(fault)
        return fault

    def _draw(self, trouble: Trouble) -> Fault | None:
        if not self._deck:
            self._deck = self.random.sample(self._faults, len(self._faults))
        ready = self._honest >= PAST
        index = next(
            (
                index
                for index, fault in enumerate(self._deck)
                if trouble.bears(fault) and (ready or not fault.kind.needs_a_past)
            ),
            None,
        )
        return None if index is None else self._deck.pop(index)


class Storm(WireServer):
    """The server: honest pages, except for the planned faults.

    Args:
        calls: what it serves.
        plan: the faults; None for no faults.
        tls: the certificate.
    """

    def __init__(self, calls: CallList, plan: Plan | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._answer, tls=tls)
        self.calls = calls
        self.plan = plan

    def honest(self, request: Request) -> bytes:
        """The body for the request."""
        return self.calls.page(dict(request.query))

    def _answer(self, request: Request) -> Act:
        fault = None if self.plan is None else self.plan.deal(request.target)
        body = self.honest(request)
        if fault is None or self.plan is None:
            return Act("honest", (Send(http(body)),))
        return Act(fault.name, fault.make(self.plan.random, body))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        turn, other = divmod(connection, ONE_CONNECTION_IN)
        if self.plan is not None and not other:
            fault = CONNECTION[turn % len(CONNECTION)]
            self.fired[fault.name] += 1
            await self._play(Act(fault.name, fault.make(self.plan.random, b"")), reader, writer)
            return
        await super()._serve(reader, writer, connection)


@dataclass
class Outcome:
    """The faults of a storm, and the calls that were wrong.

    Attributes:
        counted: requests that the client knows of.
        faults: all that occurred; fired: how often each; unfired: faults that did not occur.
        lost, twice, foreign: calls that did not come, came again, or were none of the list.
        altered: rows that a pull wrote with changed bytes.
    """

    requests: int = 0
    counted: int = 0
    faults: int = 0
    paired: int = 0
    lost: int = 0
    twice: int = 0
    foreign: int = 0
    altered: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    unfired: list[str] = field(default_factory=list)

    @property
    def flawless(self) -> bool:
        """Whether exactly the true calls came."""
        return self.lost == self.twice == self.foreign == self.altered == 0

    def note(self, came: list[str], truth: list[str]) -> None:
        """Compare the received calls with the true ones."""
        self.lost += len(set(truth) - set(came))
        self.foreign += len(set(came) - set(truth))
        self.twice += len(came) - len(set(came))

    def close(self, server: Storm, faults: Iterable[Fault]) -> None:
        """Record the server's counts of one reading, and begin another."""
        assert server.plan is not None
        self.unfired += sorted({fault.name for fault in faults} - set(server.fired))
        self.faults += server.fired.total() - server.fired["honest"]
        self.paired += server.plan.paired
        self.fired.update(server.fired)
        server.fired.clear()

    def add(self, other: Outcome) -> None:
        """Add another outcome."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def fresh_tokens() -> Callable[[], str]:
    """A provider that returns another token each time."""
    numbers = itertools.count()
    return lambda: f"token-of-the-storm-{next(numbers)}"


def client_of(server: WireServer, session: aiohttp.ClientSession | None = None, **options: Any) -> ServetelClient:
    """A client with quick retries."""
    given = {
        "token": TOKEN,
        "page_size": PAGE_SIZE,
        "max_concurrency": 8,
        "retry": QUICK,
        "timeouts": PATIENCE,
        **options,
    }
    return ServetelClient(base_url=server.url, rate=None, session=session, **given)


async def weather(calls: CallList, seed: int, directory: Path, faults: Iterable[Fault], **options: Any) -> Outcome:
    """Stream and pull the list, both through the storm of this seed.

    Args:
        calls: the list.
        seed: of the storm.
        directory: for the pull's output.
        faults: that may occur.
        options: ``tls`` for the server, ``session`` for the client.
    """
    outcome = Outcome()
    faults = tuple(faults)
    async with (
        Storm(calls, Plan(faults, f"stream {seed}"), tls=options.get("tls")) as server,
        client_of(server, options.get("session"), token=fresh_tokens()) as client,
    ):
        async with client.calls(FIRST, LAST) as stream:
            outcome.note([call.id async for call in stream], calls.ids)
        outcome.close(server, faults)

        server.plan = Plan(faults, f"pull {seed}")
        target = directory / f"storm-{seed}.ndjson"
        receipt = await client.pull(target, FIRST, LAST)
        lines = target.read_bytes().splitlines()
        outcome.note([json.loads(line)["id"] for line in lines], calls.ids)
        outcome.altered = len(set(lines) - set(calls.bodies)) + (not receipt.complete)
        outcome.close(server, faults)
        outcome.requests = server.asked
        outcome.counted = stream.stats.requests + receipt.requests
    return outcome


def main() -> None:
    from aiohttp.http_parser import HttpResponseParser

    seed, *loop = sys.argv[1:]
    factory = None
    if loop:
        import uvloop

        factory = uvloop.new_event_loop
    faults = [fault for fault in FAULTS if not fault.secure]
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=factory) as runner:
        outcome = runner.run(weather(CallList(CALLS, int(seed)), int(seed), Path(directory), faults))
        parts = {"parser": HttpResponseParser.__module__, "loop": type(runner.get_loop()).__module__}
    sys.stdout.write(json.dumps(parts | vars(outcome)))


if __name__ == "__main__":
    main()
