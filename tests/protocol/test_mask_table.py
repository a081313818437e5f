"""Masking: what passes, what is hidden, and that a masked record is still a record."""

# ruff: noqa: RUF001 - digits and letters of other scripts

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from servetel_async.emulator import Dataset
from servetel_async.protocol.mask import Mask
from servetel_async.protocol.mask_rules import AGENT, CIRCLE, RECORD, STEP
from servetel_async.protocol.rows import records_of

SAMPLE = json.loads((Path(__file__).parent / "data" / "page.json").read_bytes())["results"][0]
mask_line = Mask.hidden().line


def masked(**record):
    """A record after masking, without the key that was added if it had none."""
    found = json.loads(mask_line(json.dumps(record).encode()))
    return found if "id" in record else {key: value for key, value in found.items() if key != "id"}


def masked_step(**step):
    """A step of a call's flow after masking."""
    return masked(call_flow=[step])["call_flow"][0]


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
    """The last three digits stay; an extension is too short to be a number and stays whole."""
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
    """PHP sends numbers as JSON numbers; short ones and booleans identify no person and stay."""
    assert masked(client_number=value) == {"client_number": hidden}


def test_a_text_that_is_not_known_is_hidden():
    """It may contain a number, an address or a name; a sentence that the library knows passes."""
    assert masked(detailed_description="from +919812345678 to a.b@example.org, 3 rings") == {
        "detailed_description": "***"
    }
    assert masked(description="Call answered by Test Agent 1 (919876543210)") == {"description": "***"}
    assert masked(description="Ravi") == {"description": "***"}
    assert masked(description="Call answered by customer") == {"description": "Call answered by customer"}


@pytest.mark.parametrize("text", ["x" * 400_000, "a@" * 200_000, "7 " * 200_000], ids=["letters", "at", "digits"])
@pytest.mark.parametrize("mask", [Mask.hidden(), Mask.keyed(b"k" * 16)], ids=lambda mask: mask.name)
def test_a_long_text_costs_little(text, mask):
    """The time does not grow with the square of a hostile text, under any key."""
    line = json.dumps({**dict.fromkeys(RECORD, text), "call_flow": [dict.fromkeys(STEP, text)]}).encode()
    begun = time.thread_time()
    mask.line(line)
    assert time.thread_time() - begun < 1.5


@pytest.mark.parametrize("key", ["description", "dtmf_input", "dtmf", "client_number"])
def test_a_number_inside_of_a_text(key):
    """Nothing of the text is left, under any key."""
    assert masked(**{key: "Call to +91.98123.45678 ended"}) == {key: "***"}


@pytest.mark.parametrize(("pressed", "left"), [("1", "1"), ("*", "*"), ("42", "42"), ("423", "***"), ("4711", "***")])
def test_keys_of_a_telephone(pressed, left):
    """A menu choice passes. More than two keys may be a PIN."""
    assert masked(dtmf_input=pressed) == {"dtmf_input": left}
    assert masked_step(dtmf=pressed) == {"dtmf": left}


@pytest.mark.parametrize("key", ["agent_name", "name", "contact_name", "Name", "agentName", "caller_NAME", "customer"])
def test_names(key):
    """A name is hidden whole; an empty one stays empty."""
    assert masked(**{key: "Asha Example"}) == {key: "***"}
    assert masked(**{key: ""}) == {key: ""}
    assert masked(**{key: None}) == {key: None}


def test_a_department_is_no_person():
    """A department's name passes, in any script, if it is short and holds no number and no address."""
    for name in ("Sales", "विक्रय", "Retention/Win-back", "Accounts & Billing", "Team 24"):
        assert masked(department_name=name) == {"department_name": name}
    for other in ("98765 43210", "९८७६५", "a@example.org", "Sales" * 17, "Sales\u200b", "Sales\t"):
        assert masked(department_name=other) == {"department_name": "***"}


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("https://recordings.example/file?token=abc", "https://recordings.example/***"),
        ("https://user:secret@recordings.example:8443/file", "https://recordings.example/***"),
        ("file?token=abc", "***"),
        ("", ""),
        (None, None),
        ("http://[::1", "***"),
        ("https://[bad/x", "***"),
        ("http://[::1]/x", "***"),
        ("https://rec.example.com:99999/x", "https://rec.example.com/***"),
        ("https://REC.example.com?token=abc", "https://rec.example.com/***"),
        ("https://9876543210.example.com/x", "***"),
        ("https://a@b@rec.example.com/x", "***"),
        ("ftp://rec.example.com/x", "***"),
        (["https://u:p@h.example.com/x"], "***"),
        (9876543210, "***"),
    ],
)
def test_recordings(url, hidden):
    """The host may be known; path, token and user may not."""
    assert masked(recording_url=url) == {"recording_url": hidden}


