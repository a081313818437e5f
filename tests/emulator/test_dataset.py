"""The data: realistic, equal for equal seeds, and as odd as in the field on request."""

import json
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from servetel_async.emulator import IST, Dataset

SAMPLE_KEYS = re.findall(
    r"\w+",
    """
    id call_id uuid direction description detailed_description status blocked_number_id recording_url service date time
    end_stamp broadcast_id dtmf_input call_duration answered_seconds minutes_consumed charges department_name
    agent_number agent_number_with_prefix agent_name client_number did_number reason hangup_cause notes
    contact_details missed_agents call_flow accountid agent_ring_time circle agent_hangup_data transfer_missed_agent
    call_hint support_api_call lead_id is_incoming_from_broadcast caller_id_num sip_agent_ids dialer_call_details
    custom_status voicemail_recording aws_call_recording_identifier
""",
)


def forms(dataset: Dataset, key: str) -> set[str]:
    """The shapes of a key: its type, or the value of a short scalar."""
    return {
        json.dumps(r[key]) if r[key] in ("", None, [], "N.A.") else type(r[key]).__name__
        for r in dataset.records()
        if key in r
    }


def test_equal_seeds_give_equal_bytes(rough):
    """The same arguments give the same bytes, in the same order."""
    again = Dataset.range("2024-05-06", "2024-05-07", calls=400, php_quirks=True)
    assert [call.body for call in again.calls] == [call.body for call in rough.calls]


def test_another_seed_gives_other_calls(dataset):
    """Another seed gives other calls."""
    other = Dataset.range("2024-05-06", "2024-05-07", calls=400, seed=2)
    assert not set(other.ids) & set(dataset.ids)


def test_a_month_holds_exactly_its_calls():
    """A month has the requested number of calls, all of them inside it."""
    may = Dataset.month("2024-05", calls=300)
    assert 300 == len(may) == len(may.ids) == len(set(may.ids))
    assert {record["date"][:7] for record in may.records()} == {"2024-05"}


def test_december_ends_with_the_year():
    """The month after December is January."""
    assert {record["date"][:7] for record in Dataset.month("2023-12", calls=200).records()} == {"2023-12"}


def test_a_range_of_one_second_is_all_ties():
    """A range of one second is all ties, because both bounds are inclusive."""
    tied = Dataset.range("2024-05-06 10:00:00", "2024-05-06 10:00:00", calls=30)
    assert {(r["date"], r["time"]) for r in tied.records()} == {("2024-05-06", "10:00:00")}


def test_a_dataset_says_what_it_is(dataset):
    """The `repr` of a dataset is one short line without a record."""
    assert repr(dataset) == "<Dataset of 400 calls, seed 1>"


def test_a_range_that_ends_before_it_begins_is_refused():
    """Swapped bounds are a mistake, not an empty dataset."""
    with pytest.raises(ValueError, match="ends before"):
        Dataset.range("2024-05-07", "2024-05-06", calls=1)


def test_records_have_the_keys_of_the_reference_sample(dataset):
    """All 46 keys, in the sample's order."""
    assert len(SAMPLE_KEYS) == 46
    assert all(list(record) == SAMPLE_KEYS for record in dataset.records())


def test_records_come_newest_first(dataset):
    """The order is the API's: by start, descending."""
    starts = [record["date"] + record["time"] for record in dataset.records()]
    assert starts == sorted(starts, reverse=True)


def test_an_id_tells_its_insertion_time(dataset):
    """The first eight digits of an ObjectId are seconds, a few after the hang-up."""
    for record in dataset.records():
        assert re.fullmatch(r"[0-9a-f]{24}", record["id"])
        inserted = datetime.fromtimestamp(int(record["id"][:8], 16), UTC)
        ended = datetime.fromisoformat(record["end_stamp"]).replace(tzinfo=IST)
        assert timedelta(0) < inserted - ended < timedelta(minutes=1)


def test_the_call_id_tells_the_start(dataset):
    """Seconds since 1970 before the point, and the same instant on the wall clock of India."""
    for record in dataset.records():
        start = datetime.fromtimestamp(int(record["call_id"].split(".")[0]), IST)
        assert f"{start:%Y-%m-%d %H:%M:%S}" == f"{record['date']} {record['time']}"


def test_the_flow_and_the_totals_agree(dataset):
    """The duration is the hang-up minus the init step, and a flow has four to seven steps."""
    for record in dataset.records():
        flow = record["call_flow"]
        assert 4 <= len(flow) <= 7
        assert record["call_duration"] == flow[-1]["time"] - int(flow[0]["time"])
        assert (record["answered_seconds"] > 0) == (record["status"] == "answered")


