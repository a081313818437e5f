"""Pages that are too slow: the page size is halved before an outage is assumed, from the first page on."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from servetel_async import CallQuery, RequestTimeoutError, Retry, ServerError, ServetelClient
from servetel_async.bulk.fetching.circuit_breaker import THRESHOLD
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import SMALLEST_PAGE, PageTooSlowError
from servetel_async.bulk.probe import probe
from servetel_async.bulk.pull import pull
from servetel_async.bulk.sync import sync
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.protocol.conventions import Bounds, Conventions
from tests.bulk.fetching import DAY, SICK, fetching, first, on_clock
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at

MAY = CallQuery.month("2024-05")
LATE = Answer(after=3600)
#: Each way in which a reply says that it took too long.
SLOW = {"no reply": LATE, "504": Answer(status=504), "524": Answer(status=524), "408": Answer(status=408)}
CALLS = calls_at(*(f"2024-05-{1 + number // 40:02} 10:{number % 40:02}:00" for number in range(1200)))
#: Seconds that these clients wait for a reply.
TIMEOUT = 30


def above(size, answer=LATE, since=1):
    """Answer pages of more than so many calls in this way, from that request on."""
    return lambda asked: answer if asked.limit > size and asked.nth >= since else HONEST


def now():
    return asyncio.get_running_loop().time()


def sizes(server, since=0):
    return [asked.limit for asked in server.asked[since:]]


def ids_in(target):
    return sorted(json.loads(line)["id"] for line in target.read_bytes().splitlines())


class Pulling:
    """A pull of May on the jumping clock, and what it cost.

    Attributes:
        server: the server, with its requests.
        receipt: of the pull; None if it raised ``error``.
        seconds: how long it took.
    """

    def __init__(self, habit, target, *, page_size=100, concurrency=4, attempts=5, calls=CALLS, **options):
        self.server = SmallServer(calls, habit, date="Sat, 15 Jun 2024 12:00:00 GMT")
        self.receipt = self.error = None
        on_clock(lambda: self._run(target, page_size, concurrency, attempts, options))

    async def _run(self, target, page_size, concurrency, attempts, options):
        async with (
            self.server,
            ServetelClient(
                "token-123456",
                base_url=self.server.base_url,
                rate=None,
                page_size=page_size,
                max_concurrency=concurrency,
                retry=Retry(attempts=attempts),
            ) as client,
        ):
            begun = now()
            try:
                self.receipt = await pull(client, target, MAY, **options)
            except (RequestTimeoutError, ServerError) as error:
                self.error = error
            self.seconds = now() - begun


# One page


@pytest.mark.parametrize("warm", [True, False], ids=["later", "first page"])
@pytest.mark.parametrize("kind", SLOW)
def test_two_slow_replies_halve_the_page_size(kind, warm):
    """A timeout and a gateway's "waited too long" have the same effect, before and after the first good reply."""

    async def main():
        async with fetching(above(10, SLOW[kind]), attempts=5, warm=warm) as (server, fetcher):
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost())
            assert fetcher.page_size == 10
            assert sizes(server) == [20, 20]
            assert (await fetcher.page(DAY, 1, Cost())).limit == 10

    on_clock(main)


@pytest.mark.parametrize("answer", [SICK, Answer(status=502), Answer(status=503), Answer(status=429)])
def test_other_failures_do_not_halve(answer):
    """A 502 often means that a gateway has no server: a smaller page would not come either."""

    async def main():
        async with fetching(first(5, answer)) as (_, fetcher):
            assert (await fetcher.page(DAY, 1, Cost())).limit == 20
            assert fetcher.page_size == 20

    on_clock(main)


def test_no_connection_in_time_does_not_halve(monkeypatch):
    """Nothing was read, so the size of the page is not the cause."""

    async def main():
        async with fetching(attempts=3, warm=False) as (server, fetcher):
            real = asyncio.get_running_loop().sock_connect
            tried = []

            async def connect(*args):
                tried.append(1)
                if len(tried) <= 2:
                    await asyncio.sleep(3600)
                return await real(*args)

            monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
            assert (await fetcher.page(DAY, 1, Cost())).limit == 20
            assert (len(tried), sizes(server)) == (3, [20])

    on_clock(main)


def test_one_slow_first_page_is_tried_again_in_its_size():
    """One slow reply may be an accident, even before the first good reply."""

    async def main():
        async with fetching(first(1, LATE), attempts=5, warm=False) as (server, fetcher):
            assert (await fetcher.page(DAY, 1, Cost())).limit == 20
            assert sizes(server) == [20, 20]

    on_clock(main)