@pytest.mark.parametrize("key", ["notes", "contact_details", "dialer_call_details", "custom_status", "lead_data"])
@pytest.mark.parametrize("value", ["called back", {"name": "Asha"}, ["a"], 7, 0, False])
def test_what_is_personal_as_a_whole(key, value):
    """The whole value is hidden."""
    assert masked(**{key: value}) == {key: "***"}


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_what_is_empty_stays_empty(value):
    """An empty value still shows that it is empty."""
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
    """Calls can still be counted, distinguished and added up, although some values look like numbers."""
    assert masked(**record) == record


def test_steps_and_lists_are_masked_too():
    """Values are masked at every depth."""
    flow = [{"type": "Agent", "name": "Ravi", "num": "+919812345678", "email": "a@b.c", "time": 1714657803}]
    assert masked(call_flow=flow) == {
        "call_flow": [{"type": "Agent", "name": "***", "num": "**********678", "email": "***", "time": 1714657803}]
    }
    assert masked(missed_agents=["+919812345678", 5]) == {"missed_agents": ["**********678", 5]}


def test_keys_keep_their_order():
    """A masked file has the same columns as an unmasked one."""
    assert list(json.loads(mask_line(json.dumps(SAMPLE).encode()))) == list(SAMPLE)


def test_a_masked_month_can_still_be_read():
    """Each record has its id and start, and no number, name or address of the original."""
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


#: One customer's number, as systems write or hide it.
NUMBER = "9876543210"
WRITTEN = [
    *(NUMBER, f"+91{NUMBER}", f"0{NUMBER}", "98765/43210", "+91-98765\t43210", "98765--43210", "98765\u200b43210"),
    *(
        "98765.43210",
        "9 8 7 6 5 4 3 2 1 0",
        "९८७६५४३२१०",
        "٩٨٧٦٥٤٣٢١٠",
        "９８７６５４３２１０",
        "(98765) 43210",
        "tel:9876543210",
    ),
    *(9876543210, -9876543210, 98765.4321, 9876543210.5, 9.876543210e9, 98765432109876543210, [NUMBER], {"x": NUMBER}),
]
#: Keys that hold numbers: some digits of a number under them are left.
NUMBER_KEYS = {key for key, kind in RECORD.items() if kind.what == "a phone number"}
#: What may be left of it; the last one in each of two lists of agents or steps.
LEFT = ("", *(NUMBER[-kept:] * times for kept in (2, 3) for times in (1, 2)))


def digits(text):
    """The digits of a text in any script, without what separates them."""
    return "".join(str(int(each)) for each in text if each.isdecimal())


@pytest.mark.parametrize("key", sorted({*RECORD, "foreign", "number"} - {"id", *NUMBER_KEYS}))
def test_no_key_lets_a_number_pass(key):
    """A number is masked in any form, script and JSON type, at every level."""
    for number in WRITTEN:
        assert "***" in json.dumps(masked(**{key: number}))
        nested = {"call_flow": [{key: number}], "circle": {key: number}, "missed_agents": [{key: number}]}
        for record in ({key: number}, nested):
            assert digits(json.dumps(masked(**record))) in LEFT, number


@pytest.mark.parametrize("key", sorted(NUMBER_KEYS))
def test_of_a_number_three_digits_are_left(key):
    """At most three; none if it is not written as numbers are."""
    for number in WRITTEN:
        assert digits(json.dumps(masked(**{key: number}))) in LEFT, number


@pytest.mark.parametrize("key", sorted({*STEP, "foreign"}))
def test_no_step_lets_a_number_pass(key):
    """Not even in ``value``, which holds ids and choices."""
    for number in WRITTEN:
        assert digits(json.dumps(masked_step(**{key: number}))) in LEFT, number


