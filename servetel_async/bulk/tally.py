"""What it has cost: pages, requests, retries, bytes and records, of a window or of a pull."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """What it has cost; of a window, or of a pull.

    Attributes:
        limit: pages after which a window is not read again to prove it; None where nobody knows its size yet.
    """

    pages: int = 0
    requests: int = 0
    retries: int = 0
    received: int = 0
    rows: int = 0
    limit: int | None = None

    def is_spent(self, times: int = 1) -> bool:
        """Whether it has cost so many times what it may."""
        return self.limit is not None and self.pages > times * self.limit

    def add(self, other: Tally) -> None:
        """Take another one in."""
        self.pages += other.pages
        self.requests += other.requests
        self.retries += other.retries
        self.received += other.received
        self.rows += other.rows
