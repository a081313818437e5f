"""Damaged replies from a real HTTP server: each gives a page or an error of ours, soon and within its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import time
import zlib
from collections import Counter
from random import Random

import pytest

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError, Timeouts
from tests.torture.mutated_headers import CHARSETS
from tests.torture.mutated_pages import BASES, DAMAGE, assert_nothing_of_it, damaged
from tests.torture.report import SEED, TORTURE, measured
from tests.transport.leaks import TOKEN
from tests.transport.wire_server import Act, Drip, Fin, Hang, Send, WireServer, http

REPLIES = 10_000 if TORTURE else 250
SLOW_REPLIES = 1_000 if TORTURE else 40
#: Seconds of CPU that one loop iteration may take.
LONGEST = 0.05
#: A call's deadline in seconds, and its allowed delay.
DEADLINE, LATE = 0.25, 0.1
#: Replies between two checks of the outcomes.
BATCH = 250

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "gzip of half": lambda data: gzip.compress(data)[:40]}
ENCODINGS = ("plain", "plain", "plain", "gzip", "gzip of half", "deflate", "br", "QXJZ", "gzip, gzip")


def damaged_reply(dice, counted):
    """The bytes of a reply with a damaged head or body. Its charset, encoding or length may be wrong too."""
    body = dice.choice(BASES)
    encoding = dice.choice(ENCODINGS)
    counted[f"encoding {encoding}"] += 1
    body = PACKERS.get(encoding, bytes)(body)
    headers = [("Date", "Thu, 02 May 2024 10:00:00 GMT")]
    if encoding != "plain":
        headers.append(("Content-Encoding", encoding.split(" of")[0]))
    content_type = "application/json"
    if dice.random() < 0.3:
        content_type += f"; charset={dice.choice(CHARSETS)}"
    length = len(body)
    if dice.random() < 0.2:
        length = max(0, length + dice.choice((1, -1, 10**9, -(10**9))))
        counted["length"] += 1
    head, body = http(body, 200, *headers, content_type=content_type, length=length).split(b"\r\n\r\n", 1)
    if dice.random() < 0.5:
        damage = dice.choice(("bits flipped", "left out", "said again", "NUL", "bad UTF-8", "huge number"))
        counted[f"head, {damage}"] += 1
        head = DAMAGE[damage](head, dice)
    elif body:
        body = damaged(body, dice, counted)
    return head + b"\r\n\r\n" + body


async def longest_turn(turns):
    """Record the CPU time of each loop iteration until it is cancelled."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - began)


@contextlib.asynccontextmanager
async def client_of(act):
    async with WireServer(act) as server:
        options = {
            "retry": Retry(attempts=1, base=0.001, throttled_base=0.001),
            "timeouts": Timeouts(connect=5, read=5, total=5),
        }
        async with ServetelClient(TOKEN, base_url=server.url, rate=None, **options) as client:
            yield client


def check(outcome, counted):
    if not isinstance(outcome, BaseException):
        counted["a page"] += 1
        return
    assert isinstance(outcome, ServetelError), repr(outcome)
    assert_nothing_of_it(outcome)
    counted["errors"] += 1
    counted[type(outcome).__name__] += 1


@pytest.fixture
def small_heap():
    """A full collection walks over all that other tests have loaded; a program of a user has less."""
    gc.collect()
    gc.freeze()


async def test_a_damaged_reply_is_read_or_refused(small_heap):
    """A reply with a damaged head or body never blocks the loop, and its error is one of ours."""
    dice, counted, turns, outcomes = Random(f"replies {SEED}"), Counter(), [], []

    def act(_request):
        return Act("damaged", (Send(damaged_reply(dice, counted)), Fin()))

    async with client_of(act) as client:
        await asyncio.gather(client.count("2024-05-01", "2024-05-02"), return_exceptions=True)  # imports what is needed
        for first in range(0, REPLIES, BATCH):
            watching = asyncio.create_task(longest_turn(turns))
            for number in range(first, first + BATCH):
                asking = client.count("2024-05-02", "2024-05-02") if number % 2 else client.fetch_page(CallQuery())
                outcomes += await asyncio.gather(asking, return_exceptions=True)
            watching.cancel()
            for outcome in outcomes:  # only now: formatting their tracebacks takes the loop's time
                check(outcome, counted)
            outcomes.clear()
            gc.collect()  # what the check has left, so that no collection of it falls into the next batch
    measured(
        "P11",
        f"{REPLIES:,} damaged replies over HTTP: {counted['a page']:,} read, {counted['errors']:,} refused; "
        f"the loop was held for {max(turns) * 1e3:.0f} ms at most",
        seeds=str(SEED),
    )
    assert max(turns) <= LONGEST
    encodings = [f"encoding {each}" for each in ENCODINGS]
    for kind in (
        *("a page", "MalformedResponseError", "ConnectionFailedError", "head, bits flipped", "head, NUL", "length"),
        *encodings,
    ):
        assert counted[kind], kind


async def test_a_damaged_reply_that_never_ends_is_left_at_the_deadline():
    """A reply that drips or stops halfway ends at the call's deadline, with an error or a result."""
    dice, counted, late = Random(f"late replies {SEED}"), Counter(), []

    def act(_request):
        data = damaged_reply(dice, counted)
        half = dice.randrange(1, len(data))
        drops = (Send(data[:half]), Drip(data[half:], 0.01), Hang())
        return Act("damaged", drops if dice.random() < 0.5 else (Send(data[:half]), Hang()))

    for _ in range(3):  # the best counts: a machine that others share may be late itself
        async with client_of(act) as client:
            late.append(max([await latest_of_ten(client, first, counted) for first in range(0, SLOW_REPLIES, 10)]))
        if late[-1] <= LATE:
            break
    measured(
        "P11",
        f"{SLOW_REPLIES:,} damaged replies that never end: each call ended {min(late) * 1e3:.0f} ms after its deadline at most",
        seeds=str(SEED),
    )
    assert min(late) <= LATE
    assert counted["DeadlineExceededError"]


async def latest_of_ten(client, first, counted):
    """Ten calls at once; the seconds by which the latest one missed its deadline."""
    ends = await asyncio.gather(*(ended(client, first + each) for each in range(10)))
    for error, _ in ends:
        counted[type(error).__name__] += 1
        if error is not None:
            assert_nothing_of_it(error)
    return max(seconds for _, seconds in ends) - DEADLINE


async def ended(client, number):
    """How a call with a deadline ends: its error, or None, and the seconds that it took."""
    day = CallQuery(from_date="2024-05-02", to_date=f"2024-05-{2 + number % 28:02}")  # equal calls share a request
    began = time.monotonic()
    try:
        await (client.count(query=day, deadline=DEADLINE) if number % 3 else client.fetch_page(day, deadline=DEADLINE))
    except ServetelError as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began