@pytest.mark.parametrize("value", [0, 7, 7.5, "x", "answered", ["answered"], {"status": "answered"}, 10**30])
def test_what_is_under_an_unknown_key_is_hidden(value):
    """Small numbers and known words too: under such a key they may mean something else."""
    assert masked(foreign=value) == {"foreign": "***"}
    assert masked_step(foreign=value) == {"foreign": "***"}
    assert masked(circle={"foreign": value}) == {"circle": {"foreign": "***"}}


@pytest.mark.parametrize("value", [None, True, False, "", [], {}])
def test_what_says_nothing_passes_everywhere(value):
    """Null, a boolean or an empty value stays as it is."""
    record = {
        "foreign": value,
        **dict.fromkeys(("client_number", "agent_name", "status", "circle", "call_flow"), value),
    }
    assert masked(**record) == record


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("+919876543210", "***"),
        ("९८७६५४३२१०", "***"),
        ("a.b@example.org", "***"),
        ("x" * 101, "***"),
        ("two\nlines", "***"),
        ("half \ud800", "***"),
        ("customer_no_with_prefix ", "customer_no_with_prefix "),
        ("नाम", "नाम"),
        ("code_2024", "code_2024"),
    ],
)
def test_unknown_keys(key, left):
    """A key that is a number or an address is hidden; any other key stays."""
    assert masked(**{key: "Ravi"}) == {left: "***"}
    assert masked_step(**{key: "Ravi"}) == {left: "***"}


PASSES = {
    "call_id": ["1714657799.11930963", "h3.08-1770534283.2156835", "123456789.987654321", "1746", "call-0007", 17],
    "uuid": ["66339a0b7cfde", "5e3c0abcdefghty", "02b6990a-84d0-4c05-bb69-23d6ce0af2c6", "6633990123456"],
    "date": ["2024-05-02", "02-05-2024", "0000-00-00", "2024-05-02T19:19:59+05:30"],
    "time": ["19:19:59", "19:19"],
    "end_stamp": ["2024-05-02 19:20:57"],
    "status": ["answered", "missed", "no_answer", "c", 200, "404"],
    "service": ["Agent", "IVR,Department"],
    "reason": ["disconnected_by_caller", "noanswer", "Call Disconnected By Callee"],
    "hangup_cause": ["Normal clearing", "NORMAL_CLEARING", "Unspecified. No other cause codes applicable.", 16],
    "call_duration": [54, "54", 54.0, "86400", "", None],
    "charges": [0, 0.5, 1.0, "1.25", 0.30000000000000004, 1234567, "-1.5"],
    "agent_ring_time": ["N.A.", "12", 12],
    "broadcast_id": ["5298", 5298],
    "accountid": ["AC870728", "Demo Account"],
    "support_api_call": [True, 0, 1, "0", "1"],
    "circle": [{"operator": "Reliance Mobile GSM", "circle": "UP (East)"}, [], None],
    "agent_hangup_data": [{"code": 16}, [{"code": "16"}], "16"],
}
FAILS = {
    "call_id": ["9876543210", "+919876543210", "98765-43210", "Ravi", "919876543210", "a@b1", "x1 y", 10**31, -1],
    "uuid": ["9876543210", "Ravi Sharma", "Extension-0602141810277", "9" * 70, "tel:9876543210.0", "98765x43210", 1.5],
    "date": ["98-76-5432", "2024-13-01", "2024-05-02 9876543210", "yesterday", 20240502],
    "time": ["98:76:54", "19:19:59.98765", "1714657803"],
    "status": ["9876543210", "98765", "Ravi Sharma", "ravi@example.org", "उत्तर", "९८७६५", 98765, 1.5],
    "service": ["Agent: Test Agent 1", "98,765,432,10"],
    "reason": ["by +919876543210", "Ravi called back"],
    "hangup_cause": ["Normal clearing of Ravi", {"code": 16}],
    "call_duration": ["9876543210", 9876543210, "five", "１２", [54]],
    "charges": ["98765.43210", 98765.4321, 1234.56789, 1e9, "1e5"],
    "broadcast_id": ["9876543", 9876543, "x", -1],
    "accountid": ["9876543210", "ravi@example.org", "Ravi 98765 43210"],
    "support_api_call": [2, "maybe", 98765.5],
    "agent_hangup_data": ["by Ravi", 98765],
}


