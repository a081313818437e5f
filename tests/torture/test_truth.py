"""P1: under any fault of the wire, all calls come correctly, or an error says that they do not."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp
import pytest

from servetel_async import CallQuery, MalformedResponseError, Retry, ServetelClient, ServetelError, Timeouts
from servetel_async.bulk.pull import pull
from tests.bulk.small_server import HONEST, Answer, SmallServer, calls_at, capped, shallow
from tests.tls import serving, trusting
from tests.torture.fault_table import CONNECTION, FAULTS, Kind, Where
from tests.torture.report import SEED, TORTURE, measured
from tests.torture.storm import CALLS, FIRST, LAST, PATIENCE, CallList, Outcome, Storm, client_of, weather
from tests.transport.wire_server import Act, Send, http

SEEDS = range(SEED, SEED + (20 if TORTURE else 1))
#: The calls of one storm; at the whole size all storms have 10,000 faults and 30,000 requests.
STORM = 6_000 if TORTURE else CALLS
PLAIN = tuple(fault for fault in FAULTS if not fault.secure)
EMPTY = tuple(fault for fault in PLAIN if fault.kind is Kind.EMPTY)
LASTING = tuple(fault for fault in PLAIN if fault.kind is not Kind.EMPTY)
SMALL = 60
QUERY = CallQuery(from_date=FIRST, to_date=LAST)
TWICE = Retry(attempts=3, base=0.001, cap=0.002, throttled_base=0.001, throttled_cap=0.002)

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


def ranges_up_to(days, message):
    """Refuse longer ranges."""

    def habit(asked):
        length = datetime.fromisoformat(asked.last) - datetime.fromisoformat(asked.first)
        if length < timedelta(days=days):
            return HONEST
        return Answer(status=400, body=json.dumps({"success": False, "message": message}).encode())

    return habit


def bare_once_in_seven(asked):
    """Send an empty list without a count in each seventh reply."""
    return Answer(rows=[], no_count=True) if asked.nth % 7 == 0 else HONEST


#: Habits of a server: a description, and its reply to each request.
HABITS = {
    "a count that ends at 1,000": capped(1_000),
    "no page behind 1,000 calls": shallow(1_000),
    "7 days at most, and it says so": ranges_up_to(7, "Date range must not exceed 7 days"),
    "a day at most, and it does not say so": ranges_up_to(1, "Bad request"),
    "one reply in seven is an empty list without a count": bare_once_in_seven,
    "pages of more than 25 calls never come": lambda asked: Answer(after=5.0) if asked.limit > 25 else HONEST,
    "a gateway's 504 for pages of more than 25 calls": lambda asked: Answer(status=504) if asked.limit > 25 else HONEST,
}
#: A stream does not change its page size.
PULLS_ONLY = {"pages of more than 25 calls never come", "a gateway's 504 for pages of more than 25 calls"}


def told(total: Outcome, kinds: int) -> str:
    return (
        f"{total.faults:,} faults of {kinds} kinds, {total.paired:,} of them in a row, {total.requests:,} requests: "
        f"{total.lost} lost, {total.twice} twice, {total.foreign} of another list"
    )


def check(total: Outcome, faults) -> None:
    """Check that all calls came, and that all planned faults occurred."""
    assert total.flawless, told(total, len(faults))
    assert set(total.fired) == {fault.name for fault in faults} | {"honest"}
    assert total.unfired == []
    assert total.paired > 0
    assert total.requests <= total.counted, "a request was sent that nobody counts"


def test_the_table_knows_every_place_of_an_exchange():
    """The table has at least forty named kinds, from the connection to the bytes after the body."""
    names = [fault.name for fault in CONNECTION + FAULTS]
    assert len(names) == len(set(names)) >= 40
    assert {fault.where for fault in CONNECTION + FAULTS} == set(Where)


async def test_a_storm(tmp_path):
    """If four in ten exchanges fail, a stream and a pull give every call once, and raise no error."""
    total = Outcome()
    for seed in SEEDS:
        total.add(await weather(CallList(STORM, seed), seed, tmp_path, PLAIN))
    planned = CONNECTION + PLAIN
    measured("P1", told(total, len(planned)), seeds=f"{SEEDS[0]} to {SEEDS[-1]}")
    check(total, planned)
    if TORTURE:
        assert total.faults >= 10_000
        assert total.requests >= 30_000


async def test_a_storm_behind_tls(authority, tmp_path):
    """The same holds behind TLS, with connections that end without a TLS close notify."""
    theirs = serving(authority.issue_cert("127.0.0.1"))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(authority))) as session:
        total = await weather(CallList(CALLS, SEED), SEED, tmp_path, FAULTS, tls=theirs, session=session)
    planned = CONNECTION + FAULTS
    measured("P1", f"behind TLS: {told(total, len(planned))}", seeds=str(SEED))
    check(total, planned)


def in_another_process(*arguments, **environment) -> dict:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.torture.storm", str(SEED), *arguments],
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stderr == b""
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", ["parser of Python", "uvloop"])
def test_a_storm_with_other_parts(way):
    """The same holds with aiohttp's pure Python parser, and with another event loop."""
    if way == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    said = in_another_process("uvloop") if way == "uvloop" else in_another_process(AIOHTTP_NO_EXTENSIONS="1")
    assert (said.pop("parser") == "aiohttp.http_parser") is (way != "uvloop")
    assert (said.pop("loop") == "uvloop") is (way == "uvloop")
    total = Outcome(**said)
    measured("P1", f"{way}: {told(total, len(CONNECTION + PLAIN))}", seeds=str(SEED))
    check(total, CONNECTION + PLAIN)


