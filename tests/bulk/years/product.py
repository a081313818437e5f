"""The product as the histories use it: it is called only here, so that a changed signature changes one file.

``pull``, ``sync`` and ``check`` run once and return an outcome with the claims; ``rows_of`` reads a destination as its
owner would.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import inspect
import json
import re
import resource
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from servetel_async import CallQuery, ConfigurationError, Retry, ServetelClient, ServetelError
from servetel_async.bulk.check import check as product_check
from servetel_async.bulk.pull import pull as product_pull
from servetel_async.bulk.sync import sync as product_sync
from tests.bulk.years.server import SERIALS, second, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import aiohttp

    from servetel_async import PullReceipt
    from tests.bulk.years.history import History
    from tests.bulk.years.server import Account

#: Whether ``sync`` can mask.
SYNC_MASKS = "mask" in inspect.signature(product_sync).parameters
#: Whether a client can name its account.
CLIENTS_HAVE_NAMES = "account" in inspect.signature(ServetelClient).parameters


_UP_TO = re.compile(r"complete up to (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")


class Row(NamedTuple):
    """A call in a destination."""

    serial: int
    start: str
    status: str | None
    charges: float | None
    number: str | None


class Claimed(NamedTuple):
    """The claims of a receipt, in the model's words.

    Attributes:
        verdict: "complete", "up to" (complete up to a moment before the end of the range), or "not complete".
        first, last: its range.
        proved: up to here it claims to be complete.
        final: up to here no late call is expected.
        windows: its parts.
        text: as printed.
    """

    verdict: str
    first: int
    last: int
    proved: int
    final: int
    windows: tuple[tuple[int, int], ...]
    text: str


@dataclass(frozen=True)
class Outcome:
    """How a run of the product ended: with a claim, or with an error; ``committed`` windows before that."""

    claimed: Claimed | None = None
    error: BaseException | None = None
    committed: int = 0

    def __str__(self) -> str:
        if self.error is not None:
            what = getattr(self.error, "what", "") or str(self.error)
            why = getattr(self.error, "why", "") or ""
            return f"{type(self.error).__name__}: {what}{why and f' ({why})'}"
        return "" if self.claimed is None else self.claimed.text


def client_of(history: History, base_url: str, account: Account, session: aiohttp.ClientSession) -> ServetelClient:
    """A client as a new process would make it, but one that never waits."""
    more: dict[str, Any] = {"account": account.name} if CLIENTS_HAVE_NAMES else {}
    return ServetelClient(
        account.token,
        base_url=base_url,
        rate=None,
        page_size=history.page_size,
        max_concurrency=history.concurrency,
        retry=Retry(attempts=2, base=0.0005, throttled_base=0.0005),
        session=session,
        **more,
    )


def _mask(*, wanted: bool) -> Any:
    """The mask for ``pull``: a mask or nothing, or a switch."""
    module = importlib.import_module("servetel_async.protocol.mask")
    return module.Mask.chosen(wanted, None) if hasattr(module, "Mask") else wanted


async def pull(
    client: ServetelClient,
    place: str,
    query: CallQuery,
    *,
    name: str | None,
    mask: bool,
    overwrite: bool,
    resume: bool,
    settle: int,
) -> Outcome:
    """Pull once."""

    def run(note) -> Any:
        return product_pull(
            client,
            place,
            query,
            overwrite=overwrite,
            resume=resume,
            mask=_mask(wanted=mask),
            settle=settle,
            range_name=name,
            on_progress=note,
        )

    return await _outcome(run)


async def sync(client: ServetelClient, place: str, *, lookback: int, settle: int, mask: bool) -> Outcome:
    """Sync once."""
    more: dict[str, Any] = {"mask": _mask(wanted=mask)} if SYNC_MASKS else {}

    def run(note) -> Any:
        return product_sync(
            client, place, CallQuery(), lookback=timedelta(seconds=lookback), settle=settle, on_progress=note, **more
        )

    return await _outcome(run)


async def _outcome(run) -> Outcome:
    committed = 0

    def note(progress) -> None:
        nonlocal committed
        committed = max(committed, progress.windows)

    try:
        receipt = await run(note)
    except (Exception, asyncio.CancelledError) as error:
        return Outcome(error=error, committed=committed)
    return Outcome(_claimed(receipt), committed=committed)


def _claimed(receipt: PullReceipt) -> Claimed:
    text = str(receipt)
    verdict = "up to" if "complete up to" in text else "complete" if receipt.complete else "not complete"
    windows = tuple((second(window.first), second(window.last)) for window in receipt.windows)
    first, last = second(receipt.from_date or "1971-01-01"), second(receipt.to_date or "9000-01-01")
    said = _UP_TO.search(text)
    proved = last if said is None else min(last, second(said[1]))
    return Claimed(verdict, first, last, proved, second(receipt.final_until), windows, text.replace("\n", "; "))


async def check(client: ServetelClient, place: str) -> str:
    """Check once: "agrees", "differs", "refused: ..." (there is nothing to check) or "failed: ..."."""
    try:
        report = await product_check(client, place)
    except ConfigurationError as error:
        return f"refused: {error.what}"
    except ServetelError as error:
        return f"failed: {type(error).__name__}: {error.what} ({error.why})"
    except Exception as error:
        return f"crashed: {error!r}"
    return "agrees" if report.agrees else "differs"


@contextmanager
def cheap_fingerprints() -> Iterator[None]:
    """Hash accounts quickly: with a new client for each run, hashing would take most of the time."""
    try:
        module = importlib.import_module("servetel_async.protocol.account")
    except ImportError:
        yield
        return
    rounds, module._ROUNDS = module._ROUNDS, 1
    try:
        yield
    finally:
        module._ROUNDS = rounds


@contextmanager
def clock_here(clock: Callable[[], int] | None) -> Iterator[None]:
    """Make this computer's clock show the function's result, on the account's wall clock."""
    if clock is None:
        yield
        return
    module = importlib.import_module("servetel_async.bulk.job")
    real, module._here = module._here, lambda _zone: datetime.fromisoformat(stamp(clock()))
    try:
        yield
    finally:
        module._here = real


