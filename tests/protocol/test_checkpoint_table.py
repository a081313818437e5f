"""Resuming as arithmetic: what a checkpoint holds, which pages are searched for its call, and which calls are delivered after it."""

from __future__ import annotations

from random import Random

import pytest

from servetel_async.errors import ConfigurationError, ResumeMismatchError
from servetel_async.protocol.after_anchor import AfterAnchor
from servetel_async.protocol.anchor_search import AnchorSearch
from servetel_async.protocol.checkpoint import Checkpoint, Position, Second
from servetel_async.protocol.windows import Window
from tests.protocol.paged_list import Call
from tests.protocol.three_parts import assert_says_what_and_what_to_do

QUERY = "0123456789ab"
NOON = "2024-05-10 12:00:00"
STOOD = Checkpoint(QUERY, "2024-05-31 23:59:59", 41, Second(NOON, ("early", '66339a44|odd "id"\n\u20ac')))


# The text ---------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_survives_its_text():
    """Row 99: the next stream can read what a stream printed, on one line, whatever the id holds."""
    assert Checkpoint.read(str(STOOD), QUERY) == STOOD
    assert str(STOOD).count("\n") == 0
    assert (STOOD.id, STOOD.start) == ('66339a44|odd "id"\n\u20ac', NOON)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        b"servetel-2",
        "",
        "nonsense",
        f"servetel-2|{QUERY}",
        f"servetel-2|{QUERY}|w",
        f'other-2|{QUERY}|w|[1,"",["i"]]',
        f"servetel-2|{QUERY}|w|",
        f"servetel-2|{QUERY}|w|[]",
        f'servetel-2|{QUERY}|w|[0,"",["i"]]',
        f'servetel-2|{QUERY}|w|[-1,"",["i"]]',
        f'servetel-2|{QUERY}|w|[1.5,"",["i"]]',
        f'servetel-2|{QUERY}|w|[\u00b2,"",["i"]]',
        f'servetel-2|{QUERY}|w|[1,"",[]]',
        f'servetel-2|{QUERY}|w|[1,"",[7]]',
        f'servetel-2|{QUERY}|w|[1,"",["i"]',
        f'servetel-2|{QUERY}|w|[1,"noon",["i"]]',
        f'servetel-2|{QUERY}|w|[1,"2024-05-32 12:00:00",["i"]]',
        f'servetel-2|{QUERY}|w|[1,"",["\ud800"]]',
        pytest.param(f'servetel-2|{QUERY}|w|[{5000 * "9"},"",["i"]]', id="5000-digits"),
        pytest.param(f"servetel-2|{QUERY}|w|{100_000 * '['}", id="nested"),
    ],
)
def test_what_is_no_checkpoint_is_refused(text):
    """Row 113: any other value is refused before a request is sent."""
    with pytest.raises(ConfigurationError, match="checkpoint") as raised:
        Checkpoint.read(text, QUERY)
    assert_says_what_and_what_to_do(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "fingerprint"),
    [(str(STOOD), "ba9876543210"), (f"servetel-1|{QUERY}|2024-05-31 23:59:59|100|20|41|x", QUERY)],
    ids=["another-query", "another-version"],
)
def test_a_checkpoint_of_something_else_is_a_mismatch(text, fingerprint):
    """Row 113: resuming from a checkpoint of another query would silently skip calls."""
    with pytest.raises(ResumeMismatchError, match="another query" if fingerprint[0] == "b" else "version") as raised:
        Checkpoint.read(text, fingerprint)
    assert_says_what_and_what_to_do(raised.value, "would skip calls" if fingerprint[0] == "b" else None)


@pytest.mark.parametrize(
    ("window", "start", "belongs"),
    [
        (("2024-05-01 00:00:00", "2024-05-31 23:59:59"), NOON, True),
        (("2024-05-08 00:00:00", "2024-05-14 23:59:59"), NOON, True),
        (("2024-05-25 00:00:00", "2024-05-31 23:59:59"), NOON, False),
        (("2024-05-25 00:00:00", "2024-05-31 23:59:59"), "", True),
        (("2024-05-08 00:00:00", "2024-05-14 23:59:59"), "", False),
    ],
)
def test_a_call_belongs_to_the_window_of_its_start(window, start, belongs):
    """Windows may be cut differently now. Only a call without a readable start belongs to its old window."""
    checkpoint = Checkpoint(QUERY, "2024-05-31 23:59:59", 41, Second(start, ("i",)))
    assert checkpoint.is_in(Window.of(*window)) is belongs


# The calls of the last second -------------------------------------------------------------------------------------------


def at(second, *ids):
    return [Call(each, "2024-05-10", f"12:00:{second:02}") for each in ids]


