"""Queries: every parameter and encoding, every kind of date, every refusal, and how a range is cut into windows."""

# ruff: noqa: DTZ001 - the wall clock of an account has no zone by definition

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST, SECOND, stamp
from servetel_async.protocol.query import ARRAY_STYLES, NAMES, CallQuery, build_query
from servetel_async.protocol.windows import LONGEST, Window

PHONE = "+919800000001"
LONDON, NEW_YORK = ZoneInfo("Europe/London"), ZoneInfo("America/New_York")


# Parameters -------------------------------------------------------------------------------------------------------------

PARAMETERS = [
    ({}, []),
    ({"direction": "inbound"}, [("direction", "inbound")]),
    ({"direction": "OUTBOUND"}, [("direction", "outbound")]),
    ({"call_type": "c"}, [("call_type", "c")]),
    ({"call_type": "answered"}, [("call_type", "c")]),
    ({"call_type": "m"}, [("call_type", "m")]),
    ({"call_type": "Missed"}, [("call_type", "m")]),
    ({"callerid": f" {PHONE} "}, [("callerid", PHONE)]),
    ({"destination": "1800 000 000"}, [("destination", "1800 000 000")]),
    ({"did_number": "+91"}, [("did_number", "+91")]),
    ({"call_id": "1714657799.11930963"}, [("call_id", "1714657799.11930963")]),
    ({"broadcast": True}, [("broadcast", "true")]),
    ({"broadcast": False}, [("broadcast", "false")]),
    ({"broadcast": "1"}, [("broadcast", "1")]),
    ({"services": "Agent"}, [("services", "Agent")]),
    ({"services": ["Agent", "IVR"]}, [("services", "Agent,IVR")]),
    ({"duration": ">60"}, [("duration", "60"), ("operator", ">")]),
    ({"duration": " >= 60 "}, [("duration", "60"), ("operator", ">=")]),
    ({"duration": "<5"}, [("duration", "5"), ("operator", "<")]),
    ({"duration": "<=5"}, [("duration", "5"), ("operator", "<=")]),
    ({"duration": "!=0"}, [("duration", "0"), ("operator", "!=")]),
    ({"duration": (">", 60)}, [("duration", "60"), ("operator", ">")]),
    ({"duration": (">=", "60")}, [("duration", "60"), ("operator", ">=")]),
    ({"agents": "0501"}, [("agents[]", "agent|0501")]),
    ({"agents": "agent|0501"}, [("agents[]", "agent|0501")]),
    ({"agents": "agent||0501"}, [("agents[]", "agent|0501")]),
    ({"agents": "Agent|ABC"}, [("agents[]", "agent|abc")]),
    ({"agents": ["1", "agent|2"]}, [("agents[]", "agent|1"), ("agents[]", "agent|2")]),
    ({"agents": (agent for agent in ("1", "2"))}, [("agents[]", "agent|1"), ("agents[]", "agent|2")]),
    ({"department": "Sales"}, [("department[]", "sales")]),
    ({"ivr": ["A", "b"]}, [("ivr[]", "a"), ("ivr[]", "b")]),
    ({"from_date": "2024-05-01"}, [("from_date", "2024-05-01 00:00:00")]),
    ({"to_date": "2024-05-01"}, [("to_date", "2024-05-01 23:59:59")]),
]


@pytest.mark.parametrize(
    ("asked", "pairs"), PARAMETERS, ids=[f"{index}-{'-'.join(asked)}" for index, (asked, _) in enumerate(PARAMETERS)]
)
def test_a_parameter(asked, pairs):
    """Each parameter becomes exactly the pairs of the API."""
    assert CallQuery(**asked).params() == pairs


@pytest.mark.parametrize(
    ("style", "pairs"),
    [
        ("brackets", [("agents[]", "agent|1"), ("agents[]", "agent|2"), ("department[]", "d"), ("ivr[]", "i")]),
        ("indexed", [("agents[0]", "agent|1"), ("agents[1]", "agent|2"), ("department[0]", "d"), ("ivr[0]", "i")]),
        ("repeat", [("agents", "agent|1"), ("agents", "agent|2"), ("department", "d"), ("ivr", "i")]),
        ("comma", [("agents", "agent|1,agent|2"), ("department", "d"), ("ivr", "i")]),
    ],
)
def test_an_array_style(style, pairs):
    """Four ways to write an array; the rest of the query does not change."""
    query = CallQuery(agents=["1", "2"], department="d", ivr="i", services=["a", "b"])
    assert query.params(array_style=style) == [*pairs, ("services", "a,b")]


