"""The flags that name a range, and the query that is made from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from servetel_async import CallQuery
from servetel_async.cli.options.durations import Duration
from servetel_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo


#: A year outside these is a typing error: the API did not exist before ``FIRST_YEAR``.
FIRST_YEAR, LAST_YEAR = 2000, 2099


class Range(NamedTuple):
    """A query, and the user's name of its range if its dates differ each time, so that it can be resumed.

    Attributes:
        query: the query; without an end if the range ends now, because the pull closes it at the server's clock.
        name: the name of the range; None if the dates identify it.
    """

    query: CallQuery
    name: str | None


_FLAGS = (
    click.option("--month", metavar="YYYY-MM", help="A month of the account's calendar."),
    click.option(
        "--from-date", metavar="D", help="First moment: YYYY-MM-DD or 'YYYY-MM-DD HH:MM:SS', the account's clock."
    ),
    click.option("--to-date", metavar="D", help="Last moment, inclusive; by default now."),
    click.option("--yesterday", is_flag=True, help="Yesterday, on the account's calendar."),
    click.option("--last", metavar="7d", type=Duration("dh"), help="The time just passed, in days or hours: 7d, 12h."),
)


def range_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the range flags to a command."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def _checked(query: CallQuery, begin: str, end: str) -> CallQuery:
    """Refuse a year in which no account has calls: such a typing error would cost a request for each month."""
    window = query.window()  # a year is the same in each zone
    for flag, moment in ((begin, window.start), (end, window.end)):
        if moment is not None and not FIRST_YEAR <= moment.year <= LAST_YEAR:
            raise ConfigurationError(
                f"{flag} is in the year {moment.year}",
                why=f"no account has calls before {FIRST_YEAR} or after {LAST_YEAR}",
                fix=f"correct it, for example {flag} {'2024-05' if flag == '--month' else '2024-05-01'}",
            )
    return query


def take_range(options: dict[str, Any], filters: dict[str, Any], zone: tzinfo) -> Range:
    """Take the range out of a command's options, and make the query. Days are those of the account's zone.

    Raises:
        ConfigurationError: if there is no range or several, or a value cannot be read.
    """
    names = ("month", "from_date", "to_date", "yesterday", "last")
    month, begin, end, yesterday, last = (options.pop(name) for name in names)
    ways = [bool(month), bool(begin or end), yesterday, last is not None]
    if sum(ways) != 1:
        raise ConfigurationError(
            "the command does not say which calls" if not any(ways) else "the command names several ranges",
            why="the whole history is never asked for by accident",
            fix="give one of --month, --from-date (with --to-date), --yesterday and --last",
        )
    if month:
        return Range(_checked(CallQuery.month(month, **filters), "--month", "--month"), None)
    if yesterday:
        return Range(CallQuery.day(datetime.now(zone).date() - timedelta(days=1), **filters), None)
    if last is not None:
        hours = int(last.total_seconds()) // 3600
        return Range(CallQuery(from_date=datetime.now(UTC) - last, **filters), f"last {hours}h")
    if not begin:
        raise ConfigurationError(
            "--to-date needs --from-date",
            why="the whole history is never asked for by accident",
            fix="say from when on: --from-date 2024-05-01",
        )
    query = _checked(CallQuery(from_date=begin, to_date=end, **filters), "--from-date", "--to-date")
    return Range(query, None if end else f"from {query.window(zone).first}")
