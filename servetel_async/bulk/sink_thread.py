"""Runs a sink in one thread, one call after another, and always waits for the call under way."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio

from servetel_async.errors import ServetelError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


class SinkThread:
    """One thread for blocking calls.

    A call under way is waited for even if the task is cancelled. Otherwise the cleanup would run beside the write that
    it cleans up after.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servetel-writer")

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call and return its result. A cancellation that came meanwhile is raised afterwards."""
        future = asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not future.done():
                try:
                    await asyncio.wait((future,))
                except asyncio.CancelledError as error:  # a task's own cancel() passes every shield
                    cancelled = error
        if cancelled is not None:
            future.exception()  # retrieved, so that asyncio logs nothing: the cancellation is raised instead
            raise cancelled
        failure = future.exception()
        if isinstance(failure, ServetelError):
            raise _bare(failure)
        return future.result()

    def close(self) -> None:
        """End the thread. It is idle, because every call was waited for."""
        self._thread.shutdown()


def _bare(error: ServetelError) -> ServetelError:
    """Remove the frames from an error and its causes: frames of a sink hold calls, and some tracebacks show locals."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