# Faults that stay -----------------------------------------------------------------------------------------------------------


class Stubborn(Storm):
    """A server that sends three good replies, and then always the same fault, or always on one page.

    Args:
        calls: what it serves.
        fault: the fault.
        page: the page that fails, from the beginning; None for every page.
    """

    def __init__(self, calls, fault, page=None):
        super().__init__(calls)
        self.fault = fault
        self.page = page
        self.ill = True
        self.random = Random(f"{SEED} {fault.name}")

    def _answer(self, request):
        body = self.honest(request)
        struck = request.number > 3 if self.page is None else dict(request.query).get("page") == str(self.page)
        if not (self.ill and struck):
            return Act("honest", (Send(http(body)),))
        return Act(self.fault.name, self.fault.make(self.random, body))


def facing(server):
    """A client of such a server: its timeouts are short only for faults of time, because a busy machine may stall."""
    patience = PATIENCE if server.fault.kind is Kind.SLOW else Timeouts()
    return client_of(server, retry=TWICE, timeouts=patience)


def _hangs_not(fault):
    return fault.kind is not Kind.SLOW


async def each_fault(case, faults=LASTING):
    """Run a case with each fault, a dozen at a time, those that hang first, because they mostly wait."""
    turns = asyncio.Semaphore(12)

    async def one(fault):
        async with turns:
            try:
                await case(fault)
            except Exception as error:
                return f"{fault.name}: {type(error).__name__}: {str(error).splitlines()[:1]}"
        return None

    wrong = await asyncio.gather(*(one(fault) for fault in sorted(faults, key=_hangs_not)))
    assert not any(wrong), "\n".join(filter(None, wrong))


async def test_a_fault_that_stays_ends_a_stream_with_its_error():
    """The calls before the error are a correct prefix; after the fault has passed, the checkpoint gives the rest."""
    calls = CallList(SMALL, SEED)

    async def case(fault):
        async with Stubborn(calls, fault) as server, facing(server) as client:
            came, met = [], None
            stream = client.calls(FIRST, LAST)
            try:
                async for call in stream:
                    came.append(call.id)
            except ServetelError as error:
                met = type(error)
            assert met is fault.kind.error, met
            assert server.fired[fault.name] > 0
            assert came == calls.ids[: len(came)] != []
            server.ill = False
            came += [call.id async for call in client.calls(FIRST, LAST, start=stream.checkpoint)]
            assert came == calls.ids

    await each_fault(case, PLAIN)
    measured(
        "P1", f"{len(PLAIN)} faults that stay: the stream raises, and another one resumes there once they have passed"
    )