def test_no_number_can_be_real(dataset):
    """No number in the data can be a real telephone."""
    text = b"".join(call.body for call in dataset.calls).decode()
    assert set(re.findall(r"\+91(\d)\d{9}", text)) == {"0"}
    assert set(re.findall(r"https?://([^/]+)", text)) == {"recordings.invalid"}


def test_names_come_in_several_scripts(dataset):
    """Latin, Devanagari, Tamil, Bengali and others."""
    text = "".join(str(r["agent_name"]) + str(r["contact_details"]) for r in dataset.records())
    blocks = {ord(c) // 128 for c in text}
    assert {0x0900 // 128, 0x0B80 // 128, 0x0980 // 128, 0} <= blocks


def test_missed_clients_are_called_back(dataset):
    """An outbound call follows to the number of a missed inbound one."""
    missed: dict[str, str] = {}
    calls_back = 0
    for record in reversed(list(dataset.records())):
        if (record["direction"], record["status"]) == ("inbound", "missed"):
            missed[record["client_number"]] = record["time"]
        elif record["direction"] == "outbound" and record["client_number"] in missed:
            calls_back += 1
    assert calls_back > 10


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("id", {"str", "int"}),
        ("circle", {"dict", "null", "[]"}),
        ("call_duration", {"int", "str", "null"}),
        ("answered_seconds", {"int", "str", "null"}),
        ("minutes_consumed", {"int", "str", "null"}),
        ("charges", {"str", "float", "null"}),
        ("recording_url", {"str", '""', "null"}),
        ("agent_ring_time", {'"N.A."', "str", "int", '""', "null"}),
        ("agent_number", {"str", "null"}),
        ("notes", {"dict", "list", "str", "null"}),
        ("contact_details", {"dict", "list", "str", "null"}),
        ("dialer_call_details", {"dict", "list", "str", "null"}),
        ("missed_agents", {"list", "[]", "null"}),
        ("transfer_missed_agent", {"list", "[]", "null"}),
        ("agent_hangup_data", {"null", "list", "dict", "str"}),
        ("custom_status", {"null", "list", "dict", "str"}),
        ("sip_agent_ids", {"null", "list", "dict", "str"}),
        ("support_api_call", {"bool", "int", "str", "null"}),
        ("is_incoming_from_broadcast", {"bool", "int", "str", "null"}),
        ("voicemail_recording", {"bool", "int", "str", "null"}),
        ("call_flow", {"list", "null"}),
        ("accountid", {"str"}),
        ("account_id", {"str"}),
        ("sid", {"str"}),
        ("sname", {"str"}),
        ("is_whatsapp", {"bool"}),
        ("lead_data", {"dict"}),
        ("call_tags", {"list"}),
    ],
)
def test_a_rough_key_takes_every_form(rough, key, expected):
    """Each oddity of the record table occurs."""
    assert expected <= forms(rough, key)


def test_a_rough_circle_may_hold_nulls(rough):
    """The circle object may hold only nulls."""
    assert {"operator": None, "circle": None} in [record["circle"] for record in rough.records()]


def test_rough_steps_mix_types(rough):
    """`time` is text, int and float within one list; ids vary; some steps have no type, some have further keys."""
    steps: list[dict[str, Any]] = [s for r in rough.records() for s in r["call_flow"] or ()]
    types = defaultdict(set)
    for step in steps:
        for key, value in step.items():
            types[key].add(type(value))
    assert types["time"] == {str, int, float}
    assert types["id"] == {str, int, type(None)}
    assert {"dtmf", "email", "s_id", "status", "dialst", "value", "num", "number"} <= set(types)
    assert any("type" not in step for step in steps)
    assert any({str, int, float} <= {type(s["time"]) for s in r["call_flow"] or ()} for r in rough.records())


def test_rough_text_is_escaped_as_php_does(rough):
    """Some records escape slashes and letters, some only slashes, some nothing."""
    bodies = [call.body for call in rough.calls]
    assert any(rb"\/" in body and rb"\u09" in body for body in bodies)
    assert any(rb"\/" in body and "क".encode()[:1] in body for body in bodies)
    assert any(rb"\/" not in body and b"https://" in body for body in bodies)


def test_rough_ids_stay_unique(rough):
    """Ids of rough records are unique, integers included."""
    assert len(set(rough.ids)) == len(rough)
