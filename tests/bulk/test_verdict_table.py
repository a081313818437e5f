"""The verdict as a table: what readings prove, and which flaws they have."""

from __future__ import annotations

import pytest

from servetel_async.bulk.ledger import Unreadable
from servetel_async.bulk.verdict import Evidence, counted_in, judge
from servetel_async.bulk.windows.certified import Flaw
from tests.bulk import facts


def reading(hour=0, **changes):
    return facts.reading(f"2024-05-06 {hour:02}:00:00", f"2024-05-06 {hour:02}:59:59", **changes)


def flawed(hour, why="the count moved", *, lost=False):
    first, last = f"2024-05-06 {hour:02}:00:00", f"2024-05-06 {hour:02}:00:59"
    return reading(hour, flaws=(Flaw(first, last, why, lost=lost),))


def judged(*readings, **changes):
    newest_first = sorted(readings, key=lambda each: each.last, reverse=True)
    return judge(Evidence(newest_first, **changes))


@pytest.mark.parametrize(
    ("readings", "proof"),
    [
        ([], "0 windows certified"),
        ([reading(1)], "1 window certified"),
        ([reading(1), reading(2)], "2 windows certified"),
        (
            [reading(1, kinds={"repaired": 2}), reading(2, kinds={"leaf": 5, "repaired": 1})],
            "2 windows certified, 3 with page edges read again",
        ),
        ([reading(1, counted=None, kinds={"walked": 1})], "the pages were read to an empty one"),
    ],
)
def test_how_completeness_is_known(readings, proof):
    """One sentence says it."""
    assert judged(*readings) == ("complete", proof)
    assert judged(*readings).is_complete


@pytest.mark.parametrize(
    ("readings", "more", "reason", "text"),
    [
        (
            [flawed(1, lost=True), flawed(2)],
            {},
            "lost",
            "pages of 2024-05-06 01:00:00 to 2024-05-06 01:59:59 did not come",
        ),
        (
            [flawed(1), flawed(2, "no count")],
            {},
            "unproved",
            (
                "2024-05-06 02:00:00 to 2024-05-06 02:59:59, 2024-05-06 01:00:00 to 2024-05-06 01:59:59 could not be "
                "proved; the first of it, 2024-05-06 02:00:00 to 2024-05-06 02:00:59: no count"
            ),
        ),
        (
            [reading(1)],
            {"moved": [reading(1)]},
            "moved",
            "2024-05-06 01:00:00 to 2024-05-06 01:59:59 did not stop changing while it was read",
        ),
        (
            [reading(1)],
            {"moved": [reading(1)], "is_closed": True},
            "moved",
            "2024-05-06 01:00:00 to 2024-05-06 01:59:59 changed after the output was written; pull it again",
        ),
        (
            [reading(1)],
            {"confirmed": False},
            "conventions",
            "how the API reads dates could not be established, so calls at the edges of windows may be missing",
        ),
        (
            [reading(1)],
            {"before_start": 1234},
            "before_start",
            "the API counts 1,234 calls before the oldest one that it gave",
        ),
        (
            [reading(1, reused_ids=2)],
            {"keyed_by_id": True},
            "reused_ids",
            "the API gave 2 calls an id that another call has, and the table keeps one of each",
        ),
        (
            [reading(1, reused_ids=1)],
            {"keyed_by_id": True, "overwritten": 3},
            "reused_ids",
            "the API gave 3 calls an id that another call has, and the table keeps one of each",
        ),
        (
            [reading(1, quarantined=(Unreadable("a", "b"),) * 2)],
            {},
            "quarantined",
            "2 records cannot be read; they are kept apart, as they were sent",
        ),
        (
            [reading(1, quarantined=(Unreadable("a", "b"),))],
            {},
            "quarantined",
            "1 record cannot be read; it is kept apart, as it was sent",
        ),
    ],
)
def test_flaws(readings, more, reason, text):
    """The most serious flaw decides."""
    assert judged(*readings, **more) == (reason, text)
    assert not judged(*readings, **more).is_complete


@pytest.mark.parametrize("more", ["moved", "conventions", "before_start", "reused_ids", "quarantined"])
def test_the_gravest_flaw_decides(more):
    """Missing calls come before unproved windows, and those before quarantined records."""
    order = {
        "moved": {"moved": [reading(3)]},
        "conventions": {"confirmed": False},
        "before_start": {"before_start": 1},
        "reused_ids": {"overwritten": 1},
        "quarantined": {},
    }
    names = list(order)
    bad = reading(4, quarantined=(Unreadable("a", "b"),))
    given = {}
    for name in names[names.index(more) :]:
        given |= order[name]
    assert judged(bad, **given).reason == more
    assert judged(bad, flawed(1), **given).reason == "unproved"
    assert judged(bad, flawed(1), flawed(2, lost=True), **given).reason == "lost"


def test_equal_ids_in_a_file_are_no_flaw():
    """A file keeps both calls."""
    assert judged(reading(1, reused_ids=2)).is_complete


def test_many_windows_are_not_all_named():
    """Three are named, and the number of the others."""
    text = judged(*(flawed(hour) for hour in range(5))).text
    assert "2024-05-06 04:00:00" in text
    assert "2024-05-06 02:00:00" in text
    assert "2024-05-06 01:00:00" not in text
    assert " and 2 more could not be proved" in text
    assert " more " not in judged(*(flawed(hour) for hour in range(3))).text


def test_without_a_count_of_one_window_there_is_none():
    """A sum of only some counts would be wrong."""
    assert counted_in([reading(1), reading(2)]) == 6
    assert counted_in([reading(1), reading(2, counted=None)]) is None
    assert counted_in([]) == 0
