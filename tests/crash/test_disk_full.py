"""On a full or failing disk the pull reports that and never success, and it can be resumed once there is space."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from tests.crash import strace
from tests.crash.laboratory import Ended, Laboratory, check, chosen, each, few
from tests.torture.report import TORTURE, measured

NAMES = ("calls.ndjson", "calls.csv", "calls.ndjson.gz", "calls.parquet", "calls.db", "calls.duckdb")
SYNCS = ("fsync", "fdatasync")
#: Calls that need space; those that open a file fail only once, because later ones of that number only read.
ONCE_ONLY = ("openat", "mkdir", "link", "rename")

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


def check_refusal(ended: Ended, destination) -> None:
    """Check that it is an output error with three parts and without a path of this machine."""
    said = ended.said
    check(ended.code == 2, f"no error of ours: {ended}")
    check(said["error"] == "OutputError", f"another error: {said}")
    check(all(said[part] for part in ("what", "why", "fix")), f"a part is missing: {said}")
    check(str(destination.parent) not in str(said), f"it tells a path: {said}")


def accidents(moments: list[strace.Moment]) -> list[str]:
    """No space at each write, once or from then on; a failure at each sync."""
    found: list[str] = []
    for call, number in moments:
        if call in (*strace.WRITES, *SYNCS, *ONCE_ONLY, "ftruncate", "fallocate"):
            what = "EIO" if call in SYNCS else "ENOSPC"
            found.append(f"{call}:error={what}:when={number}")
            if call not in ONCE_ONLY:
                found.append(f"{call}:error={what}:when={number}+")
    return found


async def fail(laboratory: Laboratory, inject: str) -> bool:
    """Pull with an accident, then without; returns whether the first one ended in an error."""
    destination = laboratory.place()
    laboratory.asked()
    ended = await laboratory.traced(destination, inject)
    if ended.code == 0:  # there was another way
        check(ended.said["complete"], f"{ended}")
        laboratory.check_end(destination)
        return False
    check_refusal(ended, destination)
    await laboratory.resume(destination, laboratory.asked())
    return True


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("name", chosen(NAMES, "calls.ndjson", "calls.db"))
async def test_a_call_that_fails_never_ends_in_success(build, months, name):
    """A full disk at any write, or a failed sync, gives an error or the whole output; the next run completes it."""
    laboratories = await build(months, name)
    moments = few(accidents(await Laboratory.prepare(laboratories)))

    refused = await each(moments, laboratories, fail)
    measured("P10", f"{name}: {refused} refusals at {len(moments)} accidents")
    check(refused >= 0.5 * len(moments), f"only {refused} of {len(moments)} were refused")


@pytest.mark.usefixtures("tracing")
async def test_what_the_demo_left_is_not_what_is_looked_at(build, months, tmp_path, monkeypatch):
    """A file of the output's name in the directory of the test run does not get the accident of the output."""
    (laboratory,) = await build(months, "calls.db", count=1)
    (tmp_path / "calls.db").touch()
    monkeypatch.chdir(tmp_path)
    assert accidents(await laboratory.survey())


@pytest.mark.usefixtures("tracing")
async def test_the_last_syncs_of_a_database_fail(build, months):
    """SQLite may not report a failed checkpoint of its log: the output gets its name only without a log beside it."""
    laboratories = await build(months, "calls.db")
    syncs = [point for point in accidents(await Laboratory.prepare(laboratories)) if point.startswith("fdatasync")]
    assert await each([point for point in syncs if point.endswith("+")][-14:], laboratories, fail) >= 10


@pytest.mark.parametrize("name", chosen(NAMES, "calls.ndjson", "calls.duckdb"))
async def test_a_full_disk_keeps_what_was_committed(build, months, tmp_path, name):
    """A full file system is an error; with more space the same command completes the output."""
    (laboratory,) = await build(months, name, count=1)
    await laboratory.learn()
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 400 if name in ("calls.ndjson", "calls.db") else 200
    size = 1200 if name == "calls.duckdb" else size
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={size}k,mode=700", "servetel-test", str(disk)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        destination = disk / "work" / name
        destination.parent.mkdir()
        laboratory.asked()
        ended = await laboratory.pull(destination)
        check_refusal(ended, destination)
        assert not destination.exists()
        read = laboratory.asked()
        subprocess.run([mount, "-o", "remount,size=32m", str(disk)], check=True)
        await laboratory.resume(destination, read)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", chosen(NAMES, "calls.csv", "calls.db"))
async def test_a_limit_on_the_size_of_files_is_a_full_disk(build, months, name):
    """``ulimit -f`` causes an error; without the limit the same command completes the output."""
    (laboratory,) = await build(months, name, count=1)
    await laboratory.learn()
    destination = laboratory.place()
    laboratory.asked()
    limit = 40_000 if name == "calls.parquet" else 60_000
    ended = await laboratory.pull(destination, limit=300_000 if name == "calls.duckdb" else limit)
    check_refusal(ended, destination)
    if "db" not in name:
        assert ended.said["why"] == os.strerror(errno.EFBIG)[0].lower() + os.strerror(errno.EFBIG)[1:]
    assert not destination.exists()
    await laboratory.resume(destination, laboratory.asked())
