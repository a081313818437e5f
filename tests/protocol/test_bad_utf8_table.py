"""Row 65: how a call with bad UTF-8 is decoded, the same on every release of msgspec."""

from __future__ import annotations

import msgspec
import pytest

from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.records import Circle, FlowStep
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rescue import rescue
from servetel_async.protocol.undecodable import UNDECODABLE, is_utf8, repair_utf8

#: The pair as sent, the attribute, its value, the key of ``extra`` and what it holds.
PAIRS = [
    pytest.param(b'"agent_name":"a\xffb"', "agent_name", "a\ufffdb", "agent_name", '"a\\xffb"', id="text"),
    pytest.param(b'"agent_name":"\xc3"', "agent_name", "\ufffd", "agent_name", '"\\xc3"', id="cut-character"),
    pytest.param(b'"call_duration":"\xff"', "call_duration", None, "call_duration", '"\\xff"', id="number"),
    pytest.param(
        b'"missed_agents":{"0":"\xff"}',
        "missed_agents",
        ("\ufffd",),
        "missed_agents",
        '{"0":"\\xff"}',
        id="object-as-list",
    ),
    pytest.param(
        b'"circle":{"circle":"\xff","operator":5}',
        "circle",
        Circle(circle="\ufffd"),
        "circle",
        '{"circle":"\\xff","operator":5}',
        id="circle-with-another-fault",
    ),
    pytest.param(
        b'"call_flow":[{"name":"\xff","type":["a"]}]',
        "call_flow",
        (FlowStep(type=None, name="\ufffd", extra={"type": ["a"]}),),
        "call_flow",
        '[{"name":"\\xff","type":["a"]}]',
        id="step-with-another-fault",
    ),
    pytest.param(b'"odd\xff":[1]', "id", "1", "odd\ufffd", [1], id="unknown-key"),
    pytest.param(b'"odd":"\xff"', "id", "1", "odd", '"\\xff"', id="unknown-value"),
]


@pytest.mark.parametrize(("pair", "name", "value", "key", "kept"), PAIRS)
def test_bad_utf8_is_replaced_and_kept_as_sent(pair, name, value, key, kept):
    """The field holds U+FFFD for each bad byte; ``extra`` holds the bytes as sent."""
    record = rescue(b'{"id":"1",' + pair + b"}")
    assert record.id == "1"
    assert getattr(record, name) == value
    assert record.extra == {key: kept}


def test_a_lone_surrogate_is_valid_utf8_and_no_text():
    """The escape is ASCII, so the UTF-8 is valid: the field is None and ``extra`` keeps the escape."""
    body = b'{"results":[{"id":"1","agent_name":"\\ud800"}]}'
    page = PageReader().read(Reply(200, body), 0.0)
    page.open()
    (record,) = page.records()
    assert record.id == "1"


@pytest.mark.parametrize("results", [b'{"\xff":{"id":"1"}}', b'{"0":{"id":"1"},"\xff":{"id":"2"}}'])
def test_results_under_a_key_in_bad_utf8_are_read(results):
    """A bad byte in an unused key loses no call and raises no exception of the decoder."""
    page = PageReader().read(Reply(200, b'{"results":' + results + b"}"), 0.0)
    page.open()
    assert [record.id for record in page.records()] == ["1", "2"][: results.count(b"id")]


def test_what_is_neither_utf8_nor_json_is_refused():
    """Replacing the bad bytes does not turn garbage into a record."""
    with pytest.raises(MalformedResponseError, match="cannot be read") as raised:
        rescue(b'{"id":"1","\xff"}')
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize("text", [b"", b"plain", "naïve ✓ 😀".encode(), b"\xef\xbf\xbd"])
def test_valid_utf8_is_left_alone(text):
    """Valid UTF-8 is not changed, even if it already holds U+FFFD."""
    assert is_utf8(text)
    assert repair_utf8(text) == text


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"])
def test_python_and_the_decoder_agree_on_bad_utf8(text):
    """The decoder refuses what Python calls bad UTF-8, with an exception class that is caught."""
    assert not is_utf8(text)
    assert is_utf8(repair_utf8(text))
    with pytest.raises(UNDECODABLE):
        msgspec.json.decode(b'"' + text + b'"', type=str)
