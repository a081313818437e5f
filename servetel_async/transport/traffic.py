"""Requests that one client has sent, sends now or waits to send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counters of one client, over all its sessions; ``stats.ClientStats`` documents them."""

    requests: int = 0
    retries: int = 0
    in_flight: int = 0
    waiting: int = 0
    seconds_waited: float = 0.0