@pytest.mark.parametrize(
    ("pieces", "start", "ids"),
    [
        ([at(9, "a"), at(8, "b")], "12:00:08", ("b",)),
        ([at(9, "a") + at(8, "b", "c")], "12:00:08", ("b", "c")),
        ([at(9, "a", "b"), at(9, "c")], "12:00:09", ("a", "b", "c")),
        ([at(9, "a", "b"), at(9, "c") + at(8, "d") + at(9, "e")], "12:00:09", ("e",)),
        ([at(9, "a"), at(9, "b"), at(9, "c"), at(8, "d")], "12:00:08", ("d",)),
    ],
)
def test_the_calls_of_the_last_second_are_kept(pieces, start, ids):
    """The checkpoint keeps the delivered calls of the last second, also across pages."""
    second = Second()
    for piece in pieces:
        second = second.then(piece)
    assert second == Second(f"2024-05-10 {start}", ids)


@pytest.mark.parametrize("odd", [("", "12:00:09"), (None, None), ("2024-05-10", "noon")])
def test_calls_without_a_readable_start_have_no_second_in_common(odd):
    """They need not be neighbours in the list."""
    second = Second().then([Call("a", *odd), Call("b", *odd)]).then([Call("c", *odd)])
    assert second == Second("", ("c",))


def test_the_place_of_each_call_is_its_own():
    """A checkpoint inside a piece names the calls up to it, and none after it."""
    records = at(9, "a", "b", "c") + at(8, "d")
    window = Window.of("2024-05-01 00:00:00", "2024-05-31 23:59:59")
    place = Position(window, 100, records, records[1:], Second("2024-05-10 12:00:09", ("z",)))
    expected = [(102, ("z", "b")), (103, ("z", "b", "c")), (104, ("d",))]
    for record, (rank, ids) in zip(records[1:], expected, strict=True):
        checkpoint = place.checkpoint(record, QUERY)
        assert (checkpoint.rank, checkpoint.second.ids, checkpoint.window) == (rank, ids, window.last)
        assert place.at(record).checkpoint(record, QUERY) == checkpoint


# The search -------------------------------------------------------------------------------------------------------------


def looked_at(pages, anchor, rank, *, size=10, counted=True, blind=False):
    """The pages that are read until the anchor is found or given up; a page is a list of starts, newest first."""
    search = AnchorSearch(rank, "" if blind else f"{anchor:05}")
    asked = []
    while (number := search.next_page(size, len(pages) if counted else None)) is not None:
        asked.append(number)
        assert len(asked) <= len(pages) + 2 * rank
        starts = pages[number - 1] if number <= len(pages) else []
        if anchor in starts:
            return asked
        if starts:
            search.looked(number, f"{starts[0]:05}", f"{starts[-1]:05}")
        else:
            search.ended(number)
    return [*asked, None]


def sorted_pages(number, size=10):
    """Pages of calls that start one second apart."""
    starts = list(range(number * size, 0, -1))
    return [starts[first : first + size] for first in range(0, len(starts), size)]


@pytest.mark.parametrize(
    ("rank", "now", "asked"),
    [
        (1, 1, [1]),
        (55, 6, [1, 6]),
        (55, 7, [1, 6, 7]),
        (55, 5, [1, 6, 5]),
        (55, 1, [1]),
        (55, 9, [1, 6, 7, 9]),
        (155, 16, [1, 16]),
        (55, 40, [1, 6, 7, 9, 13, 21, 37, 69, 53, 45, 41, 39, 40]),
        (990, 99, [1, 99]),
        (990, 100, [1, 99, 100]),
        (5000, 3, [1, 100, 99, 97, 93, 85, 69, 37, 19, 10, 5, 3]),
    ],
)
def test_the_search_steps_to_the_side_that_the_starts_say(rank, now, asked):
    """The search reads the old page, steps 1, 2, 4 pages away, then halves the rest: a few pages in all."""
    pages = sorted_pages(100)
    anchor = pages[now - 1][4]
    assert looked_at(pages, anchor, rank) == asked


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "uncounted"])
@pytest.mark.parametrize("blind", [True, False], ids=["no-start", "start"])
@pytest.mark.parametrize("shuffled", [True, False], ids=["unsorted", "sorted"])
def test_a_call_is_gone_only_after_all_pages_were_looked_at(counted, blind, shuffled):
    """The search finds the call anywhere, in any order; it gives up only after every page and the end."""
    dice = Random(7)
    for length in (1, 2, 5, 30):
        pages = sorted_pages(length)
        if shuffled:
            starts = [start for page in pages for start in page]
            dice.shuffle(starts)
            pages = [starts[first : first + 10] for first in range(0, len(starts), 10)]
        for rank in (1, 10 * length, 20 * length + 30):
            for page in pages:
                asked = looked_at(pages, page[3], rank, counted=counted, blind=blind)
                assert pages[asked[-1] - 1] is page
                assert len(set(asked)) == len(asked)
            *asked, gone = looked_at(pages, 77777, rank, counted=counted, blind=blind)
            assert gone is None
            assert set(range(1, length + 2)) <= set(asked)