@contextmanager
def receipts_fail(*, wanted: bool) -> Iterator[None]:
    """Fail after the output got its name and before its receipt did, like a kill between the two."""
    file = importlib.import_module("servetel_async.sinks.files.atomic").PrivateFile

    def fail(receipt: Any) -> None:
        receipt.discard()
        raise OSError(errno.EIO, "ended by the history")

    real = file.put_in_place
    file.put_in_place = fail if wanted else real
    try:
        yield
    finally:
        file.put_in_place = real


@contextmanager
def files_of_at_most(size: int | None) -> Iterator[None]:
    """Fail every write beyond that size, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Destinations


def rows_of(place: Path, ending: str) -> list[Row]:
    """Every call in a destination, as often as it is there; none without a destination.

    Raises:
        Exception: if it cannot be read.
    """
    if not place.exists():
        return []
    if ending == ".ndjson":
        return [_row(json.loads(line)) for line in place.read_bytes().splitlines()]
    if ending == "/":
        return _rows_of_directory(place)
    return [_row(record) for record in _records_of_database(place, ending)]


def _row(record: dict[str, Any]) -> Row:
    serial = str(record["call_id"]).rpartition(".")[2]
    charges = record.get("charges")
    start = f"{record['date']} {record['time']}"
    return Row(
        int(serial),
        start,
        record.get("status"),
        None if charges is None else float(charges),
        record.get("client_number"),
    )


_COLUMNS = "call_id, date, time, status, charges, client_number"


def _records_of_database(place: Path, ending: str) -> list[dict[str, Any]]:
    with connected(place, ending) as database:
        if not has_table(database):
            return []
        found = database.execute(f"SELECT {_COLUMNS} FROM call_records").fetchall()
    return [dict(zip(_COLUMNS.split(", "), values, strict=True)) for values in found]


def has_table(database: Any) -> bool:
    """Whether the table of calls exists."""
    where = (
        "information_schema.tables WHERE table_name"
        if "duckdb" in type(database).__module__.lower()
        else "sqlite_master WHERE name"
    )
    return bool(database.execute(f"SELECT 1 FROM {where} = 'call_records'").fetchall())


@contextmanager
def connected(place: Path, ending: str) -> Iterator[Any]:
    """A connection by the destination's own library."""
    if ending == ".db":
        with closing(sqlite3.connect(place)) as database:
            yield database
            database.commit()
    else:
        import duckdb

        with closing(duckdb.connect(str(place))) as database:
            yield database


def _rows_of_directory(place: Path) -> list[Row]:
    import pyarrow.parquet as pq

    wanted = _COLUMNS.split(", ")
    tables = [pq.ParquetFile(file).read(columns=wanted) for file in sorted(place.rglob("*.parquet"))]
    return [_row(record) for table in tables for record in table.to_pylist()]


def account_of(serial: int) -> int:
    """The index of the account that made a call."""
    return serial // SERIALS - 1
