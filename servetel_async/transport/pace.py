"""Pace: how many requests at once, how many a second, and one pause for a whole account.

The limit belongs to the account, so what is counted per account is shared by every client of the process that uses it:
the rate gate, the pause after a 429, and the retry budget. The slots belong to a client.

Admission comes first and the clock second: nobody is charged for waiting. Whoever is cancelled while waiting gives
back his slot, and has taken nothing from the gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from servetel_async.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable

    from servetel_async.settings import RateLimit, Timeouts

#: Requests are this much further apart than the rate allows: on their way some of them gain on those before.
MARGIN = 1.005
#: Of turns that are this many seconds apart or less, one that is taken a little late, as timers and busy loops always
#: are, does not move those after it. Slower ones lose next to nothing by it.
SHORT, LATENESS = 0.1, 0.02
TRANSIENT_COST = 14
THROTTLED_COST = 5


class AccountPace:
    """What the clients of one account share. Pure arithmetic on a monotonic clock: safe from any loop or thread."""

    __slots__ = ("__weakref__", "_delay", "_next_at", "_tokens", "_tokens_max", "paused_until")

    def __init__(self, budget: int = 500) -> None:
        self._delay = 0.0
        self._next_at = 0.0
        self.paused_until = 0.0
        self._tokens_max = self._tokens = budget

    def take(self, now: float, rate: RateLimit | None) -> float:
        """Take one request's turn. Returns 0 if it is taken, else the seconds after which to ask again."""
        if now < self.paused_until:
            return self.paused_until - now
        if rate is None:
            return 0.0
        interval = rate.interval * MARGIN
        due = self._next_at - (rate.burst - 1) * interval
        if now < due:
            return due - now
        late = now - self._next_at
        on_time = late <= 0 or (interval <= SHORT and late <= min(interval, LATENESS))
        self._next_at = (self._next_at if on_time else now) + interval
        return 0.0

    def sent(self, delay: float, rate: RateLimit | None) -> None:
        """Take note that a request went out so many seconds after its turn: it had to connect first.

        The next one may be quicker. So slow turns are put off by what this one was slower than the one before.
        """
        slower, self._delay = delay - self._delay, delay
        if slower > 0 and rate is not None and rate.burst == 1 and rate.interval * MARGIN > SHORT:
            self._next_at += slower

    def pause(self, now: float, seconds: float) -> None:
        """Hold back every request of the account. Several 429s of one moment are one pause."""
        self.paused_until = max(self.paused_until, now + seconds)

    def spend(self, cost: int) -> bool:
        """Pay for a retry; False if the budget is used up: an outage is not to be made worse."""
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def earn(self, amount: int) -> None:
        """Give a success its reward: what its retry had cost, or 1."""
        self._tokens = min(self._tokens_max, self._tokens + amount)


_accounts: WeakValueDictionary[Hashable, AccountPace] = WeakValueDictionary()


def account_pace(account: Hashable, budget: int) -> AccountPace:
    """Give the one pace of that account in this process."""
    pace = _accounts.get(account)
    if pace is None:
        pace = _accounts[account] = AccountPace(budget)
    return pace


class Admission:
    """The slots of one client in one event loop, and its way through the account's gate."""

    def __init__(self, slots: int, pace: AccountPace, rate: RateLimit | None, timeouts: Timeouts) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._turn = asyncio.Lock()
        self._pace = pace
        self._rate = rate
        self._timeouts = timeouts

    @contextlib.asynccontextmanager
    async def slot(self, deadline_at: float | None, *, patient: bool = False) -> AsyncGenerator[Callable[[], None]]:
        """Hold one slot, entered when the gate lets a request through; gives what is to be called when it is sent.

        Raises:
            OverloadedError: not in time, by ``Timeouts(acquire=)`` or the deadline. Nothing was sent.
        """
        give_up = deadline_at
        if self._timeouts.acquire is not None and not patient:
            acquired_by = asyncio.get_running_loop().time() + self._timeouts.acquire
            give_up = acquired_by if give_up is None else min(give_up, acquired_by)
        if give_up is None:
            await self._slots.acquire()
        else:
            await self._acquire_by(give_up)
        try:
            if self._rate is not None or self._pace.paused_until:
                await self._pass_gate(give_up)
            turn_at = time.monotonic()
            yield lambda: self._pace.sent(time.monotonic() - turn_at, self._rate)
        finally:
            self._slots.release()

    async def _acquire_by(self, give_up: float) -> None:
        try:
            async with asyncio.timeout_at(give_up):
                await self._slots.acquire()
        except TimeoutError:
            pass
        else:
            return
        raise _overloaded("every slot of this client stayed busy")

    async def _pass_gate(self, give_up: float | None) -> None:
        """Wait for the turn, first come first served. Nothing is taken before the end: cancelling costs nothing."""
        late = False
        try:
            async with asyncio.timeout_at(give_up) if give_up is not None else contextlib.nullcontext(), self._turn:
                while wait := self._pace.take(time.monotonic(), self._rate):
                    if give_up is not None and asyncio.get_running_loop().time() + wait > give_up:
                        late = True
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            late = True
        if late:
            raise _overloaded("the account's rate, or the pause that its server asked for, leaves no turn in time")


def _overloaded(why: str) -> OverloadedError:
    return OverloadedError(
        "no request could be sent in time; nothing was sent",
        why=why,
        fix="allow more time (deadline=, Timeouts(acquire=)), send less at once, or raise max_concurrency or rate",
        stopped_by="deadline",
    )
