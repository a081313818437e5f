"""Count the free slots of a pull by taking them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from servetel_async.bulk.fetching.concurrency import Concurrency


def _ends_at_once(work: Coroutine[Any, Any, Any]) -> bool:
    """Run it until it first waits, and cancel it there; true if it ended before."""
    try:
        work.send(None)
    except StopIteration:
        return True
    with suppress(asyncio.CancelledError):
        work.throw(asyncio.CancelledError())
    return False


def free_slots(concurrency: Concurrency) -> int:
    """Take every slot that is free, give them back, and return their number."""
    taken = []
    while _ends_at_once((slot := concurrency.slot(0.0)).__aenter__()):
        taken.append(slot)
    for slot in taken:
        assert _ends_at_once(slot.__aexit__(None, None, None))
    return len(taken)


def assert_free(concurrency: Concurrency) -> None:
    """Assert that no task holds a slot or waits for one: a free slot always goes to a waiting task first."""
    assert free_slots(concurrency) == int(concurrency.limit)
