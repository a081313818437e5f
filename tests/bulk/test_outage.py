"""Outages: one probe at a time, with growing pauses, while patience lasts; then the pull continues by itself."""

from __future__ import annotations

import asyncio
import json

import anyio
import pytest

from servetel_async import (
    CallQuery,
    ConnectionFailedError,
    RateLimitError,
    RequestTimeoutError,
    Retry,
    ServerError,
    ServetelClient,
    Timeouts,
)
from servetel_async.bulk.fetching.circuit_breaker import PROBE_CAP, THRESHOLD, CircuitBreaker
from servetel_async.bulk.pull import pull
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.bulk import fake_clock

MAY = CallQuery.month("2024-05")
RETRY = Retry()


def now():
    return asyncio.get_running_loop().time()


def opened(patience=1800.0, retry=RETRY):
    """An outage that has just begun."""
    outage = CircuitBreaker(retry, patience)
    outage.succeeded()
    for _ in range(THRESHOLD):
        outage.failed()
    return outage


# The circuit breaker


async def test_before_the_first_good_reply_there_is_no_outage():
    """However many requests fail, the address may be wrong."""
    outage = CircuitBreaker(RETRY, 0.0)
    for _ in range(100):
        outage.failed()
    assert not outage.is_open()
    assert not outage.over_patience


async def test_it_opens_after_failures_in_a_row():
    """One good reply in between resets the count."""
    outage = CircuitBreaker(RETRY, 1800)
    assert outage.succeeded() is False
    for _ in range(THRESHOLD - 1):
        outage.failed()
    assert not outage.is_open()
    assert outage.succeeded() is False
    for _ in range(THRESHOLD - 1):
        outage.failed()
    assert not outage.is_open()
    outage.failed()
    assert outage.is_open()


async def test_a_good_reply_ends_it():
    """It says so once."""
    outage = opened()
    assert outage.succeeded() is True
    assert not outage.is_open()
    assert outage.succeeded() is False


async def test_without_an_outage_nobody_waits():
    """Any number of requests may run."""
    outage = CircuitBreaker(RETRY, 1800)
    outage.succeeded()
    inside = 0

    async def send():
        nonlocal inside
        async with outage.turn():
            inside += 1
            while inside < 5:
                await asyncio.sleep(0)

    await asyncio.gather(*(send() for _ in range(5)))
    assert outage.waited == 0


def test_probes_are_one_at_a_time_and_ever_later():
    """One of many waiting requests probes; pauses double up to the cap, less a jitter."""

    async def main():
        outage = opened()
        inside = peak = 0
        sent = []

        async def send():
            nonlocal inside, peak
            async with outage.turn():
                inside += 1
                peak = max(peak, inside)
                sent.append(now())
                await asyncio.sleep(1)
                outage.failed()
                inside -= 1

        begun = now()
        await asyncio.gather(*(send() for _ in range(20)))
        return outage, peak, [later - former - 1 for former, later in zip([begun - 1, *sent], sent, strict=False)]

    outage, peak, pauses = fake_clock.run(main())
    assert peak == 1
    bounds = [min(PROBE_CAP, RETRY.base * 2**probe) for probe in range(20)]
    assert all(bound / 2 - 1e-6 <= pause <= bound + 1e-6 for pause, bound in zip(pauses, bounds, strict=True))
    assert bounds[-1] == PROBE_CAP
    assert outage.waited == pytest.approx(sum(pauses))


def test_the_first_good_reply_lets_all_others_go():
    """Requests that waited for a probe go at once, without a pause."""

    async def main():
        outage = opened()
        sent = []

        async def send():
            async with outage.turn():
                sent.append(now())
                outage.succeeded()

        await asyncio.gather(*(send() for _ in range(10)))
        return sent

    sent = fake_clock.run(main())
    assert len(sent) == 10
    assert len(set(sent)) == 1


def test_the_next_outage_begins_with_short_pauses():
    """The length of the last outage does not count."""

    async def main():
        outage = opened()
        for _ in range(10):
            async with outage.turn():
                outage.failed()
        outage.succeeded()
        for _ in range(THRESHOLD):
            outage.failed()
        begun = now()
        async with outage.turn():
            return now() - begun

    assert RETRY.base / 2 <= fake_clock.run(main()) <= RETRY.base


