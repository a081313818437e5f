"""The aiohttp session of one client in one event loop: made when first needed, closed at the latest with its loop.

A client may be made outside a loop, used in several ``asyncio.run`` one after another, and inherited by a forked
process. Each loop gets a session of its own. A client that is never closed leaves nothing on standard error:

1. Every open session has a keeper in ``_keepers``, so no session is garbage before it is closed.
2. ``asyncio.run`` closes its async generators before its loop. A generator of the keeper closes the session then.
3. When a client is garbage-collected, the keeper closes the session in its loop, if that loop still runs.
4. A loop closed by hand can close nothing. So its connections are dropped without it: when the next session is made,
   and at the interpreter's exit.
5. A forked child never uses its parent's connections. It drops its own copies of them at its exit.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import warnings
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp

from servetel_async.aio.fairness import LoopFairness
from servetel_async.aio.tasks import start
from servetel_async.errors import ConfigurationError
from servetel_async.transport.attempt import CleanRequest, connections_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from servetel_async.transport.admission import Admission


def check_given(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    """Refuse a caller's session that could not carry our token, or would carry another.

    Raises:
        ConfigurationError: if it is not a session, or has credentials of its own.
    """
    if session is None:
        return None
    if not isinstance(session, aiohttp.ClientSession):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"session is of type {type(session).__name__}", fix="give an aiohttp.ClientSession")
    if session.auth is not None:
        raise ConfigurationError(
            "the given session has credentials of its own",
            why="aiohttp sends no token beside them",
            fix="make the session without auth=",
        )
    return session


class BoundSession:
    """A session, bound to the loop and the process that made it."""

    def __init__(
        self,
        admission: Admission,
        slots: int,
        given: aiohttp.ClientSession | None,
        traces: Sequence[aiohttp.TraceConfig],
        tasks: Iterable[asyncio.Task[Any]],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.admission = admission
        self.turns = LoopFairness()
        if given is not None and given.closed:
            raise ConfigurationError("the session that this client was given is closed", fix="give one that is open")
        owner = getattr(given, "_loop", self.loop)  # aiohttp has no other name for it that is not deprecated
        if owner is not self.loop:
            raise ConfigurationError(
                "the session that this client was given belongs to another event loop",
                why="its connections work only in the loop that it was made in",
                fix="make the session in the loop that uses the client",
            )
        self._keeper: _Keeper | None = None
        if given is not None:
            self.session = given
            return
        for keeper in list(_keepers):
            keeper.drop_if_dead()
        self.session = _make_session(slots, traces)
        self._keeper = _Keeper(self.session, self.loop, tasks)
        weakref.finalize(self, self._keeper.release).atexit = False

    def is_current(self) -> bool:
        """Whether this is the session to use here and now.

        Raises:
            ConfigurationError: if its own loop is still alive: one client cannot be in two loops at once.
        """
        if self.pid != os.getpid():
            return False
        if self.loop is asyncio.get_running_loop():
            return not self.session.closed
        if not self.loop.is_closed():
            raise ConfigurationError(
                "this client is in use in another event loop",
                why="its connections belong to the loop that opened them",
                fix="make one client per loop, or close it there first",
            )
        return False

    async def aclose(self) -> None:
        """Close the session, if it is ours and this is its loop."""
        if self._keeper is not None and self.pid == os.getpid() and self.loop is asyncio.get_running_loop():
            await self._keeper.aclose()


class _Keeper:
    """Holds one open session. Closes it, or drops it if its loop can no longer close it.

    Args:
        session: a session that the library made.
        loop: the loop of the session.
        tasks: the client's tasks, in any loop.
    """

    def __init__(
        self, session: aiohttp.ClientSession, loop: asyncio.AbstractEventLoop, tasks: Iterable[asyncio.Task[Any]]
    ) -> None:
        self._session = session
        self._loop = loop
        self._tasks = tasks
        self._pid = os.getpid()
        self._closing = self._close_with_loop()
        with suppress(StopIteration):
            self._closing.__anext__().send(None)  # run to the ``yield``: this registers the generator with the loop
        _keepers.add(self)

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._session.close()
            _keepers.discard(self)

    async def aclose(self) -> None:
        """Close the session."""
        await self._closing.aclose()

    def release(self) -> None:
        """Close the session soon, because its client is gone. The garbage collector may call this in any thread."""
        if self in _keepers and self._pid == os.getpid() and not self.drop_if_dead():
            with suppress(RuntimeError):  # the loop was closed just now: the session is dropped later
                self._loop.call_soon_threadsafe(self._start_closing)

    def _start_closing(self) -> None:
        start(self._session.close()).add_done_callback(lambda _: _keepers.discard(self))

    def drop_if_dead(self) -> bool:
        """Drop the session if its loop is closed, and return whether it is."""
        dead = self._pid == os.getpid() and self._loop.is_closed()
        if dead:
            self.drop()
        return dead

    def drop(self) -> None:
        """Drop the session without its loop: close the sockets, and end the coroutines that wait for them."""
        _keepers.discard(self)
        self._session.detach()
        if self._pid == os.getpid() and self._loop.is_running():
            return  # in a thread that ends with the process: its objects are never collected
        ours = self._pid == os.getpid()
        for transport in connections_of(self._loop):
            if ours and not transport.is_closing():  # uvloop closes them with the loop
                with suppress(RuntimeError):  # the loop is closed
                    transport.abort()  # after this, closing it again does nothing
            _close_socket(transport)
        for task in list(self._tasks) if ours else []:
            if task.get_loop() is self._loop and not task.done():
                with suppress(Exception):  # its cleanup may need the loop
                    task.get_coro().close()


#: The keepers of all open sessions, including those that a forked process has inherited.
_keepers: set[_Keeper] = set()


@atexit.register
def _drop_all() -> None:
    for keeper in list(_keepers):
        keeper.drop()


class _Connector(aiohttp.TCPConnector):
    """A connector that does not warn when collected: its keeper has closed its connections, or dropped them."""

    def __del__(self, _warnings: Any = warnings) -> None:
        """Do nothing, where aiohttp would warn."""


def _close_socket(transport: asyncio.Transport) -> None:
    """Close a connection's socket without its loop. asyncio has no public way, and warns if it collects an open one.

    A forked child closes its own copy. The parent's connection stays open, also in the selector that both share.
    """
    inner = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    for each in (transport, inner):
        sock = getattr(each, "_sock", None)
        if sock is not None:
            sock.close()
            with suppress(AttributeError):
                each._sock = None  # type: ignore[union-attr]  # noqa: SLF001


def _make_session(slots: int, traces: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Slots bound the requests in flight; two more connections serve a login when all slots are busy.
        connector=_Connector(limit=slots + 2),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        request_class=CleanRequest,
        trace_configs=list(traces),
    )
