"""How far a pull is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is; given to ``on_progress`` after each page and each window. Holds no personal data.

    Attributes:
        records: calls read so far, those of windows under way included.
        total: what the API counts in the range; None where it sent no usable count, or has not been asked yet.
        windows: windows that are committed; a kill does not cost them.
        kept: calls of these windows.
        pages: pages read.
        requests: requests answered or failed, retries included.
        retries: those of them that repeated another.
        received: bytes of the replies.
        waited: seconds of backoffs, of all requests together.
        seconds: since the pull began.
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
