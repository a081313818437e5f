"""The ledger's rules as tables: what is left to read, what is final, and what is counted again. No I/O."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servetel_async.bulk.ledger import (
    FORMAT,
    OPEN_END,
    Unreadable,
    current,
    digest_of,
    due,
    gaps,
    half_read,
    read_fact,
    trusted,
)
from servetel_async.bulk.windows.certified import Flaw
from servetel_async.protocol.clock import stamp
from servetel_async.protocol.windows import Window
from tests.bulk import facts

WEEK = timedelta(days=7)


def moment(text):
    return datetime.fromisoformat(text if len(text) > 10 else f"{text} 00:00:00")


def reading(first, last, clock, **changes):
    """A reading of a window: days or moments of May 2024, as short as ``"05"`` or ``"05 12:00:00"``."""
    return facts.reading(_full(first, "00:00:00"), _full(last, "23:59:59"), _full(clock, "12:00:00"), **changes)


def _full(text, time):
    if text == OPEN_END or len(text) > 12:
        return text
    day, _, rest = text.partition(" ")
    return f"2024-05-{day} {rest or time}"


def spans(windows):
    return [(window.first[8:], window.last[8:]) for window in windows]


def now(text):
    return moment(_full(text, "12:00:00"))


# What a resumed pull reads


@pytest.mark.parametrize(
    ("read", "at", "again"),
    [
        (reading("01", "02", "10"), "10", False),
        # A day that was read at noon, and one that had not begun.
        (reading("10", "10", "10 12:00:00"), "11", True),
        (reading("11", "11", "10 12:00:00"), "12", True),
        # A reading with a clock in the future proves nothing. Clocks of one server may differ by five minutes.
        (reading("01", "01", "20 12:00:00"), "10", True),
        (reading("01", "01", "10 12:04:59"), "10", False),
        (reading("01", "02", "10", flaws=(Flaw("", "", "why"),)), "10", True),
    ],
)
def test_a_resume_reads_again_what_was_not_seen_as_a_whole(read, at, again):
    """A reading covers its seconds up to its clock, or none if that clock is later than now."""
    assert half_read([read], now(at)) == [read.window] * again


@pytest.mark.parametrize(
    ("readings", "left"),
    [
        ([reading("10", "12", "20")], []),
        ([reading("11", "12", "20", asked_first="2024-05-10 00:00:00")], [("10 00:00:00", "10 23:59:59")]),
        # A range that is not over, or has no end, is read up to the clock.
        ([reading("10", "10 12:00:00", "10 12:00:00", until="2024-05-31 23:59:59")], []),
        ([reading("10", "10", "12 12:00:00", until=OPEN_END)], [("11 00:00:00", "12 12:00:00")]),
        # A call of the future cannot be missing.
        ([reading("12", "12", "10 12:00:00")], []),
        # Another run may have read it.
        (
            [
                reading("10", "10", "20"),
                reading("12", "12", "20", asked_first="2024-05-10 00:00:00"),
                reading("11", "11", "21"),
            ],
            [],
        ),
    ],
)
def test_what_was_asked_for_and_not_read_is_a_gap(readings, left):
    """The run that requested it was interrupted."""
    assert spans(gaps(readings)) == left


# What a sync reads and counts


def test_the_first_sync_reads_the_look_back():
    """It reads from midnight of its first day to the server's clock."""
    found = due([], now("20"), WEEK)
    assert spans([found.window]) == [("13 00:00:00", "20 12:00:00")]
    assert spans(found.read) == [("13 00:00:00", "20 12:00:00")]
    assert found.recount == []


def synced(*days, clock):
    """The readings of a sync at that clock: one per day, the last up to the clock."""
    read = [reading(day, day, clock, until=OPEN_END, asked_first=f"2024-05-{days[0]} 00:00:00") for day in days]
    last = msgspec.structs.replace(read[-1], last=_full(clock, "12:00:00"))
    return [*read[:-1], last]


def test_what_was_read_young_is_read_again_what_was_read_recent_is_counted_again_the_rest_is_final():
    """The age of a window when it was read decides: under a day, within the look-back, or older."""
    found = due(synced(*("08", "09", "10", "11", "12", "13", "14", "15"), clock="15 12:00:00"), now("16"), WEEK)
    assert spans(found.read) == [("14 00:00:00", "16 12:00:00")]  # 14 was half a day old, 15 was not over
    assert spans([each.window for each in found.recount]) == [
        (f"{day} 00:00:00", f"{day} 23:59:59") for day in ("13", "12", "11", "10", "09", "08")
    ]
    assert spans([found.window]) == [("08 00:00:00", "16 12:00:00")]


