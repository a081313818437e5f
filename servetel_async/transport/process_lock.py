"""The lock for state that all threads of the process share. It is held for a few instructions, never over an await."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Reentrant: the garbage collector or a signal handler may run in the thread that holds it, and need it.
_lock = threading.RLock()


def process_lock() -> threading.RLock:
    """Return the lock. Call this each time: a forked child has another lock."""
    return _lock


def _renew() -> None:
    """Make a new lock: at the fork another thread may have held the old one, and the child could never release it."""
    global _lock  # noqa: PLW0603 - one lock for the process is the point
    _lock = threading.RLock()


def _no_fork(*, after_in_child: Callable[[], None]) -> None:
    """Windows has no fork."""


getattr(os, "register_at_fork", _no_fork)(after_in_child=_renew)
