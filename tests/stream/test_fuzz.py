"""Fifteen hundred consumers that do everything wrong: a stream keeps its promises all the same.

Each seed draws a server (how many calls, how slow, perhaps a page that fails), a client (concurrency, page size, requests that are slow to be
cancelled), a consumer (by calls or by pages, calm or nervous: five ways to give up on an item and continue) and an ending (read to the end,
close, close while cancelled, close under another task that waits, drop, close the client). Afterwards it must hold that

- the delivered calls are the exact contiguous prefix, and all calls if the consumer read to the end;
- no page was requested twice, and none beyond the window;
- no page task, no connection in use and no line in the loop's log is left;
- a new stream that starts at the checkpoint delivers exactly the rest.

A seed fixes the draws, not the timing of the network: a failing seed may need some runs to fail again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections import Counter
from random import Random

import aiohttp
import anyio
import pytest

from servetel_async import RequestRejectedError, StreamClosedError
from tests.stream.helpers import client_of, connections_in_use, page_tasks, rest, settled
from tests.stream.page_server import MAY

CHUNKS, SEEDS = 15, 100
TRIES = 3
"""Disturbed steps in a row: after so many the consumer waits until it gets something, for a run must come to an end."""

DISTURBANCES = ["wait_for", "timeout", "move_on_after", "cancel", "cancel_twice"]
ENDINGS = ["end", "close", "close cancelled", "close under a reader", "managed", "drop", "client"]
OUTCOMES = ["enough", "exhausted", "failed"]


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_a_stream_keeps_its_promises(serve, loop_log, chunk):
    """Exact prefix, no page twice, nothing left: for each of a hundred seeds, in which every event occurs."""
    server = await serve(0)
    happened: Counter[str] = Counter()
    gc.collect()
    gc.freeze()  # older objects are not scanned again, so a full collection for each seed costs little
    try:
        for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
            try:
                await Run(server, loop_log, happened, Random(seed)).check()
            except Exception as error:
                error.add_note(f"seed {seed}")
                raise
    finally:
        gc.unfreeze()
    assert [kind for kind in DISTURBANCES + ENDINGS + OUTCOMES if not happened[kind]] == []


#: Shorter ranges tried when a month is refused without a reason: 15, 7, 3 days, and 1.
SHORTER_RANGES = 4


class Run:
    """One seed: a server's list, a client, a consumer and an ending."""

    def __init__(self, server, loop_log, happened, dice):
        self.server, self.loop_log, self.happened, self.dice = server, loop_log, happened, dice
        self.size = dice.randint(1, 9)
        self.count = dice.choice([0, self.size, self.size * dice.randint(1, 7), dice.randint(1, 50)])
        self.pages = math.ceil(self.count / self.size)
        self.concurrency = dice.randint(1, 5)
        self.fails_at = dice.randint(1, self.pages) if self.pages and dice.random() < 0.15 else None
        self.max_records = dice.randint(self.size, 60) if dice.random() < 0.15 else None
        self.ordered = dice.random() < 0.85
        self.by_pages = dice.random() < 0.2
        self.nervous = dice.choice([0.0, 0.3, 0.9])
        self.slowness = dice.choice([0.0, 0.0003, 0.001])
        self.goodbye = dice.choice([None, 0, 0.0005])
        self.ending = dice.choice(["end", *ENDINGS])
        self.enough = math.inf if self.ending == "end" else dice.randint(0, self.count)
        self.got = []

    async def check(self):
        latencies = Random(self.dice.random())
        failing = {self.fails_at: 400} if self.fails_at else {}
        self.server.load(self.count, lambda _page: latencies.random() * self.slowness, failing)
        options = {"max_concurrency": self.concurrency, "page_size": self.size, "trace_configs": self.traces()}
        async with client_of(self.server, **options) as client:
            stream = client.calls(*MAY, ordered=self.ordered, max_records=self.max_records)
            outcome = await self.consume(stream)
            self.happened[outcome if isinstance(outcome, str) else "failed"] += 1
            checkpoint = await self.end(client, stream, outcome)
            self.happened[self.ending] += 1
            del stream
            await self.nothing_is_left(client)
            self.what_was_promised(outcome)
            if self.ordered and self.ending != "client":
                await self.resume(client, checkpoint)
        assert not page_tasks(client)

    def traces(self):
        """A user's hook that makes requests slow to begin, and slow to be cancelled."""
        if self.goodbye is None:
            return ()

        async def on_request_start(*_):
            try:
                await asyncio.sleep(self.slowness / 2)
            except asyncio.CancelledError:
                await asyncio.sleep(self.goodbye)
                raise

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(on_request_start)
        return (trace,)

    # The consumer --------------------------------------------------------------------------------------------------------

    async def consume(self, stream):
        """Read until there is enough; returns how it ended: "enough", "exhausted" or the failure."""
        disturbed = 0
        pages = stream.pages() if self.by_pages else None
        while len(self.got) < self.enough:
            kind = "wait patiently"
            if disturbed < TRIES and self.dice.random() < self.nervous:
                kind = self.dice.choice(DISTURBANCES)
            try:
                delivered = len(self.got)
                await self.step(kind, stream if pages is None else pages)
            except StopAsyncIteration:
                return "exhausted"
            except RequestRejectedError as failure:
                return failure.with_traceback(None)
            disturbed = 0 if len(self.got) > delivered else disturbed + 1
            self.happened[kind] += bool(disturbed)
            if self.dice.random() < 0.05:
                await asyncio.sleep(self.dice.choice([0, 0.0005]))
        return "enough"

    async def step(self, kind, stream):
        """One step of the consumer: it takes the next item, or gives up in one of five ways."""
        patience = self.dice.choice([0, 0.0001, 0.0004, 0.001])
        match kind:
            case "wait patiently":
                self.take(await anext(stream))
            case "wait_for":
                with contextlib.suppress(TimeoutError):
                    self.take(await asyncio.wait_for(anext(stream), patience))
            case "timeout":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        self.take(await anext(stream))
            case "move_on_after":
                with anyio.move_on_after(patience):
                    self.take(await anext(stream))
            case _:
                step = asyncio.ensure_future(anext(stream))
                await self.cancel(step, times=1 if kind == "cancel" else 2)
                with contextlib.suppress(asyncio.CancelledError):
                    self.take(await step)

    def take(self, item):
        self.got += [call.id for call in item.records] if self.by_pages else [item.id]

    async def cancel(self, task, times):
        for _ in range(times):
            for _ in range(self.dice.randint(0, 6)):
                await asyncio.sleep(0)
            task.cancel()

    # The ending ----------------------------------------------------------------------------------------------------------

    async def end(self, client, stream, outcome):
        """End the stream as this run does; returns its checkpoint."""
        match self.ending:
            case "close":
                await stream.aclose()
            case "close cancelled":
                closing = asyncio.create_task(stream.aclose())
                await asyncio.sleep(0)
                await self.cancel(closing, times=self.dice.randint(1, 3))
                await asyncio.wait({closing})
            case "close under a reader":
                await self.close_under_a_reader(stream, outcome)
            case "managed":
                async with stream:
                    pass
            case "client":
                await client.aclose()
        if self.ending not in ("end", "drop"):
            assert not page_tasks(client)
        if self.ending not in ("drop", "client") or outcome != "enough":
            with pytest.raises(self.expected(outcome)):
                await anext(stream)
        return stream.checkpoint

    async def close_under_a_reader(self, stream, outcome):
        """Close while another task waits for the next call: it gets a call, the end, or an error that says so."""
        reader = asyncio.create_task(self.read_on(stream))
        for _ in range(self.dice.randint(0, 6)):
            await asyncio.sleep(0)
        await asyncio.gather(stream.aclose(), stream.aclose())
        told = await reader
        assert isinstance(told, (StreamClosedError, RequestRejectedError, StopAsyncIteration)), repr(told)
        if outcome == "enough" and not isinstance(told, StreamClosedError):
            self.outcome_of_reader = type(told)

    outcome_of_reader = None

    async def read_on(self, stream):
        try:
            while True:
                self.got.append((await anext(stream)).id)
        except Exception as error:
            return error.with_traceback(None)

    def expected(self, outcome):
        """What another ``anext`` must raise: the same end again."""
        if outcome == "enough":
            return self.outcome_of_reader or StreamClosedError
        return StopAsyncIteration if outcome == "exhausted" else type(outcome)

    # What must hold ------------------------------------------------------------------------------------------------------

    @property
    def wanted(self):
        return self.server.ids[: self.max_records]

    async def nothing_is_left(self, client):
        gc.collect()
        await settled(client)
        assert not connections_in_use(client)
        assert self.loop_log == []

    def what_was_promised(self, outcome):
        if self.ordered:
            assert self.got == self.wanted[: len(self.got)]
        else:
            assert len(set(self.got)) == len(self.got)
            assert set(self.got) <= set(self.server.ids)
        if outcome == "exhausted":
            assert self.fails_at is None or self.max_records is not None
            assert len(self.got) == len(self.wanted)
        elif outcome != "enough":
            assert outcome.page == self.fails_at
            if self.ordered:
                assert len(self.got) == (self.fails_at - 1) * self.size
        assert all(times == 1 for times in self.server.asked.values()), self.server.asked
        assert all(page <= self.pages + 1 for page in self.server.pages), "one probe beyond the end is enough"
        trials = SHORTER_RANGES if self.fails_at == 1 else 0  # a refused first page may be of too long a range
        most = len(self.got) // self.size + 2 + 2 * self.concurrency + trials
        assert self.server.total <= most, "more than the window"

    async def resume(self, client, checkpoint):
        self.server.load(self.count)
        assert self.got + await rest(client.calls(*MAY, start=checkpoint)) == self.server.ids