def test_what_came_late_before_a_pause_is_looked_for_after_it():
    """A window that was read within the look-back is counted again after any pause."""
    found = due(synced("08", "09", "10", clock="10 12:00:00"), now("31"), timedelta(days=2))
    assert spans([each.window for each in found.recount]) == [("08 00:00:00", "08 23:59:59")]
    assert spans(found.read) == [("09 00:00:00", "31 12:00:00")]


def test_a_reading_after_the_look_back_is_final():
    """No late call is expected in it, so it is neither read nor counted again."""
    old = [reading("01", "01", "09"), *synced("08", "09", clock="09 12:00:00")]
    found = due(old, now("10"), WEEK)
    assert "01" not in {first[:2] for first, _ in spans([*found.read, *(each.window for each in found.recount)])}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "a pause"),
        ([reading("28", "28", "30")], "a pull of another range"),
        ([reading("30", "30", "30 12:00:00", until=OPEN_END)], "a pull of today"),
    ],
)
def test_nothing_but_readings_says_where_to_go_on(more, said):
    """Neither a pause nor another pull leaves a gap behind the last sync."""
    found = due([*synced("09", "10", clock="10 12:00:00"), *more], now("30"), timedelta(days=1))
    gaps = [("09 00:00:00", "27 23:59:59"), ("29 00:00:00", "30 12:00:00")]
    assert spans(found.read) == (gaps[::-1] if said == "a pull of another range" else [("09 00:00:00", "30 12:00:00")])


def test_a_pull_that_was_not_over_is_completed_up_to_its_end():
    """The month was pulled on its second day: its rest is read, and after it only the look-back."""
    pulled = [reading("01", "02 12:00:00", "02 12:00:00", until="2024-05-05 23:59:59")]
    found = due(pulled, now("20"), timedelta(days=2))
    assert spans(found.read) == [("18 00:00:00", "20 12:00:00"), ("01 00:00:00", "05 23:59:59")]


def test_a_pull_of_a_range_that_was_over_obliges_to_nothing():
    """After a pull of an old month, a sync does not read every month since."""
    found = due([reading("01", "03", "20")], now("20"), timedelta(days=2))
    assert spans(found.read) == [("18 00:00:00", "20 12:00:00")]


def test_a_clock_that_was_a_year_ahead_is_no_mark():
    """The reading with the wrong clock is ignored; those before it count."""
    wrong = reading("10", "20", "2025-05-20 12:00:00", until=OPEN_END)
    found = due([*synced("09", "10", clock="10 12:00:00"), wrong], now("21"), timedelta(days=1))
    assert spans(found.read) == [("09 00:00:00", "21 12:00:00")]
    assert trusted([wrong], now("21")) == []


@pytest.mark.parametrize(
    ("here", "seen"), [("15 12:00:00", ("10 00:00:00", "15 12:00:00")), ("20 11:00:00", ("10 00:00:00", "20 12:00:00"))]
)
def test_a_clock_far_ahead_of_this_computers_is_not_believed(here, seen):
    """A reading counts up to this computer's clock of then, even if the server's clock of now is later."""
    read = reading("10", "20", "20 12:00:00", until=OPEN_END, here=f"2024-05-{here}")
    assert spans([read.seen]) == [seen]


@pytest.mark.parametrize(("at", "here"), [("20", None), ("30", "2024-05-10 12:00:00")], ids=["not passed", "passed"])
def test_a_month_that_was_pulled_under_a_clock_far_ahead_stays_in_the_territory(at, here):
    """Its range may not have been over, even if the server's clock has passed it now."""
    wrong = reading("01", "25", "28 12:00:00", until="2024-05-25 23:59:59", **({} if here is None else {"here": here}))
    found = due([wrong], now(at), timedelta(days=2))
    left = Window.of(
        f"2024-05-{'01 00:00:00' if here is None else '10 12:00:01'}", min("2024-05-25 23:59:59", stamp(now(at)))
    )
    assert not left.without(found.read)


def test_what_could_not_be_proved_is_read_again_whatever_its_age():
    """A window with a flaw is never final."""
    flawed = reading("01", "01", "27", until=OPEN_END, flaws=(Flaw("", "", "why"),))
    sound = reading("02", "19", "27 12:00:00", until=OPEN_END)
    found = due([flawed, sound], now("27"), WEEK)
    assert spans(found.read) == [("20 00:00:00", "27 12:00:00"), ("01 00:00:00", "01 23:59:59")]


def test_without_a_count_a_recent_window_is_read_again():
    """It has no count to compare."""
    found = due([reading("15", "15", "18", counted=None, until=OPEN_END)], now("20"), WEEK)
    assert found.recount == []
    assert spans(found.read) == [("13 00:00:00", "20 12:00:00")]


def test_of_a_window_that_was_replaced_in_part_the_rest_is_read():
    """Its count does not apply to a part; the later reading is counted again."""
    found = due([reading("14", "16", "18"), reading("15", "16", "18")], now("20"), WEEK)
    assert spans([each.window for each in found.recount]) == [("15 00:00:00", "16 23:59:59")]
    assert spans(found.read) == [("17 00:00:00", "20 12:00:00"), ("13 00:00:00", "14 23:59:59")]