def test_a_server_that_never_answers_is_asked_a_few_times():
    """Each size is tried twice, the smallest as often as ``Retry(attempts=)`` says. The error says what was tried."""

    async def main():
        async with fetching(lambda _: LATE, page_size=100, attempts=5, warm=False) as (server, fetcher):
            with pytest.raises(RequestTimeoutError) as caught:
                await fetcher.sure_page(DAY, 1, Cost())
            assert sizes(server) == [100, 100, 50, 50, 25, 25, 12, 12] + [SMALLEST_PAGE] * 5
            assert "pages of 10 calls were too slow as well" in str(caught.value).lower()
            assert "lower page_size" not in str(caught.value)

    on_clock(main)


def test_a_small_page_size_is_not_halved():
    """The error is the ordinary one."""

    async def main():
        async with fetching(lambda _: LATE, page_size=5, attempts=2, warm=False) as (server, fetcher):
            with pytest.raises(RequestTimeoutError, match="raise Timeouts") as caught:
                await fetcher.sure_page(DAY, 1, Cost())
            assert sizes(server) == [5, 5]
            assert caught.value.why == ""

    on_clock(main)


def test_a_count_is_not_halved():
    """A request for one call is tried again as it is."""

    async def main():
        async with fetching(first(3, LATE), attempts=5, warm=False) as (server, fetcher):
            assert await fetcher.count(DAY, Cost()) == 60
            assert sizes(server) == [1, 1, 1, 1]
            assert fetcher.page_size == 20

    on_clock(main)


def test_pages_that_wait_are_not_sent_in_a_size_that_is_too_slow():
    """Of many pages that wait for a slot only two are sent; the others are given up at once."""

    async def main():
        async with fetching(above(10), concurrency=1) as (server, fetcher):
            works = [fetcher.page(DAY, number, Cost(), size=20) for number in range(1, 9)]
            results = await asyncio.gather(*works, return_exceptions=True)
            assert {type(result) for result in results} == {PageTooSlowError}
            assert len(server.asked) <= 9
            with pytest.raises(PageTooSlowError):
                await fetcher.page(DAY, 1, Cost(), size=20)
            assert len(server.asked) <= 9

    on_clock(main)


def test_a_504_slows_all_down():
    """As after a timeout, half as many requests run at a time."""

    async def main():
        answers = [Answer(after=1), Answer(status=504, after=1)]
        async with fetching(lambda asked: answers[asked.nth == 9], concurrency=8) as (server, fetcher):
            await asyncio.gather(*(fetcher.page(DAY, 1, Cost()) for _ in range(8)))
            assert server.peak == 8
            await fetcher.page(DAY, 1, Cost())
            server.peak = 0
            await asyncio.gather(*(fetcher.page(DAY, 1, Cost()) for _ in range(8)))
            assert 4 <= server.peak < 8

    on_clock(main)


def test_slow_pages_are_no_outage_while_they_can_be_smaller():
    """Many pages fail at once, but even a pull without patience continues."""

    async def main():
        answer = Answer(status=504)
        async with fetching(above(20, answer), page_size=40, concurrency=16, patience=0, warm=False) as (_, fetcher):
            await fetcher.count(DAY, Cost())
            works = (fetcher.sure_page(DAY, 1, Cost()) for _ in range(16))
            assert {page.limit for page in await asyncio.gather(*works)} == {20}

    on_clock(main)


# When even the smallest pages are too slow


def test_after_an_outage_pages_have_their_size_again():
    """Smaller pages did not come either, so the size was not the cause."""

    async def main():
        away = []
        async with fetching(lambda _: LATE if away else HONEST, page_size=100) as (server, fetcher):
            away.append(1)
            asyncio.get_running_loop().call_later(1200, away.clear)
            assert (await fetcher.sure_page(DAY, 1, Cost())).limit == SMALLEST_PAGE
            assert fetcher.page_size == 100
            assert (await fetcher.page(DAY, 1, Cost())).limit == 100
            assert len(server.asked) <= 40

    on_clock(main)


