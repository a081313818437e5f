"""The search for one call by its ``call_id``: window by window, newest first, until it is found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from servetel_async.errors import OverloadedError
from servetel_async.protocol.lookup import pick_call
from servetel_async.ranges import RangeWalk
from servetel_async.streaming.stream import CallStream

if TYPE_CHECKING:
    from servetel_async.protocol.records import CallRecord
    from servetel_async.streaming.single_pages import Inquiry

#: Shortest time for a stream, in seconds. With so little time left the stream itself reports the deadline.
_LEAST = 1e-6


async def find_call(inquiry: Inquiry, page_size: int) -> CallRecord | None:
    """Search for the call with the query's ``call_id``; None if no window of the range has it.

    Raises:
        OutOfWindowError: if the server ignores ``call_id`` and sent other calls, and the query has no dates.
        DeadlineExceededError: if the deadline of the inquiry passed.
    """
    zone = inquiry.source.zone
    asked = inquiry.query.window(zone)
    walk = RangeWalk(inquiry.source, asked, lambda window: inquiry.page(window, 1, page_size))
    while (answer := await walk.next()) is not None:
        calls = answer[1].records(zone)
        found = pick_call(calls, inquiry.query.call_id, asked)
        if found is not None:
            return found
        if calls:  # other calls: this server does not know the parameter
            return await _read_range(inquiry, page_size)
    return None


async def _read_range(inquiry: Inquiry, page_size: int) -> CallRecord | None:
    left = None
    if inquiry.deadline_at is not None:
        left = max(inquiry.deadline_at - asyncio.get_running_loop().time(), _LEAST)
    query = inquiry.query.replace(call_id=None)
    try:
        async with CallStream(inquiry.source, query, page_size=page_size, deadline=left) as stream:
            async for call in stream:
                if call.call_id == inquiry.query.call_id:
                    return call
    except OverloadedError as error:
        overload = error
    else:
        return None
    raise inquiry.judge(overload)
