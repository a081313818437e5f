"""The cost of a window or a pull: pages, requests, retries, bytes and records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Cost:
    """The cost of a window or of a pull.

    Attributes:
        limit: pages after which a window is no longer read again for a proof; None while its size is unknown.
    """

    pages: int = 0
    requests: int = 0
    retries: int = 0
    received: int = 0
    rows: int = 0
    limit: int | None = None

    def is_spent(self, times: int = 1) -> bool:
        """Whether the pages exceed this many times the limit."""
        return self.limit is not None and self.pages > times * self.limit

    def add(self, other: Cost) -> None:
        """Add another cost."""
        self.pages += other.pages
        self.requests += other.requests
        self.retries += other.retries
        self.received += other.received
        self.rows += other.rows
