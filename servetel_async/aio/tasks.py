"""Tasks: start them; cancel them, and wait until they end, even if the waiter is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from servetel_async.errors import CallbackError, StreamClosedError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator

T = TypeVar("T")
#: Exceptions that end a loop, a generator or a task silently.
CONTROLLING = (StopAsyncIteration, StopIteration, GeneratorExit, asyncio.CancelledError)


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task in the running loop.

    Raises:
        RuntimeError: if there is no running asyncio loop; then no coroutine is left unawaited.
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
    """Cancel all tasks. Never waits, so the garbage collector may call it."""
    for task in filter(_is_running, tasks):
        task.cancel()


def _is_running(task: asyncio.Task[Any]) -> bool:
    """Whether a task may still end. A task whose loop was closed by hand never ends and cannot be cancelled."""
    return not (task.done() or task.get_loop().is_closed())


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all tasks and wait until they end.

    A shield within this call holds off anyio's cancellation. asyncio's cancellation ignores shields, so each one is
    noted and raised at the end. When this returns, no task is left, even if the waiter was cancelled twice.
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


def error_of(task: asyncio.Task[Any], *, closed: bool = False, user: str = "call") -> BaseException | None:
    """Return the error of a finished task; None if it has a result.

    A request also runs code of the caller: a token provider, a hook, a session. If such code raises an exception that
    controls a loop or a task, it must not control the waiting task, so it becomes an error.

    Args:
        task: a finished task that the caller of this function did not cancel.
        closed: whether the client is closed.
        user: the waiter of the task: ``"stream"``, ``"call"`` or ``"pull"``.
    """
    if not task.cancelled():
        return None if (error := task.exception()) is None else own_error(error)
    if closed:
        return StreamClosedError(f"the client was closed under the {user}", fix=f"keep it open until the {user} ends")
    return _ended_by_foreign_code("cancelled a request")


def own_error(error: BaseException) -> BaseException:
    """Return an error that can be raised anywhere: an exception that would end a loop or a task is replaced."""
    if isinstance(error, CONTROLLING):
        return _ended_by_foreign_code(f"raised {type(error).__name__}")
    return error


def _ended_by_foreign_code(what: str) -> CallbackError:
    return CallbackError(
        f"code outside of this library {what}",
        why="a token provider, a callback, a trace hook or a session of the caller runs inside of this library",
        fix="let that code return a value or raise an ordinary exception",
    )


async def run_together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all coroutines at once; return their results in order. The first error ends the others and is raised bare.

    Raises:
        Exception: if one failed; the error of the first failure.
        CallbackError: if other code cancelled the first failed task, or it raised what would control the caller.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [error for task in tasks if task.done() and (error := error_of(task)) is not None]
    finally:
        try:
            await end(tasks)
        finally:  # every error is retrieved, so that unraised ones log nothing
            for task in tasks:
                if not task.cancelled():
                    task.exception()
    if failed:
        raise failed[0]
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
        """Start a task in the running loop.

        Raises:
            RuntimeError: if there is no running asyncio loop.
        """
        task = start(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def end(self) -> None:
        """Cancel the tasks of the running loop and wait until they end."""
        loop, own = asyncio.get_running_loop(), asyncio.current_task()
        tasks = list(self._tasks)  # a copy: another thread may start one by mistake
        await end(task for task in tasks if task.get_loop() is loop and task is not own)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        """Forget a task, and retrieve its error, so that asyncio logs nothing for a page that is no longer needed."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()