async def test_a_fault_that_stays_ends_a_pull_with_its_error(tmp_path):
    """Nothing has the output's name; after the fault has passed, the same pull is complete."""
    calls = CallList(SMALL, SEED)

    async def case(fault):
        target = tmp_path / f"{fault.name.replace('/', '')}.ndjson"
        async with Stubborn(calls, fault) as server, facing(server) as client:
            met = None
            try:
                await pull(client, target, QUERY, patience=0.05)
            except ServetelError as error:
                met = type(error)
            assert met is fault.kind.error, met
            assert server.fired[fault.name] > 0
            assert target.exists() is (met is None)
            server.ill = False
            receipt = await pull(client, target, QUERY, overwrite=met is None)
            assert receipt.complete
            assert sorted(target.read_bytes().splitlines()) == sorted(calls.bodies)

    await each_fault(case)
    measured("P1", f"{len(LASTING)} faults that stay: no output of a part, and a whole one once they have passed")


async def test_one_page_that_never_comes_is_never_left_out_silently(tmp_path):
    """A stream raises its error. A pull finds another way to its calls, or says in its receipt that some are missing."""
    calls = CallList(SMALL, SEED)
    ends = []

    async def case(fault):
        target = tmp_path / f"{fault.name.replace('/', '')}.ndjson"
        async with Stubborn(calls, fault, page=2) as server, facing(server) as client:
            came, met = [], None
            try:
                async for call in client.calls(FIRST, LAST):
                    came.append(call.id)
            except ServetelError as error:
                met = type(error)
            assert met is fault.kind.error, met
            assert came == calls.ids[: len(came)]
            assert server.fired[fault.name] > 0
            try:
                receipt = await pull(client, target, QUERY, patience=0.05)
            except ServetelError as error:
                assert not target.exists()
                ends.append(type(error).__name__)
                return
            lines = target.read_bytes().splitlines()
            assert len(lines) == len(set(lines))
            assert set(lines) <= set(calls.bodies)
            assert receipt.complete is (len(lines) == SMALL)
            ends.append("complete" if receipt.complete else "incomplete, and said")

    await each_fault(case)
    measured("P1", f"a page that never comes, {len(LASTING)} ways: {dict(sorted(Counter(ends).items()))}")


async def test_an_empty_list_that_stays_is_never_taken_for_the_end(tmp_path):
    """If a server that counts sends only empty lists without a count from then on, a pull and a stream raise."""
    calls = CallList(SMALL, SEED)

    async def case(fault):
        target = tmp_path / f"{fault.name}.ndjson"
        async with Stubborn(calls, fault) as server, facing(server) as client:
            with pytest.raises(MalformedResponseError):
                await pull(client, target, QUERY, patience=0.05)
            assert not target.exists()
            assert server.fired[fault.name] > 0
            server.ill = False
            assert (await pull(client, target, QUERY)).complete

    await each_fault(case, EMPTY)
    measured("P1", f"{len(EMPTY)} empty lists that stay: never the end of a pull")


@pytest.mark.parametrize("habit", HABITS)
async def test_a_habit_of_the_server_costs_no_call(habit, tmp_path):
    """With limits of counts, depths and ranges, slow pages, or an expired token, every call comes once."""
    truth = calls_at(*(f"2024-05-{day:02} 09:{minute:02}:00" for day in range(1, 32) for minute in range(50)))
    options = {"rate": None, "retry": TWICE, "timeouts": Timeouts(read=0.5), "page_size": 100}
    async with (
        SmallServer(truth, HABITS[habit]) as server,
        ServetelClient("token-of-a-habit", base_url=server.base_url, **options) as client,
    ):
        came = [call.id async for call in client.calls("2024-05-01", "2024-05-31")] if habit not in PULLS_ONLY else None
        receipt = await client.pull(tmp_path / "calls.ndjson", "2024-05-01", "2024-05-31")
        lines = [json.loads(line)["id"] for line in (tmp_path / "calls.ndjson").read_bytes().splitlines()]
    ids = [call[1] for call in truth]
    assert came is None or sorted(came) == sorted(ids)
    assert receipt.complete
    assert sorted(lines) == sorted(ids)
    measured("P1", f"{habit}: {len(ids):,} calls, 0 lost, 0 twice, {receipt.requests} requests of the pull")
