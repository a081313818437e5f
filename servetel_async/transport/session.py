"""The aiohttp session of one client in one event loop: made when first needed, closed with its loop at the latest.

A client may be made outside a loop, used in several ``asyncio.run`` one after another, and inherited by a forked
process. Each loop gets a session of its own. asyncio closes its async generators before it closes a loop, so a
generator that holds the session closes it in time even where nobody else does.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import aiohttp

from servetel_async.errors import ConfigurationError
from servetel_async.transport.turns import Turns
from servetel_async.transport.wire import CleanRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from servetel_async.transport.admission import Admission

#: Sessions of a parent process. They are never closed here: that would close the parent's connections too.
_inherited: list[BoundSession] = []


def check_given(session: aiohttp.ClientSession | None) -> aiohttp.ClientSession | None:
    """Refuse a session of the caller's that could not carry our token, or would carry another.

    Raises:
        ConfigurationError: it is no session, or has credentials of its own.
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
    """A session, bound to the loop and the process it was made in."""

    def __init__(
        self,
        admission: Admission,
        slots: int,
        given: aiohttp.ClientSession | None,
        traces: Sequence[aiohttp.TraceConfig],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.admission = admission
        self.turns = Turns()
        if given is not None and given.closed:
            raise ConfigurationError("the session that this client was given is closed", fix="give one that is open")
        self.session = given if given is not None else _make_session(slots, traces)
        self._keeper = _keep(self.session) if given is None else None
        if self._keeper is not None:
            _start(self._keeper)

    def is_current(self) -> bool:
        """Whether this is the session to use here and now.

        Raises:
            ConfigurationError: its own loop is still alive: one client cannot be in two loops at once.
        """
        if self.pid != os.getpid():
            _inherited.append(self)
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


async def _keep(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await session.close()


def _start(keeper: AsyncGenerator[None]) -> None:
    """Run up to the ``yield``, which registers the generator with the loop. It awaits nothing on the way."""
    try:
        keeper.__anext__().send(None)
    except StopIteration:
        return


def _make_session(slots: int, traces: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Slots bound what is in flight; two more connections serve a login beside a full house.
        connector=aiohttp.TCPConnector(limit=slots + 2),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        request_class=CleanRequest,
        trace_configs=list(traces),
    )
