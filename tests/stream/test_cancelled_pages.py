"""A page that is cancelled while it is assembled: its pieces come later, in the server's order."""

from __future__ import annotations

import asyncio

import pytest

from tests.stream.helpers import client_of, rest
from tests.stream.page_server import MAY, PageServer


@pytest.mark.parametrize("then", ["by page", "by call"])
async def test_a_page_that_is_cancelled_twice_comes_in_order(then):
    """No piece changes its place, wherever in a large page the cancellation hits."""
    inside = 0
    async with PageServer(1500, padding=1000) as server, client_of(server, page_size=1500) as client:
        for turns in range(1, 9):
            stream = client.calls(*MAY)
            pages, got = stream.pages(), []
            for _ in range(2):
                step = asyncio.ensure_future(anext(pages, None))  # it may come before the cancellation
                while not stream.stats.pages:
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                inside += step.cancel()
                await asyncio.wait({step})
                if not step.cancelled() and (page := step.result()) is not None:
                    got += [call.id for call in page.records]
            if then == "by page" and not got:
                got += [call.id for call in (await anext(pages)).records]
            got += await rest(stream)
            assert got == server.ids
    assert inside > 8
