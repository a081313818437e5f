"""Tasks: start them; cancel them, and be there until they are over, whatever happens to oneself."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start one in the running loop.

    Raises:
        RuntimeError: there is none, or it is not asyncio's; then nothing is left that nobody awaits.
    """
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        work.close()
        raise
    with suppress(AttributeError):  # a task of another kind
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - its loop may be closed by hand
    return task


def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all. Waits for nothing, so it may be called from a collector."""
    for task in filter(_is_running, tasks):
        task.cancel()


def _is_running(task: asyncio.Task[Any]) -> bool:
    """Whether it may still end: one whose loop was closed by hand never does, and cannot be cancelled."""
    return not (task.done() or task.get_loop().is_closed())


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all and wait until they are over.

    anyio's cancellation is held off by a shield that lives within this call; asyncio's own knows no shield, so each is
    noted and raised at the end. Whoever awaits this knows that nothing is left, even if he was cancelled twice.
    """
    running: set[asyncio.Task[Any]] = set(filter(_is_running, tasks))
    cancel(running)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while running:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as error:
                cancelled = error
            running = set(filter(_is_running, running))
    if cancelled is not None:
        raise cancelled


async def run_together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all of them at once; gives their results in order. The first error ends the others and is raised, bare.

    Raises:
        Exception: of the first that failed.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    if not tasks:
        return []
    errors: list[BaseException] = []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        try:
            await end(tasks)
        finally:  # every error is looked at, so that those that are not raised log nothing
            errors += [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]
    return [task.result() for task in tasks]
