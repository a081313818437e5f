"""The ledger in a database: its tables, its statements, and the arithmetic of seals.

SQLite, DuckDB and PostgreSQL run the same statements. A row of ``call_records`` carries the number of the reading that
wrote it last. The seal of a reading is the sum of the digests of its rows, so a row that moves to a later reading is
subtracted from the seal of the earlier one.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

from servetel_async.sinks.sink import Seal, Span, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: By reading: the number of the rows that it wrote, and the sum of their digests.
Totals = dict[Any, tuple[int, int]]

TABLE, PULLS, LEDGER = "call_records", "servetel_pulls", "servetel_ledger"
#: A database, or its log, that has neither of these is not ours.
NAMES = (PULLS.encode(), LEDGER.encode())
INDEXED = ("started_at", "client_number", "agent_number", "did_number")
# ``since``: the readings of the pull have numbers above it.
_PULLS = (
    "pull TEXT, account TEXT, scope TEXT, header TEXT, finished_at TEXT, receipt TEXT, since BIGINT, "
    "PRIMARY KEY (account, pull)"
)
_LEDGER = (
    "reading BIGINT PRIMARY KEY, account TEXT, scope TEXT, pull TEXT, first TEXT, last TEXT, fact TEXT, "
    "rows BIGINT, digest TEXT"
)
_is_digest = re.compile(r"[0-9a-f]{16}").fullmatch
CREATE = (f"CREATE TABLE IF NOT EXISTS {PULLS} ({_PULLS})", f"CREATE TABLE IF NOT EXISTS {LEDGER} ({_LEDGER})")
# Every name below is a name of this package; no text of a caller or a server becomes SQL.
CLEAR = f"DELETE FROM {LEDGER}"  # noqa: S608
#: The number of the next reading. Numbers never repeat, even if one of the tables was dropped.
NEXT = (
    f"SELECT coalesce(max(number), 0) + 1 FROM (SELECT max(reading) AS number FROM {LEDGER} "  # noqa: S608
    f"UNION ALL SELECT max(reading) FROM {TABLE} UNION ALL SELECT max(since) FROM {PULLS}) AS numbers"
)
INTERRUPTED = f"SELECT account, pull, header, since FROM {PULLS} WHERE finished_at IS NULL"  # noqa: S608
FACTS = f"SELECT fact FROM {LEDGER} WHERE account = ? AND pull = ? AND reading > ? ORDER BY reading"  # noqa: S608
#: The facts stay: they say what was read, even if there was no call.
FORGET = f"DELETE FROM {PULLS} WHERE account = ? AND pull = ?"  # noqa: S608
BEGIN = f"INSERT INTO {PULLS} (account, pull, scope, header, since) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
SEAL = f"SELECT rows, digest FROM {LEDGER} WHERE reading = ?"  # noqa: S608
RESEAL = f"UPDATE {LEDGER} SET rows = ?, digest = ? WHERE reading = ?"  # noqa: S608
NOTE = (
    f"INSERT INTO {LEDGER} (reading, account, scope, pull, first, last, fact, rows, digest) "  # noqa: S608
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
#: Earlier readings of a span by the same pull: a reading without rows is dropped. Readings of other pulls stay, because
#: they say for which range they were read. The rows decide, not the seal: it may count a row that another program
#: deleted. DuckDB would scan the whole table for each commit if this were one statement.
EARLIER = (
    f"SELECT reading FROM {LEDGER} WHERE account = ? AND scope = ? AND pull = ? "  # noqa: S608
    "AND first >= ? AND last <= ? AND reading < ?"
)
LEFT = f"SELECT 1 FROM {TABLE} WHERE reading = ? LIMIT 1"  # noqa: S608
DROP = f"DELETE FROM {LEDGER} WHERE reading = ?"  # noqa: S608
RECEIVE = f"UPDATE {PULLS} SET finished_at = ?, receipt = ? WHERE account = ? AND pull = ?"  # noqa: S608
RECEIPTS = f"SELECT receipt FROM {PULLS} WHERE receipt IS NOT NULL ORDER BY finished_at DESC"  # noqa: S608
ALL = f"SELECT reading, account, scope, pull, first, last, fact, rows, digest FROM {LEDGER} ORDER BY reading"  # noqa: S608
#: When the calls of a reading began, on the account's wall clock.
STAMPS = f'SELECT DISTINCT "date" || \' \' || "time" FROM {TABLE} WHERE reading = ?'  # noqa: S608


def numbered(statement: str) -> str:
    """Number the placeholders as PostgreSQL does: ``$1``, ``$2`` and so on."""
    numbers = count(1)
    return "".join(f"${next(numbers)}" if sign == "?" else sign for sign in statement)


def add(totals: Totals, more: Mapping[Any, tuple[int, int]]) -> None:
    """Add the totals of more rows."""
    for reading, (rows, digests) in more.items():
        before = totals.get(reading, (0, 0))
        totals[reading] = before[0] + rows, before[1] + digests


def sealed(rows: int, digests: int) -> Seal:
    """Make a seal from a number of rows and the sum of their digests."""
    return Seal(rows, f"{digests % 2**64:016x}")


def without(seal: Sequence[Any], rows: int, digests: int) -> Seal:
    """Subtract rows from a seal."""
    there = _seal(*seal)
    return sealed(there.rows - rows, int(there.digest, 16) - digests)


def _seal(rows: Any, digest: Any) -> Seal:
    """Read a seal. If another program has damaged it, return one without rows, which will differ."""
    is_one = isinstance(rows, int) and isinstance(digest, str) and _is_digest(digest) is not None
    return Seal(rows, digest) if is_one else sealed(0, 0)


def stored(row: Sequence[Any]) -> Stored:
    """Make a fact from a row of ``ALL``."""
    reading, account, scope, pull, first, last, fact, rows, digest = row
    return Stored(reading, account, scope, pull, Span(first, last), text_of(fact), _seal(rows, digest))


def text_of(fact: Any) -> bytes:
    """Return a fact as bytes; a value that another program put there instead cannot be read as a fact."""
    return str(fact).encode()


def content_of(totals: Totals, readings: Iterable[int]) -> dict[int, Seal]:
    """Return the seal of each reading; rows of no known reading are under 0."""
    found: Totals = dict.fromkeys(readings, (0, 0))
    for reading, total in totals.items():
        add(found, {reading if reading in found else 0: total})
    return {reading: sealed(*total) for reading, total in found.items()}
