"""The attempts of one call: a bare first one; after a failure, tenacity.

1. The first attempt costs nothing extra; only a failure sets up tenacity, with a separate copy per call.
2. The verdict (an allow-list) decides whether to retry, never an exception's class; a cancellation is never retried.
3. The wait is a random time up to a doubling bound (full jitter), and never shorter than the server asked for. If the
   server asks for more than ``Retry(longest_wait=)``, the call fails at once. A 429 pauses the whole account.
4. No slot is held while waiting.
5. Retries stop at: the attempts; the deadline, if the wait would outlast it; the client's budget, for calls with a
   deadline. A call that succeeds returns the cost of its retries: a success is not an outage.
6. Two retries are not counted: after a new token, and after a kept-alive connection that the server had closed (once).
7. A reply that was accepted and later proves unusable is one more failure: its history continues.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from tenacity import AsyncRetrying, retry_if_exception
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from servetel_async.protocol.verdict import OK, Action, Unacceptable, Verdict, is_slow
from servetel_async.transport.retry_budget import THROTTLED_COST, TRANSIENT_COST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from servetel_async.errors import ServetelError, StoppedBy
    from servetel_async.protocol.tokens import Secret
    from servetel_async.settings import Retry
    from servetel_async.transport.retry_budget import RetryBudget
    from servetel_async.transport.throttle import AccountPace

T = TypeVar("T")

#: One call may need several tokens if they expire often; a server that refuses all must not be asked for ever.
MOST_RENEWALS = 10


@dataclass(slots=True)
class History:
    """The attempts of one call so far.

    Attributes:
        sent: requests on the wire.
        token: the token of the last one.
        counted: failures that count against ``Retry(attempts=)``.
        renewed: refused tokens; freed: whether the uncounted retry was used.
        kinds: failures, by the limit of their kind.
    """

    sent: int = 0
    token: Secret | None = None
    counted: int = 0
    renewed: int = 0
    freed: bool = False
    kinds: dict[tuple[object, int | None], int] = field(default_factory=dict[tuple[object, int | None], int])


class Refused(NamedTuple):
    """An accepted reply that proved unusable, and the history of its call."""

    verdict: Verdict
    history: History


class Attempts(Generic[T]):
    """The attempts of one call: their failures, and why they stopped.

    Args:
        send: makes one attempt; raises ``Unacceptable`` with a verdict.
        renew: gets another token; False if there is no other token. None for attempts that send no token.
        policy: number of attempts and delays between them.
        pace: the account's; a 429 pauses it.
        budget: the client's; it pays for retries.
        deadline_at: loop time at which all waiting ends.
        notice: called before each wait, with the error and the seconds.
        history: the attempts so far.
        slow_attempts: total attempts for replies that take too long; None: as ``Retry(attempts=)``.
    """

    def __init__(  # noqa: PLR0917 - what a call is made of
        self,
        send: Callable[[], Awaitable[T]],
        renew: Callable[[], Awaitable[bool]] | None,
        policy: Retry,
        pace: AccountPace,
        budget: RetryBudget,
        deadline_at: float | None,
        notice: Callable[[ServetelError | None, float], None],
        history: History,
        slow_attempts: int | None = None,
    ) -> None:
        self._send = send
        self._renew = renew
        self._policy = policy
        self._pace = pace
        self._budget = budget
        self._deadline_at = deadline_at
        self._notice = notice
        self._history = history
        self._slow_attempts = policy.attempts if slow_attempts is None else slow_attempts
        self._verdict = OK
        self._paid = 0
        self._stopped_by: StoppedBy = "final"
        self._primed = False

    async def run(self, refused: Verdict | None = None) -> T:
        """Make attempts until one is good or none may follow.

        Args:
            refused: the final verdict on the previous attempt.

        Raises:
            Unacceptable: if no attempt is good; has the last verdict. ``stopped_by`` tells why no other followed.
        """
        value: T
        try:
            value = await self._attempt(refused)
        except Unacceptable:
            if not self._may_retry():
                raise
        else:
            self._budget.earn(1)
            return value
        retrying = _RETRYING.copy(
            retry=retry_if_exception(lambda error: isinstance(error, Unacceptable) and self._may_retry()),
            stop=_Stop(self),
            wait=_Wait(self),
            sleep=self._sleep,
        )
        value = await retrying(self._next)
        self._budget.earn(self._paid or 1)
        return value

    @property
    def stopped_by(self) -> StoppedBy:
        """The reason for ending the retries."""
        return self._stopped_by

    async def _next(self) -> T:
        """Make one step for tenacity. The first meets the failure already known, so that its wait is counted."""
        if not self._primed:
            self._primed = True
            raise Unacceptable(self._verdict)
        return await self._attempt()

    async def _attempt(self, refused: Verdict | None = None) -> T:
        try:
            if refused is not None:
                raise Unacceptable(refused)  # noqa: TRY301
            if self._verdict.action is Action.RENEW and not (self._renew and await self._renew()):
                raise Unacceptable(dataclasses.replace(self._verdict, action=Action.FAIL))  # noqa: TRY301
            return await self._send()
        except Unacceptable as refusal:
            self._judge(refusal.verdict)
            refusal.__context__ = None
            raise refusal.with_traceback(None) from None  # the frames below hold the body, and tenacity the refusal

    def _judge(self, verdict: Verdict) -> None:
        """Note the verdict on an attempt. A verdict that has used up its own retries becomes final."""
        history = self._history
        if verdict.action is Action.FREE and history.freed:
            verdict = dataclasses.replace(verdict, action=Action.RETRY)
        if verdict.action is Action.FREE:
            history.freed = True
        elif verdict.action is Action.RENEW:
            history.renewed += 1
        elif verdict.action is Action.RETRY:
            history.counted += 1
            kind = (type(verdict.error), verdict.retries)
            times = history.kinds[kind] = history.kinds.get(kind, 0) + 1
            if verdict.retries is not None and times > verdict.retries:
                self._stopped_by = "attempts"
                verdict = dataclasses.replace(verdict, action=Action.FAIL)
        self._verdict = verdict

    def _may_retry(self) -> bool:
        if self._verdict.action is Action.RENEW:
            return self._history.renewed <= MOST_RENEWALS
        return self._verdict.action in (Action.RETRY, Action.FREE)

    # Hooks for tenacity

    def backoff(self) -> float:
        """Return the seconds to wait before the next attempt."""
        verdict, policy = self._verdict, self._policy
        if verdict.action is not Action.RETRY:
            return 0.0
        base, cap = (policy.throttled_base, policy.throttled_cap) if verdict.throttled else (policy.base, policy.cap)
        bound = min(cap, base * 2.0 ** min(self._history.counted - 1, 30))
        return max(random.uniform(0.0, bound), verdict.wait or 0.0)  # noqa: S311 - jitter, not a secret

    def stop(self, wait: float) -> bool:
        """Whether to stop here; notes the reason."""
        if self._verdict.action is not Action.RETRY:
            return False
        if self._verdict.throttled and wait <= self._policy.longest_wait:
            self._pace.pause(time.monotonic(), wait)
        cost = THROTTLED_COST if self._verdict.throttled else TRANSIENT_COST
        reason: StoppedBy | None = None
        if (self._verdict.wait or 0.0) > self._policy.longest_wait:
            reason = "retry_after"
        elif self._history.counted >= self._most_attempts():
            reason = "attempts"
        elif self._deadline_at is not None and asyncio.get_running_loop().time() + wait >= self._deadline_at:
            reason = "retry_after" if self._verdict.wait else "deadline"
        elif self._deadline_at is not None and not self._budget.spend(cost):
            reason = "budget"
        elif self._deadline_at is not None:
            self._paid += cost
        if reason is not None:
            self._stopped_by = reason
        return reason is not None

    def _most_attempts(self) -> int:
        most = self._policy.attempts
        return min(most, self._slow_attempts) if is_slow(self._verdict.error) else most

    async def _sleep(self, seconds: float) -> None:
        if seconds or self._verdict.action is Action.RETRY:
            self._notice(self._verdict.error, seconds)
            await asyncio.sleep(seconds)


class _Wait(wait_base):
    def __init__(self, attempts: Attempts[T]) -> None:
        self._attempts = attempts

    def __call__(self, retry_state: RetryCallState) -> float:  # noqa: ARG002 - tenacity's signature
        return self._attempts.backoff()


class _Stop(stop_base):
    def __init__(self, attempts: Attempts[T]) -> None:
        self._attempts = attempts

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._attempts.stop(retry_state.upcoming_sleep)


_RETRYING = AsyncRetrying(reraise=True)
