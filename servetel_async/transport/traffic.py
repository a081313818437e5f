"""What one client has sent, and what it sends or waits for now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counters of one client, over all its sessions; the meaning of each is in ``stats.ClientStats``."""

    requests: int = 0
    retries: int = 0
    in_flight: int = 0
    waiting: int = 0
    seconds_waited: float = 0.0
