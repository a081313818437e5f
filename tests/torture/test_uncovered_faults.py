"""Faults of the computer during a pull: it sleeps, its clock jumps, it has no memory, its disk refuses writes.

A case whose instrument is missing is skipped with a message.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from servetel_async import ServetelClient
from servetel_async.emulator import Dataset, Emulator, Fault
from tests.crash import strace
from tests.torture.report import TORTURE

ROOT = Path(__file__).parent.parent.parent
RANGE = {"from_date": "2024-01-01", "to_date": "2024-08-31"}
DATASET = Dataset.range("2024-01-01 00:00:00", "2024-08-31 23:59:59", calls=400)
PATIENCE = 50.0
NAMES = ("calls.csv.gz", "calls.db", "calls.ndjson", "calls.parquet", "days/", "calls.duckdb")[: None if TORTURE else 2]

pytestmark = [
    pytest.mark.timeout(3600 if TORTURE else 60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and uses tools of Linux"),
]


@pytest.fixture
async def api():
    async with Emulator(DATASET, latency=0.002) as started:
        yield started


async def begin(api, destination, *, around=(), environment=None, **accident):
    """Start a pull in a process of its own."""
    job = {"base_url": api.base_url, "token": api.token, "destination": str(destination), "pull": RANGE, **accident}
    settings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SERVETEL_CONFIG": "", "PYTHONUTF8": "1"}
    return await asyncio.create_subprocess_exec(
        *(*around, sys.executable, "-B", str(Path(__file__).with_name("one_pull.py")), json.dumps(job)),
        env=settings | (environment or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process):
    """Wait for it; returns its result, its standard error, and its code."""
    said, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    return json.loads(said or "{}"), errors.decode(), process.returncode


async def pull(api, destination, **options):
    said, errors, code = await end(await begin(api, destination, **options))
    assert code == 0, errors[-2000:]
    return said


def is_whole(destination):
    """Check that each call is there once, as the server sent it."""
    return sorted(destination.read_bytes().splitlines()) == sorted(call.body for call in DATASET.calls)


def needs(*tools):
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")


async def until(holds):
    """Poll until it is true; the test's own time limit ends it."""
    while not holds():
        await asyncio.sleep(0.002)


async def test_a_computer_that_slept_goes_on(tmp_path):
    """If the process sleeps and all its connections are gone when it wakes up, the pull is still complete."""
    destination = tmp_path / "calls.ndjson"
    before = Emulator(DATASET, faults=[Fault("stall", nth=20), Fault("stall", nth=21)])
    await before.start()
    process = await begin(before, destination)
    await until(lambda: [request.fault for request in before.requests[-2:]] == ["stall", "stall"])
    process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    await until(lambda: state.read_text("ascii").rpartition(")")[2].split()[0] == "T")
    port = int(before.base_url.rpartition(":")[2])
    await before.stop()
    async with Emulator(DATASET, port=port, token=before.token) as after:
        process.send_signal(signal.SIGCONT)
        said, errors, code = await end(process)
        assert code == 0, errors[-2000:]
        assert said["complete"]
        assert is_whole(destination)
        assert len(said["failed"]) >= 2  # it was waiting for both
        assert after.requests


