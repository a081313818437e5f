"""What people do to a stream, and how it must behave.

Each test is one hazard. The fixtures add the same ending to all of them (see ``conftest.py``): no page task, no connection in use, no request
on the server, no other task, nothing in the loop's log. ``server.hold(pages)`` keeps pages unanswered, so only a cancellation can end a
request for them: a test that ends with held pages proves that it was cancelled.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import random
import traceback
import tracemalloc

import aiohttp
import anyio
import pytest

from servetel_async import CallStream, OutOfWindowError, RequestRejectedError, ServetelError, StreamClosedError
from tests.stream.helpers import (
    CLOCKS,
    SIZE,
    WINDOW,
    abandoned,
    clean_loop,
    client_of,
    connections_in_use,
    give_up_when,
    page_tasks,
    rest,
    settled,
    take,
)
from tests.stream.page_server import MAY, PageServer

LATER = range(3, 1000)
"""The pages a test holds: page 1 comes alone, page 2 is the one the consumer is reading when it gives up."""
LARGE = 2_500
"""Bytes of ballast in a call that make a page of a hundred calls a large one, which is decoded piece by piece."""
READ = SIZE + 2
"""Calls that are read before giving up: page 1 and a part of page 2."""

forms = pytest.mark.parametrize("form", ["plain", "managed"])


async def read(client, server, form, number=READ, then=None):
    """Read *number* calls in one of the two forms, wait until the window is on the wire, then do *then* (or break)."""
    got = []

    async def consume(stream):
        async for call in stream:
            got.append(call.id)
            if len(got) == number:
                await server.until(lambda: server.in_flight == WINDOW // 2)
                if then is not None:
                    await then()
                break

    if form == "plain":
        await consume(client.calls(*MAY))
    else:
        async with client.calls(*MAY) as stream:
            await consume(stream)
        assert not page_tasks(client)
        assert not connections_in_use(client)
    return got


class SlowGoodbye:
    """A user's trace hook: from page 2 on it hangs, and its cleanup after a cancellation is slow."""

    def __init__(self):
        self.waiting = 0
        self.cleaning = asyncio.Event()
        self.may_end = asyncio.Event()
        self.trace = aiohttp.TraceConfig()
        self.trace.on_request_start.append(self.on_request_start)

    async def until_waiting(self):
        while not self.waiting:
            await asyncio.sleep(0)

    async def on_request_start(self, _session, _context, request):
        if request.url.query["page"] == "1":
            return
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cleaning.set()
            await self.may_end.wait()
            raise
        finally:
            self.waiting -= 1


# Giving up ---------------------------------------------------------------------------------------------------------------


