"""What is too large to be read, and what is shown of a call when it is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servetel_async.bulk.ledger import Unreadable
from servetel_async.errors import BodyTooLargeError, MalformedResponseError
from servetel_async.protocol.decoding import MOST_DENSE, MOST_KEYED, MOST_ROWS, MOST_STRANGE_VALUES, PageReader
from servetel_async.protocol.records import CallPage
from servetel_async.protocol.reply import MOST_SAID, MOST_STRANGE, Reply
from servetel_async.protocol.rescue import MANY_VALUES
from servetel_async.protocol.rows import RawRecord, rows_of
from servetel_async.protocol.token_refusal import refuses_token
from servetel_async.protocol.verdict import Action, Unacceptable

#: Bytes of a large page, in several reads of a socket.
LARGE_BODY = 256 * 1024

CANARY = "canary-91155"
SAMPLE = json.loads((Path(__file__).parent / "data" / "page.json").read_bytes())["results"][0]
MANY_STEPS = b'{"id": "1", "date": "2024-05-06", "time": "09:00:00", "notes": "%s", "call_flow": [%s]}' % (
    b"x" * LARGE_BODY,
    b",".join([b"{}"] * MANY_VALUES),
)
LONG_NOTES = b'{"id": "1", "date": "2024-05-06", "time": "09:00:00", "notes": "%s"}' % (b"x" * MOST_STRANGE)
MANY_KEYS = b'{"id": "1", "notes": "xxxx", %s}' % b",".join(b'"k%d": 1' % key for key in range(MANY_VALUES))


def page_of(*records, tail=b""):
    return PageReader().read(
        Reply(200, b'{"count": %d, "results": [%s]%s}' % (len(records), b",".join(records), tail)), 0.0
    )


PERIOD = 32 * 1024


@pytest.mark.parametrize("period", [512, 4096, PERIOD, 8 * PERIOD])
@pytest.mark.parametrize("dense", [0.25, 0.5, 0.9])
def test_no_order_of_values_hides_how_many_there_are(period, dense):
    """A large body is sampled at random places, so no arrangement of values evades the limit."""
    values = b"0," * int(period * dense / 2)
    piece = values + b'"' + b"x" * (period - len(values) - 3) + b'",'
    body = b'{"results": [' + piece * (15 * 1024 * 1024 // period) + b"0]}"
    assert body.count(b",") > MOST_ROWS
    for _ in range(20):
        with pytest.raises(Unacceptable):
            PageReader().read(Reply(200, body), 0.0)


@pytest.mark.parametrize("record", [MANY_STEPS, LONG_NOTES, MANY_KEYS], ids=["many values", "many bytes", "many keys"])
def test_a_record_that_would_take_much_memory_is_refused_alone(record):
    """The error names its place and no content; the page's other records are read."""
    small = b'{"id": "2", "date": "2024-05-06", "time": "09:00:00"}'
    with pytest.raises(MalformedResponseError, match="Record 2 of the page cannot be read") as raised:
        page_of(small, record).records()
    assert "too large for a call" in str(raised.value)
    assert "xxxx" not in str(raised.value)
    found = rows_of(page_of(small, record))
    assert [row.reason is None for row in found] == [True, False]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"results": [%s]}' % b",".join([b"0"] * (MOST_ROWS + 1)), "more values than any page"),
        (b'{"results": [%s]}' % b",".join([b"{}"] * (MOST_DENSE + MOST_DENSE // 5)), "more values than any page"),
        (b'{"results": {%s}}' % b",".join(b'"%d": {"id": 1}' % key for key in range(MOST_KEYED + 1)), "too many keys"),
        (b'{"results": {"1": {"notes": "%s"}}}' % (b"x" * MOST_STRANGE), "too many keys"),
        (b'{"load": NaN, "results": ["%s"]}' % (b"x" * MOST_STRANGE), "no strict JSON"),
        (b'{"load": NaN, "results": [%s]}' % b",".join([b"123456789"] * MOST_STRANGE_VALUES), "too many values"),
    ],
    ids=[
        *("many values", "values close to each other", "many keys", "a large object"),
        *("strange and large", "strange with many values"),
    ],
)
def test_a_page_that_would_take_much_memory_is_final(body, why):
    """Another request would bring the same page; a smaller page size would not."""
    with pytest.raises(Unacceptable) as raised:
        PageReader().read(Reply(200, body), 0.0)
    verdict = raised.value.verdict
    assert verdict.action is Action.FAIL
    assert isinstance(verdict.error, BodyTooLargeError)
    assert why in str(verdict.error)
    assert "page_size" in str(verdict.error)


def test_a_large_body_of_many_values_is_not_read_for_what_it_says():
    """A refusal is short, so a large body is not searched for one."""
    body = b'{"message": "Token has expired", %s}' % b",".join(b'"%d": 1' % key for key in range(MOST_SAID))
    assert Reply(200, body).payload() is None


def test_a_refusal_of_many_texts_is_read_in_part():
    """Only the first texts are searched for what APIs say of tokens."""
    texts = ["x"] * 20_000
    assert refuses_token(Reply(422, b"{}"), {"errors": ["Token has expired", *texts]})
    assert not refuses_token(Reply(422, b"{}"), {"errors": [*texts, "Token has expired"]})


def test_of_half_a_million_keys_only_those_of_a_call_are_read():
    """The record alone is refused; its id and start are still known."""
    keys = b",".join(b'"k%d": 1' % key for key in range(100_000))
    wide = b'{"id": "1", "date": "2024-05-06", "time": "09:00:00", "id": "2", %s}' % keys
    page = page_of(wide)
    assert page.open() == ("2 2024-05-06 09:00:00", "2 2024-05-06 09:00:00", 1)
    assert [row.reason is None for row in rows_of(page)] == [False]


def test_a_strange_large_body_that_was_cut_is_tried_again():
    """It does not end as a page does, so it may be whole the next time."""
    with pytest.raises(Unacceptable) as raised:
        PageReader().read(Reply(200, b'{"load": NaN, "results": ["%s' % (b"x" * MOST_STRANGE)), 0.0)
    assert raised.value.verdict.action is Action.RETRY


def test_a_large_body_in_another_charset_is_not_converted():
    """The body is refused without a copy of it."""
    reply = Reply(200, b" " * (MOST_STRANGE + 1), {"content-type": "application/json; charset=utf-16"})
    with pytest.raises(UnicodeError, match="too large"):
        reply.json_bytes()
    assert reply.payload() is None


def seen(view):
    """All that rich would print."""
    return repr(view) + repr([(name, value) for name, value in view.__rich_repr__()])


def test_what_is_printed_of_a_call_holds_no_number_and_no_name():
    """Neither ``repr`` nor rich shows them for a call, step, page, row or undecodable record."""
    record = SAMPLE | {"agent_name": CANARY, "client_number": CANARY, "notes": CANARY}
    record["call_flow"] = [{"type": "Agent", "num": CANARY, "name": CANARY}]
    line = json.dumps(record).encode()
    (call,) = page_of(line).records()
    (row,) = rows_of(page_of(line))
    assert call.agent_name == call.call_flow[0].phone == CANARY
    page = CallPage(records=(call,), number=1, count=1, limit=10, raw=line)
    for view in (call, call.call_flow[0], page, row, RawRecord(line, "1", ""), Unreadable("why", line.decode())):
        assert CANARY not in seen(view)
    assert call.id in seen(call)
    assert call.id in seen(row)
    assert "why" in seen(Unreadable("why", CANARY))
    assert "Agent" in seen(call.call_flow[0])
    assert "number" in seen(page)
