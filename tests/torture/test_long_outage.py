"""P4: a long outage costs few requests and starves no call: hours on a fake clock (see ``fake_clock``)."""

from __future__ import annotations

import asyncio
import json

import pytest

from servetel_async import CallQuery, ServerError, ServetelClient, ServetelError
from servetel_async.bulk.pull import pull
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.bulk import fake_clock
from tests.torture.report import SEED, TORTURE, measured

MAY = CallQuery.month("2024-05")
CALLS = 300
FAILURES = 200
#: How a server is away: with a reply, without a reply, and in silence.
KINDS = {"503": {"kind": "status", "status": 503}, "reset": {"kind": "reset"}, "time-out": {"kind": "stall"}}

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


class Away:
    """An emulator that is away from a moment on, and its client.

    Attributes:
        api: the emulator; client: its client.
        on_event: the listener of the client's events.
    """

    def __init__(self, api, client, switch):
        self.api = api
        self.client = client
        self.on_event = lambda event: None
        self._switch = switch

    def turn(self, *, on):
        self._switch.turn(on=on)

    def pages(self, since):
        """The first and the last second of each page requested since then; a count is no page."""
        queries = [dict(request.query) for request in self.api.requests[since:] if request.limit != 1]
        return [(query["from_date"], query["to_date"]) for query in queries]


def with_a_server(work, kind="503", **options):
    """Run this with an ``Away`` of 300 calls of May."""
    switch = fake_clock.Switch()
    data = Dataset.month("2024-05", calls=CALLS, seed=SEED)
    settings = {"page_size": 20, "max_concurrency": 4, "rate": None, **options}

    async def main():
        async with (
            Emulator(data, faults=[Fault(probability=switch, **KINDS[kind])]) as api,
            ServetelClient(
                api.token, base_url=api.base_url, on_event=lambda event: away.on_event(event), **settings
            ) as client,
        ):
            away = Away(api, client, switch)
            return await work(away)

    return fake_clock.run(main()), data


def ids_in(target):
    """The sorted ids of a file, because calls of one second may come in another order than the server's."""
    return sorted(json.loads(line)["id"] for line in target.read_bytes().splitlines())


def now():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concurrency", [1, 4, 32] if TORTURE else [4])
def test_ten_minutes_away(tmp_path, kind, concurrency):
    """Ten minutes away cost at most 130 requests, all of them needed; then the pull continues and is complete."""
    target = tmp_path / "may.ndjson"

    async def work(server):
        begun, ended = [], []

        def cleared():
            ended.append(len(server.api.requests))
            server.turn(on=False)

        def look(progress):
            if progress.pages >= 5 and not begun:
                begun.append(len(server.api.requests))
                server.turn(on=True)
                asyncio.get_running_loop().call_later(600, cleared)

        receipt = await pull(server.client, target, MAY, on_progress=look)
        return ended[0] - begun[0], receipt

    (requests, receipt), data = with_a_server(work, kind, max_concurrency=concurrency)
    measured(
        "P4", f"10 minutes of {kind}, {concurrency} at once: {requests} requests, then it ended by itself, complete"
    )
    assert 5 <= requests <= 130
    assert receipt.complete
    assert ids_in(target) == sorted(data.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_after_two_hundred_failures_in_a_row_a_retry_is_still_granted(tmp_path, kind):
    """A patient pull retries again, even if calls with a deadline have spent the client's budget."""
    target = tmp_path / "may.ndjson"

    async def work(server):
        api, client = server.api, server.client
        begun, ended = [], []

        async def hasty(number):
            with pytest.raises(ServetelError):
                await client.fetch_page(page_size=1 + number, deadline=1e6)

        def look(progress):
            if progress.pages >= 5 and not begun:
                begun.append(len(api.requests))
                server.turn(on=True)

        def clear(event):
            if begun and not ended and len(api.requests) - begun[0] >= FAILURES:
                ended.extend((len(api.requests), now()))
                server.turn(on=False)

        server.turn(on=True)
        await asyncio.gather(*(hasty(number) for number in range(50)))
        spent = not client._transport._budget.spend(14)
        server.turn(on=False)
        server.on_event = clear
        receipt = await pull(client, target, MAY, on_progress=look, patience=30 * 86_400)
        failed = [request.fault for request in api.requests[begun[0] : ended[0]]]
        return spent, failed, receipt, now() - ended[1]

    (spent, failed, receipt, seconds), data = with_a_server(work, kind)
    assert spent, "the budget was not used up"
    assert len(failed) >= FAILURES
    assert None not in failed
    assert receipt.complete
    assert ids_in(target) == sorted(data.ids)
    measured(
        "P4", f"after {len(failed)} failures in a row by {kind}: tried again, and whole {seconds:.0f} s after its end"
    )


def committed(part):
    """The windows that an interrupted pull has committed."""
    lines = (part.parent / f"{part.name}.journal").read_bytes().splitlines()
    entries = [json.loads(line.partition(b" ")[2]) for line in lines]
    return [(entry["first"], entry["last"]) for entry in entries if entry["kind"] == "window"]


@pytest.mark.parametrize("restarts", [0, 3])
def test_a_restart_costs_no_page(tmp_path, restarts):
    """Windows that were committed before an outage are never requested again, however often the pull restarts."""
    target, part = tmp_path / "may.ndjson", tmp_path / "may.ndjson.part"

    async def work(server):
        api, client = server.api, server.client

        def look(progress):
            if progress.windows >= 2:
                server.turn(on=True)

        with pytest.raises(ServerError):
            await pull(client, target, MAY, on_progress=look, patience=60)
        done = committed(part)
        for _ in range(restarts):
            before = len(api.requests)
            with pytest.raises(ServerError):
                await pull(client, target, MAY)
            assert 0 < len(api.requests) - before <= client.retry.attempts
            assert committed(part) == done
        server.turn(on=False)
        before = len(api.requests)
        return done, await pull(client, target, MAY), server.pages(before)

    (done, receipt, pages), data = with_a_server(work, page_size=2, max_concurrency=2)
    assert len(done) >= 2
    assert pages, "nothing was left to read"
    # The first request reads the clock.
    again = [page for page in pages[1:] if any(page[0] <= last and first <= page[1] for first, last in done)]
    assert again == []
    assert receipt.complete
    assert ids_in(target) == sorted(data.ids)
    measured("P4", f"{restarts + 1} restart(s): {len(again)} pages of {len(done)} committed windows asked for again")
