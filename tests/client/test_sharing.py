"""One client, many users: equal calls share a request, the figures show it, and another thread or loop gets a clear error."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import threading

import pytest

from servetel_async import ConfigurationError, RequestRejectedError, ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault
from servetel_async.streaming.stats import ClientStats
from servetel_async.transport.process_lock import process_lock
from tests.bulk import fake_clock

MAY = ("2024-05-01", "2024-05-31")


@pytest.fixture(scope="module")
def data():
    return Dataset.month("2024-05", calls=300)


@pytest.fixture
async def api(data):
    async with Emulator(data, latency=0.05) as served:
        yield served


@pytest.fixture
async def client(api):
    async with ServetelClient(api.token, base_url=api.base_url, rate=None) as made:
        yield made


async def page(client, number):
    return await client.fetch_page(page=number)


CALLS = {
    "count": (lambda client: client.count(*MAY), 300),
    "get_call": (lambda client: client.get_call("no-such-id"), None),
    "fetch_page": (lambda client: page(client, 4), None),
    "collect": (lambda client: client.calls(*MAY).collect(limit=5), None),
}


@pytest.mark.parametrize("name", CALLS)
async def test_equal_calls_at_once_send_one_request(name, api, client):
    """Ten equal calls at the same time are one request; the statistics count the nine that shared it."""
    call, expected = CALLS[name]

    results = await asyncio.gather(*(call(client) for _ in range(10)))

    assert len(api.requests) == 1
    assert client.stats().shared == 9
    assert all(result == results[0] for result in results)
    assert expected is None or results == [expected] * 10


async def test_calls_that_differ_share_nothing(api, client):
    """Another query, page, size or kind of call sends its own request."""
    await asyncio.gather(
        client.count(*MAY),
        client.count(*MAY, call_type="missed"),
        client.fetch_page(),
        client.fetch_page(page=2),
        client.fetch_page(page_size=50),
        client.calls(*MAY).collect(limit=5),
        client.calls(*MAY).collect(limit=6),
        client.calls(*MAY, page_size=50).collect(limit=5),
    )

    assert (len(api.requests), client.stats().shared) == (8, 0)


async def test_calls_one_after_another_share_nothing(api, client):
    """Nothing is cached: a later call sends its own request."""
    for _ in range(3):
        await client.count(*MAY)

    assert (len(api.requests), client.stats().shared) == (3, 0)


async def test_shared_lists_are_separate(client, data):
    """Each caller of ``collect(limit=)`` may change its own list; each stream knows its own position."""
    streams = [client.calls(*MAY) for _ in range(3)]
    lists = await asyncio.gather(*(stream.collect(limit=120) for stream in streams))
    lists[0].clear()

    assert [call.id for call in lists[1]] == [call.id for call in lists[2]] == data.ids[:120]
    assert {stream.stats.records for stream in streams} == {120}
    assert streams[0].stats is not streams[1].stats
    assert all(stream.closed for stream in streams)
    rest = await client.calls(*MAY, start=streams[2].checkpoint).collect()
    assert [call.id for call in rest] == data.ids[120:]


async def test_the_smaller_of_limit_and_max_records_is_shared(api, client):
    """``max_records=5`` and ``collect(limit=5)`` share their requests."""
    short, long = await asyncio.gather(
        client.calls(*MAY, page_size=5).collect(limit=5),
        client.calls(*MAY, page_size=5, max_records=5).collect(limit=50),
    )

    assert [call.id for call in short] == [call.id for call in long]
    assert len(api.requests) == 1


async def test_a_failed_collect_fails_again(api, client):
    """Each stream of a shared collect has its own error, and raises it again when it is read further."""
    api.add_fault(Fault("status", status=400, times=20))  # also for each shorter range
    streams = [client.calls(*MAY) for _ in range(2)]
    errors = await asyncio.gather(*(stream.collect(limit=5) for stream in streams), return_exceptions=True)

    assert {type(error) for error in errors} == {RequestRejectedError}
    assert errors[0] is not errors[1]
    with pytest.raises(RequestRejectedError) as again:
        await anext(streams[1])
    assert again.value is errors[1]


async def test_a_cancelled_collect_leaves_a_closed_stream(client, data):
    """One of two sharing callers is cancelled: its stream is closed, and the other gets its calls."""
    streams = [client.calls(*MAY) for _ in range(2)]
    first, second = [asyncio.ensure_future(stream.collect(limit=5)) for stream in streams]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()

    assert [call.id for call in await second] == data.ids[:5]
    assert first.cancelled()
    assert streams[0].closed


async def test_two_tasks_still_cannot_read_one_stream(client):
    """While a shared collect is under way, its stream is being read."""
    stream = client.calls(*MAY)
    collecting = asyncio.ensure_future(stream.collect(limit=5))
    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="two tasks"):
        await anext(stream)
    assert len(await collecting) == 5


async def test_a_stream_closed_under_a_shared_collect_stays_closed(client):
    """``aclose`` of one caller's stream does not disturb the shared call."""
    stream = client.calls(*MAY)
    collecting = asyncio.ensure_future(stream.collect(limit=5))
    await asyncio.sleep(0)
    await stream.aclose()

    assert len(await collecting) == 5
    assert stream.closed