@pytest.mark.parametrize("key", PASSES)
def test_what_passes(key):
    """A value with the shape known for its key stays as sent."""
    for value in PASSES[key]:
        assert masked(**{key: value}) == {key: value}


@pytest.mark.parametrize("key", FAILS)
def test_what_has_not_the_shape_of_its_key(key):
    """A known key alone does not make a value harmless."""
    for value in FAILS[key]:
        assert masked(**{key: value}) == {key: "***"}, value


@pytest.mark.parametrize("key", ["missed_agents", "call_flow"])
def test_a_number_in_the_place_of_an_index_is_hidden(key):
    """A list that PHP wrote as an object has short indexes; a phone number as a key is hidden."""
    said = json.dumps(masked(**{key: {"9876543210": {"id": "a", "name": "Asha"}}}))
    assert "9876543210" not in said


@pytest.mark.parametrize(
    ("key", "value", "left"),
    [
        ("value", "1714657799.11930963", "1714657799.11930963"),
        ("value", "3", "3"),
        ("value", 12, 12),
        ("value", "919876543210", "***"),
        ("value", 9876543210, "***"),
        ("value", "98765.43210", "***"),
        ("value", "Ravi", "***"),
        ("time", "1714657803", "1714657803"),
        ("time", 1714657803, 1714657803),
        ("time", 1714657803.5, 1714657803.5),
        ("time", "9876543210", "***"),
        ("time", 9876543210, "***"),
        ("anstime", 171465780312, "***"),
        ("readableTime", "02-05-2024 19:20:03", "02-05-2024 19:20:03"),
        ("type", "ClickToCall", "ClickToCall"),
        ("dialst", "Dialed", "Dialed"),
        ("id", "050109590016", "***"),
        ("id", 501, "***"),
        ("s_id", 12, "***"),
        ("email", "desk@example.invalid", "***"),
        ("name", "SIP/+20607011215773@TATA-BLR", "***"),
        ("extension", "0607297260058", "**********058"),
    ],
    ids=repr,
)
def test_steps_of_a_call(key, value, left):
    """An agent's id and trunk are hidden; moments and kinds of steps pass."""
    assert masked_step(**{key: value}) == {key: left}


def test_a_flow_that_php_wrote_as_an_object():
    """Its keys are list indexes."""
    flow = {"0": {"type": "Agent", "num": "+919812345678"}, "2": {"name": "Ravi"}}
    assert masked(call_flow=flow) == {
        "call_flow": {"0": {"type": "Agent", "num": "**********678"}, "2": {"name": "***"}}
    }
    assert masked(call_flow={"type": "Agent", "name": "Ravi"}) == {"call_flow": {"type": "Agent", "name": "***"}}
    assert masked(call_flow=["Ravi", [{"type": "Agent"}]]) == {"call_flow": ["***", "***"]}


@pytest.mark.parametrize(
    ("number", "left"),
    [
        ("Extension-0602141810277", "Extension-**********277"),
        ("101", "101"),
        ("+911", "+911"),
        ("१२३", "123"),
        ("٩٨٧٦٥٤٣٢١٠", "*******210"),
        ("98765432109876543210987654321098765432109", "***"),
        ("sip:ravi@example.org", "***"),
        ("Ravi", "***"),
        ("Private", "Private"),
        (1e300, "***"),
        (10**45, "***"),
        ("**********678", "**********678"),
    ],
)
def test_numbers_in_odd_forms(number, left):
    """A value that cannot be read as a number is hidden whole."""
    assert masked(client_number=number) == {"client_number": left}


# Lines that cannot be read, and ids


@pytest.mark.parametrize("depth", [10, 60, 300, 500, 900, 5000, 100_000])
def test_what_is_nested_deeply_is_hidden_and_breaks_nothing(depth):
    """An unknown value is hidden whole. A line nested too deeply for any decoder keeps only its key."""
    line = b'{"id": "1", "foreign": ' + b"[" * depth + b'"+919812345678"' + b"]" * depth + b"}"
    found = mask_line(line)
    assert b"98123" not in found
    if depth <= 900:
        assert json.loads(found) == {"id": "1", "foreign": "***"}
    else:
        assert re.fullmatch(rb'\{"id":"sha256-[0-9a-f]{24}"\}', found)