def test_a_count_that_is_too_low_does_not_end_the_search():
    """Only an empty page shows where the list ends."""
    pages = sorted_pages(8)
    search = AnchorSearch(75, "00005")
    asked = []
    while (number := search.next_page(10, 2)) is not None and number < len(pages):
        asked.append(number)
        search.looked(number, f"{pages[number - 1][0]:05}", f"{pages[number - 1][-1]:05}")
    assert number == 8


def test_a_page_that_is_empty_by_fault_says_nothing():
    """Such a page is not the end of the list, and does not show on which side the call is."""
    search = AnchorSearch(25, "00070")
    assert search.next_page(10, 5) == 1
    search.looked(1, "00100", "00091")
    assert search.next_page(10, 5) == 3
    search.looked(3, "", "")
    assert search.next_page(10, 5) == 4
    search.looked(4, "00065", "00060")
    assert search.next_page(10, 5) == 2


# Behind the call --------------------------------------------------------------------------------------------------------


def picks(checkpoint, *passes):
    """What is delivered of each page of each pass; each call is new when it first comes."""
    after, seen, got = AfterAnchor(checkpoint), set(), []
    for pages in passes:
        after.begin_pass()
        for page in pages:
            fresh = [call for call in page if call not in seen]
            seen.update(page)
            got.append([call.id for call in after.pick(page, fresh)])
    return got


ANCHOR = Checkpoint(QUERY, "w", 3, Second("2024-05-10 12:00:05", ("tie", "me")))


@pytest.mark.parametrize(
    ("passes", "got"),
    [
        ([[at(9, "a") + at(5, "tie", "me") + at(4, "b")]], [["b"]]),
        ([[at(9, "a"), at(5, "tie", "me"), at(4, "b"), at(3, "c")]], [[], [], ["b"], ["c"]]),
        ([[at(9, "me") + at(5, "me") + at(4, "me")]], [["me"]]),
        ([[at(5, "new", "me", "tie") + at(4, "b")]], [["new", "b"]]),
        ([[at(9, "a") + at(5, "new"), at(5, "tie"), at(5, "me", "late")]], [[], [], ["new", "late"]]),
        ([[at(5, "me"), at(5, "tie", "late") + at(4, "tie")]], [[], ["late", "tie"]]),
        ([[at(5, "far") + at(6, "a") + at(5, "me")]], [[]]),
    ],
    ids=["same", "pages", "twins", "tie moved behind", "tie moved in front", "known tie behind", "not adjacent"],
)
def test_what_is_behind_the_call_is_handed_out(passes, got):
    """Calls in front are skipped. Its neighbours of the same second are delivered unless the checkpoint names them."""
    assert picks(ANCHOR, *passes) == got


def test_another_pass_hands_out_what_the_first_one_missed():
    """Another pass delivers a call that a moving list hid. It repeats no delivered call, and skips the calls in front."""
    first = [at(6, "x") + at(5, "me") + at(4, "b")]
    second = [at(9, "new", "a"), at(6, "x") + at(5, "me") + at(4, "hidden", "b")]
    assert picks(ANCHOR, first, second) == [["b"], [], ["hidden"]]


def test_the_page_of_the_call_that_comes_again_hands_out_nothing():
    """New calls came in front while the page was read, and pushed its calls to the next page."""
    page = at(6, "x") + at(5, "me") + at(4, "b")
    assert picks(ANCHOR, [page, page, at(3, "c")]) == [["b"], [], ["c"]]


def test_a_pass_that_does_not_meet_the_call_keeps_what_it_saw():
    """Such a pass cannot know which calls are behind the call; the next pass delivers them."""
    missing = [at(9, "a") + at(4, "b", "c")]
    whole = [at(9, "a") + at(5, "tie", "me") + at(4, "b", "c")]
    assert picks(ANCHOR, missing, whole) == [[], ["b", "c"]]
    assert picks(ANCHOR, missing, missing, whole, whole) == [[], [], ["b", "c"], []]


def test_a_call_without_a_readable_start_is_found_by_its_id():
    """Calls in front of it that also lack a readable start do not count as calls of its second."""
    checkpoint = Checkpoint(QUERY, "w", 3, Second("", ("me",)))
    odd = [Call("a", "", ""), Call("me", "", ""), Call("b", "", "")]
    assert picks(checkpoint, [odd]) == [["b"]]
