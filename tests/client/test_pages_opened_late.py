"""A stream opens its pages late. One that turns out to be none is asked for again, and judged when it comes."""

from __future__ import annotations

import pytest

from servetel_async import MalformedResponseError, RequestRejectedError, Retry
from servetel_async.protocol.decoding import SHORT
from tests.transport.wire_server import call, page, reply

DAY = ("2024-05-06", "2024-05-06")
CALLS = [call(number, date="2024-05-06", time="10:00:00", notes="x" * 100) for number in range(1, 101)]
WHOLE = page(*CALLS, count=100)
BROKEN = WHOLE.replace(b'{"', b'{{"', 1)
REFUSED = page(count=0, success=False, message="No such agent", padding="x" * SHORT)
FAST = Retry(base=0.001, cap=0.001)


def after(*bodies):
    """A server that gives these for the first page, one after the other and the last one for ever; then nothing."""
    left = list(bodies)

    def answer(request):
        if ("page", "1") not in request.query:
            return reply(page(count=100, number=2))
        return reply(left.pop(0) if len(left) > 1 else left[0])

    return answer


async def test_a_broken_page_costs_one_request_more(serve, connect):
    """It is asked for again, and then all of it is there."""
    server = await serve(after(BROKEN, WHOLE))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        stream = client.calls(*DAY)
        assert [found.id for found in await stream.collect()] == [found["id"] for found in CALLS]
        assert stream.stats.requests == len(server.requests)
    assert sum(("page", "1") in request.query for request in server.requests) == 2


@pytest.mark.parametrize(
    ("body", "error", "judged"),
    [(BROKEN, MalformedResponseError, 4), (REFUSED, RequestRejectedError, 2)],
    ids=["broken", "refused"],
)
async def test_a_page_that_stays_broken_is_an_error(serve, connect, body, error, judged):
    """Behind the one that was opened late there are as many requests as for any other reply of this kind."""
    server = await serve(after(body))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        with pytest.raises(error) as raised:
            await client.calls(*DAY).collect()
    assert raised.value.page == 1
    assert len(server.requests) == 1 + judged


async def test_what_asks_for_one_page_has_it_proved_when_it_comes(serve, connect):
    """``fetch_page`` needs no other request to find out: its own retries are all there is."""
    server = await serve(after(BROKEN, WHOLE))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        assert len(await client.fetch_page()) == 100
    assert len(server.requests) == 2
