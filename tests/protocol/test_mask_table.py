"""Masking: what hides, what stays, and that a masked record is still a record."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from servetel_async.emulator import Dataset
from servetel_async.protocol.mask import mask_line
from servetel_async.protocol.rows import records_of

SAMPLE = json.loads((Path(__file__).parent / "data" / "page.json").read_bytes())["results"][0]


def masked(**record):
    """A record after masking."""
    return json.loads(mask_line(json.dumps(record).encode()))


@pytest.mark.parametrize(
    ("number", "hidden"),
    [
        ("+919812345678", "**********678"),
        ("9812345678", "*******678"),
        ("09812 345678", "*********678"),
        ("(0981) 234-5678", "(***********678"),
        ("098123", "***123"),
        ("12345", "12345"),
        ("", ""),
        ("anonymous", "anonymous"),
    ],
)
def test_numbers(number, hidden):
    """The last three digits stay; what is too short to be a number, an extension, stays whole."""
    assert masked(client_number=number) == {"client_number": hidden}


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (919812345678, "*********678"),
        (123456, "***456"),
        (12345, 12345),
        (0, 0),
        (-123456, "****456"),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (919812345678.0, "*********678"),
        (-919812345678.0, "**********678"),
        (99999.0, 99999.0),
    ],
)
def test_numbers_that_are_not_text(value, hidden):
    """PHP sends numbers as numbers; short ones and truths say nothing of anybody."""
    assert masked(client_number=value) == {"client_number": hidden}


def test_numbers_within_a_text():
    """Wherever a number or an address stands, it is hidden; the text around it stays."""
    assert masked(detailed_description="from +919812345678 to a.b@example.org, 3 rings") == {
        "detailed_description": "from **********678 to *** 3 rings"
    }


def test_half_an_address_is_hidden_too():
    """What a cut has left of an address tells where somebody works."""
    assert masked(description="of @example.org and a@") == {"description": "of *** and a@"}


@pytest.mark.parametrize("text", ["x" * 400_000, "a@" * 200_000, "7 " * 200_000], ids=["letters", "at", "digits"])
def test_a_long_text_costs_little(text):
    """The time does not grow with the square of a hostile text."""
    begun = time.thread_time()
    masked(description=text)
    assert time.thread_time() - begun < 0.5


@pytest.mark.parametrize("key", ["description", "dtmf_input", "dtmf", "client_number"])
def test_what_callers_typed_or_servers_described(key):
    """A number is one in whatever key it stands; words stay."""
    assert masked(**{key: "Call to +91.98123.45678 ended"}) == {key: "Call to ************678 ended"}
    assert masked(**{key: "1"}) == {key: "1"}


@pytest.mark.parametrize("key", ["agent_name", "name", "contact_name"])
def test_names(key):
    """A name is hidden whole; an empty one stays empty."""
    assert masked(**{key: "Asha Example"}) == {key: "***"}
    assert masked(**{key: ""}) == {key: ""}
    assert masked(**{key: None}) == {key: None}


def test_a_department_is_no_person():
    """Its name stays."""
    assert masked(department_name="Sales") == {"department_name": "Sales"}


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("https://recordings.example/file?token=abc", "https://recordings.example/***"),
        ("https://user:secret@recordings.example:8443/file", "https://recordings.example/***"),
        ("file?token=abc", "***"),
        ("", ""),
        (None, None),
    ],
)
def test_recordings(url, hidden):
    """Whose host it is may be known; the way to the recording, its token and its user may not."""
    assert masked(recording_url=url) == {"recording_url": hidden}


@pytest.mark.parametrize("key", ["notes", "contact_details", "dialer_call_details", "custom_status", "lead_data"])
@pytest.mark.parametrize("value", ["called back", {"name": "Asha"}, ["a"], 7, 0, False])
def test_what_is_personal_as_a_whole(key, value):
    """Whatever is written there is hidden."""
    assert masked(**{key: value}) == {key: "***"}


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_what_is_empty_stays_empty(value):
    """That nothing was noted can still be seen."""
    assert masked(notes=value) == {"notes": value}


@pytest.mark.parametrize(
    "record",
    [
        {"id": "66339a440ac50d47500dbc9e", "call_id": "1714657799.11930963", "uuid": "663399123456"},
        {"date": "2024-05-02", "time": "19:19:59", "end_stamp": "2024-05-02 19:20:57"},
        {"call_duration": 123456, "charges": 1234567, "minutes_consumed": "123456789"},
        {"account_id": "1234567890", "accountid": 1234567890},
    ],
)
def test_keys_moments_and_sums_stay(record):
    """Calls can still be counted, told apart and added up, although some of it looks like numbers."""
    assert masked(**record) == record


def test_steps_and_lists_are_masked_too():
    """Depth hides nothing."""
    flow = [{"type": "Agent", "name": "Ravi", "num": "+919812345678", "email": "a@b.c", "time": 1714657803}]
    assert masked(call_flow=flow) == {
        "call_flow": [{"type": "Agent", "name": "***", "num": "**********678", "email": "***", "time": 1714657803}]
    }
    assert masked(missed_agents=["+919812345678", 5]) == {"missed_agents": ["**********678", 5]}


def test_keys_keep_their_order():
    """A masked file has the columns of one that is not."""
    assert list(json.loads(mask_line(json.dumps(SAMPLE).encode()))) == list(SAMPLE)


def test_a_masked_month_can_still_be_read():
    """Each record has its id and its start, and no number, name or address of the original is left in it."""
    for call in Dataset.month("2024-05", calls=200, php_quirks=True).calls:
        line = mask_line(call.body)
        (record,) = records_of([line])
        assert record.id == call.id
        original = json.loads(call.body)
        for key in ("client_number", "agent_number", "did_number", "agent_name"):
            value = str(original.get(key) or "")
            if len(re.sub(r"\D", "", value)) > 6 or (key == "agent_name" and value):
                assert value.encode() not in line
        assert b"token=" not in line


@pytest.mark.parametrize("depth", [10, 60, 500, 900])
def test_what_is_nested_deeply_is_hidden_and_breaks_nothing(depth):
    """Nobody looks for numbers a thousand levels down: what lies so deep is hidden as a whole."""
    line = b'{"id": "1", "foreign": ' + b"[" * depth + b'"+919812345678"' + b"]" * depth + b"}"
    found = mask_line(line)
    assert b"98123" not in found
    assert json.loads(found)["id"] == "1"
