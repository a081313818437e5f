"""The command line as users meet it: a process of its own, against an emulator in this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from servetel_async.emulator import Dataset, Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

MONTH = ("--month", "2024-05", "--rate", "0")


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
    """Wait until a fault of that kind has struck once more."""
    before = api.fired[kind]
    while api.fired[kind] == before:
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset.month("2024-05", calls=250)


@pytest.fixture
async def emulate() -> AsyncIterator[Callable[..., Awaitable[Emulator]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(dataset: Dataset, **knobs: Any) -> Emulator:
            return await stack.enter_async_context(Emulator(dataset, **knobs))

        yield start


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start ``servetel`` in the test's directory with a clean environment, and with every warning an error."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *arguments: str,
            api: Emulator | None = None,
            redirect: str = "",
            stdout: int = asyncio.subprocess.PIPE,
            **environment: str,
        ) -> Running:
            shell = ("sh", "-c", f'exec "$@" {redirect}', "sh") if redirect else ()
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
