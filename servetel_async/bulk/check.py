"""Check a destination: compare its content with what was written, and count again. ``check_report`` has the rules."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from servetel_async.aio.tasks import run_together
from servetel_async.bulk.check_report import CheckReport, Difference, Recount
from servetel_async.bulk.fetching.cost import Cost
from servetel_async.bulk.fetching.fetcher import Fetcher
from servetel_async.bulk.journal import scope_of
from servetel_async.bulk.ledger import current, cut, gaps
from servetel_async.bulk.receipt import PullReceipt, plural, read_receipt
from servetel_async.bulk.shelf import Shelf
from servetel_async.bulk.windows.date_bounds import DateBoundsProbe
from servetel_async.errors import ConfigurationError, ResumeMismatchError
from servetel_async.protocol.account import resolve
from servetel_async.protocol.query import CallQuery
from servetel_async.protocol.tokens import as_secret
from servetel_async.protocol.windows import Window
from servetel_async.sinks.databases.journal_table import TABLE
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.files.atomic import digest_of, digests_in
from servetel_async.sinks.files.opened import open_to_read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servetel_async.bulk.ledger import Reading
    from servetel_async.client import ServetelClient
    from servetel_async.protocol.account import Account
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Database, Seal, Sink


#: Largest receipt in bytes; the receipt of a hundred thousand windows has some 30 MB.
_LARGEST_RECEIPT = 64 * 1024 * 1024


class _Claimed(NamedTuple):
    """A window that the destination claims to hold."""

    first: str
    last: str
    counted: int | None
    conventions: str
    left: Sequence[Window]


class _Found(NamedTuple):
    """The result of looking at a destination."""

    claimed: list[_Claimed]
    differences: list[Difference]
    looked_at: list[str]
    not_looked_at: list[str]


async def check(client: ServetelClient, destination: Destination, query: CallQuery | None = None) -> CheckReport:
    """Compare the content of a destination with what was written, and ask for the count of each window again.

    Args:
        client: the client; it is not closed.
        destination: the destination of the pull.
        query: the filters of the pull, if it had any; neither a receipt nor a ledger keeps their values.

    Raises:
        ConfigurationError: if the destination holds no pull, or none of this account and these filters.
        ResumeMismatchError: if a file holds the calls of another account.
        OutputError: if the destination cannot be read.
        ServetelError: if the requests fail.
    """
    destination = as_secret(destination)  # an address may hold a password
    asked = query if query is not None else CallQuery()
    sink = sink_for(destination)
    scope = scope_of(asked, client.zone)
    if sink.keyed_by_id:
        shelf, content = await asyncio.to_thread(_look_at_rows, sink)
        if not shelf.facts:
            raise _no_receipt(sink)
        account = resolve(shelf.accounts, await client.identify())
        found = _claims_of(shelf, _compare_rows(shelf, content), account, scope)
        if not found.claimed:
            raise _other_pulls(sink, shelf, account)
    else:
        receipt = await asyncio.to_thread(_receipt, sink)
        _check_receipt(receipt, await client.identify(), scope, sink)
        found = await asyncio.to_thread(_look_at_files, sink, receipt)
    windows = await _recount(client, asked, found.claimed)
    return CheckReport(windows, tuple(found.differences), tuple(found.looked_at), tuple(found.not_looked_at))


def _look_at_rows(sink: Sink) -> tuple[Shelf, dict[int, Seal]]:
    """Read the ledger, and compute its seals again."""
    shelf = Shelf(sink)
    content: dict[int, Seal] = {}
    database = cast("Database", sink)
    try:
        if database.look():
            shelf.load()
            shelf.find_astray()
            content = shelf.content()
    finally:
        database.abandon()
    return shelf, content


def _compare_rows(shelf: Shelf, content: Mapping[int, Seal]) -> _Found:
    """Compare the rows of each reading with its seal."""
    differences: list[Difference] = []
    not_looked_at: list[str] = []
    compared = shelf.compared()
    for fact in compared:
        now = content[fact.stored.reading]
        what = f"{fact.reading.first} to {fact.reading.last}"
        if now.rows != fact.stored.seal.rows:
            differences.append(
                Difference(what, f"{now.rows:,} of its {plural(fact.stored.seal.rows, 'row')} are there")
            )
        elif now.digest != fact.stored.seal.digest:
            differences.append(Difference(what, "its rows are not as they were written"))
    if (foreign := content.get(0)) is not None:
        differences.append(
            Difference(TABLE, f"{plural(foreign.rows, 'row')} of no reading: another program wrote them")
        )
    rows = sum(fact.stored.seal.rows for fact in compared)
    looked_at = [f"{rows:,} rows of {plural(len(compared), 'reading')} compared with their digests"]
    numbers = {fact.stored.reading for fact in compared}
    covered = [content[fact.stored.reading].rows for fact in shelf.facts if fact.stored.reading not in numbers]
    if sum(covered):
        not_looked_at.append(f"{plural(sum(covered), 'row')} that a later reading of the window did not bring again")
    if shelf.unreadable:
        readings = plural(len(shelf.unreadable), "reading")
        not_looked_at.append(f"rows and counts of {readings} that this version cannot read: sync, or pull")
    return _Found([], differences, looked_at, not_looked_at)


def _claims_of(shelf: Shelf, found: _Found, account: Account, scope: str) -> _Found:
    """Add the windows of a database that can be counted again with this account and these filters."""
    mine = [fact for fact in shelf.facts if fact.stored.account == account.label]
    readings = [fact.reading for fact in mine if fact.reading.scope == scope]
    differences, not_looked_at = list(found.differences), list(found.not_looked_at)
    others = len({fact.stored.account for fact in shelf.facts} - {account.label})
    if others:
        token = "its token" if others == 1 else "their tokens"
        not_looked_at.append(f"counts of {plural(others, 'other account')}: check with {token}")
    filtered = len({fact.reading.scope for fact in mine} - {scope})
    if filtered:
        not_looked_at.append(f"counts of {plural(filtered, 'pull')} with other filters: give the same filters")
    if left := gaps(readings):
        more = f", and {plural(len(left) - 1, 'other part')}" if len(left) > 1 else ""
        not_looked_at.append(f"{left[0]}{more}: a run was to read it, and was interrupted or is at work")
    now = current(readings)
    claimed = [_claimed(reading) for reading in now]
    rests = cut(readings)
    rows_left = shelf.rows_left(account.label, scope, rests)
    claimed += [
        _claimed(rest.reading)._replace(counted=rows, left=rest.left)
        for rest, rows in zip(rests, rows_left, strict=True)
        if rows is not None
    ]
    if unknown := rows_left.count(None):
        not_looked_at.append(f"counts of {plural(unknown, 'window')} of which a later run read a part: sync, or pull")
    for reading in now:
        what = f"{reading.first} to {reading.last}"
        if reading.flaws:
            differences.append(Difference(what, f"it was not proved when it was read: {reading.flaws[0].why}"))
        if reading.quarantined:
            differences.append(Difference(what, f"{plural(len(reading.quarantined), 'record')} of it cannot be read"))
        if missing := shelf.missing(account.label, reading):
            how = f"{plural(missing, 'row')} went to calls of the same id in other windows"
            differences.append(Difference(what, how))
    return found._replace(claimed=claimed, differences=differences, not_looked_at=not_looked_at)


def _claimed(reading: Reading) -> _Claimed:
    return _Claimed(reading.first, reading.last, reading.counted, reading.conventions, [reading.window])


def _look_at_files(sink: Sink, receipt: PullReceipt) -> _Found:
    """Compare the bytes of a file, or of each file of a directory, with the receipt."""
    claimed = [
        _Claimed(each.first, each.last, each.counted, each.conventions, [Window.of(each.first, each.last)])
        for each in receipt.windows
    ]
    place = sink.place
    assert place is not None  # noqa: S101 - for the type checker: its receipt was read beside it
    differences: list[Difference] = []
    if not receipt.complete:
        differences.append(Difference(sink.name, f"it was not complete when it was written: {receipt.certified}"))
    if receipt.files and place.is_dir():
        now = {name: digest.sha256 for name, digest in digests_in(place).items()}
        for name in sorted({*now, *receipt.files}):
            if now.get(name) != receipt.files.get(name):
                how = "it is missing" if name not in now else "it is not as it was written"
                how = "it was not written by the pull" if name not in receipt.files else how
                differences.append(Difference(name, how))
        return _Found(claimed, differences, [f"{plural(len(receipt.files), 'file')} compared with their digests"], [])
    if not place.is_file():
        differences.append(Difference(sink.name, "it is missing"))
    elif digest_of(place).sha256 != receipt.sha256:
        differences.append(Difference(sink.name, "it is not the file that the receipt describes"))
    return _Found(claimed, differences, ["the file compared with its digest"], [])


async def _recount(client: ServetelClient, asked: CallQuery, claimed: Sequence[_Claimed]) -> tuple[Recount, ...]:
    fetcher = Fetcher(
        client,
        asked,
        page_size=client.page_size,
        concurrency=client.max_concurrency,
        patience=client.retry.longest_wait,
    )
    cost = Cost()
    if claimed:  # count with the conventions that this server has
        whole = Window.of(min(each.first for each in claimed), max(each.last for each in claimed))
        await DateBoundsProbe(fetcher).ensure(whole, cost)
    counts = await run_together([_count(fetcher, each.left, cost) for each in claimed])
    return tuple(
        Recount(each.first, each.last, each.counted, count, rest=each.left != [Window.of(each.first, each.last)])
        for each, count in zip(claimed, counts, strict=True)
    )


async def _count(fetcher: Fetcher, parts: Sequence[Window], cost: Cost) -> int | None:
    """Return the API's count of some windows; None if one of them has no count."""
    counts = await run_together([fetcher.count(part, cost) for part in parts])
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _check_receipt(receipt: PullReceipt, identity: Account, scope: str, sink: Sink) -> None:
    if receipt.scope != scope:
        raise ConfigurationError(
            f"the receipt of {sink.name} is of a pull with other filters",
            why=f"that pull was: {receipt.query}",
            fix="give the same filters again; their values are not kept",
        )
    if resolve([receipt.identity], identity) != receipt.identity:
        raise ResumeMismatchError(
            f"{sink.name} holds the calls of another account",
            why=f"that one is {receipt.account}, this one is {identity.label}",
            fix="use that account's token or profile",
        )


def _receipt(sink: Sink) -> PullReceipt:
    text: bytes | None = None
    if sink.place is not None:
        path = Path(sink.place.with_name(f"{sink.place.name}.receipt.json"))
        try:
            with open_to_read(path) as file:
                text = file.read(_LARGEST_RECEIPT)
        except OSError:
            text = None
    if text is None:
        raise _no_receipt(sink)
    return read_receipt(text, sink.name)


def _other_pulls(sink: Sink, shelf: Shelf, account: Account) -> ConfigurationError:
    """Return the error for a database that holds calls, but none of this account and these filters."""
    if account not in shelf.accounts:
        labels = ", ".join(each.label for each in shelf.accounts)
        return ConfigurationError(
            f"{sink.name} holds no calls of the account {account.label}",
            why=f"there are calls of: {labels}",
            fix="use the token or profile of one of them",
        )
    return ConfigurationError(
        f"{sink.name} holds only pulls with other filters",
        why=f"the last of them was: {shelf.last_query()}",
        fix="give the same filters again; their values are not kept",
    )


def _no_receipt(sink: Sink) -> ConfigurationError:
    return ConfigurationError(f"there is no receipt of {sink.name}", fix="pull into it first")
