"""Which counts may be a limit of the server, and which ranges prove them."""

import pytest

from servetel_async import CountDriftError
from servetel_async.protocol.capping import crosses_limit, may_be_capped, remainder
from servetel_async.protocol.windows import Window

DAY = Window.of("2024-05-06 00:00:00", "2024-05-06 23:59:59")
OPEN = Window(None, None)


def at(*seconds):
    """The pages of a list, each with the starts of its first and last call."""
    pages = [page.split() for page in seconds]
    return {number: tuple(f"2024-05-06 {end}" for end in page) for number, page in enumerate(pages, 1)}


@pytest.mark.parametrize(
    ("count", "capped"),
    [
        (None, False),
        (0, False),
        (1, False),
        (500, False),
        (512, False),
        (998, False),
        (999, True),
        (1_000, True),
        (1_001, False),
        (1_023, True),
        (1_024, True),
        (1_025, False),
        (2_000, True),
        (9_999, True),
        (10_000, True),
        (10_001, False),
        (12_500, False),
        (32_767, True),
        (65_535, True),
        (65_536, True),
        (100_000, True),
    ],
)
def test_a_round_count_may_be_a_limit(count, capped):
    """Limits are whole thousands, powers of two, or one less than either."""
    assert may_be_capped(count) is capped


@pytest.mark.parametrize(
    ("window", "pages", "ranges"),
    [
        (DAY, at("20:00:00 19:00:00", "19:00:00 18:00:00"), ["2024-05-06 00:00:00 to 2024-05-06 18:00:00"]),
        (OPEN, at("20:00:00 19:00:00"), ["the beginning to 2024-05-06 19:00:00"]),
        (
            DAY,
            at("18:00:00 19:00:00"),
            ["2024-05-06 12:00:00 to 2024-05-06 23:59:59", "2024-05-06 00:00:00 to 2024-05-06 11:59:59"],
        ),
        (
            DAY,
            {1: ("None None", "None None")},
            ["2024-05-06 12:00:00 to 2024-05-06 23:59:59", "2024-05-06 00:00:00 to 2024-05-06 11:59:59"],
        ),
        (DAY, {}, ["2024-05-06 12:00:00 to 2024-05-06 23:59:59", "2024-05-06 00:00:00 to 2024-05-06 11:59:59"]),
    ],
)
def test_a_narrower_range_proves_a_count(window, pages, ranges):
    """Newest first: the range up to the oldest call, with its second. In any other order: both halves."""
    assert [str(part) for part in remainder(window, pages)] == ranges


@pytest.mark.parametrize(
    ("window", "pages"),
    [
        (DAY, at("18:00:00 18:00:00", "18:00:00 18:00:00")),
        (Window(DAY.start, DAY.start), {1: ("None None", "None None")}),
        (OPEN, at("18:00:00 19:00:00")),
        (OPEN, {}),
    ],
)
def test_a_range_that_cannot_be_narrower_is_an_error(window, pages):
    """All calls in one second, or an open range without an order: the error says that calls may be missing."""
    with pytest.raises(CountDriftError, match="may be missing") as failure:
        remainder(window, pages)
    assert not failure.value.retryable


@pytest.mark.parametrize(
    ("number", "size", "crosses"),
    [
        (1, 10_000, False),
        (2, 100, False),
        (9, 100, False),
        (10, 100, True),
        (11, 100, True),
        (12, 100, False),
        (101, 100, True),
        (102, 100, False),
        (34, 300, True),
        (35, 300, False),
        (2, 1_000, True),
        (13, 50, False),
        (2, 0, False),
    ],
)
def test_a_page_that_crosses_a_limit(number, size, crosses):
    """A later page crosses a limit if it begins at, contains or ends with a multiple of 1,000 calls."""
    assert crosses_limit(number, size) is crosses
