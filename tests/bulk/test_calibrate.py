"""Calibration: a server may leave out a bound of the range, and no call at an edge is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from servetel_async import IST, CallQuery, OutOfWindowError, Retry, ServerError, ServetelClient
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.pull import pull
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.protocol.conventions import Bounds, Conventions
from servetel_async.protocol.rows import RawRecord
from servetel_async.protocol.windows import Window
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, inclusive

SERVERS = {
    "inclusive": (inclusive, Bounds(0, 0)),
    "to is exclusive": (lambda start, first, last: first <= start < last, Bounds(0, 1)),
    "from is exclusive": (lambda start, first, last: first < start <= last, Bounds(1, 0)),
    "both are exclusive": (lambda start, first, last: first < start < last, Bounds(1, 1)),
}
servers = pytest.mark.parametrize("server", SERVERS)
DAY = CallQuery(from_date="2024-05-06", to_date="2024-05-06")
FIRST, LAST = "2024-05-06 00:00:00", "2024-05-06 23:59:59"
NOON = "2024-05-06 12:00:00"
WHOLE = Window.of(FIRST, LAST)


@contextlib.asynccontextmanager
async def serving(kind, calls, habit=None):
    """A server of that kind, and a client of it."""
    async with (
        SmallServer(calls, habit, inside=SERVERS[kind][0], date="Tue, 07 May 2024 12:00:00 GMT") as server,
        ServetelClient(
            "token-123456", base_url=server.base_url, rate=None, page_size=5, retry=Retry(attempts=1, base=0.001)
        ) as client,
    ):
        yield server, client


def calibration(client):
    return DateBoundsProbe(Fetcher(client, CallQuery(), page_size=5, concurrency=2, patience=1))


def rows(*starts):
    return [RawRecord(b"{}", str(number), start) for number, start in enumerate(starts)]


def written(path):
    return sorted(
        (record["date"] + " " + record["time"], record["id"])
        for record in map(json.loads, path.read_bytes().splitlines())
    )


@servers
async def test_one_record_tells(server):
    """A record is looked up by its own second, and the client remembers the bounds that this shows."""
    async with serving(server, calls_at(NOON)) as (api, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions("start", SERVERS[server][1])
        requests = {"inclusive": 2, "to is exclusive": 6, "from is exclusive": 7, "both are exclusive": 9}
        assert len(api.asked) == requests[server]


@servers
async def test_neighbours_do_not_mislead(server):
    """Calls one second before and after the wanted call are not taken for it."""
    calls = calls_at("2024-05-06 11:59:59", NOON, "2024-05-06 12:00:01")
    async with serving(server, calls) as (_, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions("start", SERVERS[server][1])


@servers
async def test_it_is_looked_at_once(server):
    """A pull looks once. Another pull of the same client takes the result as a hint, and verifies it by one request."""
    async with serving(server, calls_at(NOON)) as (api, client):
        looking = calibration(client)
        await looking.check(WHOLE, rows(NOON), Cost())
        api.asked.clear()
        await looking.check(WHOLE, rows(NOON), Cost())
        assert api.asked == []
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert len(api.asked) == 1


@pytest.mark.parametrize("lies", [1, 2, 3])
async def test_a_page_that_lies_excludes_no_bound(lies):
    """A call that does not come proves nothing; it is looked up once more."""
    async with serving("inclusive", calls_at(NOON), lambda asked: Answer(rows=[]) if len(lied) <= lies else HONEST) as (
        api,
        client,
    ):
        lied = api.asked
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions()


async def test_a_record_that_is_gone():
    """The next record is looked up; if all are gone, the bounds stay unknown."""
    async with serving("to is exclusive", calls_at("2024-05-06 09:00:00")) as (_, client):
        await calibration(client).check(WHOLE, rows("2024-05-06 13:00:00", NOON), Cost())
        assert client.conventions is None
        await calibration(client).check(WHOLE, rows("2024-05-06 09:00:00", NOON), Cost())
        assert client.conventions == Conventions("start", Bounds(0, 1))


async def test_records_without_a_start_cannot_be_looked_up():
    """They are skipped; if no other record is left, no request is sent."""
    async with serving("inclusive", calls_at(NOON)) as (api, client):
        await calibration(client).check(WHOLE, rows("", "24:00", "2024-05-06 25:00:00"), Cost())
        assert (client.conventions, api.asked) == (None, [])
        await calibration(client).check(WHOLE, rows(NOON, "", ""), Cost())
        assert client.conventions == Conventions()


@servers
async def test_an_empty_window_is_looked_at_from_outside(server):
    """An excluded bound may hide calls: each edge second is requested with a second more on both sides."""
    async with serving(server, calls_at(LAST)) as (_, client):
        await calibration(client).check(WHOLE, [], Cost())
        assert client.conventions == Conventions("start", SERVERS[server][1])


async def test_an_empty_window_with_nothing_around_it():
    """Each edge costs two requests, and the bounds stay unknown."""
    async with serving("inclusive", calls_at(NOON)) as (api, client):
        looking = calibration(client)
        await looking.check(WHOLE, [], Cost())
        assert (client.conventions, sorted(api.windows.values())) == (None, [2, 2])
        assert await looking.confirm(Cost())


@pytest.mark.parametrize("call", [FIRST, LAST])
async def test_one_empty_look_at_an_edge_proves_nothing(call):
    """The first request at each edge comes back empty; the second finds the call."""
    habit = lambda asked: Answer(rows=[], count=0) if api.windows[asked.window] == 1 else HONEST  # noqa: E731
    async with serving("both are exclusive", calls_at(call), habit) as (api, client):
        await calibration(client).check(WHOLE, [], Cost())
        assert client.conventions == Conventions("start", Bounds(1, 1))


@pytest.mark.parametrize(
    "lie", [Answer(rows=[], count=0, page=2), Answer(rows=[], count=2)], ids=["another page", "fewer than counted"]
)
async def test_an_empty_range_whose_edges_are_not_shown_is_not_complete(lie, tmp_path):
    """No page at an edge agrees with its request, so calls may be there."""

    def habit(asked):
        return HONEST if asked.window == (FIRST, LAST) else lie

    async with serving("both are exclusive", calls_at(LAST), habit) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
        assert (receipt.records, receipt.complete) == (0, False)
        assert "how the API reads dates could not be established" in receipt.certified


async def test_an_empty_window_of_one_second():
    """Its two edges are the same second, which is requested twice."""
    async with serving("inclusive", []) as (api, client):
        await calibration(client).check(Window.of(NOON, NOON), [], Cost())
        assert len(api.asked) == 2


@pytest.mark.parametrize("window", [Window(None, WHOLE.end), Window(WHOLE.start, None)])
async def test_an_open_window_has_no_edges(window):
    """No request is sent."""
    async with serving("inclusive", []) as (api, client):
        await calibration(client).check(window, [], Cost())
        assert api.asked == []


async def test_a_crowded_neighbour_does_not_hide_it():
    """Reading continues while pages are full of calls of the next second."""
    made = calls_at(NOON, *["2024-05-06 12:00:01"] * 12)
    async with serving("from is exclusive", made) as (_, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions("start", Bounds(1, 0))


async def test_a_crowd_without_end_is_given_up():
    """A next second with too many calls to read through proves nothing."""
    made = calls_at(*["2024-05-06 12:00:01"] * 150)
    async with serving("from is exclusive", made) as (api, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions is None
        assert len(api.asked) < 100


async def test_several_windows_at_once_look_once():
    """The other windows wait for the result."""
    async with serving("to is exclusive", calls_at(NOON)) as (api, client):
        looking = calibration(client)
        await asyncio.gather(*(looking.check(WHOLE, rows(NOON), Cost()) for _ in range(4)))
        assert client.conventions == Conventions("start", Bounds(0, 1))
        assert len(api.asked) == 6


async def test_a_failure_ends_the_look():
    """The error of the request is raised, and the next check may look again."""
    async with serving("inclusive", calls_at(NOON), lambda asked: Answer(status=500) if asked.nth == 1 else HONEST) as (
        _,
        client,
    ):
        looking = calibration(client)
        with pytest.raises(ServerError):
            await looking.check(WHOLE, rows(NOON), Cost())
        await looking.check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions()


# Pulls

EDGES = {
    "calls on both bounds": [FIRST, NOON, LAST],
    "only on the bounds": [FIRST, LAST],
    "one call at the end": [LAST],
    "one call at the beginning": [FIRST],
    "one call": [NOON],
    "in every hour": [f"2024-05-06 {hour:02}:00:00" for hour in range(24)],
    "several in each edge second": [FIRST] * 3 + [LAST] * 3 + [NOON],
    "neighbouring seconds": [f"2024-05-06 12:00:{second:02}" for second in range(40)],
    "none": [],
}


@pytest.mark.parametrize("calls", EDGES)
@servers
async def test_nothing_is_lost_at_an_edge(server, calls, tmp_path):
    """Whatever bounds a server leaves out, every call of the range is written, and no call beside it."""
    inside = EDGES[calls]
    made = calls_at(*inside, "2024-05-05 23:59:59", "2024-05-07 00:00:00")
    async with serving(server, made) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
        assert written(tmp_path / "a.ndjson") == sorted(call for call in made if FIRST <= call[0] <= LAST)
        assert (receipt.records, receipt.complete) == (len(inside), True)


@servers
async def test_a_range_of_many_windows(server, tmp_path):
    """Calls on the edges of cut windows are neither lost nor written twice."""
    seconds = [
        f"2024-05-06 {minute // 60:02}:{minute % 60:02}:{second}"
        for minute in range(0, 1440, 5)
        for second in ("00", "59")
    ]
    made = calls_at(*seconds)
    async with serving(server, made) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
        assert written(tmp_path / "a.ndjson") == sorted(made)
        assert (receipt.counted, receipt.complete) == (len(made), True)
        assert len(receipt.windows) > 1


@pytest.mark.parametrize(
    "calls", [["2024-01-05 12:00:00"] * 12, ["2024-01-05 12:00:00"] + ["2024-01-05 13:00:00"] * 12]
)
@servers
async def test_a_server_without_counts_is_looked_at_too(server, calls, tmp_path):
    """Its newest months are empty, so its bounds are still unknown at the first calls; none at the edge is lost."""
    made = calls_at(*calls)
    async with serving(server, made, lambda _: Answer(no_count=True)) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", CallQuery(from_date="2024-01-05 12:00:00"))
        assert written(tmp_path / "a.ndjson") == sorted(made)
        assert (receipt.complete, client.conventions) == (True, Conventions("start", SERVERS[server][1]))


WIDER = [
    (server, learnt)
    for server, (_, truth) in SERVERS.items()
    for learnt in (Bounds(0, 1), Bounds(1, 0), Bounds(1, 1))
    if learnt != truth and learnt.start >= truth.start and learnt.end >= truth.end
]


@pytest.mark.parametrize(("server", "learnt"), WIDER)
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_was_learnt_wrongly_is_put_right(server, learnt, concurrency, tmp_path):
    """A page has a call from beside its window, so its range was too wide: it is requested again, narrower."""
    made = calls_at(*[f"2024-05-06 12:00:{second:02}" for second in range(40)] * 3)
    inside = [call for call in made if "2024-05-06 12:00:01" <= call[0] <= "2024-05-06 12:00:38"]
    async with serving(server, made) as (_, client):
        client.conventions, client.max_concurrency = Conventions("start", learnt), concurrency
        query = CallQuery(from_date=inside[-1][0], to_date=inside[0][0])
        receipt = await pull(client, tmp_path / "a.ndjson", query)
        assert written(tmp_path / "a.ndjson") == sorted(inside)
        assert (receipt.records, receipt.complete, client.conventions.bounds) == (114, True, SERVERS[server][1])


@pytest.mark.parametrize("side", ["early", "late"])
async def test_one_page_disproves_no_bound(side, tmp_path):
    """A page with a call from beside its window may be wrong: the bound is still taken as excluded."""
    made = calls_at(*[f"2024-05-06 12:00:{second:02}" for second in range(10)])
    neighbour = "2024-05-06 12:00:02" if side == "early" else "2024-05-06 12:00:06"
    lied = []

    def habit(asked):
        if asked.window == ("2024-05-06 12:00:02", "2024-05-06 12:00:06") and not lied:
            lied.append(asked)
            return Answer(rows=[call for call in made if call[0] == neighbour], count=1)
        return HONEST

    async with serving("both are exclusive", made, habit) as (api, client):
        client.conventions = Conventions("start", Bounds(1, 1))
        query = CallQuery(from_date="2024-05-06 12:00:03", to_date="2024-05-06 12:00:05")
        receipt = await pull(client, tmp_path / "a.ndjson", query)
        assert (receipt.records, receipt.complete, len(lied)) == (3, True, 1)
        assert client.conventions == Conventions("start", Bounds(1, 1))
        asked_narrower = {
            ("2024-05-06 12:00:03", "2024-05-06 12:00:06"),
            ("2024-05-06 12:00:02", "2024-05-06 12:00:05"),
        }
        assert not asked_narrower & api.windows.keys()


async def test_a_page_of_another_range_is_no_evidence():
    """Only two wrong pages, with a call from another range, say that both bounds are included."""
    made = calls_at(NOON, "2024-05-04 12:00:00")
    lie = Answer(rows=made, count=2)
    async with serving("to is exclusive", made, lambda asked: lie if asked.nth <= 2 else HONEST) as (_, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions("start", Bounds(0, 1))


@pytest.mark.parametrize(
    "lie",
    [Answer(rows=[], count=0, page=2), Answer(rows=[], count=1)],
    ids=["another empty page", "fewer than counted"],
)
async def test_a_page_that_does_not_agree_with_its_request_is_asked_for_again(lie):
    """Three such pages without the call do not show that a bound is excluded."""

    def habit(asked):
        return lie if api.windows[NOON, NOON] <= 3 and asked.window == (NOON, NOON) else HONEST

    async with serving("inclusive", calls_at(NOON), habit) as (api, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions == Conventions()
        assert api.windows == {(NOON, NOON): 5}


@pytest.mark.parametrize("server", ["to is exclusive", "from is exclusive", "both are exclusive"])
async def test_calls_that_ended_up_in_no_window_are_looked_up_at_the_end(server, tmp_path):
    """The first page was empty, then each second alone, because a bound is excluded; every call is still written."""
    made = calls_at(*[NOON] * 7)

    def habit(asked):
        return Answer(rows=[]) if asked.nth <= 2 and asked.window == (FIRST, LAST) else HONEST

    async with serving(server, made, habit) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", DAY)
        assert written(tmp_path / "a.ndjson") == sorted(made)
        assert receipt.complete, receipt.certified


async def test_a_page_that_always_lies_is_left():
    """It costs few requests, and the bounds stay unknown."""
    habit = lambda asked: Answer(rows=[], count=1)  # noqa: E731 - as the others
    async with serving("inclusive", calls_at(NOON), habit) as (api, client):
        await calibration(client).check(WHOLE, rows(NOON), Cost())
        assert client.conventions is None
        assert len(api.asked) < 40


async def test_looks_that_do_not_agree_lead_to_another_look():
    """The first reply may be plausible and wrong; two replies that agree decide."""
    made = calls_at(NOON, "2024-05-06 13:00:00")

    def habit(asked):
        return Answer(rows=[made[1]], count=1) if asked.nth == 1 else HONEST

    async with serving("to is exclusive", made, habit) as (_, client):
        await calibration(client).check(WHOLE, rows("2024-05-06 13:00:00", NOON), Cost())
        assert client.conventions == Conventions("start", Bounds(0, 1))


async def test_calls_from_anywhere_put_nothing_right(tmp_path):
    """A server that ignores the dates may send such a call too: it says nothing about the bounds."""
    made = calls_at("2024-05-06 12:00:00", "2024-05-06 11:59:59", "2024-05-04 12:00:00")
    async with serving("both are exclusive", made, lambda _: Answer(rows=made, count=3)) as (_, client):
        client.conventions = Conventions("start", Bounds(1, 1))
        with pytest.raises(OutOfWindowError):
            await pull(client, tmp_path / "a.ndjson", CallQuery(from_date=NOON, to_date=NOON))
        assert client.conventions == Conventions("start", Bounds(1, 1))


@servers
async def test_a_server_that_ignores_the_dates_is_told(server, tmp_path):
    """The pull raises after few requests: reading again would not help."""
    made = calls_at("2024-05-06 12:00:00", "2024-05-04 12:00:00")
    async with serving(server, made, lambda asked: Answer(rows=made, count=2)) as (api, client):
        with pytest.raises(OutOfWindowError):
            await pull(client, tmp_path / "a.ndjson", DAY)
        assert len(api.asked) < 10


# Ranges


QUERIES = {
    "closed": DAY,
    "open start": CallQuery(to_date="2024-05-06"),
    "open end": CallQuery(from_date="2024-05-06"),
    "open": CallQuery(),
    "one second": CallQuery(from_date=NOON, to_date=NOON),
}


@pytest.mark.parametrize("pages", ["counted", "without a count", "counted by page"])
@pytest.mark.parametrize("query", QUERIES)
@servers
async def test_any_range(server, query, pages, tmp_path):
    """Both ends, one or none may be open: every call of the range is written."""
    made = calls_at(*[f"2024-05-{day:02} {hour:02}:30:00" for day in (3, 4, 6) for hour in range(5)], *[NOON] * 2)
    habits = {
        "counted": lambda _: HONEST,
        "without a count": lambda _: Answer(no_count=True),
        "counted by page": lambda asked: Answer(count=len(asked.rows)),
    }
    window = QUERIES[query].window(IST)
    async with serving(server, made, habits[pages]) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", QUERIES[query])
    assert written(tmp_path / "a.ndjson") == sorted(call for call in made if window.first <= call[0] <= window.last)
    assert receipt.complete


@pytest.mark.parametrize("query", QUERIES)
async def test_an_empty_account(query, tmp_path):
    """An account without calls gives a complete pull of 0 calls."""
    async with serving("inclusive", []) as (api, client):
        receipt = await pull(client, tmp_path / "a.ndjson", QUERIES[query])
    assert (receipt.records, receipt.counted, receipt.complete) == (0, 0, True)
    assert (tmp_path / "a.ndjson").read_bytes() == b""
    before = sum(asked.first == "" for asked in api.asked)
    # A range with an open start is requested, then the time before it, and that again at the end.
    assert before == (3 if QUERIES[query].from_date is None else 0)
    # This server's clock differs from ours by years, so an open end costs two requests more.
    # Both windows are empty, and each of their edges is requested twice.
    assert len(api.asked) - min(before, 2) <= (16 if QUERIES[query].to_date is None else 10)


@servers
@pytest.mark.parametrize("counts", ["none", "of the page", "of all"])
async def test_a_server_that_gives_less_than_it_is_asked_for_hides_nothing(server, counts, tmp_path):
    """Calls of the next second may fill the pages, and a page that the server cuts short is not the last one."""

    def habit(asked):
        rows = asked.found[(asked.page - 1) * 2 : asked.page * 2]
        return Answer(
            rows, count={"none": None, "of the page": len(rows), "of all": None}[counts], no_count=counts == "none"
        )

    made = calls_at(*["2024-05-06 11:59:58"] * 3, *["2024-05-06 11:59:59"] * 3, *[NOON] * 3)
    query = CallQuery(from_date="2024-05-06 11:59:59", to_date="2024-05-06 11:59:59")
    async with serving(server, made, habit) as (_, client):
        receipt = await pull(client, tmp_path / "a.ndjson", query)
    assert written(tmp_path / "a.ndjson") == sorted(call for call in made if call[0] == "2024-05-06 11:59:59")
    assert receipt.complete