def test_every_style_is_tested():
    """The test above covers every style of the library."""
    assert ARRAY_STYLES == ("brackets", "indexed", "repeat", "comma")


def test_the_order_of_the_pairs_is_fixed():
    """The same query gives the same text, in whatever order its values were given."""
    values = {
        "call_id": "x", "duration": ">1", "services": "s", "broadcast": True, "did_number": "3", "destination": "2", "callerid": "1",
        "ivr": "i", "department": "d", "agents": "a", "call_type": "m", "direction": "inbound", "to_date": "2024-05-02",
        "from_date": "2024-05-01",
    }  # fmt: skip
    expected = "from_date to_date agents[] department[] ivr[] call_type direction callerid destination did_number broadcast call_id services duration operator"
    assert [name for name, _ in CallQuery(**values).params()] == expected.split()
    assert CallQuery(**dict(reversed(values.items()))).params() == CallQuery(**values).params()
    assert set(values) == NAMES


def test_a_plus_travels_as_percent_2b():
    """The pairs are raw: encoded once, by the transport, they give what the server reads back."""
    text = urlencode(CallQuery(callerid=PHONE, duration=">=60", agents="1").params(), quote_via=quote, safe="")
    assert text == "agents%5B%5D=agent%7C1&callerid=%2B919800000001&duration=60&operator=%3E%3D"


# Dates ------------------------------------------------------------------------------------------------------------------

NOON = datetime(2024, 5, 2, 12, 0, 0, tzinfo=UTC)
MOMENTS = [
    pytest.param(NOON, "2024-05-02 17:30:00", "2024-05-02 17:30:00", id="utc"),
    pytest.param(NOON.astimezone(IST), "2024-05-02 17:30:00", "2024-05-02 17:30:00", id="ist"),
    pytest.param(NOON.astimezone(NEW_YORK), "2024-05-02 17:30:00", "2024-05-02 17:30:00", id="new-york"),
    pytest.param(
        NOON.astimezone(timezone(timedelta(hours=14))), "2024-05-02 17:30:00", "2024-05-02 17:30:00", id="plus-14"
    ),
    pytest.param(
        NOON.replace(microsecond=999_999), "2024-05-02 17:30:00", "2024-05-02 17:30:00", id="microseconds-are-cut"
    ),
    pytest.param(
        datetime(2024, 5, 1, 18, 30, tzinfo=UTC), "2024-05-02 00:00:00", "2024-05-02 00:00:00", id="midnight-in-india"
    ),
    pytest.param(
        datetime(2024, 11, 3, 1, 30, fold=0, tzinfo=NEW_YORK),
        "2024-11-03 11:00:00",
        "2024-11-03 11:00:00",
        id="row-101-first-of-two",
    ),
    pytest.param(
        datetime(2024, 11, 3, 1, 30, fold=1, tzinfo=NEW_YORK),
        "2024-11-03 12:00:00",
        "2024-11-03 12:00:00",
        id="row-101-second-of-two",
    ),
    pytest.param(date(2024, 5, 2), "2024-05-02 00:00:00", "2024-05-02 23:59:59", id="date"),
    pytest.param(date(2024, 2, 29), "2024-02-29 00:00:00", "2024-02-29 23:59:59", id="leap-date"),
    pytest.param("2024-05-02", "2024-05-02 00:00:00", "2024-05-02 23:59:59", id="text-day"),
    pytest.param("2024-02-29", "2024-02-29 00:00:00", "2024-02-29 23:59:59", id="text-leap-day"),
    pytest.param("2024-05-02 09:08:07", "2024-05-02 09:08:07", "2024-05-02 09:08:07", id="text-second"),
    pytest.param("0001-01-01", "0001-01-01 00:00:00", "0001-01-01 23:59:59", id="first-day"),
    pytest.param("9999-12-31", "9999-12-31 00:00:00", "9999-12-31 23:59:59", id="last-day"),
    pytest.param(date(987, 1, 2), "0987-01-02 00:00:00", "0987-01-02 23:59:59", id="four-digits"),
]


