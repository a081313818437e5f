"""Masking of any record: the output is a record, holds no number and no name, and masking it again changes nothing."""

# ruff: noqa: RUF001 - digits and letters of other scripts

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.harmless import is_key
from servetel_async.protocol.mask import Mask
from servetel_async.protocol.mask_rules import AGENT, CIRCLE, HANGUP, RECORD, STEP
from servetel_async.protocol.rescue import rescue
from servetel_async.protocol.rows import records_of

MASKS = [Mask.hidden(), Mask.keyed(b"a key of 24 random bytes")]
KNOWN = sorted({*RECORD, *STEP, *AGENT, *CIRCLE, *HANGUP} - {"id"})
#: Keys under which a name is looked for: unknown keys, and keys known to hold one.
NAMED = st.sampled_from(
    ["name", "agent_name", "agentName", "Name", "caller_NAME", "notes", "email", "customer", "client_number"]
) | st.text(max_size=12).filter(lambda key: key not in KNOWN and key != "id")
NAME = "Zqkavita"
#: JSON that one of the decoders refuses.
STRANGE = [b"1e400", b"-1e999", b"7" * 400, b"7" * 5000, b'"\\ud800"', b'"x\\udfff"', b"[" * 400 + b"]" * 400]

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KNOWN) | any_text, inner, max_size=4),
    max_leaves=8,
)
ids = st.integers(min_value=1, max_value=10**19) | st.from_regex(r"[0-9a-f]{24}|[A-Za-z0-9._:|-]{1,20}", fullmatch=True)


def encode(value):
    return json.dumps(value).encode()


def line_of(pairs):
    """An object of keys and values that are JSON already; keys may repeat."""
    return b"{" + b",".join(encode(key) + b":" + value for key, value in pairs) + b"}"


pairs = st.lists(
    st.tuples(st.sampled_from(KNOWN) | any_text.filter(lambda key: key != "id"), anything.map(encode))
    | st.tuples(st.sampled_from(KNOWN) | st.just("foreign"), st.sampled_from(STRANGE)),
    max_size=8,
)


@st.composite
def records(draw):
    """The id of a record, and its line."""
    found, fields = draw(ids), draw(pairs)
    fields.insert(draw(st.integers(0, len(fields))), ("id", encode(found)))
    return found, line_of(fields)


careful = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@careful
@given(records())
def test_any_record_stays_one(mask, record):
    """One line of strict UTF-8 JSON with its id unchanged; masked again, it is the same byte for byte."""
    found, line = record
    left = mask.line(line)
    assert not {b"\n", b"\r"} & set(left)
    assert json.loads(left.decode())["id"] in (found, str(found))
    assert mask.line(left) == left
    (read,) = records_of([left])
    assert read.id == str(found)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@careful
@given(pairs)
def test_any_record_keeps_its_key(mask, fields):
    """Even without an id it keeps the key of an unmasked pull, or a digest if the key may be personal."""
    line = line_of(fields)
    try:
        key = rescue(line).id
    except MalformedResponseError:
        key = json.loads(mask.line(line))["id"]
    (read,) = records_of([mask.line(line)])
    assert read.id == key if is_key(key) else read.id.startswith("sha256-")
    assert mask.line(mask.line(line)) == mask.line(line)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@careful
@given(st.binary(max_size=40) | anything.map(encode))
def test_any_line_is_masked(mask, line):
    """Any line becomes an object with an id."""
    found = json.loads(mask.line(line).decode())
    assert found["id"] or found["id"] == 0
    assert mask.line(mask.line(line)) == mask.line(line)


def written(draw, number):
    """A number as some systems write it."""
    separator = draw(
        st.sampled_from(["", " ", "-", "--", "/", ".", "\t", "\u200b", "\u00a0", ",", "_", ":", "x", "\n"])
    )
    at = draw(st.integers(1, len(number) - 1))
    text = number[:at] + separator + number[at:]
    zero = draw(st.sampled_from("0٠०০０𝟎"))
    text = "".join(chr(ord(zero) + int(each)) if each.isdigit() else each for each in text)
    before = draw(
        st.sampled_from(["", "+91", "0", "+91 ", "(", "tel:", "Extension-", "agent|", "Call of ", "1e", "-", "h3."])
    )
    text = before + text + draw(st.sampled_from(["", " ", ")", " ended", "@sip", ".0", "#", "%40"]))
    kinds = [text, [text], {"number": text}, {text: text}, {"0": {"value": text}}, {"name": [text]}]
    if zero == "0" and not separator and not before.strip("-0"):
        kinds += [int(number), -int(number), float(number), int(number) / 10**5, int(number) / 10, int(number + number)]
    return draw(st.sampled_from(kinds))


@st.composite
def people(draw):
    """A number without 0 and 1, and a record in which other numbers have no five other digits in a row."""
    number = draw(st.sampled_from("6789")) + draw(st.text("23456789", min_size=9, max_size=9))
    base = {
        "id": "1",
        "call_id": "1500000000.11",
        "date": "2011-01-01",
        "call_flow": [{"type": "init", "time": 1500000000}],
    }
    for key in draw(st.lists(st.sampled_from(KNOWN) | any_text, min_size=1, max_size=4)):
        base[key] = written(draw, number)
    for key in draw(st.lists(st.sampled_from(KNOWN) | any_text, max_size=3)):
        base["call_flow"] = [{"type": "Agent", key: written(draw, number)}]
    for key in draw(st.lists(st.sampled_from(KNOWN) | any_text, max_size=3)):
        base["missed_agents"] = [{key: written(draw, number)}]
        base["circle"] = {key: written(draw, number)}
        base["agent_hangup_data"] = {key: written(draw, number)}
    base["id"] = "1"
    return number, encode(base)


def leaves(value, key=""):
    """All keys, and all values that are neither lists nor objects, as texts."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from leaves(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, key)
    elif not isinstance(value, bool) and value is not None:
        yield str(value)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@settings(careful, max_examples=150)
@given(people())
def test_no_five_digits_of_a_number_are_left(mask, person):
    """Under any key, level, form, script and type; at most three digits stay, where a number is expected."""
    number, line = person
    for leaf in leaves(json.loads(mask.line(line))):
        digits = "".join(str(unicodedata.decimal(each)) for each in leaf if each.isdecimal())
        assert not any(number[at : at + 5] in digits for at in range(6)), leaf


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask.name)
@careful
@given(
    NAMED, NAMED, st.sampled_from([NAME, f"{NAME} Sharma", f"call {NAME} back", f"{NAME}@example.org", NAME.upper()])
)
def test_no_name_is_left(mask, key, inner, name):
    """No name is left at any level, under unknown keys and keys known to hold names."""
    for value in (name, [name], {inner: name}, [{inner: [name]}]):
        record = {"id": "1", key: value, "call_flow": [{inner: value}], "missed_agents": [{inner: value}]}
        record |= {"circle": {inner: value}, "transfer_missed_agent": {"0": {inner: value}}}
        assert NAME.casefold() not in mask.line(encode(record)).decode().casefold()
