"""The pace of one account: the time of its next request, the pause after a 429, and the concurrency to use.

The server's limit belongs to the account, so all clients of the account in this process share one pace. It is
arithmetic on the monotonic clock; every change is made under the process lock, so any thread and loop may use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.transport.process_lock import process_lock

if TYPE_CHECKING:
    from servetel_async.settings import RateLimit

#: Requests are this much further apart than the rate allows: on the way, some catch up with those before.
MARGIN = 1.005
#: If turns are up to ``SHORT`` seconds apart, a turn that is taken up to ``LATENESS`` seconds late does not move the
#: next turns: timers and busy loops are always a little late. At slower rates this lateness hardly matters.
SHORT, LATENESS = 0.1, 0.02


class AccountPace:
    """State that the clients of one account share.

    Attributes:
        paused_until: end of the pause, on the monotonic clock.
        concurrency: concurrent requests that the server last tolerated; None if it was never too slow.
        tokens_out: tokens that retries of its clients have taken (``retry_budget.py``).
    """

    __slots__ = ("__weakref__", "_delay", "_next_at", "concurrency", "paused_until", "tokens_out")

    def __init__(self) -> None:
        self._delay = 0.0
        self._next_at = 0.0
        self.paused_until = 0.0
        self.concurrency: float | None = None
        self.tokens_out = 0

    def wait(self, now: float, rate: RateLimit | None, ahead: int = 0) -> float:
        """Return the seconds until the turn after ``ahead`` others; 0 if it is now. No turn is taken."""
        start = max(now, self.paused_until)
        if rate is not None:
            start = max(start, max(start, self._next_at) + (ahead - rate.burst + 1) * interval_of(rate))
        return start - now

    def take(self, now: float, rate: RateLimit | None) -> float:
        """Take one request's turn. Return 0 if it is taken, else the seconds after which to ask again."""
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
        """Note that a request is sent now, ``delay`` seconds after its turn, because it had to connect first.

        The next request may be quicker and follow too closely. So the next turn moves by the difference between this
        delay and the one before, but never beyond one interval from now: a slow connection does not stop the account.
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
        """Whether the end of its pause or its next turn is in the future."""
        return now < max(self.paused_until, self._next_at)


def interval_of(rate: RateLimit) -> float:
    """Return the seconds from one turn to the next."""
    return rate.interval * MARGIN
