"""Bytes that a server sends on an idle kept-alive connection."""

from __future__ import annotations

import asyncio

import pytest

from servetel_async import Retry
from tests.transport.wire_server import OK, WireServer, call, http, page

UNASKED = {
    "a whole reply": http(page(call(2, call_id="POISON"), count=1)),
    "a time-out, as proxies say it": http(b"", 408),
    "no HTTP": b"\x00\x01\x02 nonsense \r\n\r\n",
}


class Talkative(WireServer):
    """A server that can send without a request, to every open connection."""

    def say(self, data: bytes) -> None:
        """Send it on every open connection."""
        for writer in self._writers:
            writer.write(data)


def heard(connector) -> bool:
    """Whether every idle connection of this client has received something."""
    return all(protocol.should_close for idle in connector._conns.values() for protocol, _ in idle)


@pytest.mark.parametrize("what", UNASKED)
async def test_what_nobody_asked_for_is_no_reply_to_the_next_request(what, stack, connect):
    """After unrequested bytes the next request uses another connection, counts no failure, and gets its own reply."""
    server = await stack.enter_async_context(Talkative(lambda request: OK))
    client = connect(server, retry=Retry(attempts=1))
    for turn in range(3):
        found = await client.fetch_page()
        assert [record.call_id for record in found.records] == [call(1)["call_id"]]
        assert server.asked == server.connections == turn + 1
        server.say(UNASKED[what])
        async with asyncio.timeout(5):
            while not heard(client._transport.connector):
                await asyncio.sleep(0)
