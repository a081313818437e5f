"""Pages that were damaged in every way: they are read, or refused with an error of ours that holds nothing of them.

All that a program can do with a page is done with each. The letters Q, X, J and Z stand in every text of the pages and
in no error of ours, and no error holds a long number: so whatever of a page comes out is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import multiprocessing
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError, Timeouts
from servetel_async.inquiry import check_alone
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.lookup import pick_call
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rows import records_of, rows_of
from servetel_async.protocol.sieve import Sieve
from servetel_async.protocol.verdict import OK, Unacceptable, judge
from tests.torture.report import SEED, TORTURE, measured
from tests.transport.leaks import TOKEN, shown
from tests.transport.wire_server import Act, Fin, Send, WireServer, http

PAGES = 1_000_000 if TORTURE else 5_000
REPLIES = 10_000 if TORTURE else 250
EXAMPLES = 5_000 if TORTURE else 150
PROCESSES = 2 if TORTURE else 1
#: Pages of one seed; one in so many is large; seconds that one page may take.
BATCH, LARGE, LONGEST = 2_500, 500, 0.05

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)

SAMPLE = json.loads((Path(__file__).parent.parent / "protocol" / "data" / "page.json").read_bytes())
DAY = CallQuery(from_date="2024-05-02", to_date="2024-05-02").window()
PLAIN = ("id", "date", "time", "end_stamp", "direction", "status")


def secret(value, key=""):
    """The same, with letters that no error of ours holds in each of its texts."""
    if isinstance(value, dict):
        return {name: secret(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [secret(item) for item in value]
    return f"QXJZ {value} ZJXQ" if isinstance(value, str) and key not in PLAIN else value


RECORD = secret(SAMPLE["results"][0]) | {"client_number": "+910000077777", "date": "2024-05-02", "time": "19:19:59"}
SHORT = {name: RECORD[name] for name in (*PLAIN, "client_number", "agent_name", "notes", "call_duration", "circle")}


def page(*records, **fields):
    envelope = {"count": len(records), "limit": 100, "size": len(records), "page": 1, "results": list(records)}
    return json.dumps(envelope | fields).encode()


BASES = (
    page(RECORD),
    page(SHORT),
    page(SHORT, SHORT | {"id": "66aa"}),
    page(),
    page(SHORT, success=True),
    page(SHORT, results={"1": SHORT, "0": SHORT | {"id": "66aa"}}),
    page(SHORT).replace(b", ", b",\r\n  "),
    page(SHORT).decode().encode("utf-16"),
    b'{"success": false, "message": "not for 910000077777 of a@example.com"}',
    b'{"success": false, "errors": {"from_date": ["not a day"]}, "retry_after": "910000077777"}',
    b"<html><title>QXJZ</title> 910000077777</html>",
)
#: What is put into a page somewhere; each is a kind of its own.
PIECES = {
    "NUL": b"\x00",
    "bad UTF-8": b"\xff\xc3(\xed\xa0\x80",
    "BOM": b"\xef\xbb\xbf",
    "lone surrogate": b"\\ud83d",
    "NaN": b"NaN",
    "infinity": b"-Infinity",
    "large number": b"1e999",
    "huge number": b"7" * 5_000,
    "number of 2**64": b"18446744073709551616",
    "deep list": b"[" * 3_000,
    "deep list, closed": b"[" * 1_200 + b"]" * 1_200,
    "deep object": b'{"QXJZ":' * 1_200,
    "key again": b'"id": "QXJZ-again", "results": [], ',
    "ours": b'"servetel_async:extra": {"QXJZ": 1}, "servetel_async:zone": "QXJZ", ',
    "unknown key": b'"QXJZ": [{"QXJZ": "QXJZ"}], ',
    "refusal": b'"success": false, "message": "not so", ',
    "quote": b'"',
    "escape": b"\\",
    "bracket": b"]}",
    "comment": b"/* QXJZ */",
}


# Damage ------------------------------------------------------------------------------------------------------------------


def flip_bits(body, dice):
    damaged = bytearray(body)
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def cut_off(body, dice):
    return body[: dice.randrange(len(body))]


def leave_out(body, dice):
    first = dice.randrange(len(body))
    return body[:first] + body[first + dice.choice((1, 2, 10, 100)) :]


def say_again(body, dice):
    first = dice.randrange(len(body))
    return body[:first] + body[first : first + dice.choice((1, 20, 300))] * 2 + body[first:]


def splice(body, dice):
    other = dice.choice(BASES)
    return body[: dice.randrange(len(body))] + other[dice.randrange(len(other)) :]


def replace_value(body, dice):
    """Another value in the place of one: the page stays JSON, mostly."""
    values = list(re.finditer(rb'(?<=: )("[^"]*"|[-\d.]+|null|true|false|\[\]|\{\})', body))
    if not values:
        return b"[" + body + b"]"
    place = dice.choice(values)
    value = dice.choice(
        (b"null", b"[]", b"{}", b"0", b"-1", b"1.5", b"true", b'""', b'"QXJZ"', b'{"1": "QXJZ"}', b"9" * 30)
    )
    return body[: place.start()] + value + body[place.end() :]


def change_digits(body, dice):
    """Other numbers, dates and lengths: the page stays JSON."""
    changed = bytearray(body)
    places = [match.start() for match in re.finditer(rb"\d", body)] or [0]
    for place in dice.choices(places, k=dice.choice((1, 3, 30))):
        changed[place] = dice.choice(b"0123456789")
    return bytes(changed)


def put_in(name):
    def put(body, dice):
        places = [match.start() for match in re.finditer(rb'(?<=[{\[:,"] )|"', body)] if dice.random() < 0.7 else []
        place = dice.choice(places) if places else dice.randrange(len(body) + 1)
        return body[:place] + PIECES[name] + body[place:]

    return put


DAMAGE = {
    "bits flipped": flip_bits,
    "cut off": cut_off,
    "left out": leave_out,
    "said again": say_again,
    "spliced": splice,
    "another value": replace_value,
    "other digits": change_digits,
    **{name: put_in(name) for name in PIECES},
}
STATUSES = (*[200] * 40, 204, 304, 400, 401, 403, 422, 429, 500, 503)
HEADERS = (
    {},
    {},
    {"content-type": "application/json; charset=QXJZ"},
    {"date": "QXJZ", "retry-after": "QXJZ 910000077777"},
)


def damaged(body, dice, counted):
    """The page with one to three kinds of damage."""
    for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
        kind = dice.choice(("another value", "other digits")) if dice.random() < 0.65 else dice.choice(list(DAMAGE))
        counted[kind] += 1
        body = DAMAGE[kind](body or b" ", dice)
    return body


# What is done with each ----------------------------------------------------------------------------------------------------


def use(reply):
    """All that the product does with a reply and the records in it; gives the error that a caller would get."""
    try:
        verdict = judge(reply, 0.0)
        if verdict is not OK:
            return verdict.error
        read = PageReader().read(reply, 0.0)
        check_alone(read, 1)
        read.open()
        records = read.records()
        for row in (rows := rows_of(PageReader().read(reply, 0.0))):
            b"%s" % row.line
        records_of([row.line for row in rows if row.reason is None])
        for record in records:
            hash(record), repr(record), record.started_at, record.ended_at, record.is_answered
            for step in record.call_flow or ():
                step.at(), step.phone, hash(step), repr(step)
        Sieve(DAY).sift(records)
        pick_call(records, "QXJZ", DAY)
    except Unacceptable as refusal:
        return refusal.verdict.error
    except ServetelError as error:
        return error
    return None


#: What an error may say of a body: its length, a hash, the page number and the count that it is about, a time to wait.
TOLD = re.compile(r"\d+ bytes|sha256 [0-9a-f]{12}|page \d+|counts \d+|\b\d+ calls|retry_after': [\d.e+]+")
#: What the server said for people is quoted, with numbers and addresses masked.
QUOTED = re.compile(r': "(.*)"', re.DOTALL)


def assert_nothing_of_it(error):
    """Neither a text nor a number of the page, but for the message that the server meant to be shown."""
    quoted = "".join(QUOTED.findall(error.what))
    assert not re.search(r"\d{6,}|@example", quoted)
    for form, text in shown(error).items():
        if form == "traceback with locals":
            continue  # its frames are those of this file
        for written in (quoted, repr(quoted)[1:-1], quoted.encode().decode("latin-1")):
            text = text.replace(written, "") if written else text
        found = re.search(r"[QXJZ]{3}|\d{6,}", TOLD.sub("", text))
        assert not found, f"{found[0]!r} in the {form} of {type(error).__name__}"


def seconds_of(reply, longest=LONGEST):
    """CPU time, for others work on this machine too; the best of three where it was long once."""
    best = float("inf")
    for _ in range(3):
        began = time.thread_time()
        error = use(reply)
        best = min(best, time.thread_time() - began)
        if best <= longest:
            break
    return best, error


def look_at(reply, counted):
    """Use it; gives the seconds that it took."""
    try:
        seconds, error = seconds_of(reply)
        counted["a page" if error is None else type(error).__name__] += 1
        assert error is None or isinstance(error, ServetelError)
        if error is not None and (counted["errors"] < 300 or counted["errors"] % 10 == 0):
            assert_nothing_of_it(error)
        counted["errors"] += error is not None
        assert seconds <= LONGEST, f"{seconds:.3f} s"
    except Exception as problem:
        problem.add_note(f"status {reply.status}, headers {reply.headers}, body {reply.body[:3000]!r}")
        raise
    return seconds


def batch(number):
    """Look at the pages of one seed; gives what happened, and the longest time."""
    dice, counted, longest = Random(f"pages {number}"), Counter(), 0.0
    for index in range(BATCH):
        body = dice.choice(BASES)
        if index % LARGE == 0:
            counted["large"] += 1
            body = page(*(RECORD | {"id": f"66{each:x}"} for each in range(130)))
        body = damaged(body, dice, counted)
        headers = dice.choice(HEADERS)
        longest = max(longest, look_at(Reply(dice.choice(STATUSES), body, headers), counted))
    return counted, longest


def test_a_damaged_page_is_read_or_refused():
    """Errors of ours only, none of which tells anything of the page, and none takes longer than 50 ms."""
    numbers = range(SEED * 1_000, SEED * 1_000 + PAGES // BATCH)
    counted, longest = Counter(), 0.0
    with contextlib.ExitStack() as stack:
        run = map
        if PROCESSES > 1:
            context = multiprocessing.get_context("spawn")
            run = stack.enter_context(ProcessPoolExecutor(PROCESSES, mp_context=context)).map
        for happened, seconds in run(batch, numbers):
            counted.update(happened)
            longest = max(longest, seconds)
    measured(
        "P11",
        f"{PAGES:,} mutated pages of {len(DAMAGE)} kinds: {counted['a page']:,} read, {counted['errors']:,} refused, "
        f"all with errors of ours that hold nothing of the page; the longest took {longest * 1e3:.0f} ms",
        seeds=f"{numbers[0]} to {numbers[-1]}",
    )
    errors = ("MalformedResponseError", "RequestRejectedError", "AuthenticationError", "ServerError", "RateLimitError")
    happened = [*DAMAGE, *errors, "PermissionDeniedError", "OutOfWindowError", "PagingError", "a page", "large"]
    assert [kind for kind in happened if not counted[kind]] == []


@pytest.mark.parametrize("letter", ["a", "7", "[", "@", "7 ", "7.", "a@", "a.", "=", "\n", "{"])
@pytest.mark.parametrize("end", ["", "@", "7", "@b"])
def test_a_long_message_is_masked_at_once(letter, end):
    """No way of writing 1,600 characters is read again at each of them: 4 ms are a twelfth of what a page may take."""
    said = json.dumps({"success": False, "message": letter * (1_600 // len(letter)) + end}).encode()
    assert seconds_of(Reply(400, said), 0.004)[0] <= 0.004


# JSON that is sound, and no page of calls -----------------------------------------------------------------------------------

TEXTS = st.sampled_from(["QXJZ", "", "2024-05-02", "19:19:59", "19:19:60", "-1", "910000077777", "\0", "\ud800", "٣"])
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none())
KEYS = st.sampled_from([*RECORD, *RECORD["call_flow"][0], "results", "count", "success", "message", "QXJZ", "0"])
ANYTHING = st.recursive(
    st.one_of(TEXTS, NUMBERS), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
)
RECORDS = st.dictionaries(KEYS, ANYTHING, max_size=8)


@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {"results": st.lists(RECORDS, max_size=3) | ANYTHING},
        optional={"count": ANYTHING, "page": ANYTHING, "success": ANYTHING, "message": ANYTHING},
    ),
    st.sampled_from(STATUSES),
)
def test_sound_json_of_any_shape_is_read_or_refused(body, status):
    """Values of every type in every place."""
    look_at(Reply(status, json.dumps(body).encode()), Counter())


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: it needs clang")
def test_a_fuzzer_that_sees_branches_finds_nothing_else():
    """Guided by what the code does with a page, as long as the quick size takes."""
    import atheris

    runs = iter(range(EXAMPLES))
    with contextlib.suppress(StopIteration):
        provider = Random(SEED)
        for _ in runs:
            data = atheris.FuzzedDataProvider(provider.randbytes(2_000))
            look_at(Reply(200, BASES[0][: data.ConsumeIntInRange(0, 900)] + data.ConsumeBytes(900)), Counter())


# Over the wire ---------------------------------------------------------------------------------------------------------------


async def test_a_damaged_reply_is_read_or_refused():
    """The head of the reply is damaged too, by a real server: whatever comes of it is an error of ours."""
    dice, counted = Random(f"replies {SEED}"), Counter()
    gone = re.compile(rb"\r\n\r\n")

    def act(_request):
        body = dice.choice(BASES)
        data = http(body, 200, ("Date", "Thu, 02 May 2024 10:00:00 GMT"))
        head, body = gone.split(data, 1)
        if dice.random() < 0.5:
            damage = dice.choice(("bits flipped", "left out", "said again", "NUL", "bad UTF-8", "huge number"))
            counted[f"head, {damage}"] += 1
            head = DAMAGE[damage](head, dice)
        else:
            body = damaged(body, dice, counted)
        return Act("damaged", (Send(head + b"\r\n\r\n" + body), Fin()))

    async with WireServer(act) as server:
        client = ServetelClient(
            TOKEN,
            base_url=server.url,
            rate=None,
            retry=Retry(attempts=1, base=0.001, throttled_base=0.001),
            timeouts=Timeouts(connect=5, read=5, total=5),
        )
        async with client:
            for number in range(REPLIES):
                asking = client.count("2024-05-02", "2024-05-02") if number % 2 else client.fetch_page(CallQuery())
                (outcome,) = await asyncio.gather(asking, return_exceptions=True)
                if not isinstance(outcome, BaseException):
                    counted["a page"] += 1
                    continue
                assert isinstance(outcome, ServetelError), repr(outcome)
                assert_nothing_of_it(outcome)
                counted["errors"] += 1
                counted[type(outcome).__name__] += 1
    measured(
        "P11",
        f"{REPLIES:,} damaged replies over HTTP: {counted['a page']:,} read, {counted['errors']:,} refused",
        seeds=str(SEED),
    )
    for kind in ("a page", "MalformedResponseError", "ConnectionFailedError", "head, bits flipped", "head, NUL"):
        assert counted[kind], kind
