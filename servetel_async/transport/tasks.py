"""Ending tasks: cancel them, and be there until they are over, whatever happens to oneself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable


def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all. Waits for nothing, so it may be called from a collector."""
    for task in tasks:
        task.cancel()


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all and wait until they are over.

    anyio's cancellation is held off by a shield that lives within this call; asyncio's own knows no shield, so each is
    noted and raised at the end. Whoever awaits this knows that nothing is left, even if he was cancelled twice.
    """
    running: set[asyncio.Task[Any]] = {task for task in tasks if not task.done()}
    cancel(running)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while running:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as error:
                cancelled = error
            running = {task for task in running if not task.done()}
    if cancelled is not None:
        raise cancelled