@pytest.mark.parametrize(
    "value",
    [b"1e400", b"-1e400", b"9" * 5000, b"0." + b"9" * 5000, b'"\\ud800"', b'"a\\udc00b"', b"NaN", b'"a\tb"', b'"\xff"'],
)
@pytest.mark.parametrize("key", ["foreign", "status", "client_number", "charges", "call_flow", "agent_name"])
def test_what_a_decoder_refuses_is_hidden(key, value):
    """A huge number, half a character or a bad byte is hidden; the rest of the record is as usual."""
    line = b'{"id":"1","date":"2024-05-02","' + key.encode() + b'":' + value + b',"call_duration":54}'
    for mask in (Mask.hidden(), Mask.keyed(b"k" * 16)):
        found = json.loads(mask.line(line).decode())
        assert (found["id"], found["date"], str(found["call_duration"])) == ("1", "2024-05-02", "54")
        assert not re.search("[0-9]{4}", str(found[key]))


@pytest.mark.parametrize("line", [b"", b"{", b"7", b"[1]", b'"x"', b"\xff", b"null", b'{"a":1'])
def test_a_line_that_is_no_object_leaves_its_key(line):
    """Two such lines stay two."""
    found = json.loads(mask_line(line))
    assert list(found) == ["id"]
    assert found["id"] != json.loads(mask_line(line + b" "))["id"]


@pytest.mark.parametrize(
    "key", ["66339a440ac50d47500dbc9e", "x", "call-0007", 1, 0, 7_000_001, 10**60, "agent|0501", "sha256-0a1b", "***"]
)
def test_the_id_is_the_records_key(key):
    """The id stays unchanged, as text or number."""
    assert masked(id=key, agent_name="Ravi") == {"id": key, "agent_name": "***"}


@pytest.mark.parametrize(
    "key",
    [None, "", True, [], {}, ["1"], {"a": "Ravi"}, "Ravi Sharma", "+919876543210", "a@b", "९८७", "x" * 129, 10**200],
)
def test_an_id_that_is_no_id_becomes_a_digest(key):
    """Different calls stay different and equal calls equal, also if a destination keeps one row per id."""
    line = json.dumps({"id": key, "call_duration": 5}).encode()
    for mask in (Mask.hidden(), Mask.keyed(b"k" * 16)):
        found = json.loads(mask.line(line))
        assert re.fullmatch("sha256-[0-9a-f]{24}", found["id"])
        assert found["call_duration"] == 5
        assert mask.line(line) == mask.line(line)


def test_calls_without_an_id_stay_different():
    """They differ only in their numbers, which are hidden."""
    one, other = ({"date": "2024-05-02", "client_number": number} for number in ("+919812345678", "+919812345777"))
    ids = {json.loads(mask_line(json.dumps(call).encode()))["id"] for call in (one, other)}
    assert len(ids) == 2


def test_the_key_is_the_one_that_an_unmasked_pull_has():
    """A record without an id has the same key in both."""
    line = b'{"date":"2024-05-02","time":"10:00:00","client_number":"+919812345678"}'
    (before,), (after,) = records_of([line]), records_of([mask_line(line)])
    assert before.id == after.id


def test_an_id_with_a_point_keeps_its_digits():
    """It never becomes a float, which would lose digits."""
    line = b'{"id":1714657799.11930963,"call_id":1714657799.11930963,"charges":0.5}'
    found = mask_line(line)
    assert found == b'{"id":"1714657799.11930963","call_id":"1714657799.11930963","charges":"0.5"}'
    (record,) = records_of([found])
    assert (record.id, record.call_id, record.charges) == ("1714657799.11930963", "1714657799.11930963", 0.5)
    assert mask_line(b'{"id":1714657799.11930963,"charges":0.5}') == b'{"id":"1714657799.11930963","charges":0.5}'


def test_the_last_of_two_equal_keys_counts():
    """As everywhere in the library."""
    assert mask_line(b'{"id":"x","id":"y","agent_name":"","agent_name":"Ravi"}') == b'{"id":"y","agent_name":"***"}'


def test_each_key_of_the_reference_is_known():
    """The mask has a rule for each of them."""
    assert set(SAMPLE) <= set(RECORD)
    assert {key for step in SAMPLE["call_flow"] for key in step} <= set(STEP)
    assert set(SAMPLE["circle"]) == set(CIRCLE)
    assert {"id", "name", "number"} <= set(AGENT)