async def test_the_figures_of_a_client(api):
    """Requests, retries, running and waiting requests; a snapshot does not change."""
    api.add_fault(Fault("status", status=503, times=1))
    async with ServetelClient(api.token, base_url=api.base_url, rate=None, max_concurrency=1) as client:
        assert client.stats() == ClientStats(
            requests=0, retries=0, shared=0, in_flight=0, waiting=0, seconds_waited=0.0
        )
        calls = [asyncio.ensure_future(client.fetch_page(page=number)) for number in (1, 2, 3)]
        while not client.stats().in_flight:
            await asyncio.sleep(0)
        busy = client.stats()
        await asyncio.gather(*calls)
        after = client.stats()

    assert (busy.in_flight, busy.waiting) == (1, 2)
    assert (after.requests, after.retries, after.in_flight, after.waiting) == (4, 1, 0, 0)
    assert after.seconds_waited > 0.05
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.requests = 0


# Threads and loops ---------------------------------------------------------------------------------------------------------


def in_a_thread(work):
    """Run an async function in a loop of another thread; returns its result or its error."""
    found = []

    def run():
        try:
            found.append(asyncio.run(work()))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


async def test_a_client_in_a_second_thread_is_told_what_to_do(api, client):
    """While one loop uses the client, a call from another thread's loop fails and says why; the first loop continues."""
    mine = asyncio.ensure_future(client.count(*MAY))
    await asyncio.sleep(0.01)

    thread, found = in_a_thread(lambda: client.count(*MAY))
    await asyncio.to_thread(thread.join)

    assert isinstance(found[0], ConfigurationError)
    assert "another event loop" in found[0].what
    assert "one client per loop" in found[0].fix
    assert await mine == 300
    assert await client.count(*MAY) == 300


async def test_a_stream_in_a_second_thread_is_told_what_to_do(client, data):
    """A stream belongs to the loop in which it began. Another thread that reads it gets an error and does not hang."""
    stream = client.calls(*MAY, page_size=50)
    got = [await anext(stream)]

    async def read_on():
        async for call in stream:
            got.append(call)

    thread, found = in_a_thread(read_on)
    await asyncio.to_thread(thread.join)

    assert isinstance(found[0], ConfigurationError)
    assert "another event loop" in found[0].what
    got += [call async for call in stream]
    assert [call.id for call in got] == data.ids


@pytest.mark.parametrize("read", [1, 50, 60, 250])
async def test_a_stream_that_outlives_its_loop_says_where_to_go_on(api, data, read):
    """Its pages died with the loop; the error names a checkpoint, and a new stream delivers the rest."""
    client = ServetelClient(api.token, base_url=api.base_url, rate=None)
    stream, got = client.calls(*MAY, page_size=50), []

    async def take():
        while len(got) < read:
            got.append((await anext(stream)).id)

    async def read_on():
        async for call in stream:  # the calls of the current page still come: they need no loop
            got.append(call.id)

    async def resume():
        got.extend([call.id async for call in client.calls(*MAY, page_size=50, start=failure.checkpoint)])
        await client.aclose()

    async def in_the_next_loop(work):
        thread, found = in_a_thread(work)
        await asyncio.to_thread(thread.join)
        return found[0]

    assert await in_the_next_loop(take) is None
    failure = await in_the_next_loop(read_on)
    assert isinstance(failure, ConfigurationError)
    assert "was begun in another event loop" in failure.what
    assert "start=stream.checkpoint" in failure.fix

    assert await in_the_next_loop(resume) is None
    assert got == data.ids


