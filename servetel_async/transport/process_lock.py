"""The lock for state that all threads of the process share. It is held for a few instructions, never over an await."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: A collector or a signal handler may interrupt its holder and need it too: so the same thread may take it again.
_lock = threading.RLock()


def process_lock() -> threading.RLock:
    """Give the lock. Ask for it each time: a forked child has another one."""
    return _lock


def _renew() -> None:
    """Another thread may have held the lock when the process forked. In the child nothing would release it."""
    global _lock  # noqa: PLW0603 - one lock for the process is the point
    _lock = threading.RLock()


def _no_fork(*, after_in_child: Callable[[], None]) -> None:
    """Windows has no fork."""


getattr(os, "register_at_fork", _no_fork)(after_in_child=_renew)
