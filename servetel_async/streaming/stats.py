"""The figures of a stream and of a client so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class StreamStats:
    """The figures of a stream so far.

    Attributes:
        records: calls delivered; duplicates: repeated calls dropped; reused_ids: other calls under a known id.
        undated: calls with an unreadable date, so that the window was not checked.
        pages: pages read; requests: on the wire, retries included; size: bytes of their bodies.
        count: the API's count, summed over the windows begun; None if it sends no total.
        rereadings: number of times that a window was read again because it had moved.
        waited_for_pages: seconds that the consumer waited; waited_for_consumer: seconds that the stream waited.
    """

    records: int = 0
    duplicates: int = 0
    reused_ids: int = 0
    undated: int = 0
    pages: int = 0
    requests: int = 0
    size: int = 0
    count: int | None = 0
    rereadings: int = 0
    waited_for_pages: float = 0.0
    waited_for_consumer: float = 0.0


@dataclass(frozen=True, slots=True)
class ClientStats:
    """The totals of a client so far, and its present state.

    Attributes:
        requests: attempts on the wire, logins included.
        retries: of these, attempts after the first of a call.
        shared: calls that joined an equal call in flight instead of sending their own request.
        in_flight: requests on the wire now.
        waiting: requests that wait now for a free slot or for the account's turn.
        seconds_waited: total seconds that requests have waited for a slot or a turn.
    """

    requests: int
    retries: int
    shared: int
    in_flight: int
    waiting: int
    seconds_waited: float