async def test_a_clock_that_jumps_changes_nothing(tmp_path, api):
    """Jumps of an hour back, forty days ahead and ten years back during a pull cause no waits and lose no call."""
    needs("faketime")
    destination, clock = tmp_path / "calls.ndjson", tmp_path / "clock"
    clock.write_text("+0", "ascii")
    library = await asyncio.create_subprocess_exec(
        "faketime", "-f", "+0", "env", stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]}
    )
    shown = (await library.communicate())[0].decode()
    environment = {
        "LD_PRELOAD": re.search(r"^LD_PRELOAD=(.*)$", shown, re.MULTILINE)[1],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    job = {"clock": str(clock), "clocks": ["-1h", "+40d", "-10y"], "after": 1}
    said = await pull(api, destination, environment=environment, **job)
    assert said["years"][-1] <= said["years"][0] - 9, "the clock did not jump"
    assert said["complete"]
    assert is_whole(destination)
    assert 0 <= said["seconds"] < PATIENCE


@pytest.mark.parametrize("ending", ["ndjson", "db"])
async def test_a_process_without_memory_keeps_what_it_has(tmp_path, api, ending):
    """Without memory in the middle a pull fails, the output has no name, and the same pull can be resumed."""
    destination = tmp_path / f"calls.{ending}"
    said, errors, code = await end(await begin(api, destination, memory=True, after=3))
    assert "complete" not in said, "it had memory enough"
    assert re.search("MemoryError|memory|thread", errors) or said.get("error") == "OutputError", (said, errors, code)
    assert not destination.exists()
    assert (tmp_path / f"{destination.name}.part").exists()
    asked = len(api.requests)
    assert (await pull(api, destination))["complete"]
    again = sum(request.limit == 10 for request in api.requests[asked:])
    assert 0 < again <= 40 - 5, "what was committed was asked for again"
    assert ending == "db" or is_whole(destination)


@pytest.mark.parametrize("why", ["a mode", "a mount"])
async def test_a_place_that_may_not_be_written_costs_no_request(tmp_path, api, why):
    """Another user's directory, or a read-only disk, is an error of ours before any request."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    if why == "a mode":
        directory.chmod(0o500)
        without_rights = "-dac_override,-dac_read_search"  # root could write anyway
        around = ["setpriv", "--inh-caps", without_rights, "--bounding-set", without_rights]
        around = around if os.geteuid() == 0 else []
        needs(*around[:1])
    else:
        around = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"']
        around.append(str(directory))
        needs("unshare")
        tried = await asyncio.create_subprocess_exec(*around, "true", stderr=asyncio.subprocess.DEVNULL)
        if await tried.wait():
            pytest.skip("nothing may be mounted here")
    said = await pull(api, directory / "calls.ndjson", around=around)
    assert said["error"] == "OutputError"
    assert said["why"] == ("permission denied" if why == "a mode" else "read-only file system")
    assert not api.requests
    assert not list(directory.iterdir())


@pytest.mark.parametrize("name", NAMES)
async def test_nothing_is_written_elsewhere(tmp_path, api, name):
    """A pull writes only into the directory of its output, never into a shared place."""
    reason = strace.missing()
    if reason is not None:
        pytest.skip(reason)
    library = {"parquet": "pyarrow", "days/": "pyarrow", "duckdb": "duckdb"}.get(name.rpartition(".")[2])
    if library is not None and importlib.util.find_spec(library) is None:
        pytest.skip(f"not installed: {library}")
    log, place = tmp_path / "log", tmp_path / "place"
    place.mkdir()
    watch = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=?open,openat,?creat,?mkdir,mkdirat,?mknod,?symlink"]
    await pull(api, f"{place}/{name}", around=watch)
    made = [
        match[1]
        for line in log.read_text("utf-8", "replace").splitlines()
        if ("O_CREAT" in line or " mkdir" in line or "O_TMPFILE" in line) and (match := re.search(r'"([^"]*)"', line))
    ]
    inside = [path for path in made if path.startswith(str(place))]
    assert len(inside) >= 2
    assert [path for path in made if path not in inside and path != "/dev/null"] == []


async def test_the_disk_knows_calls_before_the_journal_counts_them(tmp_path, api):
    """For a power cut, the part is synced before its journal's line, that before the next, and all before the name."""
    reason = strace.missing()
    if reason is not None:
        pytest.skip(reason)
    log, destination = tmp_path / "log", tmp_path / "place" / "calls.ndjson"
    destination.parent.mkdir()
    calls = ("write", "pwrite64", "writev", "fsync", "fdatasync", "link", "linkat", "rename", "renameat", "renameat2")
    watch = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(log), "-e", f"trace={','.join(f'?{n}' for n in calls)}"]
    await pull(api, destination, around=watch)
    steps = steps_of(log, destination)
    unsynced, journaled, named = set(), 0, 0
    for call, file in steps:
        if call == "write":
            assert not unsynced - {file}, f"{file} is written while {unsynced} is not on the disk"
            unsynced.add(file)
            journaled += file.endswith(".journal")
        elif call == "sync":
            unsynced.discard(file)
        elif call == "name":
            assert not unsynced, f"a name is given while {unsynced} is not on the disk"
            named += 1
            unsynced.add(str(destination.parent))
    assert not unsynced
    assert journaled >= 8
    assert named >= 2  # the output, and its receipt


def steps_of(log, destination):
    """The operations on the files of one output, in the order of time: write, sync or rename."""
    for line in log.read_text("utf-8", "replace").splitlines():
        found = re.match(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?(.*)", line)
        if found is None or str(destination.parent) not in line or "= -1" in line:
            continue
        call, file, _ = found.groups()
        if call in ("fsync", "fdatasync"):
            yield "sync", file
        elif "write" in call:
            yield "write", file
        else:
            yield "name", file


def test_a_loop_of_another_kind_is_told_so():
    """Without an asyncio loop nothing is sent: Python's own error is raised, and the client stays usable."""
    client = ServetelClient("t" * 40, base_url="http://127.0.0.1:9")
    step = client.fetch_page()
    with pytest.raises(RuntimeError, match="no running event loop"):
        step.send(None)

    async def inside():
        nested = client.fetch_page()
        try:
            with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
                asyncio.run(nested)
        finally:
            nested.close()
        await client.aclose()

    asyncio.run(inside())
