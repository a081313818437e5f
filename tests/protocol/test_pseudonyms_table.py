"""Pseudonyms: the same number or name has the same token, and the token shows nothing else of it."""

# ruff: noqa: RUF001 - digits and letters of other scripts

from __future__ import annotations

import copy
import json
import pickle
import re
import traceback

import pytest
import rich.pretty

from servetel_async.bulk.job import Settings
from servetel_async.emulator import Dataset
from servetel_async.errors import ConfigurationError
from servetel_async.protocol.mask import Mask

KEY = "canary-key-of-24-letters"
MASK = Mask.keyed(KEY)
TOKEN = re.compile("p_[a-z2-7]{12}").fullmatch


def masked(mask=MASK, **record):
    return json.loads(mask.line(json.dumps({"id": "1", **record}).encode()))


def number(value, key="client_number"):
    return masked(**{key: value})[key]


def name(value, key="agent_name"):
    return masked(**{key: value})[key]


@pytest.mark.parametrize(
    "written",
    [
        *("+919876543210", "09876543210", "9876543210", "+91 98765 43210", "(98765) 43210", "98765/43210"),
        *("Extension-9876543210", "९८७६५४३२१०", "９８７６５４３２１０", "98765\u200b43210", "0091-98765--43210"),
        *(9876543210, 919876543210, 9876543210.0, -9876543210),
    ],
    ids=ascii,
)
def test_a_customer_has_one_token(written):
    """The last ten digits count, however the number is written."""
    assert TOKEN(number(written))
    assert number(written) == number("+919876543210")


def test_a_number_has_one_token_under_every_key():
    """An agent of a call, of its steps and of its missed agents is one agent."""
    record = masked(
        client_number="9876543210",
        caller_id_num="+919876543210",
        call_flow=[{"num": "09876543210"}, {"number": 9876543210}],
        missed_agents=[{"number": "9876543210"}, "9876543210"],
    )
    tokens = {record["client_number"], record["caller_id_num"], record["missed_agents"][1]}
    tokens |= {record["call_flow"][0]["num"], record["call_flow"][1]["number"], record["missed_agents"][0]["number"]}
    assert len(tokens) == 1


def test_an_id_that_may_be_a_persons_text_has_another_digest_with_another_key():
    """Without the key, a reader who knows the address cannot compute its digest."""
    masks = (MASK, Mask.keyed("another-key-of-24-letters"), Mask.hidden())
    found = {masked(mask, id="asha@example.com")["id"] for mask in masks}
    assert len(found) == len(masks)


def test_other_numbers_have_other_tokens():
    """60 bits are enough for ten thousand numbers."""
    assert len({number(f"98765{last:05}") for last in range(10_000)}) == 10_000


@pytest.mark.parametrize("written", ["Asha Rao", "ASHA RAO", " asha\u00a0 rao\t", "Ａｓｈａ Rao"], ids=ascii)
def test_a_person_has_one_token(written):
    """Case, blanks and letter width do not count."""
    assert TOKEN(name(written))
    assert name(written) == name("asha rao") != name("asha raos")


def test_an_agent_has_one_token_in_steps_too():
    """Calls can still be counted for each agent."""
    record = masked(agent_name="Asha", call_flow=[{"name": "asha", "id": "0501"}], missed_agents=[{"id": 501}])
    assert record["call_flow"][0]["name"] == record["agent_name"]
    assert masked(call_flow=[{"id": "agent|0501"}])["call_flow"][0]["id"] == record["call_flow"][0]["id"]
    assert masked(call_flow=[{"id": "501"}])["call_flow"][0]["id"] == record["missed_agents"][0]["id"]


def test_kinds_do_not_share_tokens():
    """A name spelt like a number has another token than that number."""
    tokens = {number("9876543210"), name("9876543210"), masked(lead_id="9876543210")["lead_id"]}
    assert len(tokens) == 3


@pytest.mark.parametrize(
    ("key", "value", "left"),
    [
        ("client_number", "101", "101"),
        ("client_number", "anonymous", "anonymous"),
        ("client_number", "sip:ravi@example.org", "***"),
        ("client_number", "9876543210 of Ravi", "***"),
        ("client_number", ["9876543210"], "***"),
        ("client_number", "***", "***"),
        ("agent_name", "", ""),
        ("agent_name", None, None),
        ("agent_name", ["Ravi"], "***"),
        ("agent_name", 7, "***"),
        ("agent_name", "***", "***"),
        ("lead_id", 10**101, "***"),
        ("lead_id", 1.5, "***"),
        ("lead_id", "", ""),
        ("lead_id", "***", "***"),
        ("lead_id", True, True),
        ("notes", "Ravi", "***"),
        ("contact_details", {"name": "Ravi"}, "***"),
        ("foreign", "Ravi", "***"),
        ("description", "Ravi 9876543210", "***"),
        ("status", "answered", "answered"),
    ],
    ids=repr,
)
def test_the_rest_is_as_without_a_key(key, value, left):
    """Only known numbers, names and references become tokens."""
    assert masked(**{key: value})[key] == left


