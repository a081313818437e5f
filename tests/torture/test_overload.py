"""P5: a thousand callers and eight connections: no call waits in vain, or blames a server that it never reached.

Seconds are those of a fake clock (see ``fake_clock``), so they are exact on a busy computer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

import aiohttp
import pytest

from servetel_async import (
    DeadlineExceededError,
    OverloadedError,
    RequestTimeoutError,
    Retry,
    ServerError,
    ServetelClient,
    ServetelError,
    Timeouts,
)
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.bulk import fake_clock
from tests.torture.report import TORTURE, measured

CALLERS, SLOTS = 1_000, 8
LATENCY = 0.05
#: Seconds in which the eight serve a third of the thousand.
ACQUIRE = 2.0
ONCE = Retry(attempts=1)
DAY = ("2024-05-06", "2024-05-06")

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


class End(NamedTuple):
    """The result of one call; ``error`` is None if it succeeded."""

    error: ServetelError | None
    seconds: float


class Counting(aiohttp.TCPConnector):
    """A connector without a limit that records the most connections in use at once."""

    def __init__(self):
        super().__init__(limit=0)
        self.peak = 0

    async def connect(self, *args, **options):
        connection = await super().connect(*args, **options)
        self.peak = max(self.peak, len(self._acquired))
        return connection


async def first_call(client, number, **options):
    async with client.calls(*DAY, max_records=1, **options) as stream:
        return [call async for call in stream]


def from_second(number):
    """A range of its own for each caller, because equal calls share one request."""
    return (f"{DAY[0]} 00:{number // 60:02}:{number % 60:02}", DAY[1])


WAYS = {
    "pages": lambda client, number, **options: client.fetch_page(page_size=20 + number, **options),
    "counts": lambda client, number, **options: client.count(*from_second(number), **options),
    "streams": first_call,
}


@pytest.fixture(scope="module")
def data():
    return Dataset.range(f"{DAY[0]} 09:00:00", f"{DAY[0]} 18:00:00", calls=40)


def crowd(data, way, *, faults=(), timeouts, retry=ONCE, **options):
    """A thousand calls at once: their results, the requests, and the peaks at the connector and at the server."""

    async def main():
        now = asyncio.get_running_loop().time
        async with (
            Emulator(data, latency=LATENCY, faults=faults) as api,
            aiohttp.ClientSession(connector=Counting()) as session,
            ServetelClient(
                api.token,
                base_url=api.base_url,
                rate=None,
                max_concurrency=SLOTS,
                timeouts=timeouts,
                retry=retry,
                session=session,
            ) as client,
        ):

            async def caller(number):
                begun, error = now(), None
                try:
                    await WAYS[way](client, number, **options)
                except ServetelError as raised:
                    error = raised
                return End(error, now() - begun)

            ends = await asyncio.gather(*(caller(number) for number in range(CALLERS)))
            return ends, len(api.requests), session.connector.peak, api.peak_in_flight

    return fake_clock.run(main())


def kinds(ends):
    return Counter(None if end.error is None else type(end.error) for end in ends)


@pytest.mark.parametrize("way", WAYS if TORTURE else ["pages"])
def test_whoever_may_wait_is_served(data, way):
    """Without a time limit all thousand calls succeed, over eight connections, with one request each."""
    ends, requests, connections, in_flight = crowd(data, way, timeouts=Timeouts())
    assert kinds(ends) == {None: CALLERS}
    assert requests == CALLERS
    assert (connections, in_flight) == (SLOTS, SLOTS)
    measured("P5", f"{way}: {CALLERS:,} callers, all served over {connections} connections at once")


@pytest.mark.parametrize("way", WAYS)
def test_an_overload_is_said_in_time(data, way):
    """Each call ends within the time for a slot plus one reply; a call without a slot has sent nothing."""
    ends, requests, connections, in_flight = crowd(data, way, timeouts=Timeouts(acquire=ACQUIRE))
    found = kinds(ends)
    assert set(found) == {None, OverloadedError}
    assert found[None] == requests >= ACQUIRE / LATENCY * SLOTS - SLOTS
    assert (connections, in_flight) == (SLOTS, SLOTS)
    refused = [end for end in ends if end.error is not None]
    assert {end.error.attempts for end in refused} == {0}
    longest = max(end.seconds for end in refused)
    assert longest <= ACQUIRE * 1.1
    assert max(end.seconds for end in ends) <= ACQUIRE * 1.1 + LATENCY
    measured(
        "P5",
        f"{way}: {found[None]} served, {len(refused)} overloaded after {longest:.2f} s at most of {ACQUIRE}, "
        f"peak {connections} connections",
    )


@pytest.mark.parametrize("way", WAYS)
def test_only_who_reached_a_silent_server_has_timed_out(data, way):
    """With a silent server there are as many timeouts as requests; all other calls end as overloaded."""
    ends, requests, connections, _ = crowd(
        data, way, faults=[Fault("stall")], timeouts=Timeouts(read=0.5, total=0.5, acquire=ACQUIRE)
    )
    found = kinds(ends)
    assert set(found) == {RequestTimeoutError, OverloadedError}
    assert found[RequestTimeoutError] == requests > SLOTS
    assert connections == SLOTS
    assert max(end.seconds for end in ends) <= ACQUIRE * 1.1 + 0.5
    measured("P5", f"{way}, a silent server: {requests} requests, {found[RequestTimeoutError]} time-outs")


@pytest.mark.parametrize("way", WAYS)
def test_a_deadline_tells_the_two_apart_as_well(data, way):
    """A call whose deadline passes is a timeout if it had sent something, and an overload if it had not."""
    ends, requests, connections, _ = crowd(data, way, faults=[Fault("stall")], timeouts=Timeouts(), deadline=ACQUIRE)
    assert kinds(ends) == {DeadlineExceededError: SLOTS, OverloadedError: CALLERS - SLOTS}
    assert requests == connections == SLOTS
    assert max(end.seconds for end in ends) <= ACQUIRE * 1.1


def test_retries_wait_for_their_slot_like_everybody(data):
    """With a failing server there are never more than eight requests, and each call ends as failed or overloaded."""
    ends, requests, connections, in_flight = crowd(
        data,
        "pages",
        faults=[Fault("status", status=503)],
        timeouts=Timeouts(acquire=ACQUIRE / 2),
        retry=Retry(attempts=3, base=0.1, cap=0.2),
    )
    assert set(kinds(ends)) == {ServerError, OverloadedError}
    assert sum(end.error.attempts for end in ends) == requests
    assert (connections, in_flight) == (SLOTS, SLOTS)
