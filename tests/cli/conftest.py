"""The command line as users run it: a process of its own, against an emulator in this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from servetel_async.cli.app import run
from servetel_async.emulator import Dataset, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

MONTH = ("--month", "2024-05", "--rate", "0")
#: A pull that commits several windows, one request after another.
SLOW = (*MONTH, "--page-size", "5", "--concurrency", "1")
#: The number of a request at which some but not all of its windows are committed.
LATE = 100


def failing(**fault: Any) -> list[Fault]:
    """Faults that hit every request from ``LATE`` on."""
    return [Fault(**{"kind": "status", **fault}, nth=number) for number in range(LATE, 2000)]


async def committed(part: Path) -> None:
    """Wait until the journal of a file, or of a new database, has a window."""
    while not _windows(part):
        await asyncio.sleep(0.01)


def _windows(part: Path) -> int:
    journal = part.with_name(f"{part.name}.journal")
    if journal.exists():
        return journal.read_bytes().count(b'"kind":"window"')
    try:
        with contextlib.closing(sqlite3.connect(f"{part.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM servetel_ledger").fetchone()[0]
    except sqlite3.Error:
        return 0


@dataclass
class Ended:
    code: int
    out: bytes
    err: bytes

    @property
    def lines(self) -> list[str]:
        return self.err.decode().splitlines()


class Running:
    """A command under way; killed with the test at the latest."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def end(self) -> Ended:
        out, err = await asyncio.wait_for(self.process.communicate(), 30)
        return Ended(self.process.returncode, out, err)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


async def struck(api: Emulator, kind: str) -> None:
    """Wait until a fault of that kind has occurred once more."""
    before = api.fired[kind]
    while api.fired[kind] == before:
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset.month("2024-05", calls=250)


@pytest.fixture(scope="session")
def large() -> Dataset:
    return Dataset.month("2024-05", calls=600)


@pytest.fixture
async def emulate() -> AsyncIterator[Callable[..., Awaitable[Emulator]]]:
    """Start an emulator in the place of the one before, at its address, or beside it."""
    running: list[Emulator] = []

    async def start(dataset: Dataset, *, beside: bool = False, **knobs: Any) -> Emulator:
        port = 0
        if running and not beside:
            before = running.pop()
            port = int(before.base_url.rpartition(":")[2])
            await before.__aexit__(None, None, None)
        running.append(await Emulator(dataset, port=port, **knobs).__aenter__())
        return running[-1]

    try:
        yield start
    finally:
        for each in running:
            await each.__aexit__(None, None, None)


@pytest.fixture(autouse=True, scope="session")
def hang_up_is_heard() -> None:
    """Restore SIGHUP: under nohup the suite ignores it, and so would every process that it starts."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start ``servetel`` in the test's directory with a clean environment, and with every warning an error."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *arguments: str,
            api: Emulator | None = None,
            redirect: str = "",
            limit: str = ":",
            stdout: int = asyncio.subprocess.PIPE,
            **environment: str,
        ) -> Running:
            shell = ("sh", "-c", f'{limit}; exec "$@" {redirect}', "sh")
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("SERVETEL", "PYTHON"))}
            if api is not None:
                kept |= {"SERVETEL_BASE_URL": api.base_url, "SERVETEL_TOKEN": api.token}
            process = await asyncio.create_subprocess_exec(
                *(*shell, sys.executable, "-W", "error", "-m", "servetel_async", *arguments),
                cwd=tmp_path,
                env={**kept, "HOME": str(tmp_path), "PYTHONUTF8": "1", **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
            )

            @stack.push_async_callback
            async def stop() -> None:
                if process.returncode is None:
                    process.kill()
                    await process.communicate()

            return Running(process)

        yield start


@pytest.fixture
def servetel(launch) -> Callable[..., Awaitable[Ended]]:
    """Run a command to its end."""

    async def run(*arguments: str, **options: Any) -> Ended:
        return await (await launch(*arguments, **options)).end()

    return run


@pytest.fixture
def inside(monkeypatch, tmp_path, capfd) -> Callable[..., Awaitable[Ended]]:
    """Run a command to its end in a thread of this process: the same code without a new process."""

    async def call(*arguments: str, api: Emulator | None = None, **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["servetel", *arguments])
            if api is not None:
                environment = {"SERVETEL_BASE_URL": api.base_url, "SERVETEL_TOKEN": api.token, **environment}
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            code = await asyncio.to_thread(run)
            out, err = capfd.readouterr()
        return Ended(code, out.encode(), err.encode())

    return call
