"""Ctrl-C and ``kill`` at any moment of a command: the state is kept, and the printed command completes the pull."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shlex
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from servetel_async.emulator import Emulator
from tests.crash import strace
from tests.crash.laboratory import PAGE_SIZE, PATIENCE, ROOT, SLOTS, beside, chosen, content
from tests.torture.report import TORTURE

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds from the signal to the end of the process.
AT_ONCE = 5.0
NAMES = ("calls.ndjson", "calls.parquet", "calls.db", "calls.duckdb")
MOMENTS = 20 if TORTURE else 1

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)
printed = re.compile(r"(?:resume with|run it again|Run it again): (servetel .*)").search


class Ended(NamedTuple):
    code: int
    errors: str


@pytest.fixture(params=chosen(NAMES, "calls.ndjson"))
def destination(tmp_path, request):
    place = tmp_path / "work" / request.param
    place.parent.mkdir()
    return place


@pytest.fixture
async def api(months):
    async with Emulator(months.dataset) as api:
        yield api


def arguments(months, destination) -> list[str]:
    dates = ["--from-date", months.first, "--to-date", months.last]
    return ["pull", destination.name, *dates, f"--page-size={PAGE_SIZE}", f"--concurrency={SLOTS}", "--rate=0"]


async def start(api, destination, arguments: Sequence[str], *, under: Sequence[str] = ()):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SERVETEL", "PYTHON"))}
    added = {"SERVETEL_BASE_URL": api.base_url, "SERVETEL_TOKEN": api.token, "SERVETEL_CONFIG": ""}
    return await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-W", "error", "-m", "servetel_async", *arguments),
        cwd=destination.parent,
        env={**kept, **added, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process, patience: float) -> Ended:
    try:
        _, errors = await asyncio.wait_for(process.communicate(), patience)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode, errors.decode())


async def whole(api, months, destination) -> str:
    """The output of an undisturbed run."""
    other = destination.with_name(f"other-{destination.name}")
    assert (await ended(await start(api, other, arguments(months, other)), 60)).code == 0
    digest = content(other)
    other.unlink()
    beside(other, ".receipt.json").unlink()
    return digest


async def check_completed(api, destination, errors: str, digest: str) -> None:
    """Check that the output is final, or becomes final by the printed command."""
    if "final already" not in errors:
        command = printed(errors)
        assert command, errors
        if destination.exists():
            assert content(destination) == digest
        again = await ended(await start(api, destination, shlex.split(command[1])[1:]), 60)
        assert again.code == 0, again.errors
    assert content(destination) == digest
    names = sorted(path.name for path in destination.parent.iterdir())
    assert names == [destination.name, f"{destination.name}.receipt.json"]


def clear(destination) -> None:
    for path in destination.parent.iterdir():
        path.unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_a_signal_keeps_what_is_committed(api, months, destination, number):
    """After a signal at any request the exit code names the signal, and the printed command completes the pull."""
    digest = await whole(api, months, destination)
    usual = len(api.requests)
    chance = random.Random(f"{destination.name} {number}")
    for _ in range(MOMENTS):
        moment = chance.randrange(1, usual)
        api.requests.clear()
        process = await start(api, destination, arguments(months, destination))
        async with asyncio.timeout(PATIENCE):
            while len(api.requests) < moment:
                assert process.returncode is None, "it has ended before"
                await asyncio.sleep(0.002)
        process.send_signal(number)
        stopped = await ended(process, AT_ONCE)
        if stopped.code == 0 and len(api.requests) == usual:  # it had sent all requests, and ended first
            assert content(destination) == digest
        else:
            assert stopped.code == 128 + number, (moment, stopped)
            await check_completed(api, destination, stopped.errors, digest)
        clear(destination)


@pytest.mark.usefixtures("tracing")
async def test_a_signal_in_the_final_commit_is_no_harm(api, months, destination):
    """Ctrl-C at the call that names the output, syncs it, or saves its receipt does no harm."""
    digest = await whole(api, months, destination)
    log = destination.parent.with_suffix(".log")
    moments = ["link 1"]
    if TORTURE:
        under = strace.command(None, destination, log)
        traced = await ended(await start(api, destination, arguments(months, destination), under=under), 60)
        assert traced.code == 0, traced.errors
        clear(destination)
        found = list(strace.moments(log))
        moments = [str(moment) for moment in found[len(found) * 2 // 3 :]]
    for call, number in map(str.split, moments):
        under = strace.command(None, destination, log, inject=f"{call}:signal=SIGINT:when={number}")
        stopped = await ended(await start(api, destination, arguments(months, destination), under=under), 60)
        # strace counts the calls of each thread: if two reach the number, the signal comes twice; the second ends it.
        twice = log.read_text("utf-8", "replace").count("--- SIGINT") > 1
        if stopped.code != 0:  # else it came after the last step that could be stopped
            assert stopped.code in (128 + signal.SIGINT, -signal.SIGINT if twice else None), (call, number, stopped)
        if stopped.code > 0:
            await check_completed(api, destination, stopped.errors, digest)
        elif stopped.code < 0:
            again = await ended(await start(api, destination, arguments(months, destination)), 60)
            assert again.code in (0, 2), again.errors  # 2: it had ended
        assert content(destination) == digest
        clear(destination)


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("moment", chosen(["write 1", "write 6"], "write 6"))
async def test_a_full_disk_has_a_code_and_three_lines(api, months, destination, moment):
    """On a full disk the code is 2 before any request, else 3 or 5, with what, why and fix; then the pull resumes."""
    if destination.suffix == ".db":
        moment = moment.replace("write", "pwrite64")
    call, number = moment.split()
    under = strace.command(
        None, destination, destination.parent.with_suffix(".log"), inject=f"{call}:error=ENOSPC:when={number}+"
    )
    full = await ended(await start(api, destination, arguments(months, destination), under=under), 60)
    assert full.code in (2, 3, 5), full.errors
    assert re.search(r"Error: .*\n +Why: .*\n +Fix: ", full.errors)
    assert str(destination.parent) not in full.errors
    assert not destination.exists()
    again = await ended(await start(api, destination, arguments(months, destination)), 60)
    assert again.code == 0, again.errors
    names = sorted(path.name for path in destination.parent.iterdir())
    assert names == [destination.name, f"{destination.name}.receipt.json"]
