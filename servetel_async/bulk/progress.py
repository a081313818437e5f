"""What a pull tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is; given to ``on_progress`` after each page. Holds no personal data.

    Attributes:
        records: calls written so far.
        total: what the API counted so far, over the windows that were begun; None where it sent no usable count.
        pages: pages read.
        requests: requests answered or failed, retries included.
        retries: those of them that repeated another.
        received: bytes of the replies.
        seconds: since the pull began.
    """

    records: int
    total: int | None
    pages: int
    requests: int
    retries: int
    received: int
    seconds: float
