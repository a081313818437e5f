"""One call of the transport: its attempts on the wire, each with the token in use, until its deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from servetel_async.aio.fairness import HEAVY
from servetel_async.errors import DeadlineExceededError, ServetelError
from servetel_async.protocol.reply import HUGE
from servetel_async.protocol.verdict import OK, Unacceptable, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from yarl import URL

    from servetel_async.protocol.reply import Reply
    from servetel_async.transport.admission import Ticket
    from servetel_async.transport.endpoint import Transport
    from servetel_async.transport.retry import History

T = TypeVar("T")
R = TypeVar("R")


class Fetched(NamedTuple, Generic[T]):
    """A value, and its cost.

    Attributes:
        value: the value read from the reply.
        history: the history of its attempts.
        size: bytes of the body.
        seconds: time on the wire of the successful attempt.
    """

    value: T
    history: History
    size: int
    seconds: float

    @property
    def requests(self) -> int:
        """Number of attempts on the wire."""
        return self.history.sent


class Call(Generic[T]):
    """The state of one call: request, token and deadline."""

    def __init__(
        self,
        transport: Transport,
        url: URL,
        read: Callable[[Reply, float], T],
        page: int | None,
        ticket: Ticket,
        *,
        history: History,
    ) -> None:
        self.history = history
        self.ticket = ticket
        self._sent_at = 0.0
        self._transport = transport
        self._url = url
        self._read = read
        self._page = page
        self._deadline_at = ticket.deadline_at
        self._renewals = 0

    async def send(self) -> Fetched[T]:
        """Make one attempt, ended by the deadline if there is one."""
        return await self._attempt() if self._deadline_at is None else await self._in_time(self._attempt())

    async def _in_time(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            async with asyncio.timeout_at(self._deadline_at):
                return await work
        except TimeoutError:  # from the deadline: any other has become a fault or a CallbackError
            pass
        raise too_late(self)

    async def _attempt(self) -> Fetched[T]:
        transport = self._transport
        self.history.token = token = await transport.suspicion.token(transport.tokens)
        reply = await transport.exchange(
            "GET",
            self._url,
            token,
            page=self._page,
            ticket=self.ticket,
            sent=self._count,
        )
        seconds = time.perf_counter() - self._sent_at
        now = time.time()
        verdict = judge(reply, now, proved=bool(transport.proved))
        if verdict is not OK:
            transport.suspicion.note(token, verdict)
            raise Unacceptable(verdict)
        if len(reply.body) > HEAVY:
            await transport.bind().turns.take()  # the body was joined in this iteration
        if len(reply.body) > HUGE:
            value = await asyncio.to_thread(self._read, reply, now)
        else:
            value = self._read(reply, now)
        if not transport.proved or transport.proved[-1] != token:
            transport.proved.append(token)
        transport.suspicion.clear(token)
        return Fetched(value, self.history, len(reply.body), seconds)

    async def renew(self) -> bool:
        """Get another token: once, or again if the refused token had worked before: then it ended, and was not bad."""
        token = self.history.token
        assert token is not None  # noqa: S101 - for the type checker: a token was refused, so there was one
        if self._renewals and token not in self._transport.proved:
            return False
        self._renewals += 1
        work = self._transport.tokens.renew(token)
        return await work if self._deadline_at is None else await self._in_time(work)

    def _count(self) -> None:
        self._transport.traffic.retries += self.history.sent > 0
        self.history.sent += 1
        self._sent_at = time.perf_counter()


def too_late(call: Call[Any]) -> ServetelError:
    if call.history.sent:
        return DeadlineExceededError(
            "the deadline passed before there was a good reply",
            fix="allow more time, or ask for less",
            stopped_by="deadline",
        )
    return call.ticket.overload or DeadlineExceededError(
        "the deadline passed before there was a token",
        why="the token provider or the login took too long; calls were not asked for yet",
        fix="allow more time, or look into the token provider",
        stopped_by="deadline",
    )
