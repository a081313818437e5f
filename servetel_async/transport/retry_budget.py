"""The retry budget of one client: it bounds the retries of calls with a deadline, which would worsen an outage.

An outage affects the whole account, so its clients count their retries together. Each compares the count with its own
bound, so one client's setting does not limit another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.transport.process_lock import process_lock

if TYPE_CHECKING:
    from servetel_async.transport.throttle import AccountPace

TRANSIENT_COST = 14
THROTTLED_COST = 5


class RetryBudget:
    """A number of tokens. A retry takes some. A call that succeeds returns all tokens that its retries took.

    Args:
        size: largest number of tokens taken at a time.
        account: counts the tokens taken.
    """

    __slots__ = ("_account", "_size")

    def __init__(self, size: int, account: AccountPace) -> None:
        self._size = size
        self._account = account

    def spend(self, cost: int) -> bool:
        """Pay for a retry. False if too few tokens are left; then none is taken."""
        with process_lock():
            if self._account.tokens_out + cost > self._size:
                return False
            self._account.tokens_out += cost
            return True

    def earn(self, amount: int) -> None:
        """Return tokens after a success: the cost of its retries, or 1. At most this client's size stays taken."""
        account = self._account
        if account.tokens_out:
            with process_lock():
                account.tokens_out = max(0, min(account.tokens_out, self._size) - amount)
