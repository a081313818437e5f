"""The situation of a pull, in two rows: its progress, and what delays it."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from servetel_async.cli.options.durations import rough

if TYPE_CHECKING:
    from collections.abc import Callable

    from servetel_async.bulk.progress import PullProgress
    from servetel_async.transport.endpoint import Event

#: Seconds over which the rate is measured: the rest will come as fast as the latest calls.
SPAN = 30.0
#: Seconds for which a failed request is shown.
FRESH = 5.0
#: Seconds without any reply, after which the silence is shown.
SILENCE = 10.0
#: Failures in a row after which it is an outage.
OUTAGE = 5
_GOOD = 200


class Situation:
    """The situation of a pull, from what the pull and its requests report.

    Args:
        patience: seconds of an outage that are waited for; None without a limit of this kind.
        clock: a function that returns seconds.
    """

    def __init__(self, patience: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._progress: PullProgress | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._heard_at = self._good_at = clock()
        self._failures = 0
        self._failure = ""
        self._failed_at = self._waits_until = 0.0

    def take(self, progress: PullProgress) -> None:
        """Take the current progress."""
        now = self._clock()
        self._progress = progress
        self._samples.append((now, progress.records))
        while len(self._samples) > 1 and self._samples[1][0] <= now - SPAN:
            self._samples.popleft()

    def note(self, event: Event) -> None:
        """Take note of a request or a wait."""
        now = self._heard_at = self._clock()
        if event.kind == "wait":
            self._waits_until, self._failure = now + event.seconds, waiting(event)
        elif event.status == _GOOD:
            self._good_at, self._failures, self._failed_at = now, 0, 0.0
        else:
            self._failures, self._failed_at = self._failures + 1, now
            self._failure = f"{_page(event)}{_reason(event)}, trying again"

    def first_row(self) -> str:
        """Return the progress: ``12,300 of 37,431 calls, 205/s, 2 min left``."""
        progress = self._progress
        if progress is None:
            return "asking the API"
        text = f"{progress.records:,} calls"
        if progress.total is not None:
            text = f"{progress.records:,} of {progress.total:,} calls"
        rate = self._rate()
        if rate is None:
            return text
        text += f", {rate:,.0f}/s"
        if progress.total is not None and rate:
            text += f", {rough(max(0, progress.total - progress.records) / rate)} left"
        return text

    def second_row(self) -> str:
        """Return what delays the pull; empty if nothing does."""
        now = self._clock()
        if self._failures >= OUTAGE:
            text = f"no good answer from the API for {rough(now - self._good_at)} ({self._failure})"
            return text if self._patience is None else f"{text}; waiting up to {rough(self._patience)}"
        if now < self._waits_until or (self._failures and now < self._failed_at + FRESH):
            return self._failure
        if now >= self._heard_at + SILENCE:
            if self._progress is not None and self._progress.records == self._progress.total:
                return "making the output"
            return f"nothing has come for {rough(now - self._heard_at)}"
        if self._progress is not None and self._progress.retries:
            retries, waited = self._progress.retries, self._progress.waited
            return f"{retries:,} {'retry' if retries == 1 else 'retries'} so far, {rough(waited)} waited"
        return ""

    def _rate(self) -> float | None:
        """Return the recent calls per second; None if the time is too short to tell."""
        (since, before), (_, records) = self._samples[0], self._samples[-1]
        seconds = self._clock() - since
        return max(0, records - before) / seconds if seconds >= 1.0 else None


def waiting(event: Event) -> str:
    """Describe a wait: ``page 12: RateLimitError, trying again in 4 s``."""
    return f"{_page(event)}{event.error}, trying again in {event.seconds:.0f} s"


def _page(event: Event) -> str:
    return "" if event.page is None else f"page {event.page}: "


def _reason(event: Event) -> str:
    return f"HTTP {event.status}" if event.status is not None else f"{event.error or 'no answer'}".lower()
