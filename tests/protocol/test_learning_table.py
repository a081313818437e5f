"""Unknown keys that keep coming are learnt; the records are the same as those of the rescue."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.emulator import Dataset
from servetel_async.errors import MalformedResponseError
from servetel_async.protocol.record_reader import MOST_KEYS, MOST_LESSONS, RecordReader
from servetel_async.protocol.records import EXTRA, ZONE
from servetel_async.protocol.rescue import rescue

SAMPLE = json.loads((Path(__file__).parent / "data" / "page.json").read_bytes())["results"][0]


def line(**changes):
    return json.dumps(SAMPLE | changes).encode()


def is_learnt(reader, **keys):
    """Whether the reader decodes a record with these keys without the rescue."""
    try:
        reader.shape.read(line(**keys))
    except msgspec.DecodeError:
        return False
    return True


def read_all(lines):
    reader = RecordReader()
    return reader, reader.read(lines)


@pytest.mark.parametrize(
    "keys",
    [{"sentiment": "good"}, {"a": None}, {"a": [1, {"b": 2}], "b": 1.5}, {"नमस्ते": 2**70}],
    ids=["text", "null", "two", "not ascii"],
)
def test_a_key_that_keeps_coming_is_learnt(keys):
    """The key is learnt from the third record on, and each record equals the rescued one."""
    lines = [line(id=str(number), **keys) for number in range(20)]
    reader, records = read_all(lines)
    assert records == [rescue(each) for each in lines]
    assert {json.dumps(record.extra, sort_keys=True) for record in records} == {json.dumps(keys, sort_keys=True)}
    assert is_learnt(reader, **keys)
    assert not is_learnt(reader, **keys, another=1)


def test_a_month_with_quirks_and_a_new_key_is_read_alike():
    """Quirks besides the key are still rescued and decoded as before."""
    rough = Dataset.month("2024-05", calls=300, php_quirks=True)
    lines = [json.dumps(record | {"sentiment": index % 7}).encode() for index, record in enumerate(rough.records())]
    reader, records = read_all(lines)
    assert records == [rescue(each) for each in lines]
    assert is_learnt(reader, sentiment=1)
    assert not is_learnt(reader, another=1)


def test_a_record_without_the_key_has_nothing_extra():
    """The record may be older than the update, so no empty value is made up."""
    reader, records = read_all([*[line(sentiment="good")] * 3, line(), line(account_id="7", accountid=None)])
    assert [len(record.extra) for record in records] == [1, 1, 1, 0, 0]
    assert records[4].accountid == "7"
    assert is_learnt(reader, sentiment=1)
    assert not is_learnt(reader, another=1)


@pytest.mark.parametrize(
    "lines",
    [
        [line(**{f"key {number}": 1}) for number in range(20)],
        [line(call_duration="long", sentiment=1)] * 20,
        [line(**{'quo"te': 1})] * 20,
        [line(**{"": 1})] * 20,
        [line(**{f"key {number}": 1 for number in range(MOST_KEYS + 1)})] * 20,
        [line(circle=[])] * 20,
        [line(**{EXTRA: {"a": 1}})] * 20,
        [line(**{ZONE: "UTC", "sentiment": 1})] * 20,
    ],
    ids=[
        *("another each time", "a field that is wrong", "a quote", "no name", "too many", "nothing unknown"),
        *("our extra", "our zone"),
    ],
)
def test_what_is_not_learnt_is_rescued(lines):
    """Changing keys, wrong values and unusable names are rescued: slowly, but nothing is lost."""
    reader, records = read_all(lines)
    assert reader.shape is RecordReader().shape
    assert records == [rescue(each) for each in lines]


def test_there_are_few_lessons():
    """The number of learnt keys is limited if a server keeps sending new ones."""
    lines = [line(**{f"key {number // 3}": 1}) for number in range(3 * (MOST_LESSONS + 3))]
    reader, records = read_all(lines)
    assert sum(is_learnt(reader, **{f"key {number}": 1}) for number in range(MOST_LESSONS + 3)) == MOST_LESSONS
    assert records == [rescue(each) for each in lines]


def test_a_bad_record_among_learnt_ones_is_named_by_its_place():
    """The error names its place; later records are read as before."""
    reader, _ = read_all([line(sentiment=1)] * 3)
    with pytest.raises(MalformedResponseError, match="Record 5 of the page"):
        reader.read([b'{"foreign": 1}'], 4)
    assert reader.read([line(sentiment=2)], 5)[0].extra == {"sentiment": 2}


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=2), max_size=2), max_size=8
    )
)
def test_whatever_the_keys(extras):
    """Learnt or not, in any order, the records are the same."""
    lines = [line(**extra) for extra in extras for _ in range(2)]
    _, records = read_all(lines)
    assert records == [rescue(each) for each in lines]