def test_a_window_that_reaches_beyond_the_look_back_is_counted_as_a_whole():
    """A count cannot be divided."""
    found = due([reading("10", "15", "18")], now("20"), WEEK)
    assert spans([each.window for each in found.recount]) == [("10 00:00:00", "15 23:59:59")]
    assert (found.since, found.window.first) == ("2024-05-13 00:00:00", "2024-05-10 00:00:00")


def test_a_sync_claims_no_more_than_it_looks_at():
    """A sync claims neither final windows, where a call may have come since, nor anything older."""
    old = [
        reading("01", "01", "01 12:00:00", until=OPEN_END, asked_first="2024-05-01 00:00:00"),
        reading("02", "02", "15"),
        reading("03", "09", "09 12:00:00", until=OPEN_END, asked_first="2024-05-01 00:00:00"),
    ]
    found = due(old, now("20"), WEEK)
    assert found.since == "2024-05-01 00:00:00"
    assert spans([found.window]) == [("03 00:00:00", "20 12:00:00")]
    assert spans(found.read) == [("03 00:00:00", "20 12:00:00"), ("01 00:00:00", "01 23:59:59")]
    assert found.recount == []


def test_a_sync_that_began_five_minutes_ahead_obliges_to_nothing_before_it():
    """Clocks of one server may differ between replies: a range that starts in the future is empty."""
    ahead = reading("20 12:03:00", "20 12:04:00", "20 12:04:00", until=OPEN_END, asked_first="2024-05-20 12:03:00")
    found = due([ahead], now("20"), timedelta(days=2))
    assert spans(found.read) == [("18 00:00:00", "20 12:00:00")]


days = st.integers(1, 27)


@given(
    st.lists(st.tuples(days, st.integers(0, 3), st.integers(0, 6), st.booleans()), max_size=8),
    st.integers(20, 31),
    st.integers(1, 9),
)
def test_every_second_of_the_territory_is_seen_read_or_counted(drawn, at, lookback):
    """Whatever was read before, the next sync leaves no gap behind a reading that was to continue."""
    readings = []
    for first, length, age, goes_on in drawn:
        last, clock = first + length, min(31, first + length + age)
        readings.append(
            reading(f"{first:02}", f"{min(31, last):02}", f"{clock:02} 12:00:00", until=OPEN_END if goes_on else None)
        )
    here = now(f"{at:02}")
    found = due(readings, here, timedelta(days=lookback))
    known = [each for each in readings if each.clock <= stamp(here + timedelta(minutes=5))]
    looked_at = [*found.read, *(each.window for each in found.recount)]
    final = [each.seen for each in known if each.seen is not None and each.age() >= timedelta(days=lookback)]
    for each in known:
        if each.asked_last == OPEN_END and each.asked_first <= stamp(here):
            assert Window(moment(each.asked_first), here).without([*looked_at, *final]) == []


# Which reading counts


def test_of_two_readings_of_one_second_the_later_counts():
    """A reading that was replaced, even in part, no longer counts."""
    first, second, third = reading("01", "05", "20"), reading("03", "03", "20"), reading("06", "06", "20")
    assert current([first, second, third]) == [third, second]
    assert current([second, first]) == [first]


# Facts as texts


def test_a_fact_is_read_as_it_was_written():
    """Account, proof, flaws and undecodable records are kept too."""
    fact = reading(
        "01",
        "02",
        "20",
        flaws=(Flaw("a", "b", "why", lost=True),),
        quarantined=(Unreadable("no", "raw"),),
        kinds={"leaf": 2},
    )
    assert read_fact(msgspec.json.encode(fact)) == fact
    assert fact.lost


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"format": 1}', b"\xff"])
def test_a_fact_of_another_version_is_left_out(text):
    """A fact that cannot be read proves nothing."""
    assert read_fact(text) is None
    newer = msgspec.structs.replace(reading("01", "02", "20"), format=FORMAT + 1)
    assert read_fact(msgspec.json.encode(newer)) is None


def test_a_fact_shows_no_record():
    """An undecodable record may contain a number."""
    assert "98765" not in repr(reading("01", "01", "20", quarantined=(Unreadable("no", "+9198765"),)))


@given(st.lists(st.binary(max_size=20), max_size=8), st.randoms())
def test_the_digest_of_lines_does_not_depend_on_their_order(lines, random):
    """A repeated line counts each time."""
    shuffled = list(lines)
    random.shuffle(shuffled)
    assert digest_of(shuffled) == digest_of(lines)
    assert digest_of([*lines, b"one more"]) != digest_of(lines)
    assert len(digest_of(lines)) == 16
