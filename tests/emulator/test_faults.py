"""Every fault does what it says, is counted, and hits the selected requests."""

import asyncio
import json

import aiohttp
import pytest

from servetel_async.emulator import Fault


async def read(ask, api, **params):
    """Fetch a page to the last byte; return status, headers and body."""
    headers = {"Authorization": f"Bearer {api.token}"}
    pairs = {key: str(value) for key, value in params.items()}
    # One connection each: a client's own retry on a reused one would hide the fault.
    async with ask.session.get(
        api.base_url + "/v1/call/records", params=pairs, headers={**headers, "Connection": "close"}
    ) as reply:
        return reply.status, reply.headers, await reply.read()


async def test_a_status_with_body_and_headers(emulate, ask, dataset):
    """A fault can be any status with a body and headers."""
    fault = Fault("status", status=502, body=b"<h1>Bad gateway</h1>", headers={"X-Cache": "MISS"})
    api = await emulate(dataset, faults=[fault])
    status, headers, body = await read(ask, api)
    assert (status, headers["X-Cache"], body) == (502, "MISS", b"<h1>Bad gateway</h1>")
    assert api.fired == {"status": 1}
    assert api.requests[0].fault == "status"
    assert api.requests[0].status == 502


async def test_a_status_may_bring_its_own_content_type(emulate, ask, dataset):
    """A fault's content type is used in any spelling of the header name."""
    fault = Fault("status", status=400, body=b'{"errors":{}}', headers={"content-type": "application/problem+json"})
    _, headers, _ = await read(ask, await emulate(dataset, faults=[fault]))
    assert headers.getall("Content-Type") == ["application/problem+json"]


async def test_the_first_page_need_not_be_named(emulate, ask, dataset):
    """A fault treats a request without a page as page one."""
    api = await emulate(dataset, faults=[Fault("status", page=1)])
    assert (await read(ask, api))[0] == 503


async def test_html_with_200(emulate, ask, dataset):
    """A maintenance page that claims to be fine."""
    api = await emulate(dataset, faults=[Fault("html_200")])
    status, headers, body = await read(ask, api)
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert body.startswith(b"<!doctype html>")


async def test_failure_with_200(emulate, ask, dataset):
    """A 200 can hold a failure in its body."""
    api = await emulate(dataset, faults=[Fault("success_false_200", message="No way")])
    assert await ask(api) == (200, {"success": False, "message": "No way"})


@pytest.mark.parametrize(
    ("given", "sent"), [(3, "3"), ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"), (None, None)]
)
async def test_429_on_demand(emulate, ask, dataset, given, sent):
    """A 429 can have seconds, a date, or no time."""
    api = await emulate(dataset, faults=[Fault("retry_after", retry_after=given)])
    status, headers, body = await read(ask, api)
    assert (status, headers.get("Retry-After")) == (429, sent)
    assert json.loads(body)["success"] == "false"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("empty_page"), ([], 2, 400)),
        (Fault("short_page"), (slice(10, 15), 2, 400)),
        (Fault("wrong_page"), (slice(20, 30), 3, 400)),
        (Fault("repeat_page"), (slice(10), 2, 400)),
        (Fault("wrong_count", shift=-7), (slice(10, 20), 2, 393)),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_a_page_lies(emulate, ask, dataset, fault, expected):
    """Well-formed, with status 200, and false."""
    rows, number, count = expected
    api = await emulate(dataset, faults=[fault])
    page = await ask.page(api, page=2, limit=10)
    assert [r["id"] for r in page["results"]] == (dataset.ids[rows] if isinstance(rows, slice) else rows)
    assert (page["page"], page["count"]) == (number, count)
    assert api.fired == {fault.kind: 1}


async def test_results_may_be_null(emulate, ask, dataset):
    """`results` can be null."""
    page = await ask.page(await emulate(dataset, faults=[Fault("results_null")]))
    assert (page["results"], page["count"]) == (None, 400)


async def test_a_lie_that_changes_nothing_is_not_counted(emulate, ask, dataset):
    """A lie that repeats page one as page one, or that hits a refused page, is not counted."""
    api = await emulate(dataset, faults=[Fault("repeat_page")])
    await ask(api)
    await ask(api, page=2, token="wrong")
    assert not api.fired
    assert [entry.fault for entry in api.requests] == [None, None]


async def test_a_body_cut_but_announced_as_cut(emulate, ask, dataset):
    """The JSON is cut in a body of the announced length."""
    api = await emulate(dataset, faults=[Fault("truncated_json", fraction=0.9)])
    status, _, body = await read(ask, api)
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


async def test_a_body_shorter_than_announced(emulate, ask, dataset):
    """The connection ends in the middle of the body."""
    api = await emulate(dataset, faults=[Fault("cut_body")])
    with pytest.raises(aiohttp.ClientPayloadError):
        await read(ask, api)
    assert api.fired == {"cut_body": 1}