def test_a_token_is_masked_already():
    """So is a number of which a mask left three digits."""
    line = json.dumps({"id": "1", "client_number": "9876543210", "agent_name": "Asha", "lead_id": "L1"}).encode()
    assert MASK.line(MASK.line(line)) == MASK.line(line)
    assert MASK.line(Mask.hidden().line(line)) == Mask.hidden().line(line)


def test_another_key_gives_other_tokens():
    """Tokens of two outputs with different keys cannot be compared."""
    line = json.dumps({"id": "1", "client_number": "9876543210", "agent_name": "Asha", "lead_id": "L1"}).encode()
    one, other = json.loads(MASK.line(line)), json.loads(Mask.keyed(KEY + "x").line(line))
    assert all(one[key] != other[key] for key in one if key != "id")
    assert Mask.keyed(KEY.encode()).line(line) == MASK.line(line)


def test_tokens_are_the_same_in_every_version():
    """Outputs of different years can be compared; a change needs a note in the changelog."""
    record = masked(client_number="9876543210", agent_name="Asha Rao", lead_id="L17")
    assert [record["client_number"], record["agent_name"], record["lead_id"], MASK.name] == [
        "p_vugljyp4wxla",
        "p_oo3yfol57tih",
        "p_qnf6fsu4x5gv",
        "pseudonyms:b0c36804",
    ]


def test_repeat_callers_survive():
    """A month has as many callers as before, and each of them has as many calls."""
    calls = [json.loads(call.body) for call in Dataset.month("2024-05", calls=300, php_quirks=True).calls]
    tokens = [masked(**call)["client_number"] for call in calls]
    partners = {(call["client_number"][-10:], token) for call, token in zip(calls, tokens, strict=True)}
    assert len(partners) == len({token for _, token in partners}) == len({partner for partner, _ in partners}) < 300


# The key


@pytest.mark.parametrize(
    ("key", "what"),
    [
        *(("", "too short"), ("fifteen letters", "too short"), (b"", "too short"), (b"x" * 15, "too short")),
        *(("ü" * 7, "too short"), ("\ud800" * 16, "not a text"), (7, "of type int"), (["x" * 16], "of type list")),
    ],
    ids=repr,
)
def test_a_key_that_is_none(key, what):
    """It is refused, and the error does not quote it."""
    with pytest.raises(ConfigurationError, match=f"key for pseudonyms is {what}") as caught:
        Mask.keyed(key)
    if key and isinstance(key, str):
        assert key not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_sixteen_bytes_are_enough():
    """The bytes of a text key are counted in UTF-8."""
    assert Mask.keyed("ü" * 8) == Mask.keyed("ü".encode() * 8)


def test_a_mask_says_which_and_not_the_key():
    """No printed form and no frame of an error shows the key."""
    for form in (repr(MASK), str(MASK), rich.pretty.pretty_repr(MASK), repr(vars_of(MASK))):
        assert KEY not in form
    settings = Settings(page_size=1, concurrency=1, mask=MASK)
    assert KEY not in repr(settings) + rich.pretty.pretty_repr(settings)
    assert re.fullmatch("pseudonyms:[0-9a-f]{8}", MASK.name)
    assert Mask.hidden().name == "masked"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(MASK)
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.deepcopy(MASK)


def vars_of(mask):
    return {name: getattr(mask, name) for name in mask.__slots__}


def test_no_frame_of_an_error_holds_the_key():
    """An error tracker that keeps local variables does not get it."""
    try:
        Mask.keyed("canary-key")
    except ConfigurationError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    assert all("canary-key" not in repr(frame.locals) for frame in frames)


def test_masks_are_equal_by_their_keys():
    """They cannot be changed."""
    assert Mask.keyed(KEY) == MASK != Mask.keyed(KEY * 2)
    assert Mask.hidden() == Mask.hidden() != MASK
    with pytest.raises(AttributeError):
        MASK.name = "masked"


def test_two_arguments_choose_a_mask():
    """Pseudonyms are a mask, even if no mask was asked for."""
    assert Mask.chosen(False, None) is None
    assert Mask.chosen(True, None) == Mask.hidden()
    assert Mask.chosen(False, KEY) == Mask.chosen(True, KEY) == MASK
