"""P3: in a total outage the retries of many calls do not become a second outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from servetel_async import ConnectionFailedError, RequestTimeoutError, Retry, ServerError, ServetelError, Timeouts
from tests.torture.report import TORTURE, measured
from tests.torture.storm import client_of
from tests.transport.wire_server import OK, Act, Fin, Hang, Reset, WireServer, reply

CALLS = 1_000
MOST = CALLS * 11 // 10 + 10
OUTAGES = {
    "503": (reply(b"", 503), ServerError),
    "reset": (Act("reset", (Reset(),)), ConnectionFailedError),
    "fin": (Act("fin", (Fin(),)), ConnectionFailedError),
    "timeout": (Act("timeout", (Hang(),)), RequestTimeoutError),
}
QUICK = Retry(base=0.001, cap=0.002)
QUICK_SIZE = [("503", 10), ("reset", 1), ("timeout", 1)]
#: Only for the real outage; elsewhere a busy computer would cause another one.
SHORT = Timeouts(read=0.25, total=0.5)

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


async def failure(client, number=0) -> ServetelError:
    """The error of one call. Each call has a page size of its own, because equal calls share requests."""
    with pytest.raises(ServetelError) as caught:
        await client.fetch_page(page_size=1 + number, deadline=300)
    return caught.value


def check(server, errors, outage, how):
    """Check that the wire and the client counted few requests, and that each call had one error."""
    act, kind = OUTAGES[outage]
    attempts = sum(error.attempts for error in errors)
    measured("P3", f"{outage}, {how}: {attempts:,} attempts, {server.asked:,} requests served, for {CALLS:,} calls")
    assert Counter(map(type, errors)) == {kind: CALLS}
    assert server.fired == {act.name: server.asked}
    assert server.asked <= attempts, "the client does not know of all its requests"
    assert attempts > CALLS, "nothing was tried again"
    assert server.asked <= MOST


@pytest.mark.parametrize(
    ("outage", "clients"), [(outage, clients) for outage in OUTAGES for clients in (1, 10)] if TORTURE else QUICK_SIZE
)
async def test_a_thousand_calls_in_a_total_outage(outage, clients):
    """At most 1.1 requests per call, plus ten: the clients of one account share one budget."""
    settings = {"retry": QUICK, "timeouts": SHORT if outage == "timeout" else Timeouts()}
    async with WireServer(OUTAGES[outage][0]) as server, contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(client_of(server, max_concurrency=128 // clients, **settings))
            for _ in range(clients)
        ]
        errors = await asyncio.gather(*(failure(made[number % clients], number) for number in range(CALLS)))
    check(server, errors, outage, f"{clients} client(s)")


async def test_one_call_after_the_other():
    """The same bound holds for calls one after another: a spent budget does not refill by itself."""
    async with WireServer(OUTAGES["reset"][0]) as server, client_of(server, retry=QUICK, timeouts=Timeouts()) as client:
        errors = [await failure(client) for _ in range(CALLS)]
    check(server, errors, "reset", "one after the other")


async def test_after_the_outage_calls_are_tried_again_as_before():
    """Good replies refill the budget; then a call has all its attempts."""
    act, _ = OUTAGES["503"]
    now = {"plays": act}
    async with (
        WireServer(lambda request: now["plays"]) as server,
        client_of(server, retry=QUICK, timeouts=Timeouts()) as client,
    ):
        await asyncio.gather(*(failure(client, number) for number in range(100)))
        assert (await failure(client)).attempts == 1
        now["plays"] = OK
        for _ in range(500):
            await client.fetch_page(deadline=300)
        now["plays"] = act
        assert (await failure(client)).attempts == QUICK.attempts
