"""Receipts: two plain lines, and nothing personal."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from servetel_async import CallQuery, PullReceipt
from servetel_async.bulk.receipt import WindowReceipt, describe, duration
from tests.bulk.facts import ACCOUNT

MAY = "2024-05-01 00:00:00 to 2024-05-31 23:59:59"


def receipt(**changes):
    """A receipt of 37,431 calls."""
    kinds = {int: 0, bool: True, str: "", float: 0.0}
    given = {field.name: kinds.get(field.type) for field in msgspec.structs.fields(PullReceipt)}
    given |= {"destination": "may.csv", "counted": 37431, "records": 37431, "requests": 382, "windows": ()}
    given |= {"from_date": "2024-05-01 00:00:00", "to_date": "2024-05-31 23:59:59", "files": {}, "identity": ACCOUNT}
    given |= {"retries": 3, "seconds": 192.0, "certified": "12 windows certified"}
    return PullReceipt(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            (
                "37,431 of the 37,431 the API counted\n"
                f"may.csv, {MAY}: 382 requests, 3 retries, 3 min 12 s; complete: 12 windows certified"
            ),
        ),
        (
            {"requests": 1, "retries": 1, "seconds": 4.21, "complete": False, "certified": "why", "records": 1},
            "1 of the 37,431 the API counted\nmay.csv, 2024-05-01 00:00:00 to 2024-05-31 23:59:59: 1 request, 1 retry, 4.2 s; NOT COMPLETE: why",
        ),
        (
            {"counted": None, "requests": 1000, "retries": 0},
            (
                "37,431 calls; the API sent no usable count\n"
                f"may.csv, {MAY}: 1,000 requests, 0 retries, 3 min 12 s; complete: 12 windows certified"
            ),
        ),
    ],
)
def test_two_lines(changes, text):
    """One for counts and calls, one for cost and proof."""
    assert str(receipt(**changes)) == text


def test_a_range_that_is_not_over_is_complete_up_to_the_servers_clock():
    """The receipt says nothing about later calls."""
    made = receipt(asked_to="~", to_date="2024-05-10 12:00:00")
    assert made.verdict == "complete up to 2024-05-10 12:00:00: 12 windows certified"
    assert str(made).endswith(made.verdict)
    assert receipt().verdict == "complete: 12 windows certified"
    assert receipt(asked_to="~", complete=False).verdict == "NOT COMPLETE: 12 windows certified"


def test_the_windows_before_the_range_are_mentioned():
    """A sync may complete older ranges too. The numbers include their calls, so the text says so."""
    older = WindowReceipt("2024-04-01 00:00:00", "2024-04-01 23:59:59", 5, 5, "leaf")
    assert "2024-05-31 23:59:59 and 1 older window: " in str(receipt(windows=(older,)))
    assert "older" not in str(receipt())


def test_it_travels_and_cannot_be_changed():
    """It can be pickled and converted to JSON and back, and no attribute can be set."""
    made = receipt(
        windows=(WindowReceipt("a", "b", 3, 3, "leaf"), WindowReceipt("a", "b", None, 2, "", ("why",), False))
    )
    assert pickle.loads(pickle.dumps(made)) == made
    assert msgspec.json.decode(msgspec.json.encode(made), type=PullReceipt) == made
    with pytest.raises(AttributeError):
        made.complete = False


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.249, "4.2 s"),
        (59.4, "59.4 s"),
        (59.5, "1 min 0 s"),
        (60, "1 min 0 s"),
        (192, "3 min 12 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90000, "25 h 0 min"),
    ],
)
def test_duration(seconds, text):
    """It is never "60 s" or "60 min"."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({}, "all calls"),
        ({"direction": "inbound"}, "direction=inbound"),
        ({"call_type": "missed"}, "call_type=m"),
        ({"duration": ">=60"}, "duration=>=60"),
        ({"callerid": "+919812345678"}, "callerid=..."),
        (
            {"direction": "inbound", "agents": ["0501"], "did_number": "+91"},
            "direction=inbound, agents=..., did_number=...",
        ),
    ],
)
def test_describe(filters, text):
    """The API's own words are given; of personal values only that they were set."""
    assert describe(CallQuery(**filters)) == text


def test_every_filter_is_described():
    """Without a filter's name it would be the receipt of another query."""
    said = describe(
        CallQuery(
            agents="1",
            department="d",
            ivr="i",
            call_type="c",
            callerid="1",
            destination="2",
            did_number="3",
            direction="inbound",
            duration=">1",
            services="Agent",
            broadcast=False,
            call_id="1.2",
        )
    )
    names = {part.partition("=")[0] for part in said.split(", ")}
    fields = {name for name in CallQuery.__dataclass_fields__ if not name.startswith(("_", "from_", "to_"))}
    assert names == fields
