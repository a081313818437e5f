"""The envelope, the paging and the pace."""

import asyncio

import aiohttp
import pytest

from servetel_async.emulator import Emulator


async def test_the_first_page_says_what_it_is(emulate, ask, dataset):
    """Twenty rows by default, and the count of everything that matches."""
    page = await ask.page(await emulate(dataset))
    assert {key: page[key] for key in page if key != "results"} == {"count": 400, "limit": 20, "size": 20, "page": 1}
    assert page["results"] == list(dataset.records())[:20]


async def test_pages_together_are_the_whole_table(emulate, ask, dataset):
    """Read in order from a static table, the pages hold each row once."""
    api = await emulate(dataset)
    pages = [await ask.ids(api, page=number, limit=64) for number in range(1, 8)]
    assert [len(page) for page in pages] == [64] * 6 + [16]
    assert [row for page in pages for row in page] == dataset.ids


async def test_a_page_past_the_end_is_empty(emulate, ask, dataset):
    """A page past the end is a 200 without results, with the count."""
    page = await ask.page(await emulate(dataset), page=99)
    assert (page["results"], page["count"], page["page"], page["size"]) == ([], 400, 99, 0)


@pytest.mark.parametrize(("echo", "said"), [("asked", 500), ("served", 50)])
async def test_a_cap_is_silent(emulate, ask, dataset, echo, said):
    """A larger limit is served as the cap, and the offsets follow the cap."""
    api = await emulate(dataset, limit_cap=50, echo_limit=echo)
    page = await ask.page(api, page=2, limit=500)
    assert [row["id"] for row in page["results"]] == dataset.ids[50:100]
    assert page["limit"] == said


@pytest.mark.parametrize(("mode", "count"), [("total", 400), ("page", 16), ("missing", None)])
async def test_count_means_what_it_was_told_to(emulate, ask, dataset, mode, count):
    """`count` can be all matches, this page's rows, or absent."""
    page = await ask.page(await emulate(dataset, count_mode=mode), page=7, limit=64)
    assert page.get("count") == count


@pytest.mark.parametrize(("mode", "size"), [("rows", 16), ("limit", 64)])
async def test_size_means_what_it_was_told_to(emulate, ask, dataset, mode, size):
    """`size` can have each meaning of the published samples."""
    page = await ask.page(await emulate(dataset, size_mode=mode), page=7, limit=64)
    assert page["size"] == size


async def test_an_unknown_route_is_refused_by_the_gateway(emulate, ask, dataset):
    """An unknown route is a 403 without `success`."""
    api = await emulate(dataset)
    async with ask.session.get(f"{api.base_url}/v2/records") as reply:
        assert reply.status == 403
        assert "success" not in await reply.json()


async def test_an_answer_bears_the_servers_clock(emulate, ask, dataset):
    """A reply has the server's clock, at which a client fixes the end of a range."""
    api = await emulate(dataset)
    async with ask.session.get(api.base_url) as reply:
        assert reply.headers["Date"].endswith("GMT")


async def test_requests_are_on_record_without_the_token(emulate, ask, dataset):
    """Requests are recorded in order with their results, without the token."""
    api = await emulate(dataset)
    await ask(api, page=2, limit=10)
    await ask(api, token="wrong")
    first, second = api.requests
    assert (first.method, first.path, first.page, first.limit, first.status) == ("GET", "/v1/call/records", 2, 10, 200)
    assert first.query == [("page", "2"), ("limit", "10")]
    assert (second.page, second.limit, second.status) == (None, None, 401)
    assert first.at <= second.at
    assert api.token not in repr(api.requests)


async def test_over_the_rate_is_429_as_documented(emulate, ask, dataset):
    """A request beyond the burst is a 429, with `success` as text and the configured header."""
    api = await emulate(dataset, rate_limit=0.001, burst=2, retry_after=7)
    async with ask.session.get(api.base_url) as reply:
        assert reply.status == 403
    assert [(await ask(api))[0] for _ in range(2)] == [200, 200]
    headers = {"Authorization": f"Bearer {api.token}"}
    async with ask.session.get(api.base_url + "/v1/call/records", headers=headers) as reply:
        assert reply.status == 429
        assert reply.headers["Retry-After"] == "7"
        assert await reply.json() == {"success": "false", "message": "Too many requests."}


async def test_a_limit_allows_a_seconds_worth_at_once(emulate, ask, dataset):
    """The limit allows a burst of one second, so a client that keeps to the rate is not refused."""
    api = await emulate(dataset, rate_limit=3)
    assert [(await ask(api))[0] for _ in range(3)] == [200] * 3


def test_a_limit_that_admits_nothing_is_refused(dataset):
    """A rate limit of zero is refused."""
    with pytest.raises(ValueError, match="never admits"):
        Emulator(dataset, rate_limit=0)


async def test_many_different_queries_are_served(emulate, ask, dataset):
    """Many different queries are served; search results are cached for deep pages, up to a bound."""
    api = await emulate(dataset)
    for second in range(300):
        api.truth(from_date=f"2024-05-06 10:{second // 60:02}:{second % 60:02}")
    assert await ask.ids(api) == dataset.ids[:20]


async def test_no_retry_after_unless_told(emulate, ask, dataset):
    """By default a 429 has no time."""
    api = await emulate(dataset, rate_limit=0.001)
    await ask(api)
    headers = {"Authorization": f"Bearer {api.token}"}
    async with ask.session.get(api.base_url + "/v1/call/records", headers=headers) as reply:
        assert reply.status == 429
        assert "Retry-After" not in reply.headers


async def test_latency_jitter_and_depth_delay_an_answer(emulate, ask, dataset):
    """A reply never comes before the latency and the cost of its offset have passed."""
    api = await emulate(dataset, latency=0.02, jitter=0.001, offset_cost=0.1)
    clock = asyncio.get_running_loop().time
    begun = clock()
    await ask(api, page=3, limit=100)
    assert clock() - begun >= 0.04


async def test_concurrent_requests_are_counted(emulate, ask, dataset):
    """The peak is the most requests in flight at one time, each on its own connection."""
    api = await emulate(dataset, latency=0.05)
    await asyncio.gather(*(ask(api, page=number) for number in range(1, 6)))
    assert api.peak_in_flight == 5
    assert api.connections_open == 5


async def test_a_stopped_emulator_listens_no_more(emulate, ask, dataset):
    """A stopped emulator has no address; stopping twice is harmless."""
    api = await emulate(dataset)
    url = api.base_url
    await api.stop()
    await api.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask.session.get(url)
    with pytest.raises(RuntimeError):
        _ = api.base_url


async def test_an_emulator_starts_once(emulate, dataset):
    """A second start is an error."""
    api = await emulate(dataset)
    with pytest.raises(RuntimeError):
        await api.start()


async def test_a_taken_port_is_an_error(emulate, dataset):
    """A taken port is an error that leaves nothing behind."""
    port = int((await emulate(dataset)).base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="address"):
        await emulate(dataset, port=port)


async def test_running_forever_ends_when_cancelled(emulate, ask, dataset):
    """It calls back with its address when it is ready, and stops cleanly when cancelled."""
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Emulator(dataset).run_forever(ready.set_result))
    api = await ready
    assert (await ask(api))[0] == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "stopped" in repr(api)


async def test_running_forever_needs_no_audience(dataset):
    """Without a callback the address can be read from the emulator."""
    api = Emulator(dataset)
    task = asyncio.create_task(api.run_forever())
    while "stopped" in repr(api):
        await asyncio.sleep(0)
    assert api.base_url.startswith("http://127.0.0.1:")
    task.cancel()
    await asyncio.wait([task])
