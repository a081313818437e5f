"""Fifteen hundred consumers that do everything wrong: whatever they do, a stream keeps its promises.

Each seed draws a server (how many calls, how slow, perhaps a page that fails), a client (concurrency, page size), a consumer (calm or nervous:
five ways to give up on an item and go on) and an ending (read to the end, close, drop, close the client). Afterwards it must hold that

- what was delivered is the exact contiguous prefix, and all of it where the consumer read to the end;
- no page was asked for twice, and none beyond the window;
- no page task, no connection in use and no line in the loop's log is left;
- a new stream that starts at the checkpoint delivers exactly the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from random import Random

import anyio
import pytest

from servetel_async import RequestRejectedError, StreamClosedError
from tests.stream.helpers import client_of, connections_in_use, page_tasks, rest, settled
from tests.stream.page_server import MAY

CHUNKS, SEEDS = 15, 100
TRIES = 3
"""Disturbed steps in a row: after so many the consumer waits until it gets something, for a run must come to an end."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_a_stream_keeps_its_promises(serve, loop_log, chunk):
    """Exact prefix, no page twice, nothing left: for each of a hundred seeds."""
    server = await serve(0)
    gc.collect()
    gc.freeze()  # what was there before is not looked at again: a full collection for each seed costs next to nothing
    try:
        for seed in range(chunk * SEEDS, (chunk + 1) * SEEDS):
            try:
                await Run(server, loop_log, Random(seed)).check()
            except Exception as error:
                error.add_note(f"seed {seed}")
                raise
    finally:
        gc.unfreeze()


class Run:
    """One seed: a server's list, a client, a consumer and an ending."""

    def __init__(self, server, loop_log, dice):
        self.server, self.loop_log, self.dice = server, loop_log, dice
        self.size = dice.randint(1, 9)
        self.count = dice.choice([0, self.size, self.size * dice.randint(1, 7), dice.randint(1, 50)])
        self.pages = math.ceil(self.count / self.size)
        self.concurrency = dice.randint(1, 5)
        self.fails_at = dice.randint(1, self.pages) if self.pages and dice.random() < 0.15 else None
        self.ordered = dice.random() < 0.85
        self.nervous = dice.choice([0.0, 0.3, 0.9])
        self.ending = dice.choice(["end", "end", "close", "drop", "managed", "client"])
        self.enough = math.inf if self.ending == "end" else dice.randint(0, self.count)
        self.got = []

    async def check(self):
        slowness = self.dice.choice([0.0, 0.0003, 0.001])
        failing = {self.fails_at: 400} if self.fails_at else {}
        latencies = Random(self.dice.random())
        self.server.load(self.count, lambda _page: latencies.random() * slowness, failing)
        async with client_of(self.server, max_concurrency=self.concurrency, page_size=self.size) as client:
            stream = client.calls(*MAY, ordered=self.ordered)
            outcome = await self.consume(stream)
            checkpoint = await self.end(client, stream, outcome)
            del stream
            await self.nothing_is_left(client)
            self.what_was_promised(outcome)
            if self.ordered and self.ending != "client":
                await self.resume(client, checkpoint)
        assert not page_tasks(client)

    # The consumer --------------------------------------------------------------------------------------------------------

    async def consume(self, stream):
        """Read until there is enough; returns how it ended: "enough", "exhausted" or the failure."""
        disturbed = 0
        while len(self.got) < self.enough:
            step = self.wait_patiently
            if disturbed < TRIES and self.dice.random() < self.nervous:
                step = self.dice.choice(
                    [self.wait_for, self.timeout, self.move_on_after, self.cancel, self.cancel_twice]
                )
            try:
                delivered = len(self.got)
                await step(stream)
                disturbed = 0 if len(self.got) > delivered else disturbed + 1
            except StopAsyncIteration:
                return "exhausted"
            except RequestRejectedError as failure:
                return failure.with_traceback(None)
            if self.dice.random() < 0.05:
                await asyncio.sleep(self.dice.choice([0, 0.0005]))
        return "enough"

    async def wait_patiently(self, stream):
        self.got.append((await anext(stream)).id)

    async def wait_for(self, stream):
        with contextlib.suppress(TimeoutError):
            self.got.append((await asyncio.wait_for(anext(stream), self.patience())).id)

    async def timeout(self, stream):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience()):
                self.got.append((await anext(stream)).id)

    async def move_on_after(self, stream):
        with anyio.move_on_after(self.patience()):
            self.got.append((await anext(stream)).id)

    async def cancel(self, stream, times=1):
        step = asyncio.ensure_future(anext(stream))
        for _ in range(times):
            for _ in range(self.dice.randint(0, 6)):
                await asyncio.sleep(0)
            step.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            self.got.append((await step).id)

    async def cancel_twice(self, stream):
        await self.cancel(stream, times=2)

    def patience(self):
        return self.dice.choice([0, 0.0001, 0.0004, 0.001])

    # The ending ----------------------------------------------------------------------------------------------------------

    async def end(self, client, stream, outcome):
        """End the stream as this run ends it; returns where it stood."""
        match self.ending:
            case "close":
                await stream.aclose()
                assert not page_tasks(client)
            case "managed":
                async with stream:
                    pass
                assert not page_tasks(client)
            case "client":
                await client.aclose()
                assert not page_tasks(client)
        if self.ending in ("close", "managed") or outcome != "enough":
            await self.says_again(stream, outcome)
        return stream.checkpoint

    async def says_again(self, stream, outcome):
        """Another ``anext`` tells the outcome once more."""
        expected = {"enough": StreamClosedError, "exhausted": StopAsyncIteration}.get(outcome, type(outcome))
        with pytest.raises(expected):
            await anext(stream)

    # What must hold ------------------------------------------------------------------------------------------------------

    async def nothing_is_left(self, client):
        gc.collect()
        await settled(client)
        assert not connections_in_use(client)
        assert self.loop_log == []

    def what_was_promised(self, outcome):
        ids = self.server.ids
        if self.ordered:
            assert self.got == ids[: len(self.got)]
        else:
            assert len(set(self.got)) == len(self.got)
            assert set(self.got) <= set(ids)
        if outcome == "exhausted":
            assert self.fails_at is None
            assert sorted(self.got) == sorted(ids)
        elif outcome != "enough":
            assert outcome.page == self.fails_at
            if self.ordered:
                assert len(self.got) == (self.fails_at - 1) * self.size
        assert all(times == 1 for times in self.server.asked.values()), self.server.asked
        assert all(page <= self.pages + 1 for page in self.server.pages), "one probe beyond the end is enough"
        assert self.server.total <= len(self.got) // self.size + 2 + 2 * self.concurrency, "more than the window"

    async def resume(self, client, checkpoint):
        self.server.load(self.count)
        assert self.got + await rest(client.calls(*MAY, start=checkpoint)) == self.server.ids
