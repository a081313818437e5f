"""Code of the caller inside the library: a token provider, trace hooks, a session, ``on_event``, ``on_progress``.

Rule 1: an exception from such code becomes a ``CallbackError``. It names the class and the code, never the message.
Rule 2: a ``CancelledError`` is a cancellation only if our task was cancelled. ``KeyboardInterrupt``, ``SystemExit`` and
``MemoryError`` are raised unchanged.
Rule 3: the original is not chained: its message and its frames may hold a secret.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from servetel_async.errors import CallbackError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
logger = logging.getLogger("servetel_async")


def must_pass(error: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Whether an exception is a request to end this task or the process, and not a failure of the caller's code.

    Args:
        error: the exception.
        task: the task that runs the library's code.
    """
    if isinstance(error, asyncio.CancelledError):
        return task is None or task.cancelling() > 0
    if isinstance(error, GeneratorExit):  # the coroutine is closed from outside if its task is not running
        return _running_task() is not task
    return isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError))


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop is running
        return None


def callback_failed(whose: str, error: BaseException) -> CallbackError:
    """Make the error for an exception of the caller's code.

    Args:
        whose: the name of the code, for the message.
        error: its exception; only the class is named.
    """
    return CallbackError(
        f"{whose} raised {type(error).__name__}",
        why="this is code that you gave to the client; its message is left out, because it may hold a secret",
        fix=f"catch and log the exception inside {whose}",
        stopped_by="final",
    )


class Listener(Generic[T]):
    """A function of the caller that receives events and cannot disturb the work.

    Args:
        name: the parameter that holds it.
        function: takes one value; its result is not used.

    Raises:
        ConfigurationError: if it cannot be called, or is ``async``: nothing would await it.
    """

    def __init__(self, name: str, function: Callable[[T], object]) -> None:
        if not callable(function):
            raise ConfigurationError(f"{name} cannot be called", fix="give a function of one argument")
        if _is_async(function):
            raise ConfigurationError(
                f"{name} is an async function",
                why="it is called between two requests and nothing awaits it",
                fix="give a plain function; for example one that puts its argument into an asyncio.Queue",
            )
        self.name = name
        self._function = function
        self._warned = False

    def tell(self, value: T) -> None:
        """Call the function, and discard an awaitable that it returns.

        Raises:
            BaseException: if the function raised; the same exception.
        """
        returned = self._function(value)
        if returned is not None and inspect.isawaitable(returned):
            discard = getattr(returned, "close", None) or getattr(returned, "cancel", None)
            if discard is not None:
                discard()
            if not self._warned:
                self._warned = True
                logger.warning("%s returned an awaitable; nothing awaits it, so it was discarded", self.name)


def _is_async(function: object) -> bool:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the question is whether it is async
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in (function, call))
