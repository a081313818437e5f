"""A stream opens its pages late. A body that proves to be no page is requested again, and judged on arrival."""

from __future__ import annotations

import pytest

from servetel_async import MalformedResponseError, RateLimitError, RequestRejectedError, Retry, ServerError
from servetel_async.protocol.decoding import SHORT
from tests.transport.wire_server import Act, Fin, Send, call, http, page, reply

DAY = ("2024-05-06", "2024-05-06")
CALLS = [call(number, date="2024-05-06", time="10:00:00", notes="x" * 100) for number in range(1, 101)]
WHOLE = page(*CALLS, count=100)
BROKEN = WHOLE.replace(b'{"', b'{{"', 1)
REFUSED = page(count=0, success=False, message="No such agent", padding="x" * SHORT)
DEEP = b'{"a":' * 3_000 + b"1" + b"}" * 3_000
THROTTLED = page(count=0, success="false", message="Too many requests.", padding="x" * SHORT)
FAST = Retry(base=0.001, cap=0.001)


def after(*bodies):
    """A server that gives these for the first page, one after the other, then the last one for ever; then nothing."""
    left = list(bodies)

    def answer(request):
        if ("page", "1") not in request.query:
            return reply(page(count=100, number=2))
        return reply(left.pop(0) if len(left) > 1 else left[0])

    return answer


async def test_a_broken_page_costs_one_request_more(serve, connect):
    """It is requested again, and then all of it is there."""
    server = await serve(after(BROKEN, WHOLE))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        stream = client.calls(*DAY)
        assert [found.id for found in await stream.collect()] == [found["id"] for found in CALLS]
        assert stream.stats.requests == len(server.requests)
    assert sum(("page", "1") in request.query for request in server.requests) == 2


@pytest.mark.parametrize(
    ("body", "error", "usual"),
    [
        (BROKEN, MalformedResponseError, 4),
        (REFUSED, RequestRejectedError, 2),
        (THROTTLED, RateLimitError, 8),
        (DEEP, MalformedResponseError, 1),
    ],
    ids=["broken", "refused", "throttled", "too deep"],
)
@pytest.mark.parametrize("attempts", [1, 2, 8])
async def test_a_page_that_stays_broken_costs_what_any_other_does(serve, connect, body, error, usual, attempts):
    """As many requests as for a reply that is judged on arrival, and never more than the attempts."""
    server = await serve(after(body))
    quick = Retry(attempts=attempts, base=0.001, cap=0.001, throttled_base=0.001, throttled_cap=0.001)
    async with connect(server.url, page_size=100, retry=quick) as client:
        stream = client.calls(*DAY)
        with pytest.raises(error) as raised:
            await stream.collect()
    assert raised.value.page == 1
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    assert len(server.requests) == raised.value.attempts == stream.stats.requests == min(usual, attempts)


async def test_what_follows_a_broken_page_has_its_own_attempts(serve, connect):
    """Its own kind is requested again at most three times; cut and busy replies after it are ordinary failures."""
    busy, cut = reply(b"", 503), Act("cut", (Send(http(WHOLE)[:-1]), Fin()))
    left = [reply(REFUSED), busy, cut, busy, reply(WHOLE)]
    server = await serve(lambda _: left.pop(0) if left else reply(page(count=100, number=2)))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        stream = client.calls(*DAY)
        assert len(await stream.collect()) == 100
    assert stream.stats.requests == len(server.requests)


@pytest.mark.parametrize("attempts", [1, 3, 5])
async def test_whatever_follows_a_broken_page_stays_within_the_attempts(serve, connect, attempts):
    """Broken once and busy for ever: there are as many requests as attempts, and the error says so."""
    left = [reply(BROKEN)]
    server = await serve(lambda _: left.pop() if left else reply(b"", 503))
    quick = Retry(attempts=attempts, base=0.001, cap=0.001)
    async with connect(server.url, page_size=100, retry=quick) as client:
        stream = client.calls(*DAY)
        with pytest.raises(MalformedResponseError if attempts == 1 else ServerError) as raised:
            await stream.collect()
    assert raised.value.page == 1
    assert len(server.requests) == raised.value.attempts == stream.stats.requests == attempts


async def test_a_token_that_ended_is_renewed_though_it_is_found_out_late(serve, connect):
    """The token of the refused page's request is given back; the next request has another."""
    ended = page(count=0, success=False, message="Token has expired", padding="x" * SHORT)
    tokens = ["first-token-1234", "second-token-1234"]
    server = await serve(after(ended, WHOLE))
    async with connect(server.url, lambda: tokens.pop(0), page_size=100, retry=FAST) as client:
        assert len(await client.calls(*DAY).collect()) == 100
    assert tokens == []


async def test_a_refusal_found_late_is_waited_for(serve, connect):
    """A 429 sent as a 200 names a wait; the client keeps and reports it like any other."""
    left = [reply(THROTTLED, 200, ("Retry-After", "1")), reply(WHOLE)]
    server = await serve(lambda _: left.pop(0) if left else reply(page(count=100, number=2)))
    events = []
    async with connect(server.url, page_size=100, retry=FAST, on_event=events.append) as client:
        assert len(await client.calls(*DAY).collect()) == 100
    assert [event.seconds for event in events if event.kind == "wait"] == [1.0]


async def test_what_asks_for_one_page_has_it_proved_when_it_comes(serve, connect):
    """``fetch_page`` proves its page on arrival: only its own retries are sent."""
    server = await serve(after(BROKEN, WHOLE))
    async with connect(server.url, page_size=100, retry=FAST) as client:
        assert len(await client.fetch_page()) == 100
    assert len(server.requests) == 2
