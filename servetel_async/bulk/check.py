"""Check: is what a receipt says still true? Each window is counted again, and a file's bytes are read again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from servetel_async.bulk.fetcher import Fetcher
from servetel_async.bulk.journal import scope_of
from servetel_async.bulk.receipt import PullReceipt, plural
from servetel_async.bulk.tally import Tally
from servetel_async.errors import ConfigurationError
from servetel_async.protocol.query import CallQuery
from servetel_async.protocol.tokens import hide
from servetel_async.protocol.undecodable import UNDECODABLE
from servetel_async.protocol.windows import Window
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.files import digest_of
from servetel_async.transport.tasks import run_together

if TYPE_CHECKING:
    from servetel_async.client import ServetelClient
    from servetel_async.sinks.destination import Destination
    from servetel_async.sinks.sink import Database, Sink

#: Windows that are named.
_NAMED = 10


class Recount(NamedTuple):
    """A window and its two counts; None where the server sent no total."""

    first: str
    last: str
    counted_then: int | None
    counted_now: int | None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        windows: all of them, newest first.
        file_agrees: whether the file is the one that the receipt tells of; None for a database.
    """

    windows: tuple[Recount, ...]
    file_agrees: bool | None

    @property
    def changed(self) -> tuple[Recount, ...]:
        """The windows whose count is another one now."""
        known = [window for window in self.windows if window.counted_then is not None]
        return tuple(window for window in known if window.counted_then != window.counted_now)

    @property
    def agrees(self) -> bool:
        """Whether nothing has changed."""
        return not self.changed and self.file_agrees is not False

    def __str__(self) -> str:
        then = sum(window.counted_then or 0 for window in self.windows)
        now = sum(window.counted_now or 0 for window in self.windows)
        lines = [f"{now:,} calls now, {then:,} when it was pulled, in {plural(len(self.windows), 'window')}"]
        if self.windows and all(window.counted_then is None for window in self.windows):
            lines = ["the API sends no count, so there is none to compare"]
        lines += [
            f"  {window.first} to {window.last}: {window.counted_now or 0:,} now, {window.counted_then or 0:,} then"
            for window in self.changed[:_NAMED]
        ]
        if len(self.changed) > _NAMED:
            lines.append(f"  and {len(self.changed) - _NAMED:,} more windows that differ")
        if self.file_agrees is False:
            lines.append("  the file is not the one that the receipt tells of")
        lines.append("all of it agrees" if self.agrees else "it does not agree: pull it again, or sync")
        return "\n".join(lines)


async def check(client: ServetelClient, destination: Destination, query: CallQuery | None = None) -> CheckReport:
    """Ask the counts of each window of a receipt again.

    Args:
        client: it is used and not closed.
        destination: what was pulled.
        query: its filters, where it had any; a receipt does not keep their values.

    Raises:
        ConfigurationError: there is no receipt, or it is one of other filters.
        ServetelError: whatever ended the requests.
    """
    destination = hide(destination)  # an address may hold a password
    asked = query if query is not None else CallQuery()
    sink = sink_for(destination)
    receipt = await asyncio.to_thread(_receipt, sink)
    if scope_of(asked, client.zone) != receipt.scope:
        raise ConfigurationError(
            f"the receipt of {sink.name} is one of other filters",
            why=f"that pull was: {receipt.query}",
            fix="give the same filters again; their values are not kept",
        )
    file_agrees = None
    if receipt.sha256 is not None and sink.place is not None:
        file_agrees = sink.place.is_file() and digest_of(sink.place).sha256 == receipt.sha256
    fetcher = Fetcher(
        client,
        asked,
        page_size=client.page_size,
        concurrency=client.max_concurrency,
        patience=client.retry.longest_wait,
    )
    tally = Tally()
    counts = await run_together(
        [fetcher.count(Window.of(window.first, window.last), tally) for window in receipt.windows]
    )
    windows = tuple(
        Recount(window.first, window.last, window.counted, count)
        for window, count in zip(receipt.windows, counts, strict=True)
    )
    return CheckReport(windows, file_agrees)


def _receipt(sink: Sink) -> PullReceipt:
    text: bytes | None = None
    if sink.place is not None:
        path = Path(sink.place.with_name(f"{sink.place.name}.receipt.json"))
        try:
            text = path.read_bytes()
        except OSError:
            text = None
    elif hasattr(sink, "load_receipt"):
        database = cast("Database", sink)
        try:
            text = database.load_receipt() if database.look() else None
        finally:
            database.abandon()
    if text is None:
        raise ConfigurationError(f"there is no receipt of {sink.name}", fix="pull into it first")
    try:
        return msgspec.json.decode(text, type=PullReceipt)
    except (*UNDECODABLE, RecursionError):
        raise ConfigurationError(
            f"the receipt of {sink.name} cannot be read",
            why="another version of this program wrote it",
            fix="pull again",
        ) from None
