"""SIGKILL right before every call that changes the disk."""

from __future__ import annotations

import pytest

from tests.crash import strace
from tests.crash.laboratory import Laboratory, check, chosen, each, few
from tests.torture.report import TORTURE, measured

NAMES = ("calls.ndjson", "calls.csv", "calls.ndjson.gz", "calls.parquet", "days", "calls.db", "calls.duckdb")
TWICE = ("calls.ndjson", "calls.parquet", "calls.db", "calls.duckdb")

pytestmark = [pytest.mark.usefixtures("tracing"), pytest.mark.timeout(3600 if TORTURE else 60)]


@pytest.mark.parametrize("name", chosen(NAMES, "calls.ndjson", "calls.db"))
async def test_a_killed_pull_is_gone_on_from(build, months, week, name):
    """After a kill before any write, sync, rename or unlink, no partial output shows; the next run completes it."""
    laboratories = await build(week if name == "days" else months, name)
    moments = few(await Laboratory.prepare(laboratories))

    async def kill(laboratory: Laboratory, moment: strace.Moment) -> bool:
        destination = laboratory.place()
        laboratory.asked()
        ended = await laboratory.traced(destination, f"{moment.call}:signal=SIGKILL:when={moment.number}")
        if ended.code == 0:  # a thread of a library wrote less this time
            laboratory.check_end(destination)
            return False
        check(ended.killed, f"not killed: {ended}")
        await laboratory.resume(destination, laboratory.asked())
        return True

    killed = await each(moments, laboratories, kill)
    measured("P2", f"{name}: {killed} kills at {len(moments)} moments")
    check(killed >= 0.8 * len(moments), f"only {killed} of {len(moments)} were killed")


@pytest.mark.parametrize("name", ["calls.ndjson", "calls.csv"])
async def test_a_kill_before_any_removal_leaves_nothing_behind(build, months, name):
    """The journal is removed last, so the next run can remove all files that the killed one left."""
    laboratories = await build(months, name)
    moments = [moment for moment in await Laboratory.prepare(laboratories) if moment.call.startswith("unlink")]

    async def kill(laboratory: Laboratory, moment: strace.Moment) -> bool:
        destination = laboratory.place()
        laboratory.asked()
        check((await laboratory.traced(destination, f"{moment.call}:signal=SIGKILL:when={moment.number}")).killed, "")
        await laboratory.resume(destination, laboratory.asked())
        return True

    assert await each(moments, laboratories, kill) == len(moments) >= 8


@pytest.mark.parametrize("name", chosen(TWICE, "calls.ndjson"))
async def test_a_run_that_goes_on_may_be_killed_too(build, months, name):
    """A second kill, before any call of the resumed run, costs nothing more."""
    laboratories = await build(months, name)
    moments = await Laboratory.prepare(laboratories)
    middle = moments[len(moments) // 2]
    first = f"{middle.call}:signal=SIGKILL:when={middle.number}"
    trial = laboratories[0].place()
    await laboratories[0].traced(trial, first)
    check((await laboratories[0].traced(trial)).code == 0, "it did not go on")
    moments = few(list(strace.moments(laboratories[0].log(trial))))

    async def kill_twice(laboratory: Laboratory, moment: strace.Moment) -> bool:
        destination = laboratory.place()
        check((await laboratory.traced(destination, first)).killed, "not killed")
        laboratory.asked()
        ended = await laboratory.traced(destination, f"{moment.call}:signal=SIGKILL:when={moment.number}")
        if ended.code == 0:
            laboratory.check_end(destination)
            return False
        await laboratory.resume(destination, laboratory.asked())
        return True

    killed = await each(moments, laboratories, kill_twice)
    measured("P2", f"{name}: {killed} second kills at {len(moments)} moments")
    check(killed >= 0.8 * len(moments), f"only {killed} of {len(moments)} were killed")
