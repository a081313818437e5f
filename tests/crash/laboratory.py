"""Laboratories for kills: an emulator, pulls in processes of their own, and the conditions that must hold afterwards."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import importlib
import io
import json
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from servetel_async.emulator import Dataset, Emulator
from tests.crash import strace
from tests.torture.report import TORTURE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tests.crash.strace import Moment

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE_SIZE, SLOTS = 10, 2
#: The most windows that a pull with this many slots has under way.
IN_FLIGHT = SLOTS + 2
PATIENCE = 60.0
#: Moments of each destination that the ordinary suite tests.
FEW = 2
T = TypeVar("T")
#: Slow imports, by the ending that needs them.
LIBRARIES = {".parquet": "pyarrow.parquet", "days": "pyarrow.parquet", ".duckdb": "duckdb"}


class Material(NamedTuple):
    """The calls that are pulled."""

    dataset: Dataset
    first: str
    last: str


class Ended(NamedTuple):
    """How a process ended, and its output."""

    code: int
    said: dict[str, Any]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class BrokenPromiseError(AssertionError):
    """A condition that must hold after an accident does not."""


def material(first: str, last: str, calls: int) -> Material:
    return Material(Dataset.range(first, last, calls=calls), first, last)


class Laboratory:
    """One destination after another, each in a directory of its own, against one emulator.

    Args:
        api: an emulator of its own.
        what: its calls.
        directory: an empty one.
        name: of each destination; its ending decides the format.
    """

    def __init__(self, api: Emulator, what: Material, directory: Path, name: str) -> None:
        self.api = api
        self.name = name
        self.folders: tuple[str, ...] = ()
        self.whole = ""
        self.windows: list[tuple[str, str]] = []
        self.last_asked = 0
        self._what = what
        self._directory = directory
        self._number = 0
        self._server: asyncio.subprocess.Process | None = None

    def place(self) -> Path:
        """Return a destination in a new directory."""
        self._number += 1
        directory = self._directory / f"{self._number}"
        directory.mkdir(parents=True)
        return directory / self.name

    def log(self, destination: Path) -> Path:
        return destination.parent.with_suffix(".log")

    async def begin(self, destination: Path, *, limit: int | None = None, **options: Any) -> int:
        """Start a process that waits to pull; returns its number.

        Args:
            destination: of the pull.
            limit: the most bytes that it may write into one file.
            options: of ``client.pull``.
        """
        if self._server is None:
            self._server = await asyncio.create_subprocess_exec(
                *(sys.executable, str(HERE / "puller.py")),
                env={"PYTHONPATH": str(ROOT), "SERVETEL_CONFIG": "", "PYTHONUTF8": "1"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        job = {
            "base_url": self.api.base_url,
            "token": self.api.token,
            "destination": f"{destination}/" if "." not in self.name else str(destination),
            "client": {"page_size": PAGE_SIZE, "max_concurrency": SLOTS},
            "pull": {"from_date": self._what.first, "to_date": self._what.last, **options},
            "limit": limit,
            "libraries": [library for ending, library in LIBRARIES.items() if self.name.endswith(ending)],
        }
        return int(await self._ask(json.dumps(job)))

    async def go(self) -> Ended:
        """Let the process pull; returns how it ended."""
        answer = json.loads(await self._ask("go"))
        return Ended(answer["code"], json.loads(answer["said"] or "{}"))

    async def _ask(self, line: str) -> bytes:
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(self._server.stdout.readline(), PATIENCE)
        check(answer, "the server of processes has ended")
        return answer

    async def close(self) -> None:
        """End the server of processes."""
        if self._server is not None:
            self._server.kill()
            await self._server.communicate()

    async def pull(self, destination: Path, **options: Any) -> Ended:
        """Pull, to the end."""
        await self.begin(destination, **options)
        return await self.go()

    async def traced(self, destination: Path, inject: str = "", *, whole: bool = False, **options: Any) -> Ended:
        """Pull under strace, to the end or to the accident."""
        child = await self.begin(destination, **options)
        command = strace.command(
            child, destination, self.log(destination), inject=inject, folders=self.folders, whole=whole
        )
        # Not in the directory of the test run: strace would match a file of that name there too, the demo's calls.db.
        tracer = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, cwd=self._directory)
        assert tracer.stderr is not None
        try:
            said = await asyncio.wait_for(tracer.stderr.readline(), PATIENCE)
            check(b"attached" in said, f"strace does not look: {said!r}")
            return await self.go()
        finally:
            await asyncio.wait_for(tracer.communicate(), PATIENCE)

    async def learn(self) -> None:
        """Pull without any accident: what the output has to be."""
        destination = self.place()
        ended = await self.pull(destination)
        check(ended.code == 0 and ended.said["complete"], f"without any accident: {ended}")
        self.whole = content(destination)
        receipt = json.loads(beside(destination, ".receipt.json").read_text("utf-8"))
        self.windows = [(each["first"], each["last"]) for each in receipt["windows"]]
        check(len(self.windows) > IN_FLIGHT, f"{len(self.windows)} windows are too few for this test")
        if destination.is_dir():
            below = sorted(path.relative_to(destination) for path in destination.rglob("*"))
            self.folders = (".", *map(str, below))

    async def survey(self) -> list[Moment]:
        """Learn the output and all moments at which an accident could happen."""
        await self.learn()
        destination = self.place()
        ended = await self.traced(destination)
        check(ended.code == 0 and content(destination) == self.whole, f"two runs differ: {ended}")
        return list(strace.moments(self.log(destination)))

    @staticmethod
    async def prepare(laboratories: Sequence[Laboratory]) -> list[Moment]:
        """Survey in one laboratory for all of them."""
        first = laboratories[0]
        moments = await first.survey()
        for other in laboratories[1:]:
            other.whole, other.windows, other.folders = first.whole, first.windows, first.folders
        return moments

    def asked(self) -> set[tuple[str, str]]:
        """Windows whose calls were requested since the last call of this method."""
        requests, self.api.requests[:] = list(self.api.requests), []
        found: set[tuple[str, str]] = set()
        for request in requests:
            query = dict(request.query)
            first, last = query["from_date"], query["to_date"]
            if request.limit != 1:  # a count reads no calls
                found |= {each for each in self.windows if each[0] <= first and last <= each[1]}
        return found

    def check_name(self, destination: Path) -> None:
        """Check that the destination is absent or whole."""
        if destination.exists():
            check(content(destination) == self.whole, f"{self.name} is there and not whole")

    def check_end(self, destination: Path) -> None:
        """Check that the destination is whole, with only the receipt beside it."""
        check(content(destination) == self.whole, "the output is not that of an undisturbed run")
        there = sorted(path.name for path in destination.parent.iterdir())
        check(there == [self.name, f"{self.name}.receipt.json"], f"left over: {there}")

    async def resume(self, destination: Path, before: set[tuple[str, str]]) -> None:
        """Run the same command again after an accident; the result is as if there had been none."""
        self.check_name(destination)
        again_all = is_concluded(destination)
        done = destination.exists() and beside(destination, ".receipt.json").exists()
        self.asked()
        ended = await self.pull(destination)
        self.last_asked = len(self.api.requests)
        if done and not again_all and ended.said.get("what") == f"{self.name} exists":
            self.check_end(destination)  # the pull had ended, only the process had not
            return
        check(ended.code == 0 and ended.said["complete"], f"the same command again: {ended}")
        again = self.asked() & before
        check(again_all or len(again) <= IN_FLIGHT, f"{len(again)} windows were read again")
        self.check_end(destination)
        shutil.rmtree(destination.parent)  # there are hundreds of them; failed ones stay for inspection
        self.log(destination).unlink(missing_ok=True)


def beside(destination: Path, ending: str) -> Path:
    return destination.with_name(destination.name + ending)


def chosen(all_of_them: Sequence[str], *usual: str) -> Sequence[str]:
    """Destinations: all with SERVETEL_TORTURE=1, else one of each kind."""
    return all_of_them if TORTURE else usual


def few(points: Sequence[T]) -> Sequence[T]:
    """A few items, spread over all; with SERVETEL_TORTURE=1 all of them."""
    step = 1 if TORTURE else max(1, len(points) // FEW)
    return points[step // 2 :: step]


def check(holds: object, message: str) -> None:
    if not holds:
        raise BrokenPromiseError(message)


def content(destination: Path) -> str:
    """Digest of all calls in an output, in any order. Reads a copy, because reading may change a database."""
    name = destination.name
    if name.endswith((".db", ".duckdb")):
        # Without the account and the reading, which say who read the call and when.
        return _digest(repr(row[1:-1]) for row in table(destination, "SELECT * FROM call_records ORDER BY id"))
    if destination.is_dir() or name.endswith(".parquet"):
        return _digest(map(repr, _parquet(destination)))
    data = destination.read_bytes()
    data = gzip.decompress(data) if name.endswith(".gz") else data
    data = _zstd(data) if name.endswith(".zst") else data
    if ".csv" in name:
        return _digest(map(repr, csv.reader(io.StringIO(data.decode(), newline=""))))
    return _digest(map(repr, data.split(b"\n")))


def table(database: Path, statement: str) -> list[tuple[Any, ...]]:
    """Query a copy of a database with its log; raises if it is damaged."""
    copy = database.parent.with_suffix(".copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    try:
        for file in database.parent.glob(f"{database.name}*"):
            shutil.copyfile(file, copy / file.name)
        if database.name.endswith((".db", ".db.part")):
            with closing(sqlite3.connect(copy / database.name)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                return connection.execute(statement).fetchall()
        with closing(importlib.import_module("duckdb").connect(str(copy / database.name))) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
            return rows
    finally:
        shutil.rmtree(copy)


def is_concluded(destination: Path) -> bool:
    """Whether a database says that its pull has ended, so that the same command begins another one."""
    if not destination.name.endswith((".db", ".duckdb")) or not destination.exists():
        return False
    return table(destination, "SELECT count(*) FROM servetel_pulls WHERE finished_at IS NULL") == [(0,)]


def _parquet(destination: Path) -> list[dict[str, Any]]:
    parquet = importlib.import_module("pyarrow.parquet")
    files = sorted(destination.rglob("*.parquet")) if destination.is_dir() else [destination]
    rows: list[dict[str, Any]] = [row for file in files for row in parquet.ParquetFile(file).read().to_pylist()]
    return sorted(rows, key=lambda row: str(row["id"]))


def _zstd(data: bytes) -> bytes:
    module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    plain: bytes = importlib.import_module(module).decompress(data)
    return plain


def _digest(rows: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


async def each(
    points: Sequence[Any], laboratories: Sequence[Laboratory], work: Callable[[Laboratory, Any], Awaitable[bool]]
) -> int:
    """Run it at all points, in parallel over the laboratories; returns the number of accidents.

    Raises:
        BrokenPromiseError: if a condition did not hold at some points; names them.
    """
    left = list(reversed(points))
    accidents = 0
    wrong: list[str] = []

    async def go_on(laboratory: Laboratory) -> None:
        nonlocal accidents
        while left:
            point = left.pop()
            try:
                if await work(laboratory, point):
                    accidents += 1
            except (BrokenPromiseError, OSError, EOFError, ValueError, AssertionError, sqlite3.Error) as error:
                wrong.append(f"{point}: {type(error).__name__}: {error}")

    await asyncio.gather(*map(go_on, laboratories))
    check(not wrong, f"at {len(wrong)} of {len(points)} points:\n" + "\n".join(wrong))
    return accidents
