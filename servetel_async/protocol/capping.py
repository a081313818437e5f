"""Capped counts: some servers never count beyond a limit, and send empty pages beyond it.

Such a count looks like an exact one, and the list looks complete at the limit. Two signs show a limit: it is a
round number, and a narrower range holds calls that were not seen. So a round count never proves an end. The rest of the
range, up to the oldest call that was seen, is requested too.

A server that sends no count may have a limit too: then the number of received calls is round.

Other servers count all calls and refuse the pages beyond such a limit. The rest is requested in the same way.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from servetel_async.errors import CountDriftError
from servetel_async.protocol.clock import is_wall_stamp
from servetel_async.protocol.windows import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

_THOUSAND = 1_000

#: The starts of the first and the last call of a page.
Ends = tuple[str, str]


def may_be_capped(count: int | None) -> bool:
    """Whether a count may be a server's limit: whole thousands, a power of two, or one less than either."""
    if count is None or count < _THOUSAND - 1:
        return False
    return any(number % _THOUSAND == 0 or number & (number - 1) == 0 for number in (count, count + 1))


def remainder(window: Window, pages: Mapping[int, Ends]) -> list[Window]:
    """Return the ranges that may hold calls beyond a capped count.

    Args:
        window: the range whose count may be capped.
        pages: the pages that were seen, by number.

    Returns:
        If the list is newest first, the range up to the oldest call that was seen. Otherwise both halves.

    Raises:
        CountDriftError: if the range cannot be made narrower: all of its calls started in one second, or it is open
            and its calls have no order or no dates.
    """
    ends = [end for _, page in sorted(pages.items()) for end in page]
    if ends and all(map(is_wall_stamp, ends)) and all(newer >= older for newer, older in pairwise(ends)):
        if ends[0] > ends[-1]:
            return [Window(window.start, Window.of(ends[-1], ends[-1]).end)]
    elif window.seconds > 1:
        return window.cut(2)
    raise cannot_narrow(window)


def crosses_limit(number: int, size: int) -> bool:
    """Whether a page reaches a round number of calls, so that a server may refuse it only for its depth."""
    before = (number - 1) * size
    return before > 0 and -(-before // _THOUSAND) * _THOUSAND <= number * size


def cannot_narrow(window: Window) -> CountDriftError:
    """Make the error for a range whose count may be capped and cannot be proved."""
    error = CountDriftError(
        f"calls may be missing from {window}: the API may not count further",
        why="the count is a round number, and the range cannot be made narrower to prove it",
        fix="ask for the range again with a filter, or ask the provider for the limit of a query",
    )
    error.retryable = False  # the same call would end in the same way
    return error
