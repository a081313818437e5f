"""A page that looks whole is opened late, when it is read: it gives the same as a page that was proved on arrival."""

from __future__ import annotations

import json
from zoneinfo import ZoneInfo

import pytest

from servetel_async.emulator import Dataset
from servetel_async.errors import MalformedResponseError, RateLimitError, RequestRejectedError
from servetel_async.protocol.decoding import SHORT, SLICE, SMALL, PageReader
from servetel_async.protocol.reply import HUGE, Reply
from servetel_async.protocol.rescue import MANY_VALUES
from servetel_async.protocol.verdict import Unacceptable

PLAIN = [call.body for call in Dataset.month("2024-05", calls=1_000).calls]
ROUGH = [call.body for call in Dataset.month("2024-05", calls=300, php_quirks=True).calls]
NEW_KEY = [body[:-1] + b',"sentiment":"good","tags":[1]}' for body in PLAIN]
PADDING = "x" * SHORT


def page_of(bodies, **fields):
    head = json.dumps({"count": len(bodies), "limit": 100, "size": 7, "page": 3, **fields}).encode()
    return head[:-1] + b',"results":[' + b",".join(bodies) + b"]}"


def padded(**fields):
    return json.dumps({**fields, "padding": PADDING}).encode()


def take(body, reader=None):
    return (reader or PageReader()).take(Reply(200, body, {"date": "Mon, 06 May 2024 10:00:00 GMT"}), 0.0)


def refusal_of(work):
    with pytest.raises(Unacceptable) as raised:
        work()
    return raised.value.verdict


@pytest.mark.parametrize(
    "bodies", [PLAIN[:100], PLAIN, ROUGH[:100], ROUGH], ids=["plain", "long", "rough", "long rough"]
)
def test_it_says_the_same_either_way(bodies):
    """Records, edges and envelope equal those of a page that was proved on arrival."""
    body = page_of(bodies)
    late, proved = take(body), PageReader().read(Reply(200, body), 0.0)
    assert late.open() == proved.open()
    assert late.records() == proved.records()
    assert (late.count, late.limit, late.size, late.page) == (len(bodies), 100, 7, 3)
    assert (late.body, late.date) == (body, "Mon, 06 May 2024 10:00:00 GMT")


def test_nothing_of_it_is_known_before_it_is_opened():
    """Opening it reads its count, and finds a record that is not JSON; until then both are unknown."""
    whole = page_of(PLAIN[:100])
    page, broken = take(whole), take(whole.replace(PLAIN[50], b"?" + PLAIN[50]))
    assert (page.count, broken.count) == (None, None)
    first, last = ("{id} {date} {time}".format_map(json.loads(PLAIN[index])) for index in (0, 99))
    assert page.open() == (first, last, 100)
    assert page.count == 100
    with pytest.raises(Unacceptable):
        broken.open()


def test_opening_it_again_changes_nothing():
    """It is opened once."""
    page = take(page_of(PLAIN[:100]))
    assert page.open() == page.open()


@pytest.mark.parametrize(("calls", "sizes"), [(100, {100}), (1_000, {SLICE, 1_000 % SLICE})], ids=["small", "large"])
def test_a_small_page_comes_in_one_piece_and_a_large_one_in_slices(calls, sizes):
    """All records of a small page fit into the cache; those of a large one do not."""
    body = page_of(PLAIN[:calls])
    assert (len(body) <= SMALL) == (calls == 100)
    page = take(body)
    page.open()
    assert {len(piece) for piece in page.slices()} == sizes


def test_records_that_were_let_go_of_may_be_read_again():
    """A page decoded in one pass keeps no records; they can be read again."""
    page = take(page_of(PLAIN[:100]))
    page.open()
    first = page.records()
    assert page._records is None
    assert page.records() == first
    assert [bytes(row) for row in page.rows()] == PLAIN[:100]


def test_an_empty_page_with_a_long_envelope_has_no_calls():
    """Whatever else the envelope holds."""
    page = take(padded(count=0, results=[]))
    assert (page.open(), list(page.slices()), page.count) == (("", "", 0), [], 0)


def test_records_of_another_zone_carry_it():
    """Even if all of them were decoded in one pass."""
    page = take(page_of(PLAIN[:10]))
    page.open()
    assert {record.zone for record in page.records(ZoneInfo("Europe/London"))} == {"Europe/London"}


