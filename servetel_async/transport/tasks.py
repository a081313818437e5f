"""Tasks: start them; cancel them, and be there until they are over, whatever happens to oneself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start one in the running loop.

    Raises:
        RuntimeError: there is none, or it is not asyncio's; then nothing is left that nobody awaits.
    """
    try:
        return asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        work.close()
        raise


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


class OwnedTasks:
    """The tasks of one owner, which ends them when it closes."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start one in the running loop.

        Raises:
            RuntimeError: there is no running loop of asyncio.
        """
        task = start(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def end(self) -> None:
        """Cancel those of the running loop and wait until they are over."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        tasks = list(self._tasks)  # a copy: another thread may start one by mistake
        await end(task for task in tasks if task.get_loop() is loop and task is not own)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        """Look at its error too, so that a page that is not read any more logs nothing."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
