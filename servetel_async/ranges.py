"""Ranges in windows as long as this server allows. The limit is learnt from refusals.

A server may refuse a range for another reason than its length, for example a filter. So a shorter range is a trial. If
one day is refused too, nothing was learnt, and the first refusal is raised.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from servetel_async.errors import RequestRejectedError
from servetel_async.protocol.range_limit import shorter_range
from servetel_async.protocol.wall_range import latest_wall
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta, tzinfo

T = TypeVar("T")

#: Servers refuse a parameter with one of these, or with a 200 whose body is an error.
_STATUSES = (200, 400, 422)


class KnowsRanges(Protocol):
    """The part of a client that remembers how long a range its server allows."""

    longest_range: timedelta

    @property
    def zone(self) -> tzinfo:
        """The account's wall clock."""
        ...


class RangeLimit:
    """Learns from refusals how long a range may be.

    Args:
        memory: stores what was learnt.
    """

    def __init__(self, memory: KnowsRanges) -> None:
        self._memory = memory
        self._trial: tuple[RequestRejectedError, timedelta] | None = None  # the first refusal, the limit before it

    def came(self) -> None:
        """Note that a window was accepted: the length on trial is now learnt."""
        self._trial = None

    def cut(self, window: Window, refusal: RequestRejectedError) -> list[Window]:
        """Cut a refused window into shorter ones, newest first.

        Raises:
            RequestRejectedError: the first refusal, if the length of the range is not the reason.
        """
        memory = self._memory
        if window.start is None or refusal.status not in _STATUSES:
            raise refusal
        trial = self._trial or (refusal, memory.longest_range)
        if window.end is None:
            window = self._closed(window.start)
        elif window.length <= memory.longest_range:
            shorter = shorter_range(window.length, refusal.what)
            if shorter is None:
                raise self._given_up(refusal)
            memory.longest_range = shorter
        self._trial = trial
        return list(window.split(memory.longest_range))

    def _given_up(self, refusal: RequestRejectedError) -> RequestRejectedError:
        if self._trial is None:
            return refusal
        (first, self._memory.longest_range), self._trial = self._trial, None
        return first

    def _closed(self, start: datetime) -> Window:
        """Close an open end at the present moment, because a server that allows only short ranges needs both ends."""
        now = latest_wall(datetime.now(UTC), self._memory.zone)
        return Window(start, max(start, now))


class RangeWalk(Generic[T]):
    """Asks for each window of a range, newest first, none longer than this server allows.

    Args:
        memory: knows how long windows may be, and stores what is learnt.
        whole: the range; an open range is a single window until the server refuses it.
        ask: requests one window.
    """

    def __init__(self, memory: KnowsRanges, whole: Window, ask: Callable[[Window], Awaitable[T]]) -> None:
        self._memory = memory
        self._left = [whole]
        self._ask = ask
        self._limit = RangeLimit(memory)

    async def next(self) -> tuple[Window, T] | None:
        """Request the next window, in shorter ones if it is refused. Return it and the answer; None after the last.

        Raises:
            RequestRejectedError: the first refusal, if the length of the range is not its reason.
        """
        while self._left:
            window, left = self._left.pop(0).newest(self._memory.longest_range)
            if left is not None:
                self._left.insert(0, left)
            try:
                answer = await self._ask(window)
            except RequestRejectedError as refusal:
                self._left[:0] = self._limit.cut(window, refusal)
                continue
            self._limit.came()
            return window, answer
        return None