def test_keys_that_were_learnt_are_read_in_one_go_too():
    """Once a new key is learnt, the next page is decoded whole and loses nothing."""
    reader = PageReader()
    body = page_of(NEW_KEY[:50])
    first, second = take(body, reader), take(body, reader)
    first.open()
    expected = first.records()
    second.open()
    assert second._rows is None  # it was not split
    assert second.records() == expected
    assert expected[49].extra == {"sentiment": "good", "tags": [1]}


def test_a_flow_of_too_many_steps_is_refused_either_way():
    """A record that is too large is refused in a small page too."""
    record = (
        b'{"id":"1","date":"2024-05-06","time":"09:00:00","call_flow":[' + b",".join([b"{}"] * MANY_VALUES) + b"{}]}"
    )
    page = take(page_of([record.replace(b"}{", b"},{")]))
    page.open()
    with pytest.raises(MalformedResponseError, match="too large for a call"):
        page.records()


def test_a_page_that_says_success_is_read_in_one_go():
    """A ``success`` of true is fine."""
    page = take(page_of(PLAIN[:100], success=True))
    assert (page.open()[2], page._rows) == (100, None)


# What is judged when it comes


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false,"message":"No such agent"}',
        b"<html>" + b"x" * SHORT + b"</html>",
        page_of(PLAIN[:100])[:-1],
        page_of(PLAIN[:100])[:-2] + b"\n",
        b"",
    ],
    ids=["short", "a web page", "cut", "cut, with a line end", "nothing"],
)
def test_what_does_not_look_whole_is_judged_at_once(body):
    """No other request is needed: such a page is never opened late."""
    refusal_of(lambda: take(body))


@pytest.mark.parametrize("body", [page_of(PLAIN[:1]), page_of(PLAIN) + b" ", b" " + page_of(PLAIN)])
def test_what_looks_unusual_is_proved_at_once(body):
    """A short page, or one with blanks around it, is opened on arrival."""
    assert take(body).count is not None


def test_a_huge_page_is_proved_at_once():
    """A thread splits it, not the reader."""
    body = page_of(PLAIN * 2)
    assert len(body) > HUGE
    page = take(body)
    assert (page.count, page.open()[2]) == (2_000, 2_000)


# What turns out to be no page


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (page_of(PLAIN[:100]).replace(b'],"', b'}],"', 1), MalformedResponseError),
        (page_of(PLAIN[:100])[: len(page_of(PLAIN[:99]))] + b"}", MalformedResponseError),
        (padded(count=5), MalformedResponseError),
        (padded(count=5, results=7), MalformedResponseError),
        (padded(success=False, message="No such agent", results=[]), RequestRejectedError),
        (padded(success="false", message="Too many requests.", results=[]), RateLimitError),
        (padded(success="0", message="No such agent"), RequestRejectedError),
        (b'{"a":' * 3_000 + b"1" + b"}" * 3_000, MalformedResponseError),
    ],
    ids=["broken", "cut at a brace", "no results", "no list", "refused", "throttled", "refused, bare", "too deep"],
)
def test_what_is_no_page_is_refused_when_it_is_opened(body, error):
    """The verdict is that of a page judged on arrival."""
    page = take(body)
    late, at_once = refusal_of(page.open), refusal_of(lambda: PageReader().read(Reply(200, body), 0.0))
    assert isinstance(late.error, error)
    assert (late.action, late.retries, str(late.error)) == (at_once.action, at_once.retries, str(at_once.error))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b'"charges":0', b'"charges":NaN', 1),
        lambda body: body.replace(b'"status":"', b'"status":"\xff', 1),
        lambda body: body.replace(b'"results":[', b'"results":[{"id":7},', 1),
        lambda body: body.replace(b'"results":[', b'"results":[{"id":"7","foreign":[1]},', 1),
        lambda body: body.replace(b'"results":[', b'"success":true,"results":[', 1),
    ],
    ids=["NaN", "bad UTF-8", "a number for an id", "a foreign key", "success"],
)
def test_what_is_strange_is_read_as_it_would_be_at_once(change):
    """The page is whole, so no other request is needed."""
    body = change(page_of(PLAIN[:100]))
    late, proved = take(body), PageReader().read(Reply(200, body), 0.0)
    assert late.open() == proved.open()
    assert late.records() == proved.records()