def test_a_probe_is_not_put_off_beyond_patience():
    """The last probe is at the end of patience, not after it; then no request waits."""

    async def main():
        outage = opened(patience=100)
        begun = now()
        moments = []
        while not outage.over_patience:
            async with outage.turn():
                moments.append(now() - begun)
                outage.failed()
        async with outage.turn():
            return moments, now() - begun

    moments, end = fake_clock.run(main())
    assert moments[-1] == end == pytest.approx(100)


def test_patience_is_counted_from_the_last_good_reply():
    """The length of the pull does not matter."""

    async def main():
        outage = CircuitBreaker(RETRY, 100)
        outage.succeeded()
        await asyncio.sleep(1000)
        outage.succeeded()
        for _ in range(THRESHOLD):
            outage.failed()
        fresh = outage.over_patience
        await asyncio.sleep(99.9)
        almost = outage.over_patience
        await asyncio.sleep(0.1)
        return fresh, almost, outage.over_patience

    assert fake_clock.run(main()) == (False, False, True)


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_probe_hands_its_turn_on(times):
    """Cancelled in its pause, its probe or the queue, it lets the next one probe, and no task is left."""

    async def main():
        outage = opened(retry=Retry(base=10))
        sent = []
        gate = asyncio.Event()

        async def send(name):
            async with outage.turn():
                sent.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(send(name)) for name in range(4)]
        await asyncio.sleep(1)  # 0 is in its pause, the others are queued
        for name in (0, 2):
            for _ in range(times):
                tasks[name].cancel()
        await asyncio.sleep(60)  # 1 is probing
        assert sent == [1]
        for _ in range(times):
            tasks[1].cancel()
        gate.set()
        await asyncio.wait(tasks)
        return sent, [task.cancelled() for task in tasks], outage._probing.locked()

    assert fake_clock.run(main()) == ([1, 3], [True, True, True, False], False)


def test_a_cancel_scope_around_a_probe():
    """An anyio cancel scope lets the others probe too."""

    async def main():
        outage = opened()
        with anyio.move_on_after(0.1) as scope:
            async with outage.turn():
                raise AssertionError("too early")
        async with outage.turn():
            return scope.cancelled_caught

    assert fake_clock.run(main())


# Pulls through an outage, on a fake clock

KINDS = {
    "503": (Fault("status", status=503), ServerError),
    "reset": (Fault("reset"), ConnectionFailedError),
    "time-out": (Fault("stall"), RequestTimeoutError),
    "429": (Fault("retry_after", retry_after=2), RateLimitError),
    "429 bare": (Fault("retry_after", retry_after=None), RateLimitError),
}


class Weather:
    """An emulator that fails for some time once a number of pages have come."""

    def __init__(self, api, switch, seconds):
        self.api = api
        self.begun = self.ended = None
        self._switch = switch
        self._seconds = seconds

    def on_progress(self, progress):
        if self.begun is None and progress.pages >= 5:
            self.begun = now()
            self._switch.turn(on=True)
            asyncio.get_running_loop().call_later(self._seconds, self.clear)

    def clear(self):
        self.ended = now()
        self._switch.turn(on=False)

    @property
    def sent(self):
        """The number of requests during the outage."""
        return sum(self.begun < request.at <= (self.ended or now()) for request in self.api.requests)


async def pull_through(data, kind, seconds, dest, concurrency, **options):
    """Pull May through an outage of so many seconds; returns the weather, and the receipt or error."""
    fault, _ = KINDS[kind]
    switch = fake_clock.Switch()
    changed = {name: getattr(fault, name) for name in ("status", "retry_after")}
    async with (
        Emulator(data, faults=[Fault(fault.kind, probability=switch, **changed)]) as api,
        ServetelClient(
            api.token, base_url=api.base_url, rate=None, page_size=20, max_concurrency=concurrency, timeouts=Timeouts()
        ) as client,
    ):
        weather = Weather(api, switch, seconds)
        try:
            result = await pull(client, dest, MAY, on_progress=weather.on_progress, **options)
        except Exception as error:
            result = error
        weather.at_end = now()
        weather.count = weather.sent
        weather.peak = api.peak_in_flight
        if weather.ended is None:
            weather.clear()
            weather.later = await pull(client, dest, MAY)
        assert not client._tasks
        return weather, result


@pytest.fixture(scope="module")
def data():
    return Dataset.month("2024-05", calls=300)