@pytest.mark.parametrize(("moment", "first", "last"), MOMENTS)
def test_a_moment(moment, first, last):
    """Each kind of moment, as ``from_date`` and as ``to_date``: a day means its first and its last second."""
    assert CallQuery(from_date=moment).params() == [("from_date", first)]
    assert CallQuery(to_date=moment).params() == [("to_date", last)]


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (IST, "2024-05-02 17:30:00"),
        (UTC, "2024-05-02 12:00:00"),
        (LONDON, "2024-05-02 13:00:00"),
        (NEW_YORK, "2024-05-02 08:00:00"),
    ],
    ids=str,
)
def test_the_accounts_zone(zone, text):
    """A ``datetime`` is converted to the account's zone; a day or a text is already on its wall clock."""
    assert CallQuery(from_date=NOON).params(zone) == [("from_date", text)]
    assert (
        CallQuery(from_date="2024-05-02", to_date=date(2024, 5, 2)).params(zone) == CallQuery.day("2024-05-02").params()
    )


BAD_MOMENTS = [
    pytest.param(datetime(2024, 5, 2), "tzinfo", id="naive"),
    pytest.param("02-05-2024", "for example", id="day-first"),
    pytest.param("2024/05/02", "for example", id="slashes"),
    pytest.param("2024-5-2", "for example", id="short"),
    pytest.param("2024-05-02T10:00:00", "for example", id="t"),
    pytest.param("2024-05-02 10:00", "for example", id="no-seconds"),
    pytest.param("2024-05-02 24:00:00", "for example", id="24"),
    pytest.param("2024-05-02 10:00:60", "for example", id="leap-second"),
    pytest.param("2023-02-29", "for example", id="no-leap-year"),
    pytest.param("2024-04-31 10:00:00", "for example", id="no-such-day"),
    pytest.param("2024-W18-4", "for example", id="iso-week"),
    pytest.param("", "for example", id="empty"),
    pytest.param("yesterday", "for example", id="word"),
    pytest.param(1714657799, "aware datetime", id="epoch"),
    pytest.param(True, "aware datetime", id="bool"),
    pytest.param(b"2024-05-02", "aware datetime", id="bytes"),
    pytest.param(("2024-05-02",), "aware datetime", id="tuple"),
    pytest.param(datetime.max.replace(tzinfo=UTC), "for example", id="beyond-the-calendar"),
    pytest.param(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "for example", id="before-the-calendar"),
]


@pytest.mark.parametrize("name", ["from_date", "to_date"])
@pytest.mark.parametrize(("moment", "fix"), BAD_MOMENTS)
def test_a_bad_moment(name, moment, fix):
    """An ambiguous value is refused with the parameter's name and the fix, alone or beside a good one."""
    other = {"from_date": "to_date", "to_date": "from_date"}[name]
    for more in ({}, {other: NOON}, {other: "2024-05-02"}):
        with pytest.raises(ConfigurationError, match=rf"(?i)^{name} is .*{fix}") as caught:
            CallQuery(**{name: moment}, **more)
        assert isinstance(caught.value, ValueError)


REVERSED = [
    ("2024-05-02", "2024-05-01"),
    (date(2024, 5, 2), "2024-05-01"),
    ("2024-05-02", date(2024, 5, 1)),
    ("2024-05-02 00:00:01", "2024-05-02 00:00:00"),
    (NOON, NOON - SECOND),
    (NOON.astimezone(NEW_YORK), NOON.astimezone(IST) - SECOND),
]
MIXED = [
    (NOON, "2024-05-01"),
    (NOON, date(2024, 5, 1)),
    ("2024-05-03", NOON),
    (date(2024, 5, 3), NOON),
    ("2024-05-02 17:30:01", NOON),
]


