"""The accounts that this process uses, and the pace of each.

A pace outlives the clients, threads and event loops that use it: a pause that a server asked for also holds for the
next client. The ``KEPT`` accounts used last are kept, and every account in use.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from servetel_async.transport.process_lock import process_lock
from servetel_async.transport.throttle import AccountPace

if TYPE_CHECKING:
    from collections.abc import Hashable

#: Number of accounts to keep although no client uses them.
KEPT = 1_024

_in_use: WeakValueDictionary[Hashable, AccountPace] = WeakValueDictionary()
_kept: OrderedDict[Hashable, AccountPace] = OrderedDict()  # the last used comes last


def account_pace(account: Hashable) -> AccountPace:
    """Return the pace of an account, the same object for every client of this process."""
    with process_lock():
        pace = _in_use.get(account)
        if pace is None:
            pace = _in_use[account] = AccountPace()
        _kept[account] = pace
        _kept.move_to_end(account)
        if len(_kept) > KEPT:
            now, oldest = time.monotonic(), next(iter(_kept))
            idle = (name for name, old in _kept.items() if old is not pace and not old.is_waited_for(now))
            del _kept[next(idle, oldest)]
    return pace


def forget_accounts() -> None:
    """Forget every account that no client uses."""
    with process_lock():
        _kept.clear()
