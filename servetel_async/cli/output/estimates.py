"""The estimated cost of a pull, shown before it starts."""

from __future__ import annotations

from typing import NamedTuple

from servetel_async.bulk.receipt import duration

#: Pages of a window, as the pull cuts them.
_PAGES = 20
_ROUGHLY = 100


class Estimate(NamedTuple):
    """Requests and time of a number of calls.

    Attributes:
        calls: calls that the API counts.
        read: calls that are read already, most of them by an interrupted pull.
        requests: estimated number of requests.
        rate: requests per second; 0 for no limit.
    """

    calls: int
    read: int
    requests: int
    rate: float

    @classmethod
    def of(cls, calls: int, *, page_size: int, rate: float, read: int = 0) -> Estimate:
        """Estimate a pull: the pages, a few more for the edges of each window, and one to learn how dates are read."""
        pages = -(-max(0, calls - read) // page_size)
        windows = -(-pages // _PAGES)
        requests = pages + 1 + (windows + 1 if windows > 1 else 0)
        if requests >= _ROUGHLY:  # "about 396" would promise too much
            scale = 10 ** (len(str(requests)) - 2)
            requests = round(requests / scale) * scale
        return cls(calls, read, requests, rate)

    @property
    def seconds(self) -> float | None:
        """The estimated seconds; None if only the API limits the rate."""
        return self.requests / self.rate if self.rate else None

    def __str__(self) -> str:
        said = f"{self.calls:,} call" if self.calls == 1 else f"{self.calls:,} calls"
        if self.read:
            said += f", {self.read:,} of them read already"
        said += f", about {self.requests:,} request{'' if self.requests == 1 else 's'}"
        if self.seconds is None:
            return f"{said}, as fast as the API answers"
        return f"{said}, about {duration(self.seconds)} at {self.rate:g} requests/s"
