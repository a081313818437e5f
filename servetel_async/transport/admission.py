"""Admission: which call may send next. One queue for all clients of an account in one event loop.

1. A call is admitted when its client has a free slot and the account's gate has a turn. Waiting for the gate holds no
   slot, and a call that stops waiting has taken neither.
2. Single requests go before pages of streams and pulls. After ``SINGLES_IN_A_ROW`` of them one page goes, so that
   pages never starve.
3. Streams and pulls are flows. Flows take turns, one page each; a new flow joins behind the others.
4. Within a line calls go in the order of arrival, and a retry keeps the place of its call.
5. A call with a time limit is refused at once if its turn cannot come in time, else at the limit. The error says what
   the call waited for, and how long the wait would have been.

All of it runs in the loop's own thread. Only the gate (``throttle.py``) is shared with other threads.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from servetel_async.errors import OverloadedError
from servetel_async.transport.throttle import LATENESS

if TYPE_CHECKING:
    from servetel_async.settings import RateLimit, Timeouts
    from servetel_async.transport.throttle import AccountPace
    from servetel_async.transport.traffic import Traffic

#: Most single requests in a row while pages wait.
SINGLES_IN_A_ROW = 15


class Flow:
    """The pages of one stream or pull.

    Attributes:
        served: the time of its queue's last service to it, or when it joined; 0 before both.
    """

    __slots__ = ("served",)

    def __init__(self) -> None:
        self.served = 0


class Ticket:
    """The queue's data on one call; the same for all its attempts.

    Attributes:
        flow: the stream or pull that asks for this page; None for a single request.
        deadline_at: loop time after which the call does not wait.
        patient: whether it may wait longer than ``Timeouts(acquire=)``.
        number: its place in the order of arrival; 0 before it first waits.
        overload: the reason why its last wait ended without a turn.
    """

    __slots__ = ("deadline_at", "flow", "number", "overload", "patient")

    def __init__(self, flow: Flow | None = None, deadline_at: float | None = None, *, patient: bool = False) -> None:
        self.flow = flow
        self.deadline_at = deadline_at
        self.patient = patient
        self.number = 0
        self.overload: OverloadedError | None = None


class _Waiter:
    """A call in a line. Its ``turn`` becomes the time of the turn, or None if the call is refused."""

    __slots__ = ("give_up", "in_line", "number", "ticket", "turn")

    def __init__(self, ticket: Ticket, give_up: float | None, turn: asyncio.Future[float | None]) -> None:
        self.ticket = ticket
        self.number = ticket.number
        self.give_up = give_up
        self.turn = turn
        self.in_line = True


class _Queue:
    """The callers of one account in one loop."""

    def __init__(self, pace: AccountPace, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: dict[Admission, None] = {}  # the clients that have callers waiting
        self._pace = pace
        self._numbers = 0
        self._singles_in_a_row = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def dispatch(self) -> None:
        """Admit all calls that can go now. If the next call has to wait for the gate, run again at its turn."""
        while (chosen := self._choose()) is not None:
            client, waiter, pages_wait = chosen
            if waiter.turn.done():  # its task was cancelled, and has not run since
                client.drop(waiter)
                continue
            now = time.monotonic()
            seconds = self._pace.take(now, client.rate)
            if seconds:
                self._come_back_in(seconds)
                return
            single = waiter.ticket.flow is None
            self._singles_in_a_row = self._singles_in_a_row + 1 if single and pages_wait else 0
            client.admit(waiter, now)
        self._stop_timer()

    def _choose(self) -> tuple[Admission, _Waiter, bool] | None:
        """Choose the next caller whose client has a free slot. Also return whether a page could go."""
        single: tuple[Admission, _Waiter] | None = None
        page: tuple[Admission, _Waiter] | None = None
        served = 0
        for client in self.waiting:
            if not client.free:
                continue
            for flow, line in client.lines.items():
                if flow is None:
                    if single is None or line[0].number < single[1].number:
                        single = client, line[0]
                elif page is None or flow.served < served:
                    page, served = (client, line[0]), flow.served
        if single is not None and (page is None or self._singles_in_a_row < SINGLES_IN_A_ROW):
            return *single, page is not None
        return None if page is None else (*page, True)

    def _come_back_in(self, seconds: float) -> None:
        when = self.loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= when:  # the timer comes in time, and runs this again
                return
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_later(seconds, self._come_back), when
        for client in list(self.waiting):
            client.refuse_hopeless()
        if not self.waiting:
            self._stop_timer()

    def _come_back(self) -> None:
        self._timer = None
        self.dispatch()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


#: By pace, loop, and whether there is a gate: a client without a rate need not wait behind a client with one.
_queues: WeakValueDictionary[tuple[AccountPace, asyncio.AbstractEventLoop, bool], _Queue] = WeakValueDictionary()


def _queue_of(pace: AccountPace, rate: RateLimit | None) -> _Queue:
    loop = asyncio.get_running_loop()
    key = (pace, loop, rate is None)
    queue = _queues.get(key)
    if queue is None:
        queue = _queues[key] = _Queue(pace, loop)
    return queue


class Admission:
    """The slots of one client in one event loop, and its callers in the queue of the account.

    Attributes:
        free: slots that are free.
        lines: callers that wait, by flow; None holds the single requests. No line is empty.
    """

    def __init__(
        self, slots: int, pace: AccountPace, rate: RateLimit | None, timeouts: Timeouts, traffic: Traffic
    ) -> None:
        self.free = slots
        self.rate = rate
        self.lines: dict[Flow | None, list[_Waiter]] = {}
        self._slots = slots
        self._acquire = timeouts.acquire
        self._traffic = traffic
        self._pace = pace
        self._queue = _queue_of(pace, rate)

    async def enter(self, ticket: Ticket) -> float:
        """Wait for a slot and a turn, and take them. Every ``enter`` that returns needs one ``leave``.

        Returns:
            The time of the turn, on the monotonic clock.

        Raises:
            OverloadedError: if no turn comes within ``Timeouts(acquire=)`` or the deadline. Nothing was sent.
        """
        queue = self._queue
        if not self.free or queue.waiting:
            return await self._wait(ticket)
        now = time.monotonic()
        if self._pace.take(now, self.rate):
            return await self._wait(ticket)
        self.free -= 1
        if ticket.flow is not None:
            ticket.flow.served = queue.next_number()
        return now

    def leave(self) -> None:
        """Return a slot."""
        self.free += 1
        if self._queue.waiting:
            self._queue.dispatch()

    def sent(self, turn_at: float) -> None:
        """Note that the request with its turn at ``turn_at`` is sent now."""
        now = time.monotonic()
        self._pace.sent(now, now - turn_at, self.rate)

    def admit(self, waiter: _Waiter, now: float) -> None:
        """Give a slot to a caller whose turn it is."""
        self.drop(waiter)
        self.free -= 1
        if waiter.ticket.flow is not None:
            waiter.ticket.flow.served = self._queue.next_number()
        waiter.turn.set_result(now)

    def drop(self, waiter: _Waiter) -> None:
        """Take a caller out of its line, if it is still there."""
        if not waiter.in_line:
            return
        waiter.in_line = False
        line = self.lines[waiter.ticket.flow]
        line.remove(waiter)
        if not line:
            del self.lines[waiter.ticket.flow]
            if not self.lines:
                del self._queue.waiting[self]

    def refuse_hopeless(self) -> None:
        """Refuse the callers whose time limit ends before the account's next turn, for example in a long pause."""
        latest = self._queue.loop.time() + self._pace.wait(time.monotonic(), self.rate) - LATENESS
        hopeless = [
            waiter
            for line in self.lines.values()
            for waiter in line
            if waiter.give_up is not None and waiter.give_up < latest
        ]
        for waiter in hopeless:
            self._refuse(waiter)

    async def _wait(self, ticket: Ticket) -> float:
        loop = self._queue.loop
        begun = loop.time()
        give_up = ticket.deadline_at
        if self._acquire is not None and not ticket.patient:
            give_up = begun + self._acquire if give_up is None else min(give_up, begun + self._acquire)
        self._traffic.waiting += 1
        try:
            while True:
                turn_at = await self._turn(ticket, give_up)
                if self._pace.paused_until <= time.monotonic():
                    return turn_at
                self.leave()  # a pause began between its turn and now
        finally:
            self._traffic.waiting -= 1
            self._traffic.seconds_waited += loop.time() - begun

    async def _turn(self, ticket: Ticket, give_up: float | None) -> float:
        queue = self._queue
        waiter = self._join(ticket, give_up)
        queue.dispatch()
        timer = None
        if give_up is not None and waiter.in_line:
            if self._is_too_late(waiter, give_up):
                self._refuse(waiter)
            else:
                timer = queue.loop.call_at(give_up, self._give_up, waiter)
        try:
            turn_at = await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                if give_up is not None:  # its deadline may have cancelled it just before the limit
                    ticket.overload = self._overload_of(waiter)
                self.drop(waiter)
                queue.dispatch()
            elif waiter.turn.result() is not None:  # it was admitted at the moment of its cancellation
                self.leave()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if turn_at is None:
            assert ticket.overload is not None  # noqa: S101 - for the type checker: a refusal says why
            raise ticket.overload
        return turn_at

    def _join(self, ticket: Ticket, give_up: float | None) -> _Waiter:
        queue, flow = self._queue, ticket.flow
        ticket.number = ticket.number or queue.next_number()
        if flow is not None:
            flow.served = flow.served or queue.next_number()
        waiter = _Waiter(ticket, give_up, queue.loop.create_future())
        insort(self.lines.setdefault(flow, []), waiter, key=attrgetter("number"))
        queue.waiting[self] = None
        return waiter

    def _give_up(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            self._refuse(waiter)
            self._queue.dispatch()

    def _refuse(self, waiter: _Waiter) -> None:
        if not waiter.turn.done():
            waiter.ticket.overload = self._overload_of(waiter)
            waiter.turn.set_result(None)
        self.drop(waiter)

    def _is_too_late(self, waiter: _Waiter, give_up: float) -> bool:
        """Whether, in the queue as it is now, the turn comes after the limit. The wait for a slot cannot be predicted.

        Callers ahead count only if they certainly go first: single requests of the same client that do not give up
        before their turn.
        """
        loop_time, now, ahead = self._queue.loop.time(), time.monotonic(), 0
        left = give_up - loop_time + LATENESS
        if waiter.ticket.flow is None and self.rate is not None:
            for other in takewhile(lambda other: other is not waiter, self.lines[None]):
                seconds = self._pace.wait(now, self.rate, ahead)
                if seconds > left:
                    return True
                ahead += not other.turn.done() and (other.give_up is None or other.give_up >= loop_time + seconds)
        return self._pace.wait(now, self.rate, ahead) > left

    def _overload_of(self, waiter: _Waiter) -> OverloadedError:
        """Make the error that says what a caller in line waits for."""
        now = time.monotonic()
        pause = self._pace.paused_until - now
        left = 0.0 if waiter.give_up is None else max(0.0, waiter.give_up - self._queue.loop.time())
        if pause > left:
            return OverloadedError(
                "no request could be sent in time; nothing was sent",
                why=f"the server answered 429 and asked this account to pause for {pause:.1f} s more",
                fix="try again after the pause; other limits of this client do not shorten it",
                stopped_by="deadline",
                retry_after=pause,
                waited_for="pause",
            )
        if self.free and self.rate is not None:
            ahead = self.lines[waiter.ticket.flow].index(waiter) if waiter.in_line else 0
            seconds = self._pace.wait(now, self.rate, ahead)
            return OverloadedError(
                "no request could be sent in time; nothing was sent",
                why=f"at {self.rate.per_second:g} requests a second its turn would come in about {seconds:.1f} s",
                fix="allow more time (deadline=, Timeouts(acquire=)), send less at once, or raise rate",
                stopped_by="deadline",
                retry_after=seconds,
                waited_for="rate",
            )
        return OverloadedError(
            "no request could be sent in time; nothing was sent",
            why=f"all slots of this client were busy ({self._slots} at most)",
            fix="allow more time (deadline=, Timeouts(acquire=)), send less at once, or raise max_concurrency",
            stopped_by="deadline",
            waited_for="slots",
        )