@pytest.mark.parametrize("concurrency", [4, 32])
@pytest.mark.parametrize("kind", ["503", "reset", "time-out"])
def test_ten_minutes_away(data, tmp_path, kind, concurrency):
    """The outage costs at most 130 requests, and the pull finishes by itself, complete."""
    weather, receipt = fake_clock.run(pull_through(data, kind, 600, tmp_path / "may.ndjson", concurrency))
    assert weather.ended - weather.begun == pytest.approx(600)
    assert weather.count <= 130
    assert weather.at_end - weather.ended <= 300
    assert receipt.complete
    assert [json.loads(line)["id"] for line in (tmp_path / "may.ndjson").read_bytes().splitlines()] == data.ids


@pytest.mark.parametrize("concurrency", [4, 32])
@pytest.mark.parametrize("kind", ["429", "429 bare"])
def test_ten_minutes_of_429(data, tmp_path, kind, concurrency):
    """The pull waits with few requests, and is complete."""
    weather, receipt = fake_clock.run(pull_through(data, kind, 600, tmp_path / "may.ndjson", concurrency))
    assert weather.count <= 130
    assert receipt.complete
    assert receipt.records == 300


@pytest.mark.parametrize(("kind", "concurrency"), [("503", 4), ("reset", 32), ("time-out", 32)])
def test_longer_away_than_patience(data, tmp_path, kind, concurrency):
    """After 30 minutes the error is raised and committed calls are kept; the same call finishes later."""
    weather, error = fake_clock.run(pull_through(data, kind, 2400, tmp_path / "may.ndjson", concurrency))
    assert isinstance(error, KINDS[kind][1])
    assert 1790 <= weather.at_end - weather.begun <= 1900
    assert weather.later.complete
    assert weather.later.records == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["may.ndjson", "may.ndjson.receipt.json"]


def test_what_was_committed_is_kept_in_an_outage(data, tmp_path):
    """The part and its journal stay, and the later run does not request those calls again."""
    seen = []

    async def main():
        switch = fake_clock.Switch()
        async with (
            Emulator(data, faults=[Fault("status", probability=switch)]) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=5, max_concurrency=2) as client,
        ):

            def on_progress(progress):
                if progress.windows == 2:
                    switch.turn(on=True)

            with pytest.raises(ServerError):
                await pull(client, tmp_path / "may.ndjson", MAY, on_progress=on_progress, patience=120)
            seen.extend(sorted(path.name for path in tmp_path.iterdir()))
            before = len(api.requests)
            switch.turn(on=False)
            receipt = await pull(client, tmp_path / "may.ndjson", MAY)
            return receipt, len(api.requests) - before

    receipt, requests = fake_clock.run(main())
    assert [name for name in seen if "lock" not in name] == ["may.ndjson.part", "may.ndjson.part.journal"]
    assert receipt.complete
    assert receipt.records == 300
    assert requests < receipt.requests


def test_an_address_that_never_answered_is_not_waited_for(data, tmp_path):
    """Before the first good reply only the client's own retries are made."""

    async def main():
        async with (
            Emulator(data, faults=[Fault("status", status=503)]) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, retry=Retry(attempts=3)) as client,
        ):
            begun = now()
            with pytest.raises(ServerError) as caught:
                await pull(client, tmp_path / "may.ndjson", MAY)
            return caught.value.attempts, len(api.requests), now() - begun

    attempts, requests, seconds = fake_clock.run(main())
    assert attempts == requests == 3
    assert seconds < 100
    assert list(tmp_path.iterdir()) == []


def test_a_retry_after_that_is_too_long_is_raised_at_once(data, tmp_path):
    """A server that asks for more than ``Retry(longest_wait=)`` is not asked again."""

    async def main():
        async with (
            Emulator(data, faults=[Fault("retry_after", retry_after=3600, nth=4, times=1)]) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=50, max_concurrency=1) as client,
        ):
            begun = now()
            with pytest.raises(RateLimitError) as caught:
                await pull(client, tmp_path / "may.ndjson", MAY)
            return caught.value, len(api.requests), now() - begun

    error, requests, seconds = fake_clock.run(main())
    assert (error.stopped_by, error.retry_after) == ("retry_after", 3600)
    assert requests <= 5
    assert seconds < 100


def test_the_receipt_tells_how_long_was_waited(data, tmp_path):
    """Pauses between probes count as waiting too."""
    weather, receipt = fake_clock.run(pull_through(data, "503", 600, tmp_path / "may.ndjson", 4))
    assert receipt.waited >= 500
    assert receipt.seconds >= weather.ended - weather.begun
    assert receipt.retries >= 20
