"""Ledgers of years: the time to plan 20,000 readings does not grow with their square."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from servetel_async.bulk.ledger import current, due, joined
from servetel_async.bulk.shelf import Kept, Shelf
from servetel_async.bulk.windows.covered import Covered
from servetel_async.protocol.clock import EARLIEST, LATEST, stamp
from servetel_async.protocol.windows import Window
from servetel_async.sinks.sink import Seal, Span, Stored
from tests.bulk import facts

BEGIN = datetime(2023, 1, 1)  # noqa: DTZ001 - a wall clock
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
ACCOUNT = facts.ACCOUNT.label


class Rows:
    """The ledger of a database, without the database."""

    def __init__(self, readings, rows=3):
        self._stored = [
            Stored(number, ACCOUNT, reading.scope, "p", Span(reading.first, reading.last), b"", Seal(rows, ""))
            for number, reading in enumerate(readings, 1)
        ]
        self.shelf = Shelf(self)
        self.shelf.facts = [Kept(*pair) for pair in zip(self._stored, readings, strict=True)]

    def ledger(self):
        return self._stored


def every_other_hour(number):
    """Readings with a gap after each, as a cron job of --last 1h leaves them if it runs every two hours."""
    for hour in range(number):
        first = BEGIN + 2 * hour * HOUR
        last = first + HOUR - SECOND
        yield facts.reading(stamp(first), stamp(last), stamp(last), until="~")


def quickly(do):
    """Run it in far less time than the square of 20,000 needs, even on a slow machine."""
    begun = time.perf_counter()
    found = do()
    assert time.perf_counter() - begun < 20
    return found


def test_twenty_thousand_readings_with_gaps_are_planned_counted_and_compared_at_once():
    """It took over a quarter of an hour when each reading was compared with all later ones."""
    readings = list(every_other_hour(20_000))
    shelf = Rows(readings).shelf
    now = BEGIN + 40_000 * HOUR
    assert len(quickly(lambda: current(readings))) == 20_000
    assert len(quickly(lambda: shelf.compared())) == 20_000
    assert quickly(lambda: [shelf.missing(ACCOUNT, reading) for reading in readings]) == [0] * 20_000
    plan = quickly(lambda: due(readings, now, timedelta(days=7)))
    assert plan.window.first == stamp(BEGIN)
    assert plan.read == [Window(BEGIN, now)]


moments = st.integers(0, 40).map(lambda second: BEGIN + second * SECOND) | st.sampled_from([EARLIEST, LATEST])
windows = st.tuples(moments, moments).map(lambda pair: Window(min(pair), max(pair)))


@given(taken=st.lists(windows, max_size=8), window=windows)
def test_what_is_covered_is_what_the_windows_cover(taken, window):
    """Windows may come in any order, overlap, touch or leave gaps, and reach both ends of the calendar."""
    covered = Covered()
    for each in taken:
        covered.add(each)
    left = window.without(joined(taken))
    assert covered.left(window) == left
    assert covered.inside(window) == window.without(left)


def test_a_window_that_bridges_a_gap_joins_both_sides_to_their_outer_ends():
    """It ends inside the newer side, whose end stays covered."""
    of = lambda first, last: Window(BEGIN + first * SECOND, BEGIN + last * SECOND)  # noqa: E731
    covered = Covered()
    for each in (of(10, 20), of(30, 40), of(15, 35)):
        covered.add(each)
    assert covered.left(of(0, 50)) == [of(41, 50), of(0, 9)]


stamps = st.integers(0, 9).map(lambda second: stamp(BEGIN + second * SECOND))
spans = st.tuples(stamps, stamps).map(sorted)


@given(kept=st.lists(spans, max_size=8), asked=spans, rows=st.integers(0, 2), records=st.integers(0, 20))
def test_rows_are_missing_if_all_readings_that_overlap_a_window_have_fewer(kept, asked, rows, records):
    """Readings of other seconds do not count."""
    shelf = Rows([facts.reading(first, last) for first, last in kept], rows).shelf
    there = sum(rows for first, last in kept if first <= asked[1] and asked[0] <= last)
    reading = facts.reading(*asked, records=records)
    assert shelf.missing(ACCOUNT, reading) == max(0, records - there)
    assert shelf.missing("another", reading) == records