def test_a_size_that_came_is_kept_through_an_outage():
    """A size that was too slow before the outage is not requested after it."""

    async def main():
        away = []
        async with fetching(lambda asked: LATE if away or asked.limit > 50 else HONEST, warm=False) as (_, fetcher):
            fetcher.page_size = 100
            assert (await fetcher.sure_page(DAY, 1, Cost())).limit == 50
            away.append(1)
            asyncio.get_running_loop().call_later(1200, away.clear)
            await fetcher.sure_page(DAY, 1, Cost())
            assert fetcher.page_size == 50

    on_clock(main)


def test_without_patience_each_size_is_tried_once():
    """Halving goes down to the smallest size, but no size is tried twice."""

    async def main():
        away = []
        async with fetching(lambda _: LATE if away else HONEST, page_size=100, patience=0) as (server, fetcher):
            away.append(1)
            with pytest.raises(RequestTimeoutError):
                await fetcher.sure_page(DAY, 1, Cost())
            assert sizes(server) == [100, 50, 25, 12] + [SMALLEST_PAGE] * THRESHOLD

    on_clock(main)


def test_a_probe_that_is_too_slow_is_halved_too():
    """A recovered server that can send only small pages ends the outage with one of them."""

    async def main():
        answer = [SICK]
        async with fetching(lambda asked: answer[0] if asked.limit > 10 else HONEST, page_size=40) as (server, fetcher):

            def come_back():
                answer[0] = LATE

            asyncio.get_running_loop().call_later(100, come_back)
            work = asyncio.ensure_future(fetcher.sure_page(DAY, 1, Cost()))
            others = [asyncio.ensure_future(fetcher.sure_page(DAY, 1, Cost())) for _ in range(5)]
            assert {(await task).limit for task in (work, *others)} == {10}
            assert len(server.asked) < 60

    on_clock(main)


# Readers of several pages


def test_the_search_for_the_oldest_call_begins_again_with_smaller_pages(tmp_path):
    """The deep pages of the history are too slow: its start is found, and every call is there."""

    def habit(asked):
        return LATE if asked.page > 1 and asked.limit > 25 else HONEST

    async def main():
        async with (
            SmallServer(CALLS, habit, date="Sat, 15 Jun 2024 12:00:00 GMT") as server,
            ServetelClient("token-123456", base_url=server.base_url, rate=None) as client,
        ):
            receipt = await pull(client, tmp_path / "a.ndjson", CallQuery())
            return receipt, len(server.asked)

    receipt, requests = on_clock(main)
    assert (receipt.complete, receipt.from_date) == (True, "2024-05-01 00:00:00")
    assert ids_in(tmp_path / "a.ndjson") == sorted(key for _, key in CALLS)
    assert requests < 200


@pytest.mark.parametrize("lost", [False, True])
def test_the_search_for_the_oldest_call_may_fail(lost, tmp_path):
    """If the page comes in no size, the pull ends with its error."""

    def habit(asked):
        return (SICK if lost else LATE) if asked.page > 1 else HONEST

    async def main():
        async with (
            SmallServer(CALLS, habit, date="Sat, 15 Jun 2024 12:00:00 GMT") as server,
            ServetelClient("token-123456", base_url=server.base_url, rate=None) as client,
        ):
            with pytest.raises(ServerError if lost else RequestTimeoutError):
                await pull(client, tmp_path / "a.ndjson", CallQuery(), patience=300)
            return len(server.asked)

    assert on_clock(main) < 60


@pytest.mark.parametrize("lost", [False, True])
def test_the_look_at_the_bounds_begins_again_with_smaller_pages(lost):
    """With another size page 2 holds other calls, but the wanted call is still found."""
    busy = calls_at(*["2024-05-06 09:00:01"] * 40, *["2024-05-06 09:00:00"] * 5)

    def habit(asked):
        if asked.first <= "2024-05-06 09:00:00" and asked.last == "2024-05-06 09:00:01":
            return HONEST if asked.page == 1 else SICK if lost else above(10)(asked)
        return HONEST if asked.window == (DAY.first, DAY.last) else Answer(rows=[], count=0)

    async def main():
        async with fetching(habit) as (server, fetcher):
            server.calls = busy
            fetcher.source.count_is_total = True
            rows = await fetcher.rows(await fetcher.page(DAY, 3, Cost(), size=20))
            look = DateBoundsProbe(fetcher).check(DAY, rows[-1:], Cost())
            if lost:
                with pytest.raises(ServerError):
                    await look
                return
            await look
            assert fetcher.source.conventions == Conventions("start", Bounds(0, 1))

    on_clock(main)