@pytest.mark.parametrize(("start", "end"), REVERSED, ids=range(len(REVERSED)))
def test_a_reversed_range(start, end):
    """A range that ends before it begins is refused at once: the API would answer with an empty list."""
    with pytest.raises(ConfigurationError, match=r"lies after to_date.*Swap the two"):
        CallQuery(from_date=start, to_date=end)


@pytest.mark.parametrize(("start", "end"), MIXED, ids=range(len(MIXED)))
def test_a_reversed_range_of_two_kinds(start, end):
    """A moment and a day are compared once the account's zone is known, before a request is sent."""
    query = CallQuery(from_date=start, to_date=end)
    for ask in (query.window, query.params, query.fingerprint):
        with pytest.raises(ConfigurationError, match="lies after to_date"):
            ask(IST)


@pytest.mark.parametrize(
    ("start", "end"),
    [("2024-05-02", "2024-05-02"), (NOON, NOON), ("2024-05-02", NOON), (NOON, "2024-05-02")],
    ids=range(4),
)
def test_a_range_of_one_day_or_second(start, end):
    """Both bounds belong to the range: one second is a range."""
    window = CallQuery(from_date=start, to_date=end).window(IST)
    assert window.start <= window.end


def test_a_part_of_a_second_is_no_order():
    """The API counts whole seconds: two moments of one second are a range in either order."""
    query = CallQuery(from_date=NOON.replace(microsecond=900_000), to_date=NOON.replace(microsecond=100_000))
    assert query.window(IST) == Window(datetime(2024, 5, 2, 17, 30), datetime(2024, 5, 2, 17, 30))


# Refusals ---------------------------------------------------------------------------------------------------------------

REFUSED = [
    *(
        pytest.param({name: value}, name, id=f"{name}-{index}")
        for name in ("callerid", "destination", "did_number", "call_id")
        for index, value in enumerate(
            [919800000001, 1.5, "", "  ", b"x", ["1"], f"{PHONE}\n", f"{PHONE}\x00", "\ud800", True]
        )
    ),
    *(
        pytest.param({"broadcast": value}, "broadcast", id=f"broadcast-{index}")
        for index, value in enumerate([1, "", "\n", ["true"]])
    ),
    *(
        pytest.param({name: value}, name, id=f"{name}-{index}")
        for name in ("agents", "department", "ivr", "services")
        for index, value in enumerate(["", [], [""], ["1", None], [1], 5, b"1", True, "\n", ["1", "\x1b"], [["1"]]])
    ),
    *(
        pytest.param({"agents": value}, "agents", id=f"agents-kind-{index}")
        for index, value in enumerate(["dept|1", "|1", "agent|", "agent||", ["1", "group|2"], "agent| "])
    ),
    *(
        pytest.param({"direction": value}, "direction", id=f"direction-{index}")
        for index, value in enumerate(["in", "", "both", 1, ["inbound"]])
    ),
    *(
        pytest.param({"call_type": value}, "call_type", id=f"call_type-{index}")
        for index, value in enumerate(["x", "", "a", 1, True])
    ),
    *(
        pytest.param({"duration": value}, "duration", id=f"duration-{index}")
        for index, value in enumerate(
            [
                "60",
                "=60",
                "==60",
                "> -1",
                ">1.5",
                ">",
                "",
                ">6_0",
                "=>60",
                60,
                (">",),
                (">", 60, 1),
                (">", 6, 0),
                (">", -1),
                (">", 1.5),
                (">", None),
                (">", True),
                ("", 60),
                [">", 60],
                ">" + "9" * 10,
            ]
        )
    ),
]


