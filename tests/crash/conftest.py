"""Laboratories, and the calls that are pulled in them."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import pytest

from servetel_async.emulator import Emulator
from tests.crash import strace
from tests.crash.laboratory import Laboratory, Material, material

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

if sys.platform == "win32":  # neither SIGKILL, nor fork, nor strace
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def months() -> Material:
    """About 40 pages in 8 windows."""
    return material("2024-01-01", "2024-08-31", 400)


@pytest.fixture(scope="session")
def week() -> Material:
    """A few days, for outputs with a file for each day; 5 windows."""
    return material("2024-05-06", "2024-05-11", 850)


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[list[Laboratory]]]]:
    """Build laboratories that work side by side, each with an emulator of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(what: Material, name: str, *, count: int = 2) -> list[Laboratory]:
            apis = [await stack.enter_async_context(Emulator(what.dataset)) for _ in range(count)]
            made = [Laboratory(api, what, tmp_path / f"{number}", name) for number, api in enumerate(apis)]
            for laboratory in made:
                stack.push_async_callback(laboratory.close)
            return made

        yield start


@pytest.fixture(scope="session")
def tracing() -> None:
    """Skip if no process may be traced."""
    reason = strace.missing()
    if reason is not None:
        pytest.skip(reason)