def test_the_doctor_names_no_cap_where_pages_are_too_slow():
    """It asks for smaller pages, and does not report its own limit as the server's."""

    async def main():
        async with (
            SmallServer(CALLS, above(200)) as server,
            ServetelClient("token-123456", base_url=server.base_url, rate=None) as client,
        ):
            found = await probe(client)
            assert (found.asked, found.rows, found.page_cap, client.page_cap) == (125, 125, None, None)
            assert "at least 125 calls; larger pages are too slow" in str(found)
            assert sizes(server)[:7] == [1000, 1000, 500, 500, 250, 250, 125]

    on_clock(main)


# Pulls


@pytest.mark.parametrize("concurrency", [1, 4, 32])
@pytest.mark.parametrize("since", [1, 5], ids=["from the first page", "later"])
@pytest.mark.parametrize("kind", ["no reply", "504"])
def test_a_pull_of_pages_that_are_all_too_slow(kind, since, concurrency, tmp_path):
    """The pull continues with half the size, is complete, and wastes few requests."""
    target = tmp_path / "may.ndjson"
    pulling = Pulling(above(50, SLOW[kind], since), target, concurrency=concurrency)
    assert pulling.receipt is not None, pulling.error
    assert pulling.receipt.complete
    assert ids_in(target) == sorted(key for _, key in CALLS)
    in_vain = [asked for asked in pulling.server.asked if asked.limit > 50 and asked.nth >= since]
    assert 2 <= len(in_vain) <= 2 + 2 * concurrency
    assert pulling.seconds < 10 * TIMEOUT


def test_a_pull_of_pages_that_are_slow_by_their_rows(tmp_path):
    """The server needs a second per row and the limit is 30 seconds, so pages of 25 are requested."""
    pulling = Pulling(lambda asked: Answer(after=float(len(asked.rows))), tmp_path / "may.ndjson", calls=CALLS[:120])
    assert pulling.receipt.complete
    assert {asked.limit for asked in pulling.server.asked if asked.nth > 8} == {25}


@pytest.mark.parametrize("kind", ["no reply", "504"])
@pytest.mark.parametrize(("page_size", "concurrency"), [(100, 4), (100, 32), (1000, 8)])
def test_a_pull_when_everything_is_dead(kind, page_size, concurrency, tmp_path):
    """It makes few requests and gives up after its patience: 30 minutes from the last good reply."""

    def habit(asked):
        return SLOW[kind] if asked.nth > 1 else HONEST

    pulling = Pulling(habit, tmp_path / "may.ndjson", page_size=page_size, concurrency=concurrency)
    assert pulling.error is not None
    assert 1800 <= pulling.seconds <= 1900
    assert len(pulling.server.asked) <= 160


@pytest.mark.parametrize("kind", ["no reply", "504"])
def test_a_pull_goes_on_in_its_old_size_after_an_outage(kind, tmp_path):
    """Ten minutes of it cost at most 130 requests, and later pages are as large as before."""
    target, begun, away = tmp_path / "may.ndjson", [], []

    def habit(asked):
        if asked.nth == 5:
            begun.append(now())
        if not begun or now() - begun[0] >= 600:
            return HONEST
        away.append(asked.nth)
        return SLOW[kind]

    pulling = Pulling(habit, target, page_size=20, concurrency=1)
    assert pulling.receipt.complete
    assert ids_in(target) == sorted(key for _, key in CALLS)
    assert len(away) <= 130
    assert [size for size in sizes(pulling.server, since=away[-1]) if size > 1][-1] == 20


@pytest.mark.parametrize("kind", ["no reply", "504"])
def test_a_sync_of_pages_that_are_too_slow(kind, tmp_path):
    """A sync behaves the same, even if at first only its counts come in time."""
    here = dt.datetime.now(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    recent = [
        (f"{here - dt.timedelta(minutes=40 * number):%Y-%m-%d %H:%M:%S}", f"r{number:03}") for number in range(200)
    ]

    async def main():
        async with (
            SmallServer(recent, above(25, SLOW[kind])) as server,
            ServetelClient("token-123456", base_url=server.base_url, rate=None, retry=Retry(attempts=3)) as client,
        ):
            receipts = [await sync(client, tmp_path / "a.db", CallQuery()) for _ in range(2)]
            return receipts, server

    receipts, server = on_clock(main)
    assert [receipt.complete for receipt in receipts] == [True, True]
    assert receipts[0].records >= 195
    assert sum(asked.limit > 25 for asked in server.asked) <= 16