@pytest.mark.parametrize(("values", "name"), REFUSED)
def test_a_refused_value(values, name):
    """The error names the parameter and does not repeat the value, which may be a phone number."""
    with pytest.raises(ConfigurationError, match=f"(?i){name}") as caught:
        CallQuery(**values)
    text = str(caught.value)
    assert "98000" not in text
    assert "\x1b" not in text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ({"callerid": 91}, "Write numbers as text: callerid='...'"),
        ({"agents": ["", "1"]}, "Write numbers as text"),
        ({"agents": []}, "leave agents out"),
        ({"agents": "dept|1"}, "'agent|ID'"),
        ({"direction": "in"}, "inbound, outbound"),
        ({"call_type": "x"}, "c, m, answered, missed"),
        ({"duration": "60"}, "duration='>=60'"),
    ],
    ids=range(7),
)
def test_the_refusal_says_what_to_do(values, fix):
    """Every refusal says what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        CallQuery(**values)
    assert fix.lower() in str(caught.value).lower()


def test_an_unknown_parameter_is_refused():
    """The API ignores unknown parameters and would send every call, so a misspelt name is refused."""
    with pytest.raises(TypeError):
        CallQuery(start_date="2024-05-01")
    for refuse in (
        lambda: CallQuery().replace(client_number=PHONE),
        lambda: build_query(None, None, None, {"client_number": PHONE}),
    ):
        with pytest.raises(ConfigurationError, match=r"'client_number'.*whole history.*did_number") as caught:
            refuse()
        assert PHONE not in str(caught.value)


# Shorthands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "last"),
    [
        ("2024-05", "2024-05-31"),
        ("2024-02", "2024-02-29"),
        ("2023-02", "2023-02-28"),
        ("2000-02", "2000-02-29"),
        ("2100-02", "2100-02-28"),
        ("2024-12", "2024-12-31"),
        ("0001-01", "0001-01-31"),
        ("9999-12", "9999-12-31"),
    ],
)
def test_a_month(month, last):
    """A month is its first to its last second, in leap years too; filters stay as given."""
    assert CallQuery.month(month, direction="inbound").params() == [
        ("from_date", f"{month}-01 00:00:00"),
        ("to_date", f"{last} 23:59:59"),
        ("direction", "inbound"),
    ]


@pytest.mark.parametrize(
    "month",
    [
        "2024-13",
        "2024-00",
        "0000-01",
        "2024-5",
        "05-2024",
        "2024-05-01",
        "May",
        "",
        None,
        202405,
        date(2024, 5, 1),
        "2024-05 ",
    ],
    ids=repr,
)
def test_what_is_no_month(month):
    """Any other value is refused, with an example of a month."""
    with pytest.raises(ConfigurationError, match="YYYY-MM"):
        CallQuery.month(month)


def test_a_day():
    """A day is its first to its last second."""
    for day in ("2024-02-29", date(2024, 2, 29)):
        assert CallQuery.day(day).params() == [("from_date", "2024-02-29 00:00:00"), ("to_date", "2024-02-29 23:59:59")]


@pytest.mark.parametrize(
    "day", [NOON, datetime(2024, 5, 2), "2024-05-02 10:00:00", "today", "", "2023-02-29", 5, None], ids=repr
)
def test_what_is_no_day(day):
    """A moment is not a day, and neither is any other value."""
    with pytest.raises(ConfigurationError):
        if day is None:
            CallQuery.day("2024-00-00")
        CallQuery.day(day)


def test_the_time_just_passed():
    """Days and hours before now, to the second."""
    assert CallQuery.last(days=1, hours=2, now=NOON).params() == [
        ("from_date", "2024-05-01 15:30:00"),
        ("to_date", "2024-05-02 17:30:00"),
    ]
    assert CallQuery.last(hours=0.5, now=NOON).params()[0] == ("from_date", "2024-05-02 17:00:00")
    before = datetime.now(UTC)
    query = CallQuery.last(days=7)
    assert before <= query.to_date <= datetime.now(UTC)
    assert query.to_date - query.from_date == timedelta(days=7)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"days": 0},
        {"days": -1},
        {"days": float("nan")},
        {"days": float("inf")},
        {"days": 10**6},
        {"days": "7"},
        {"hours": None},
        {"days": 1, "now": datetime(2024, 5, 2)},
        {"days": 36_000, "now": datetime(5, 1, 1, tzinfo=UTC)},
    ],
    ids=repr,
)
def test_what_is_no_time_just_passed(values):
    """A bad length, a length beyond a century, or a naive ``now`` is refused."""
    with pytest.raises(ConfigurationError):
        CallQuery.last(**values)


# Values -----------------------------------------------------------------------------------------------------------------

FULL = CallQuery(
    from_date="2024-05-01",
    to_date=date(2024, 5, 2),
    direction="inbound",
    call_type="m",
    agents=["1", "2"],
    department="d",
    ivr="i",
    callerid=PHONE,
    destination="2",
    did_number="3",
    duration=">=60",
    services=["a"],
    broadcast=True,
    call_id="x",
)


def test_replacing_a_value():
    """The result is a copy with some values changed and all checked anew; the original stays."""
    assert FULL.replace() == FULL
    assert FULL.replace(direction="outbound").params() == [
        pair if pair[0] != "direction" else ("direction", "outbound") for pair in FULL.params()
    ]
    assert FULL.replace(agents=None, duration=None).replace(agents=["1", "2"], duration=(">=", 60)) == FULL
    with pytest.raises(ConfigurationError):
        FULL.replace(to_date="2024-04-30")


def test_equal_questions_are_equal_queries():
    """However the values are written, value, hash and fingerprint are equal."""
    same = CallQuery(
        from_date="2024-05-01",
        to_date=date(2024, 5, 2),
        direction="INBOUND",
        call_type="missed",
        agents=("agent|1", "agent||2"),
        department=["D"],
        ivr=["I"],
        callerid=f" {PHONE}",
        destination="2 ",
        did_number="3",
        duration=(">=", 60),
        services="a",
        broadcast="true",
        call_id="x",
    )
    assert (same, hash(same), same.fingerprint()) == (FULL, hash(FULL), FULL.fingerprint())
    assert len({same, FULL}) == 1
    assert CallQuery(from_date=NOON) == CallQuery(from_date=NOON.astimezone(NEW_YORK))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_value_makes_another_query(name):
    """Each value counts for equality and fingerprint, and so does its name."""
    other = FULL.replace(**{name: None})
    assert other != FULL
    assert other.fingerprint() != FULL.fingerprint()


def test_fingerprints():
    """Twelve hex digits that depend on the meaning of a query, not on its spelling, and show no number."""
    assert len(FULL.fingerprint()) == 12
    assert int(FULL.fingerprint(), 16) >= 0
    assert CallQuery(callerid="1").fingerprint() != CallQuery(destination="1").fingerprint()
    assert CallQuery.day("2024-05-01").fingerprint() == CallQuery.day(date(2024, 5, 1)).fingerprint()
    assert CallQuery(from_date=NOON).fingerprint(IST) != CallQuery(from_date=NOON).fingerprint(UTC)
    assert CallQuery(from_date=NOON).fingerprint(IST) == CallQuery(from_date="2024-05-02 17:30:00").fingerprint(UTC)


def test_a_set_is_put_in_order():
    """Sets of the same values are one query, in whatever order they are iterated."""
    query = CallQuery(agents={str(number) for number in range(20)}, services={"b", "a"})
    assert query == CallQuery(agents=frozenset(str(number) for number in reversed(range(20))), services=["a", "b"])
    assert query.agents == tuple(sorted(query.agents))


def test_a_set_has_the_same_fingerprint_in_every_process():
    """A set has no order, but a checkpoint of one process must fit the same query in another."""
    code = "from servetel_async.protocol.query import CallQuery; print(CallQuery(agents={str(n) for n in range(20)}).fingerprint())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_repr_shows_dates_and_names_only():
    """Row 131: it shows dates and the names of filters, and no value that could be a phone number."""
    assert repr(CallQuery()) == "CallQuery()"
    assert repr(CallQuery(callerid=PHONE, from_date="2024-05-01")) == "CallQuery(from_date='2024-05-01', callerid=...)"
    assert PHONE not in repr(FULL)
    assert [part.partition("=")[0] for part in repr(FULL.replace(from_date=None, to_date=None))[10:-1].split(", ")] == [
        name for name in CallQuery.__slots__ if name not in ("from_date", "to_date")
    ]


def test_pairs_do_not_print():
    """Row 131: a traceback may print the encoded query, so it shows how many pairs and no number."""
    pairs = CallQuery(callerid=PHONE).params()
    assert isinstance(pairs, list)
    assert (repr(pairs), str([pairs])) == ("<1 parameters>", "[<1 parameters>]")


def test_building_a_query_from_what_a_method_was_given():
    """Nothing; keywords; a query; a query with changes: dates and filters replace the query's own."""
    assert build_query(None, None, None, {}) == CallQuery()
    assert build_query(None, "2024-05-01", "2024-05-02", {"call_type": "m"}) == CallQuery(
        from_date="2024-05-01", to_date="2024-05-02", call_type="m"
    )
    assert build_query(FULL, None, None, {}) is FULL
    assert build_query(FULL, "2024-05-02", None, {"ivr": "j"}) == FULL.replace(from_date="2024-05-02", ivr="j")
    for query in ({"direction": "inbound"}, "2024-05", 5):
        with pytest.raises(ConfigurationError, match="CallQuery"):
            build_query(query, None, None, {})


