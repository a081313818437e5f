"""Pages as a server sends them, for sinks that are tested without any server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servetel_async.protocol.decoding import read_page
from servetel_async.protocol.records import CallPage
from servetel_async.protocol.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def page_of() -> Callable[..., CallPage]:
    """Make a page of records as they were sent; ``keep`` chooses those that the stream's sieve let through."""

    def make(*rows: bytes, keep: tuple[int, ...] | None = None) -> CallPage:
        body = b'{"count":%d,"results":[%s]}' % (len(rows), b",".join(rows))
        page = read_page(Reply(200, body), 0.0)
        page.open()
        calls = [call for piece in page.slices() for call in piece]
        kept = calls if keep is None else [calls[index] for index in keep]
        return CallPage(records=tuple(kept), number=1, count=page.count, limit=None, raw=page.body)

    return make