async def test_break_in_the_plain_form_ends_every_request(serve, connect):
    """A bare ``async for ... break`` leaves no task and no connection: dropping the stream cancels its requests."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    got = []
    async for call in client.calls(*MAY):
        got.append(call.id)
        if len(got) == READ:
            await server.until(lambda: server.in_flight == WINDOW // 2)
            break
    await settled(client)
    await server.until(lambda: server.in_flight == 0)
    assert got == server.ids[:READ]
    assert server.total <= 2 + WINDOW


async def test_break_in_the_managed_form_is_over_on_the_next_line(serve, connect):
    """After ``async with`` there is no page task and no connection in use, without any further await."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    async with client.calls(*MAY) as stream:
        async for call in stream:
            if call.id == server.ids[READ]:
                await server.until(lambda: server.in_flight == WINDOW // 2)
                break
        assert page_tasks(client)
    assert not page_tasks(client)
    assert not connections_in_use(client)


async def test_break_with_the_stream_kept_in_a_variable_asks_for_nothing_more(serve, connect):
    """A stream that is kept but not read finishes the window it began, and starts nothing beyond it."""
    server = await serve(200)
    client = connect(server)
    stream = client.calls(*MAY)
    async for call in stream:
        if call.id == server.ids[READ]:
            break
    await settled(client)
    assert sorted(server.pages) == list(range(1, 2 + WINDOW + 1))
    await stream.aclose()


async def test_break_with_the_stream_kept_in_a_variable_can_be_read_on(serve, connect):
    """``break`` takes nothing from a kept stream: the next loop continues behind the last call."""
    server = await serve(200)
    stream = connect(server).calls(*MAY)
    got = []
    async for call in stream:
        got.append(call.id)
        if len(got) == READ:
            break
    assert got + await rest(stream) == server.ids
    assert set(server.asked.values()) == {1}


@forms
@pytest.mark.parametrize("clock", ["asyncio.timeout", "anyio.move_on_after", "anyio.fail_after"])
async def test_a_timeout_around_the_whole_loop(serve, connect, clock, form):
    """A timeout around the loop stops it as usual, and leaves no request and no pending cancellation."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    with pytest.raises(TimeoutError) as stopped:
        await give_up_when(
            clock,
            lambda: server.until(lambda: server.in_flight == WINDOW // 2),
            lambda: read(client, server, form, number=200),
        )
    del stopped
    if form == "managed":
        assert not page_tasks(client)
    await abandoned(client, server)
    assert asyncio.current_task().cancelling() == 0


@forms
async def test_the_consumer_raises(serve, connect, form):
    """The consumer's own error is raised unchanged, never in a group, and ends every request."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)

    async def fail():
        raise ZeroDivisionError

    try:
        await read(client, server, form, then=fail)
    except ZeroDivisionError as error:
        assert type(error) is ZeroDivisionError
        if form == "managed":
            assert not page_tasks(client)
    else:
        pytest.fail("the error was swallowed")
    await abandoned(client, server)


@forms
async def test_the_consumer_is_cancelled(serve, connect, form):
    """A cancelled task ends cancelled, and so do the requests it was waiting for."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    task = asyncio.create_task(read(client, server, form, number=200))
    await server.until(lambda: server.in_flight == WINDOW // 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if form == "managed":
        assert not page_tasks(client)
    del task
    await abandoned(client, server)


async def test_cancelled_twice_during_a_slow_cleanup(serve, connect):
    """More cancellations do not cut the cleanup short: the task ends cancelled, after its page tasks."""
    server = await serve(200)
    goodbye = SlowGoodbye()
    client = connect(server, trace_configs=(goodbye.trace,))

    async def consume():
        async with client.calls(*MAY) as stream:
            await rest(stream)

    task = asyncio.create_task(consume())
    await goodbye.until_waiting()
    for _ in range(3):
        task.cancel()
        await goodbye.cleaning.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done() or not goodbye.waiting, "the consumer ended before its page tasks"
    goodbye.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not page_tasks(client)
    assert not goodbye.waiting


async def test_a_cancelled_anyio_scope_waits_for_a_slow_cleanup(serve, connect):
    """Under anyio's level cancellation the ``async with`` still ends only after every page task."""
    server = await serve(200)
    goodbye = SlowGoodbye()
    client = connect(server, trace_configs=(goodbye.trace,))
    with anyio.CancelScope() as scope:
        async with client.calls(*MAY) as stream:
            await anext(stream)
            await goodbye.until_waiting()
            scope.cancel()
            asyncio.get_running_loop().call_later(0.01, goodbye.may_end.set)
    assert goodbye.may_end.is_set()
    assert not page_tasks(client)
    assert not goodbye.waiting


# Dropping ----------------------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_never_read_asks_for_nothing(serve, connect):
    """``calls()`` is free: it starts nothing, and dropping the stream unread gives no warning."""
    server = await serve(200)
    client = connect(server)
    stream = client.calls(*MAY)
    assert not page_tasks(client)
    del stream
    gc.collect()
    assert server.total == 0


async def test_dropped_without_aclose(serve, connect):
    """Dropping the last reference to a stream ends its requests."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    stream = client.calls(*MAY)
    await take(stream, READ)
    await server.until(lambda: server.in_flight == WINDOW // 2)
    del stream
    await settled(client)
    await server.until(lambda: server.in_flight == 0)


async def test_collected_in_a_cycle_by_another_thread(serve, connect):
    """The garbage collector may run in any thread: a stream that it collects still cancels its requests."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    asyncio.get_running_loop().set_debug(True)  # the loop then reports calls from a wrong thread
    gc.collect()
    gc.disable()
    try:
        cycle = {"stream": client.calls(*MAY)}
        cycle["cycle"] = cycle
        await take(cycle["stream"], READ)
        await server.until(lambda: server.in_flight == WINDOW // 2)
        del cycle
        assert page_tasks(client)
        await asyncio.to_thread(gc.collect)
        await settled(client)
    finally:
        gc.enable()
    await server.until(lambda: server.in_flight == 0)


def test_dropped_after_its_loop_is_gone(recwarn):
    """A stream that outlives its loop is dropped without a message."""

    async def main():
        async with PageServer(200) as server, client_of(server) as client:
            stream = client.calls(*MAY)
            await take(stream, READ)
            return stream

    stream = asyncio.run(main())
    del stream
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("form", ["plain", "managed", "aclosing"])
async def test_a_users_generator_is_dropped(serve, connect, form):
    """A web framework drops the user's generator when the browser disconnects; the caller does not notice."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)

    async def body():
        if form == "plain":
            async for call in client.calls(*MAY):
                yield call.id
        elif form == "managed":
            async with client.calls(*MAY) as stream:
                async for call in stream:
                    yield call.id
        else:
            async with contextlib.aclosing(client.calls(*MAY)) as stream:
                async for call in stream:
                    yield call.id

    generator = body()
    assert [await anext(generator) for _ in range(READ)] == server.ids[:READ]
    await server.until(lambda: server.in_flight == WINDOW // 2)
    del generator
    await server.until(lambda: server.in_flight == 0)
    await settled(client)
    assert asyncio.current_task().cancelling() == 0


@forms
async def test_a_users_generator_is_closed_by_a_cancelled_response(serve, connect, form):
    """A response task cancelled inside an anyio task group ends the requests of its generator."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    sent = []

    async def body():
        if form == "plain":
            async for call in client.calls(*MAY):
                yield call.id
        else:
            async with client.calls(*MAY) as stream:
                async for call in stream:
                    yield call.id

    async def respond():
        async for chunk in body():
            sent.append(chunk)

    async with anyio.create_task_group() as group:
        group.start_soon(respond)
        await server.until(lambda: server.in_flight == WINDOW // 2)
        group.cancel_scope.cancel()
    await abandoned(client, server)
    assert sent == server.ids[: 2 * SIZE]


# Failing -----------------------------------------------------------------------------------------------------------------


async def test_a_failed_page_raises_when_it_is_reached(serve, connect):
    """Page 7 fails: pages 1 to 6 are delivered whole, then the bare error is raised, and no other page task is left."""
    server = await serve(200, failing={7: 400})
    client = connect(server)
    server.hold(range(8, 1000))
    stream = client.calls(*MAY)
    got = []
    with pytest.raises(RequestRejectedError) as failure:
        async for call in stream:
            got.append(call.id)
    assert got == server.ids[: 6 * SIZE]
    assert type(failure.value) is RequestRejectedError
    assert failure.value.page == 7
    await settled(client)
    await server.until(lambda: server.in_flight == 0)


async def test_after_a_failed_page_the_managed_form_is_over_on_the_next_line(serve, connect):
    """The error leaves the ``async with`` bare, and no page task is left."""
    server = await serve(200, failing={7: 400})
    client = connect(server)
    server.hold(range(8, 1000))
    with pytest.raises(RequestRejectedError):
        async with client.calls(*MAY) as stream:
            await rest(stream)
    assert not page_tasks(client)
    assert not connections_in_use(client)


async def test_a_failed_page_waits_for_the_pages_before_it(serve, connect):
    """A failure that arrives early is raised only after the pages before it."""
    server = await serve(200, failing={4: 400})
    client = connect(server)
    server.hold({2})
    stream = client.calls(*MAY)
    got = await take(stream, SIZE)
    step = asyncio.ensure_future(anext(stream))
    await server.until(lambda: 4 in server.pages)
    await asyncio.wait(page_tasks(client), timeout=1, return_when=asyncio.FIRST_COMPLETED)
    assert not step.done()
    server.release()
    got.append((await step).id)
    with pytest.raises(RequestRejectedError):
        async for call in stream:
            got.append(call.id)
    assert got == server.ids[: 3 * SIZE]


@pytest.mark.parametrize("page", [1, 2, 7])
async def test_a_failure_is_raised_again(serve, connect, page):
    """Each ``anext`` after a failure raises it again: it never looks like a normal end."""
    server = await serve(200, failing={page: 400})
    stream = connect(server).calls(*MAY)
    with pytest.raises(RequestRejectedError) as first:
        await rest(stream)
    asked = server.total
    for _ in range(3):
        with pytest.raises(RequestRejectedError) as again:
            await anext(stream)
        assert (type(again.value), str(again.value), again.value.page) == (type(first.value), str(first.value), page)
    assert server.total == asked


async def test_a_failure_that_is_raised_again_does_not_grow(serve, connect):
    """A loop that retries a failed stream for ever does not collect tracebacks."""
    server = await serve(200, failing={2: 400})
    stream = connect(server).calls(*MAY)
    depths = set()
    for _ in range(30):
        try:
            await rest(stream)
        except RequestRejectedError as error:
            depths.add(len(traceback.extract_tb(error.__traceback__)))
    assert max(depths) <= 15


@pytest.mark.parametrize("ending", ["dropped", "closed", "client closed"])
async def test_a_prefetched_page_fails_while_the_consumer_is_elsewhere(serve, connect, loop_log, ending):
    """Until it is reached, a failure disturbs neither the consumer's other work nor the log."""
    server = await serve(200, failing={3: 400})
    client = connect(server)
    stream = client.calls(*MAY)
    await take(stream, READ)
    await settled(client)
    assert 3 in server.pages
    assert asyncio.current_task().cancelling() == 0
    if ending == "closed":
        await stream.aclose()
    elif ending == "client closed":
        await client.aclose()
    del stream
    gc.collect()
    await asyncio.sleep(0)
    assert loop_log == []


async def test_a_prefetched_failure_is_raised_when_the_consumer_comes_back(serve, connect):
    """The calls before a prefetched failure stay readable, however long the consumer was away."""
    server = await serve(200, failing={3: 400})
    client = connect(server)
    stream = client.calls(*MAY)
    got = await take(stream, READ)
    await settled(client)
    with pytest.raises(RequestRejectedError):
        async for call in stream:
            got.append(call.id)
    assert got == server.ids[: 2 * SIZE]


@pytest.mark.parametrize("place", [130, 190])
async def test_a_failure_inside_a_page_is_raised_again(serve, connect, place):
    """A page may fail while it is decoded: the calls before it stay exact, and the failure is final."""
    server = await serve(400, stray=place, padding=LARGE)
    client = connect(server)
    stream = client.calls(*MAY, page_size=200)
    got = []
    for _ in range(2):
        with pytest.raises(OutOfWindowError) as failure:
            async for call in stream:
                got.append(call.id)
    assert got == server.ids[: len(got)]
    assert len(got) <= place
    server.load(400)
    assert got + await rest(client.calls(*MAY, page_size=200, start=failure.value.checkpoint)) == server.ids


async def test_a_failure_inside_a_page_is_raised_again_by_pages(serve, connect):
    """``pages()`` does not skip the failure: it is raised again, and nothing behind it is delivered."""
    server = await serve(400, stray=330, padding=LARGE)
    client = connect(server)
    pages = client.calls(*MAY, page_size=200).pages()
    got = []
    for _ in range(2):
        with pytest.raises(OutOfWindowError) as failure:
            async for page in pages:
                got += [call.id for call in page.records]
    assert got == server.ids[: len(got)]
    assert len(got) <= 330
    server.load(400)
    assert got + await rest(client.calls(*MAY, page_size=200, start=failure.value.checkpoint)) == server.ids


# Waiting with a clock per item -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", CLOCKS)
async def test_a_timeout_per_item_loses_nothing(serve, connect, clock):
    """With a timeout of 7 ms per item and retries, a server of 40 ms is read whole, with the fewest requests."""
    server = await serve(80, latency=lambda _page: 0.04)
    stream = connect(server, max_concurrency=4).calls(*MAY, page_size=10)
    got, gave_up = [], 0
    while True:
        try:
            got.append((await CLOCKS[clock](0.007, lambda: anext(stream))).id)
        except TimeoutError:
            gave_up += 1
        except StopAsyncIteration:
            break
    assert got == server.ids
    assert gave_up > 0
    assert set(server.asked.values()) == {1}
    assert sorted(server.pages)[:8] == list(range(1, 9))
    assert server.pages[8:] in ([], [9]), "at most one page beyond the end, to prove it"


@pytest.mark.parametrize("clock", CLOCKS)
async def test_a_timeout_per_page_loses_nothing(serve, connect, clock):
    """``pages()`` is as safe as the stream of calls: it continues after a timeout."""
    server = await serve(80, latency=lambda _page: 0.02)
    pages = connect(server).calls(*MAY, page_size=10).pages()
    got, gave_up = [], 0
    while True:
        try:
            page = await CLOCKS[clock](0.007, lambda: anext(pages))
        except TimeoutError:
            gave_up += 1
        except StopAsyncIteration:
            break
        else:
            got += [call.id for call in page.records]
    assert got == server.ids
    assert gave_up > 0
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("padding", [0, LARGE])
async def test_calls_and_pages_are_two_views_of_one_stream(serve, connect, padding):
    """``pages()`` continues where the calls stopped, and the calls where the pages did: no loss and no double."""
    server = await serve(400, padding=padding)
    stream = connect(server).calls(*MAY, page_size=130)
    got = await take(stream, 40)
    async for page in stream.pages():
        got += [call.id for call in page.records]
        got += await take(stream, 1) if len(got) < 390 else []
    assert got == server.ids


async def test_a_page_cancelled_while_it_is_put_together(serve, connect, monkeypatch):
    """The calls continue where they stopped, none is lost, and the checkpoint is that of the last one."""
    monkeypatch.setattr("servetel_async.streaming.reader.LOOP_SHARE", 0.0)
    server = await serve(400, padding=LARGE)
    client, cut = connect(server), 0
    for ticks in range(1, 12):
        stream = client.calls(*MAY, page_size=400)
        got = await take(stream, 10)
        step = asyncio.ensure_future(anext(stream.pages()))
        for _ in range(ticks):
            await asyncio.sleep(0)
        cut += step.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got += [call.id for call in (await step).records]
        if len(got) < 400:
            got += await take(stream, 1)
        went_on = client.calls(*MAY, page_size=400, start=stream.checkpoint)
        assert got + await rest(went_on) == server.ids, ticks
        assert got + await rest(stream) == server.ids, ticks
    assert cut > 2


async def test_each_step_in_a_task_of_its_own(serve, connect):
    """``wait_for`` and frameworks wrap each ``anext`` in a new task: a stream is not bound to its first task."""
    server = await serve(60)
    stream = connect(server).calls(*MAY)
    got = []
    with contextlib.suppress(StopAsyncIteration):
        while True:
            got.append((await asyncio.wait_for(asyncio.ensure_future(anext(stream)), 5)).id)
    assert got == server.ids


async def test_a_step_cancelled_before_it_began_does_not_lock_the_stream(serve, connect):
    """Only a running ``anext`` counts as reading: one that never started changes nothing."""
    server = await serve(60)
    stream = connect(server).calls(*MAY)
    unstarted = anext(stream)
    step = asyncio.ensure_future(anext(stream))
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await rest(stream) == server.ids
    unstarted.close()


async def test_cancelled_at_any_tick_the_next_loop_goes_on(serve, connect):
    """Wherever a cancellation hits, another loop over the stream delivers the rest, and no page is requested twice."""
    server = await serve(28)
    client = connect(server)
    await client.calls(*MAY).collect()
    for ticks in range(100):
        server.forget()
        stream, got = client.calls(*MAY), []

        async def consume(stream=stream, got=got):
            async for call in stream:
                got.append(call.id)

        task = asyncio.create_task(consume())
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert got + await rest(stream) == server.ids, ticks
        assert set(server.asked.values()) == {1}, ticks


# Reading ahead -----------------------------------------------------------------------------------------------------------


async def test_unread_pages_never_exceed_the_window(serve, connect):
    """However slow the consumer, at most a window of pages waits; and the network never waits for the consumer."""
    server = await serve(100)
    client = connect(server)
    read_pages = 0
    async with client.calls(*MAY) as stream:
        async for _page in stream.pages():
            read_pages += 1
            await settled(client)
            assert server.total - read_pages <= WINDOW
            if read_pages <= 20 - WINDOW:
                assert server.total - read_pages == WINDOW
    assert read_pages == 20


async def test_the_first_page_comes_alone(serve, connect):
    """The first page brings the count: no other page is requested before it arrives."""
    server = await serve(200)
    client = connect(server)
    server.hold({1})
    stream = client.calls(*MAY)
    step = asyncio.ensure_future(anext(stream))
    await server.until(lambda: server.in_flight == 1)
    assert len(page_tasks(client)) == 1
    server.release()
    await step
    assert server.pages[0] == 1
    await stream.aclose()


async def test_no_page_beyond_max_records_is_asked_for(serve, connect):
    """The window ends where ``max_records`` does."""
    server = await serve(200)
    client = connect(server)
    assert await rest(client.calls(*MAY, max_records=12)) == server.ids[:12]
    await settled(client)
    assert sorted(server.pages) == [1, 2, 3]


async def test_collect_stops_at_its_limit(serve, connect):
    """``collect(limit=)`` returns that many calls, and no request continues after it."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    calls = await client.calls(*MAY).collect(limit=READ)
    assert [call.id for call in calls] == server.ids[:READ]
    assert not page_tasks(client)


async def test_collect_is_over_when_it_returns(serve, connect):
    """``collect`` closes the stream, even if a variable still holds it: no task runs on the next line."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    stream = client.calls(*MAY)
    calls = await stream.collect(limit=READ)
    assert not page_tasks(client)
    assert [call.id for call in calls] == server.ids[:READ]


async def test_pages_already_read_are_freed(serve, connect):
    """However long the stream, memory holds the window and the current page (window + 2 pages)."""
    padding = 20_000
    server = await serve(400, padding=padding)
    client = connect(server)
    async with client.calls(*MAY) as stream:
        await take(stream, 10 * SIZE)
        gc.collect()
        tracemalloc.start()
        try:
            async for _call in stream:
                pass
            await settled(client)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    bodies, decoded, on_the_wire = WINDOW + 2, 2, 2 * (WINDOW // 2)
    assert peak <= (bodies + decoded + on_the_wire) * SIZE * padding


async def test_requests_run_side_by_side(serve, connect):
    """As many requests as ``max_concurrency`` allows run at once, and never more."""
    server = await serve(200)
    client = connect(server, max_concurrency=4)
    server.hold(range(2, 1000))
    reading = asyncio.create_task(rest(client.calls(*MAY)))
    await server.until(lambda: server.in_flight == 4)
    server.release()
    assert await reading == server.ids
    assert server.peak == 4


async def test_streams_of_one_client_share_its_concurrency(serve, connect):
    """``max_concurrency`` belongs to the client: three streams together stay within it, and each is whole."""
    server = await serve(100, latency=lambda _page: 0.001)
    client = connect(server, max_concurrency=3)
    assert await asyncio.gather(*(rest(client.calls(*MAY)) for _ in range(3))) == [server.ids] * 3
    assert server.peak <= 3


# Order -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_strictly_in_order_whatever_the_latencies(serve, connect, seed):
    """Pages that arrive out of order are delivered in order."""
    dice = random.Random(seed)
    server = await serve(198, latency=lambda _page: dice.random() * 0.004)
    assert await rest(connect(server, max_concurrency=5).calls(*MAY)) == server.ids


async def test_as_completed_does_not_wait_for_a_slow_page(serve, connect):
    """``ordered=False`` delivers pages as they arrive: a slow page delays no other, and comes last."""
    server = await serve(100)
    client = connect(server)
    server.hold({2})
    stream = client.calls(*MAY, ordered=False)
    got = await take(stream, 100 - SIZE)
    server.release()
    last = await rest(stream)
    assert last == server.ids[SIZE : 2 * SIZE]
    assert sorted(got + last) == sorted(server.ids)
    assert set(server.asked.values()) == {1}


async def test_as_completed_fails_bare_and_again(serve, connect):
    """``ordered=False`` changes only the order: a failure is bare, is raised again, and leaves nothing."""
    server = await serve(200, failing={7: 400})
    client = connect(server)
    stream = client.calls(*MAY, ordered=False)
    got = []
    for _ in range(2):
        with pytest.raises(RequestRejectedError):
            async for call in stream:
                got.append(call.id)
    assert len(set(got)) == len(got)
    assert not set(got) & set(server.ids[6 * SIZE : 7 * SIZE])
    await settled(client)


async def test_as_completed_loses_nothing_to_a_timeout_per_item(serve, connect):
    """A timeout per item is as harmless out of order as it is in order."""
    server = await serve(80, latency=lambda page: 0.01 * (page % 3 + 1))
    stream = connect(server).calls(*MAY, page_size=10, ordered=False)
    got = []
    while True:
        try:
            got.append((await asyncio.wait_for(anext(stream), 0.004)).id)
        except TimeoutError:
            continue
        except StopAsyncIteration:
            break
    assert sorted(got) == sorted(server.ids)
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("number", [1, 4, 5, 6, 39, 60])
async def test_a_checkpoint_is_exact(serve, connect, number):
    """``checkpoint`` follows delivered, not fetched calls: a new stream from there delivers exactly the rest."""
    server = await serve(60)
    client = connect(server)
    async with client.calls(*MAY) as stream:
        got = await take(stream, number)
        checkpoint = stream.checkpoint
    assert got + await rest(client.calls(*MAY, start=checkpoint)) == server.ids


async def test_a_failure_carries_the_checkpoint_of_the_prefix(serve, connect):
    """If a page fails, the error's checkpoint matches the delivered calls exactly."""
    server = await serve(60, failing={7: 400})
    client = connect(server)
    got = []
    with pytest.raises(RequestRejectedError) as failure:
        async for call in client.calls(*MAY):
            got.append(call.id)
    server.load(60)
    assert got + await rest(client.calls(*MAY, start=failure.value.checkpoint)) == server.ids


# Closing -----------------------------------------------------------------------------------------------------------------


async def test_closed_early_is_not_a_normal_end(serve, connect):
    """A stream closed early raises an error when it is read further."""
    server = await serve(200)
    stream = connect(server).calls(*MAY)
    await take(stream, READ)
    await stream.aclose()
    for _ in range(2):
        with pytest.raises(StreamClosedError):
            await anext(stream)


async def test_closed_before_it_began(serve, connect):
    """Closing an unread stream sends nothing, and still closes it."""
    server = await serve(200)
    stream = connect(server).calls(*MAY)
    await stream.aclose()
    with pytest.raises(StreamClosedError):
        await anext(stream)
    assert server.total == 0


async def test_exhausted_stays_exhausted(serve, connect):
    """The end of a stream is final, at each further ``anext`` and after ``aclose``."""
    server = await serve(12)
    stream = connect(server).calls(*MAY)
    assert await rest(stream) == server.ids
    asked = server.total
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert server.total == asked


async def test_failed_stays_failed(serve, connect):
    """After ``aclose``, a failed stream still raises its failure, not that it was closed."""
    server = await serve(200, failing={2: 400})
    stream = connect(server).calls(*MAY)
    with pytest.raises(RequestRejectedError):
        await rest(stream)
    await stream.aclose()
    with pytest.raises(RequestRejectedError):
        await anext(stream)


async def test_aclose_may_be_called_again(serve, connect):
    """``aclose`` is idempotent, also after ``async with``."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    async with client.calls(*MAY) as stream:
        await take(stream, READ)
        await stream.aclose()
        assert not page_tasks(client)
        await stream.aclose()
    await stream.aclose()


async def test_aclose_after_an_interrupted_aclose_waits_for_the_rest(serve, connect):
    """However often closing was cancelled, the next ``aclose`` returns only after all page tasks."""
    server = await serve(200)
    goodbye = SlowGoodbye()
    client = connect(server, trace_configs=(goodbye.trace,))
    stream = client.calls(*MAY)
    await anext(stream)
    await goodbye.until_waiting()
    asyncio.get_running_loop().call_later(0.03, goodbye.may_end.set)
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.aclose()
    await stream.aclose()
    assert not goodbye.waiting
    assert not page_tasks(client)


async def test_aclose_may_be_called_by_several_tasks_at_once(serve, connect):
    """Each of several concurrent ``aclose`` returns only after all page tasks."""
    server = await serve(200)
    goodbye = SlowGoodbye()
    client = connect(server, trace_configs=(goodbye.trace,))
    stream = client.calls(*MAY)
    await anext(stream)
    await goodbye.until_waiting()
    closing = [asyncio.create_task(stream.aclose()) for _ in range(3)]
    await goodbye.cleaning.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in closing)
    goodbye.may_end.set()
    await asyncio.gather(*closing)
    assert not page_tasks(client)


async def test_aclose_while_another_task_waits(serve, connect):
    """Closing a stream wakes the task that waits for its next call, with an error that says so."""
    server = await serve(200)
    client = connect(server)
    server.hold({2})
    stream = client.calls(*MAY)
    await take(stream, SIZE)
    waiting = asyncio.create_task(rest(stream))
    await server.until(lambda: server.in_flight == 1 and len(server.pages) > WINDOW)
    await stream.aclose()
    assert not page_tasks(client)
    with pytest.raises(StreamClosedError):
        await waiting


async def test_contextlib_aclosing(serve, connect):
    """``contextlib.aclosing`` closes a stream as it closes a generator."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    async with contextlib.aclosing(client.calls(*MAY)) as stream:
        assert await take(stream, READ) == server.ids[:READ]
    assert not page_tasks(client)


# The client --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream_is", ["dropped", "kept"])
async def test_the_client_closes_on_the_line_behind_the_break(serve, connect, stream_is):
    """No request outlives the client, even if a variable still holds the stream."""
    server = await serve(200)
    server.hold(LATER)
    kept = []
    others = asyncio.all_tasks()
    async with client_of(server) as client:
        if stream_is == "kept":
            kept.append(client.calls(*MAY))
        async for call in kept[0] if kept else client.calls(*MAY):
            if call.id == server.ids[READ]:
                await server.until(lambda: server.in_flight == WINDOW // 2)
                break
    assert not page_tasks(client)
    assert not connections_in_use(client)
    assert asyncio.all_tasks() == others
    asked = server.total
    await server.until(lambda: not server.connections)
    assert server.total == asked


async def test_a_stream_whose_client_was_closed_says_so(serve, connect):
    """Reading on after the client has closed raises our own error, never a normal end and never a cancellation."""
    server = await serve(200)
    server.hold(LATER)
    async with client_of(server) as client:
        stream = client.calls(*MAY)
        await take(stream, READ)
        await server.until(lambda: server.in_flight == WINDOW // 2)
    for _ in range(2):
        with pytest.raises(ServetelError):
            await rest(stream)


async def test_the_client_closes_while_another_task_waits(serve, connect):
    """A task that waits for a call when the client closes gets our own error: the task was not cancelled."""
    server = await serve(200)
    server.hold({2})
    async with client_of(server) as client:
        stream = client.calls(*MAY)
        await take(stream, SIZE)
        waiting = asyncio.create_task(rest(stream))
        await server.until(lambda: server.in_flight == 1 and len(server.pages) > WINDOW)
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert done
    assert not waiting.cancelled()
    assert isinstance(waiting.exception(), ServetelError)


async def test_the_client_closes_on_the_first_page(serve, connect):
    """The first page is no exception: closing the client ends it, and the reader gets an error."""
    server = await serve(200)
    server.hold({1})
    client = client_of(server)
    waiting = asyncio.create_task(rest(client.calls(*MAY)))
    await server.until(lambda: server.in_flight == 1)
    await client.aclose()
    assert not page_tasks(client)
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert done
    assert not waiting.cancelled()
    assert isinstance(waiting.exception(), ServetelError)
    await server.until(lambda: not server.connections)


async def test_closing_the_client_is_not_cut_short(serve, connect):
    """A client cancelled while it closes still ends every request and its session first."""
    server = await serve(200)
    goodbye = SlowGoodbye()
    client = client_of(server, trace_configs=(goodbye.trace,))
    stream = client.calls(*MAY)
    await anext(stream)
    await goodbye.until_waiting()
    closing = asyncio.create_task(client.aclose())
    await goodbye.cleaning.wait()
    for _ in range(3):
        closing.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done() or not goodbye.waiting, "the client ended before its page tasks"
    goodbye.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not page_tasks(client)
    await server.until(lambda: not server.connections)


async def test_the_client_is_opened_used_and_closed_in_different_tasks(serve, connect):
    """A client is bound to its loop, not to a task: fixtures and web frameworks use different tasks."""
    server = await serve(60)
    client = client_of(server)
    await asyncio.create_task(client.__aenter__())
    assert await asyncio.create_task(rest(client.calls(*MAY))) == server.ids
    await asyncio.create_task(client.__aexit__(None, None, None))
    await server.until(lambda: not server.connections)


async def test_a_stream_is_entered_read_and_left_in_different_tasks(serve, connect):
    """No scope is open between two calls of a stream's methods, so each may come from another task."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    stream = client.calls(*MAY)
    assert await asyncio.create_task(stream.__aenter__()) is stream
    assert await asyncio.create_task(take(stream, READ)) == server.ids[:READ]
    await asyncio.create_task(stream.__aexit__(None, None, None))
    assert not page_tasks(client)


def test_a_client_and_a_stream_made_outside_a_loop():
    """Neither a client nor a stream needs a running loop when it is made: it runs on the loop that reads it."""
    with asyncio.Runner() as runner:
        server = runner.run(PageServer(60).__aenter__())
        client = client_of(server)
        stream = client.calls(*MAY)

        async def read_it():
            async with clean_loop():
                assert await rest(stream) == server.ids
                await client.aclose()

        runner.run(read_it())
        runner.run(server.__aexit__())


# As an async generator ---------------------------------------------------------------------------------------------------


async def test_two_tasks_that_iterate_one_stream_are_told(serve, connect):
    """A second ``anext`` while one waits raises a clear error; the first one is not affected."""
    server = await serve(60)
    stream = connect(server).calls(*MAY)
    server.hold({1})
    first = asyncio.create_task(take(stream, 1))
    await server.until(lambda: server.in_flight == 1)
    with pytest.raises(RuntimeError, match=r"(?i)task|iterat|already|running"):
        await anext(stream)
    server.release()
    assert await first + await rest(stream) == server.ids


async def test_a_stream_is_an_async_generator(serve, connect):
    """The stream has the interface of an async generator, but is an object with state."""
    server = await serve(60)
    stream = connect(server).calls(*MAY)
    assert isinstance(stream, CallStream)
    assert isinstance(stream, collections.abc.AsyncGenerator)
    assert not inspect.isasyncgen(stream)
    assert not inspect.iscoroutine(stream)
    assert aiter(stream) is stream


async def test_asend_none_is_anext(serve, connect):
    """``asend(None)`` advances the stream as ``anext`` does."""
    server = await serve(60)
    stream = connect(server).calls(*MAY)
    got = [(await stream.asend(None)).id for _ in range(READ)]
    assert got + await rest(stream) == server.ids


async def test_athrow_raises_and_closes(serve, connect):
    """``athrow`` raises its argument, and closes the stream."""
    server = await serve(200)
    client = connect(server)
    server.hold(LATER)
    stream = client.calls(*MAY)
    await take(stream, READ)
    with pytest.raises(ZeroDivisionError):
        await stream.athrow(ZeroDivisionError("thrown in"))
    await settled(client)
    with pytest.raises(StreamClosedError):
        await anext(stream)