async def test_a_thread_that_comes_a_moment_later_is_told_what_to_do(api, client):
    """The other thread needed connections while this one was making them: this thread keeps the client."""
    await client.aclose()
    client._transport.closed = False
    with process_lock():
        thread, found = in_a_thread(lambda: client.count(*MAY))
        while not is_binding(thread):
            await asyncio.sleep(0)
        client._transport.bind()
    await asyncio.to_thread(thread.join)

    assert isinstance(found[0], ConfigurationError)
    assert "another event loop" in found[0].what
    assert await client.count(*MAY) == 300


def is_binding(thread):
    """Whether a thread found no connections yet and waits for the lock."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != "bind":
        frame = frame.f_back
    return frame is not None and "bound" in frame.f_locals


async def test_of_two_threads_that_begin_at_once_one_is_served(api, data):
    """The first thread gets the client; the other gets an error and disturbs nothing."""
    client = ServetelClient(api.token, base_url=api.base_url, rate=None)
    barrier = threading.Barrier(2)
    over = []

    async def work():
        barrier.wait()
        try:
            return await client.count(*MAY)
        finally:
            over.append(1)
            while len(over) < 2:  # its loop stays alive until the other thread has its answer
                await asyncio.sleep(0.001)
            await client.aclose()

    threads, founds = zip(*(in_a_thread(work) for _ in range(2)), strict=True)
    for thread in threads:
        await asyncio.to_thread(thread.join)

    results = [found[0] for found in founds]
    assert sorted(type(result).__name__ for result in results) == ["ConfigurationError", "int"]
    assert 300 in results


# Exports beside short calls ------------------------------------------------------------------------------------------------


async def read_all(client, _):
    async for _ in client.calls(*MAY):
        pass


async def pull_all(client, target):
    await client.pull(target, *MAY)


@pytest.mark.parametrize(
    ("export", "rate", "exports"),
    [(read_all, 2, 1), (read_all, 2, 3), (read_all, 20, 1), (read_all, 20, 3), (pull_all, 2, 3)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_short_calls_beside_exports_are_answered(export, rate, exports, month, tmp_path):
    """With n exports each count is answered within n + 1 requests of the account, its own included."""

    async def main():
        async with (
            Emulator(month, latency=0.05) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=rate, page_size=20) as client,
        ):
            reading = [asyncio.ensure_future(export(client, tmp_path / f"{n}.ndjson")) for n in range(exports)]
            await asyncio.sleep(3.0)
            turns = []
            for day in range(6):
                before = len(api.requests)
                await client.count(f"2024-05-{10 + day}", deadline=3)
                turns.append(len(api.requests) - before)
                await asyncio.sleep(0.3)
            assert not any(task.done() for task in reading)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
            return turns

    assert max(fake_clock.run(main())) <= exports + 1


def test_the_first_page_under_a_deadline_goes_before_the_pages_of_exports(month, tmp_path):
    """A short list in a request handler is as urgent as a count: at most one page of three exports comes first."""

    async def main():
        async with (
            Emulator(month, latency=0.05) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=2, page_size=20) as client,
        ):
            reading = [asyncio.ensure_future(read_all(client, tmp_path)) for _ in range(3)]
            await asyncio.sleep(3.0)
            turns = []
            for day in range(4):
                before = len(api.requests)
                await client.calls(f"2024-05-{10 + day}", f"2024-05-{10 + day}", deadline=3).collect(limit=5)
                turns.append(len(api.requests) - before)
                await asyncio.sleep(0.3)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
            return turns

    assert max(fake_clock.run(main())) <= 2


@pytest.fixture(scope="module")
def month():
    return Dataset.month("2024-05", calls=3_000)
