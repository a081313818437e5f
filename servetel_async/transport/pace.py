"""The pace of one account: when its next request may go, the pause after a 429, and the concurrency that it bears.

The server's limit belongs to the account, so all clients of the account in this process share one pace. It is
arithmetic on the monotonic clock; every change is made under the process's lock, so any thread and loop may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.transport.process_lock import process_lock

if TYPE_CHECKING:
    from servetel_async.settings import RateLimit

#: Requests are this much further apart than the rate allows: on their way some of them gain on those before.
MARGIN = 1.005
#: Of turns up to ``SHORT`` seconds apart, one that is taken up to ``LATENESS`` seconds late, as timers and busy loops
#: always are, does not move the next ones. Slower turns lose next to nothing by it.
SHORT, LATENESS = 0.1, 0.02


class AccountPace:
    """What the clients of one account share.

    Attributes:
        paused_until: end of the pause, on the monotonic clock.
        concurrency: requests at a time that the server bore last; None before it was ever too slow.
        tokens_out: of the retry budgets of its clients (``retry_budget.py``).
    """

    __slots__ = ("__weakref__", "_delay", "_next_at", "concurrency", "paused_until", "tokens_out")

    def __init__(self) -> None:
        self._delay = 0.0
        self._next_at = 0.0
        self.paused_until = 0.0
        self.concurrency: float | None = None
        self.tokens_out = 0

    def wait(self, now: float, rate: RateLimit | None, ahead: int = 0) -> float:
        """Give the seconds until the turn after ``ahead`` others; 0 if it is now. Takes nothing."""
        start = max(now, self.paused_until)
        if rate is not None:
            start = max(start, max(start, self._next_at) + (ahead - rate.burst + 1) * interval_of(rate))
        return start - now

    def take(self, now: float, rate: RateLimit | None) -> float:
        """Take one request's turn. Returns 0 if it is taken, else the seconds after which to ask again."""
        if rate is None:
            return max(0.0, self.paused_until - now)
        with process_lock():
            seconds = self.wait(now, rate)
            if seconds:
                return seconds
            interval, late = interval_of(rate), now - self._next_at
            on_time = late <= 0 or (interval <= SHORT and late <= min(interval, LATENESS))
            self._next_at = (self._next_at if on_time else now) + interval
        return 0.0

    def sent(self, now: float, delay: float, rate: RateLimit | None) -> None:
        """Note that a request goes out now, ``delay`` seconds after its turn, because it had to connect first.

        The next request may be quicker and come too close. So a slow turn moves by what this request was slower than
        the one before, and is never moved further than one interval from now: a slow connection stops no account.
        """
        if rate is None or rate.burst > 1 or interval_of(rate) <= SHORT:
            return
        with process_lock():
            slower, self._delay = delay - self._delay, delay
            self._next_at = max(self._next_at, min(self._next_at + slower, now + interval_of(rate)))

    def pause(self, now: float, seconds: float) -> None:
        """Hold back every request of the account. Several 429s at one moment are one pause."""
        with process_lock():
            self.paused_until = max(self.paused_until, now + seconds)

    def is_waited_for(self, now: float) -> bool:
        """Whether its pause or its next turn is still to come."""
        return now < max(self.paused_until, self._next_at)


def interval_of(rate: RateLimit) -> float:
    """Give the seconds from one turn to the next."""
    return rate.interval * MARGIN
