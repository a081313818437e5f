"""The ledger of one destination, as its database keeps it: accounts, masks and readings.

A file has only a journal, so its shelf is empty.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from servetel_async.bulk.ledger import cut, read_fact
from servetel_async.bulk.receipt import PullReceipt
from servetel_async.bulk.windows.covered import Covered
from servetel_async.bulk.windows.sums import Sums
from servetel_async.errors import ResumeMismatchError
from servetel_async.protocol.undecodable import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.bulk.job import Job
    from servetel_async.bulk.ledger import Reading, Rest
    from servetel_async.bulk.sink_thread import SinkThread
    from servetel_async.protocol.account import Account
    from servetel_async.protocol.windows import Window
    from servetel_async.sinks.sink import Database, PullIdentity, Seal, Sink, Stored


class Kept(NamedTuple):
    """A fact that a database keeps."""

    stored: Stored
    reading: Reading


class Shelf:
    """The facts of one destination. ``load`` and ``content`` block, so they run in a thread.

    Attributes:
        facts: the facts, oldest first.
        unreadable: facts of another version, and damaged ones.
        overwritten: calls of this run whose row a call with the same id in another window has taken.
    """

    def __init__(self, sink: Sink) -> None:
        self.facts: list[Kept] = []
        self.unreadable: list[Stored] = []
        self.overwritten = 0
        self._query = ""
        self._sink = sink
        self._database = cast("Database", sink) if hasattr(sink, "ledger") else None
        self._rows: dict[int, int] = {}  # rows of each reading, before this run
        self._astray: set[int] = set()
        self._sums: dict[str, tuple[Sums, Sums]] = {}  # by account

    def load(self) -> None:
        """Read all facts.

        Raises:
            OutputError: if the database cannot be read.
        """
        self._refresh()
        self._query = self._last_query()
        self._rows = {fact.stored.reading: fact.stored.seal.rows for fact in self.facts}

    def _refresh(self) -> None:
        stored = [] if self._database is None else self._database.ledger()
        found = [(each, read_fact(each.fact)) for each in stored]
        self.facts = [Kept(each, reading) for each, reading in found if reading is not None]
        self.unreadable = [each for each, reading in found if reading is None]
        self._sums = {}

    def _last_query(self) -> str:
        texts = [] if self._database is None else self._database.receipts()
        for text in texts[:1]:
            with suppress(*UNDECODABLE, RecursionError):
                return msgspec.json.decode(text, type=PullReceipt).query
        return "not finished"

    def content(self) -> dict[int, Seal]:
        """Compute the seals from the rows that are there now.

        Raises:
            OutputError: if the database cannot be read.
        """
        return {} if self._database is None else self._database.content()

    def find_astray(self) -> None:
        """Find the readings that have rows outside the rest that later readings have left of their window.

        The later reading did not bring these calls again. They may be deleted, so no count says anything about the rows
        of such a reading.

        Raises:
            OutputError: if the database cannot be read.
        """
        assert self._database is not None  # noqa: S101 - for the type checker: only a database is checked so
        kept: dict[tuple[str, str], list[Kept]] = {}
        for fact in self.facts:
            kept.setdefault((fact.stored.account, fact.reading.scope), []).append(fact)
        for facts in kept.values():
            written = _written(facts)
            for reading, left in cut([fact.reading for fact in facts]):
                own = written.get(reading.window)
                stamps = [] if own is None else self._database.stamps(own.stored.reading)
                if own is not None and not all(_is_inside(stamp, left) for stamp in stamps):
                    self._astray.add(own.stored.reading)

    def compared(self) -> list[Kept]:
        """Return the facts whose rows should be unchanged: those that later readings do not cover completely.

        If a reading is covered, its remaining rows are calls that the account has deleted since.
        """
        kept: list[Kept] = []
        taken: dict[tuple[str, str], Covered] = {}
        for fact in reversed(self.facts):
            window = fact.reading.window
            covered = taken.setdefault((fact.stored.account, fact.reading.scope), Covered())
            if covered.left(window):
                kept.append(fact)
            if not fact.reading.recounted:  # a count writes no row
                covered.add(window)
        return kept[::-1]

    def rows_left(self, account: str, scope: str, rests: Sequence[Rest]) -> list[int | None]:
        """Return the number of rows that later readings have left of each reading.

        None if the number cannot be compared with a count: not every counted call became a row of this reading, some
        rows are of calls that have left (``find_astray``), or a pull with other filters may have taken some of them.
        """
        mine = [fact for fact in self.facts if fact.stored.account == account]
        written = _written([fact for fact in mine if fact.reading.scope == scope])
        others = Covered()
        for fact in mine:
            if fact.reading.scope != scope and not fact.reading.recounted:
                others.add(fact.reading.window)
        rows: list[int | None] = []
        for reading, left in rests:
            own = written.get(reading.window)
            is_alone = not any(others.inside(part) for part in left)
            rows.append(own.stored.seal.rows if own is not None and is_alone and self._is_counted(own) else None)
        return rows

    def _is_counted(self, own: Kept) -> bool:
        """Whether each counted call became a row, and no row lies outside the rest of the window."""
        is_whole = not own.reading.flaws and own.reading.counted == own.reading.records
        return is_whole and own.stored.reading not in self._astray

    def last_query(self) -> str:
        """Return a description of the last run's query, for people."""
        return self._query

    @property
    def accounts(self) -> list[Account]:
        """The accounts whose calls the database holds."""
        return list(dict.fromkeys(fact.reading.account for fact in self.facts))

    def readings(self, account: str, scope: str) -> list[Reading]:
        """Return the readings of one account and query, oldest first."""
        return [fact.reading for fact in self.facts if fact.stored.account == account and fact.reading.scope == scope]

    def check_mask(self, account: str, mask: str) -> None:
        """Refuse a mask that differs from the mask of this account's calls in the database.

        Raises:
            ResumeMismatchError: if the masks differ.
        """
        masks = {fact.reading.mask for fact in self.facts if fact.stored.account == account}
        if masks - {mask}:
            there = masks.pop() or "in plain text"
            raise ResumeMismatchError(
                f"the calls in {self._sink.name} are {there}, and these would be {mask or 'in plain text'}",
                why="one table would hold both: what was hidden would show, or a number would have two pseudonyms",
                fix="use the same --mask or key of --pseudonyms (mask=), or give another destination",
            )

    async def settle(self, job: Job, claim: PullIdentity, writer: SinkThread) -> None:
        """Find calls that took each other's rows, read their windows once more, and note how many are left.

        A call that moved to another window during the run looks like two calls with one id. The second reading shows
        that it is one call.
        """
        if self._database is None:
            return
        short = await writer.run(self._short, job, claim)
        if short and not job.is_spent:
            await job.reread(short)
            await writer.run(self._short, job, claim)

    def _short(self, job: Job, claim: PullIdentity) -> list[Window]:
        """Return the windows of this run that have fewer rows than calls; note how many rows they lack."""
        self._refresh()
        latest = {
            fact.stored.span: fact
            for fact in self.facts
            if fact.stored.account == claim.account and fact.stored.pull == claim.pull
        }
        found: list[Window] = []
        self.overwritten = 0
        for span, reading in job.entries.items():
            number, rows = latest[span].stored.reading, latest[span].stored.seal.rows
            before = self._rows.get(number, reading.records if span in job.written else rows)
            lacking = max(self.missing(claim.account, reading), before - rows)
            if lacking:
                self.overwritten += lacking
                found.append(reading.window)
        return found

    def missing(self, account: str, reading: Reading) -> int:
        """Return how many rows a window lacks at least, because calls with the same id in other windows took them.

        Rows that other readings of the same seconds hold still belong to the window.
        """
        begun, ended = self._begun_and_ended(account)
        return max(0, reading.records - (begun.up_to(reading.last) - ended.before(reading.first)))

    def _begun_and_ended(self, account: str) -> tuple[Sums, Sums]:
        """Sum up the rows of one account, by the first and by the last second of their readings."""
        if account not in self._sums:
            mine = [fact for fact in self.facts if fact.stored.account == account]
            self._sums[account] = (
                Sums([(fact.reading.first, fact.stored.seal.rows) for fact in mine]),
                Sums([(fact.reading.last, fact.stored.seal.rows) for fact in mine]),
            )
        return self._sums[account]


def _written(facts: Sequence[Kept]) -> dict[Window, Kept]:
    """Return the last fact of each window that wrote rows; a recount writes none."""
    return {fact.reading.window: fact for fact in facts if not fact.reading.recounted}


def _is_inside(stamp: str | None, parts: Sequence[Window]) -> bool:
    return stamp is not None and any(part.first <= stamp <= part.last for part in parts)
