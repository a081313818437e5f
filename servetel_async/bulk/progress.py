"""The progress of a pull."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a pull, given to ``on_progress`` after each page and each window. Holds no personal data.

    Attributes:
        records: calls read so far, including those of windows under way.
        total: the API's count of the range; None if it sent no usable count, or was not asked yet.
        windows: windows that are committed; a kill does not lose them.
        kept: calls of the committed windows.
        pages: pages read.
        requests: requests answered or failed, retries included.
        retries: requests that repeated another.
        received: bytes of the replies.
        waited: seconds of backoffs, of all requests together.
        seconds: seconds since the pull began.
    """

    records: int
    total: int | None
    windows: int
    kept: int
    pages: int
    requests: int
    retries: int
    received: int
    waited: float
    seconds: float
