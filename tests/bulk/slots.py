"""How many slots of a pull are free, found by taking them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from servetel_async.bulk.fetching.concurrency import Concurrency


def _ends_at_once(work: Coroutine[Any, Any, Any]) -> bool:
    """Run it up to where it waits, and cancel it there; whether it ended before."""
    try:
        work.send(None)
    except StopIteration:
        return True
    with suppress(asyncio.CancelledError):
        work.throw(asyncio.CancelledError())
    return False


def free_slots(concurrency: Concurrency) -> int:
    """Take all slots that can be had without waiting, give them back, and say how many they were."""
    taken = []
    while _ends_at_once((slot := concurrency.slot(0.0)).__aenter__()):
        taken.append(slot)
    for slot in taken:
        assert _ends_at_once(slot.__aexit__(None, None, None))
    return len(taken)


def assert_free(concurrency: Concurrency) -> None:
    """No slot is held, and no task waits for one: a slot is never given past a task that waits."""
    assert free_slots(concurrency) == int(concurrency.limit)
