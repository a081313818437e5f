"""A session belongs to one loop and one process; measured inside this process."""

import asyncio
import gc
import inspect
import os
import socket
import threading
import types

from servetel_async import ServetelClient
from servetel_async.emulator import Dataset, Emulator
from servetel_async.transport import attempt as wire
from servetel_async.transport import session as session_module

DATA = Dataset.month("2024-05", calls=3)


def test_a_client_outlives_its_loop():
    """In each loop the client opens a session, and the loop closes it."""
    client = ServetelClient("token-of-the-test", base_url="http://127.0.0.1:1", rate=None)

    async def count():
        async with Emulator(DATA, token="token-of-the-test") as api:
            client._transport.base_url = api.base_url
            return await client.count("2024-05-01", "2024-05-31"), client._transport._bound.session

    (first, session), (second, other) = asyncio.run(count()), asyncio.run(count())
    assert (first, second) == (3, 3)
    assert session is not other
    assert session.closed
    assert other.closed


async def test_a_forked_process_leaves_its_parents_session_alone(monkeypatch):
    """The child makes its own session and does not close the parent's, because that would close the parent's connections."""
    async with (
        Emulator(DATA) as api,
        ServetelClient(api.token, base_url=api.base_url, rate=None) as client,
    ):
        assert await client.count("2024-05-01", "2024-05-31") == 3
        parents = client._transport._bound
        monkeypatch.setattr(os, "getpid", lambda: parents.pid + 1)
        assert await client.count("2024-05-01", "2024-05-31") == 3
        assert not parents.session.closed
        await parents.aclose()
        assert not parents.session.closed
        await client.aclose()
        monkeypatch.undo()
        await parents.aclose()
        assert parents.session.closed


# A loop that was closed by hand --------------------------------------------------------------------------------------------


class ByHand:
    """A server in one loop, and client loops that are closed without ending their tasks."""

    def __init__(self, **knobs):
        self.client = ServetelClient("token-of-the-test", base_url="http://127.0.0.1:1", rate=None)
        self._knobs = knobs

    def __enter__(self):
        self._runner = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._runner.run_forever)
        self._thread.start()
        self.api = Emulator(DATA, token="token-of-the-test", **self._knobs)
        self.serve(self.api.__aenter__())
        self.client._transport.base_url = self.api.base_url
        return self

    def serve(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._runner).result()

    def __exit__(self, *_):
        self.serve(self.api.__aexit__(None, None, None))
        self._runner.call_soon_threadsafe(self._runner.stop)
        self._thread.join()
        self._runner.close()

    def run(self, work):
        """Run it in a loop that is closed by hand; returns its session."""
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work)
        bound = self.client._transport._bound
        loop.close()
        return bound.session


def count(client):
    return client.count("2024-05-01", "2024-05-31")


def test_a_session_of_a_loop_closed_by_hand_is_dropped_with_its_connections():
    """The next session closes the sockets of the old one, because its loop no longer can."""
    with ByHand() as by_hand:
        session = by_hand.run(count(by_hand.client))
        (transport,) = wire.connections_of(session._loop)
        assert not session.closed
        asyncio.run(count(by_hand.client))

    assert session.closed
    assert transport.is_closing()
    assert transport.get_extra_info("socket").fileno() == -1


def test_a_task_of_a_loop_closed_by_hand_is_ended_without_it():
    """A coroutine that waits for a reply is closed; nothing is printed, even if its cleanup fails."""

    async def ask(client, api):
        asking = asyncio.ensure_future(count(client))
        while not api.requests:
            await asyncio.sleep(0.001)
        asking._log_destroy_pending = False

    with ByHand(latency=30) as by_hand:
        by_hand.run(ask(by_hand.client, by_hand.api))
        (task,) = by_hand.client._tasks
        session_module._drop_all()

    assert inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CLOSED
    assert by_hand.client._transport.traffic.in_flight == 0
    assert not session_module._keepers


def test_a_client_that_is_collected_has_its_session_closed_in_its_loop():
    """If the loop is not running when the client is collected, it closes the session when it runs again."""
    with ByHand() as by_hand:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(count(by_hand.client))
        session = by_hand.client._transport._bound.session
        by_hand.client = None
        gc.collect()
        assert not session.closed
        loop.run_until_complete(asyncio.sleep(0.01))
        assert session.closed
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert not session_module._keepers


def test_a_client_that_is_collected_after_its_loop_has_its_session_dropped():
    """Without a loop to close it in, the session is dropped."""
    with ByHand() as by_hand:
        session = by_hand.run(count(by_hand.client))
        by_hand.client = None
        gc.collect()

    assert session.closed
    assert not session_module._keepers


def test_a_session_of_a_loop_that_runs_in_another_thread_is_not_touched():
    """At the interpreter's exit it may be in use, so it is left open without a warning."""
    with ByHand() as by_hand:
        by_hand.serve(count(by_hand.client))
        session = by_hand.client._transport._bound.session
        (transport,) = wire.connections_of(session._loop)
        session_module._drop_all()

        assert session.closed
        assert not transport.is_closing()
        by_hand.serve(_abort(transport))


async def _abort(transport):
    transport.abort()
    await asyncio.sleep(0)


def test_a_forked_child_closes_its_own_copies_at_its_exit(monkeypatch):
    """The parent's connection stays: nothing is sent over it, and it stays in the selector that both have."""
    with ByHand() as by_hand:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(count(by_hand.client))
        session = by_hand.client._transport._bound.session
        (transport,) = wire.connections_of(loop)
        file = transport.get_extra_info("socket").fileno()
        monkeypatch.setattr(os, "getpid", lambda: 1)
        session_module._drop_all()
        monkeypatch.undo()

        assert session.closed
        assert not transport.is_closing()
        assert file in loop._selector.get_map()
        loop.close()


def test_a_connection_with_tls_is_closed_beneath_it():
    """Both of asyncio's transports are closed. A transport that accepts no new attribute is left unchanged."""
    first, second = socket.socketpair()
    inner = types.SimpleNamespace(_sock=first)
    outer = types.SimpleNamespace(_ssl_protocol=types.SimpleNamespace(_transport=inner))
    session_module._close_socket(outer)

    assert (first.fileno(), inner._sock) == (-1, None)

    class Fixed:
        __slots__ = ()
        _sock = second

    session_module._close_socket(Fixed())
    assert second.fileno() == -1
