"""Find one call by the id that other systems know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.errors import OutOfWindowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.protocol.records import CallRecord
    from servetel_async.protocol.windows import Window


def pick_call(calls: Sequence[CallRecord], call_id: str | None, window: Window) -> CallRecord | None:
    """Pick the call from a page; None if it is not there and the closed window must be searched further.

    Raises:
        OutOfWindowError: if only other calls came, and no dates narrow down where to look.
    """
    for call in calls:
        if call.call_id == call_id:
            return call
    if calls and (window.start is None or window.end is None):
        raise OutOfWindowError(
            "other calls came than the one that was asked for",
            why="this server does not know the parameter call_id and sends the newest calls instead",
            fix="narrow it down: get_call(call_id, from_date=..., to_date=...) reads that range",
        )
    return None