# Windows ----------------------------------------------------------------------------------------------------------------


def test_a_window_stands_in_for_the_range():
    """Each window of a long range is requested with the same filters."""
    window = Window(datetime(2024, 1, 1), datetime(2024, 1, 2))
    assert FULL.params(window=window)[:3] == [
        ("from_date", "2024-01-01 00:00:00"),
        ("to_date", "2024-01-02 00:00:00"),
        ("agents[]", "agent|1"),
    ]


MOMENT = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(microsecond=0))
PROPERTY = settings(deadline=None, database=None, derandomize=True, max_examples=400)


@PROPERTY
@given(
    start=MOMENT,
    seconds=st.integers(0, 200 * 86_400)
    | st.integers(-2, 2).map(lambda off: 31 * 86_400 + off)
    | st.integers(-2, 2).map(lambda off: 62 * 86_400 + off),
)
def test_no_second_is_lost_or_doubled(start, seconds):
    """Row 101: windows of at most 31 days, newest first and adjacent to the second, make up the range."""
    whole = Window(start, start + timedelta(seconds=seconds))
    windows = list(whole.split())
    assert (windows[0].end, windows[-1].start) == (whole.end, whole.start)
    for newer, older in itertools.pairwise(windows):
        assert newer.start - older.end == SECOND
    assert all(timedelta(0) <= window.end - window.start < LONGEST for window in windows)
    assert len(windows) == -(-(seconds + 1) // (31 * 86_400))


@PROPERTY
@given(start=MOMENT, seconds=st.integers(0, 50), longest=st.integers(1, 20))
def test_every_second_is_in_exactly_one_window(start, seconds, longest):
    """Row 101: counted second by second, even for windows of one second."""
    windows = Window(start, start + timedelta(seconds=seconds)).split(timedelta(seconds=longest))
    covered = [
        window.start + timedelta(seconds=index)
        for window in windows
        for index in range(int((window.end - window.start).total_seconds()) + 1)
    ]
    assert sorted(covered) == [start + timedelta(seconds=index) for index in range(seconds + 1)]


@pytest.mark.parametrize(
    "window", [Window(None, None), Window(datetime(2020, 1, 1), None), Window(None, datetime(2024, 1, 1))], ids=str
)
def test_an_open_range_is_not_cut(window):
    """Without both bounds there is no place to cut."""
    assert list(window.split()) == [window]


def test_the_whole_calendar_can_be_cut():
    """From the first second to the last, without an overflow at either end."""
    windows = Window(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)).split()
    assert sum(1 for _ in windows) > 117_000


@pytest.mark.parametrize(
    ("window", "first", "last", "text"),
    [
        (
            Window(datetime(2024, 5, 1), datetime(2024, 5, 2)),
            "2024-05-01 00:00:00",
            "2024-05-02 00:00:00",
            "2024-05-01 00:00:00 to 2024-05-02 00:00:00",
        ),
        (Window(None, None), "", "~", "the beginning to now"),
        (Window(datetime(987, 5, 1), None), "0987-05-01 00:00:00", "~", "0987-05-01 00:00:00 to now"),
    ],
    ids=range(3),
)
def test_the_edges_of_a_window_as_text(window, first, last, text):
    """The bounds compare as text with any stamp, and the text of a window fits into a log."""
    assert (window.first, window.last, str(window)) == (first, last, text)
    assert window.first <= stamp(datetime(2024, 5, 1)) <= window.last