async def test_a_reset(emulate, dataset):
    """RST before the head: the client sees a reset."""
    api = await emulate(dataset, faults=[Fault("reset")])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.base_url.rpartition(":")[2]))
    writer.write(b"GET /v1/call/records HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert api.fired == {"reset": 1}
    assert api.requests[0].status is None


async def test_a_close(emulate, dataset):
    """FIN before the head: the client sees an empty reply."""
    api = await emulate(dataset, faults=[Fault("close")])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.base_url.rpartition(":")[2]))
    writer.write(b"GET /v1/call/records HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    assert api.fired == {"close": 1}


async def test_a_head_that_never_comes(emulate, ask, dataset):
    """Nothing is sent; a client that disconnects frees the handler."""
    api = await emulate(dataset, faults=[Fault("stall")])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await read(ask, api)
    assert api.requests[0].status is None
    assert api.fired == {"stall": 1}


async def test_a_stall_ends_in_a_close(emulate, ask, dataset):
    """A stall ends the connection after its seconds."""
    api = await emulate(dataset, faults=[Fault("stall", seconds=0.01)])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await read(ask, api)


async def test_a_body_that_stops(emulate, ask, dataset):
    """The head arrives and a part of the body, then nothing, then the end."""
    api = await emulate(dataset, faults=[Fault("stall_body", seconds=0.01)])
    headers = {"Authorization": f"Bearer {api.token}"}
    async with ask.session.get(api.base_url + "/v1/call/records", headers=headers) as reply:
        assert reply.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()


async def test_a_slow_body(emulate, ask, dataset):
    """The whole body comes in small pieces."""
    api = await emulate(dataset, faults=[Fault("slow", seconds=0.05)])
    clock = asyncio.get_running_loop().time
    begun = clock()
    _, _, body = await read(ask, api)
    assert clock() - begun >= 0.04
    assert len(json.loads(body)["results"]) == 20


async def test_a_huge_body(emulate, ask, dataset):
    """A huge body is valid JSON without an announced length."""
    api = await emulate(dataset, faults=[Fault("huge_body", size=300_000)])
    _, headers, body = await read(ask, api)
    assert "Content-Length" not in headers
    assert len(json.loads(body)["padding"]) == 300_000


async def test_a_client_that_leaves_a_huge_body(emulate, ask, dataset):
    """If the client leaves a huge body, the emulator stops sending and serves the next request."""
    api = await emulate(dataset, faults=[Fault("huge_body", times=1)])
    headers = {"Authorization": f"Bearer {api.token}"}
    async with ask.session.get(api.base_url + "/v1/call/records", headers=headers) as reply:
        await reply.content.readany()
        reply.close()
    assert (await ask(api))[0] == 200


@pytest.mark.parametrize(
    ("selector", "struck"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"page": 2}, [2, 5]),
        ({"nth": 4}, [4]),
        ({"every": 3}, [3, 6]),
        ({"times": 2}, [1, 2]),
        ({"page": 2, "times": 1}, [2]),
        ({"page": 2, "every": 5}, [5]),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [1, 2, 3, 4, 5, 6]),
        ({"path": "/v1/auth/login"}, []),
    ],
)
async def test_selectors(emulate, ask, dataset, selector, struck):
    """A fault hits the requests that match all of its selectors."""
    api = await emulate(dataset, faults=[Fault("status", **selector)])
    statuses = [(await read(ask, api, page=page))[0] for page in (1, 2, 3, 1, 2, 3)]
    assert [n for n, status in enumerate(statuses, 1) if status == 503] == struck
    assert api.fired["status"] == len(struck)


async def test_probability_follows_the_seed(emulate, ask, dataset):
    """Equal seeds give equal faults."""
    weather = []
    for seed in (1, 1, 2):
        api = await emulate(dataset, seed=seed, faults=[Fault("status", probability=0.5)])
        weather.append([(await read(ask, api))[0] for _ in range(20)])
    assert weather[0] == weather[1] != weather[2]
    assert set(weather[0]) == {200, 503}


async def test_times_holds_among_concurrent_requests(emulate, ask, dataset):
    """A fault with `times=1` hits once, even among concurrent requests."""
    api = await emulate(dataset, latency=0.02, faults=[Fault("status", times=1)])
    replies = await asyncio.gather(*(read(ask, api) for _ in range(8)))
    assert sorted(status for status, _, _ in replies) == [200] * 7 + [503]


async def test_the_first_fault_due_strikes(emulate, ask, dataset):
    """One fault per request, in the given order; more can be added later."""
    api = await emulate(dataset, faults=[Fault("status", status=500, times=1), Fault("status", status=502, times=1)])
    api.add_fault(Fault("status", status=504, times=1))
    assert [(await read(ask, api))[0] for _ in range(4)] == [500, 502, 504, 200]


async def test_a_login_can_fail_too(emulate, ask, dataset):
    """`path` names the route that a fault hits."""
    api = await emulate(dataset, faults=[Fault("success_false_200", path="/v1/auth/login")])
    assert (await ask.post(api, "/v1/auth/login", {"email": "a", "password": "b"}))[0] == 200
    assert (await ask(api))[0] == 200
    assert api.fired == {"success_false_200": 1}


@pytest.mark.parametrize("wrong", [{"kind": "typo"}, {"kind": "slow", "fraction": 2}, {"kind": "slow", "nth": 0}])
def test_a_fault_that_is_none_is_refused(wrong):
    """A misspelt fault is refused."""
    with pytest.raises(ValueError, match=r"fault|fraction"):
        Fault(**wrong)


async def test_stopping_does_not_wait_for_a_stalled_answer(emulate, ask, dataset):
    """Stopping cuts off replies under way."""
    api = await emulate(dataset, faults=[Fault("stall")])
    asking = asyncio.create_task(read(ask, api))
    while not api.fired:
        await asyncio.sleep(0)
    await asyncio.wait_for(api.stop(), 5)
    with pytest.raises(aiohttp.ClientError):
        await asking
