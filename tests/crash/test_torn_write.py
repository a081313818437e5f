"""A kill in the middle of a write: the file has the first part of it, and nothing after it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash import strace
from tests.crash.laboratory import Laboratory, check, chosen, each, few
from tests.torture.report import TORTURE, measured

NAMES = ("calls.ndjson", "calls.csv", "calls.parquet", "calls.db", "calls.duckdb")
#: A library's threads write in no fixed order, so a call may be missing at its place in one run and not in the next.
TRIES = 5

pytestmark = [pytest.mark.usefixtures("tracing"), pytest.mark.timeout(3600 if TORTURE else 60)]


def tear(write: strace.Write) -> None:
    """Write a part of it, as the system does when a process dies in the middle; its content decides how much."""
    length = random.Random(write.data).randrange(1, max(2, len(write.data)))
    path = Path(write.path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size if write.offset is None else write.offset)
        file.write(write.data[:length])


@pytest.mark.parametrize("name", chosen(NAMES, "calls.ndjson"))
async def test_a_torn_write_is_gone_on_from(build, months, name):
    """Bytes behind the last whole commit are not read as calls, and the next run completes the output."""
    laboratories = await build(months, name)
    moments = [moment for moment in await Laboratory.prepare(laboratories) if moment.call in strace.WRITES]

    async def kill(laboratory: Laboratory, moment: strace.Moment) -> bool:
        for _ in range(TRIES):
            if await kill_once(laboratory, moment):
                return True
        return False

    async def kill_once(laboratory: Laboratory, moment: strace.Moment) -> bool:
        destination = laboratory.place()
        laboratory.asked()
        inject = f"{moment.call}:signal=SIGKILL:when={moment.number}"
        ended = await laboratory.traced(destination, inject, whole=True)
        if not ended.killed:  # a thread of a library wrote less this time
            check(ended.code == 0, f"not killed: {ended}")
            return False
        write = strace.last_write(laboratory.log(destination))
        if write is None:
            check(name == "calls.duckdb", "the write that killed it is not in the log")
            return False  # another thread's call was there
        tear(write)
        laboratory.log(destination).unlink()  # it holds all bytes
        await laboratory.resume(destination, laboratory.asked())
        return True

    torn = await each(few(moments), laboratories, kill)
    measured("P2", f"{name}: {torn} torn writes")
    check(torn >= 0.8 * len(few(moments)), f"only {torn} writes were torn")
