"""A name is durable only after an fsync of its directory: committed calls must not depend on a lost name."""

from __future__ import annotations

import re

import pytest

from tests.torture.report import TORTURE

pytestmark = [pytest.mark.usefixtures("tracing"), pytest.mark.timeout(3600 if TORTURE else 60)]

_created = re.compile(r'\d+ +(?:openat\(.*O_CREAT.*|link(?:at)?\(.*"([^"]+)"\)) = \d+(?:<(.*)>)?$').match
_written = re.compile(r"\d+ +p?write(?:64|v)?\(\d+<([^>]*)>").match
_synced = re.compile(r"\d+ +f(?:data)?sync\(\d+<([^>]*)>\) = 0").match


def hanging(log, directory, names):
    """The files that got their header and a window before their directory was synced."""
    writes: dict[str, int] = {}
    found: list[str] = []
    for line in log.read_text("utf-8", "replace").splitlines():
        if (match := _created(line)) is not None:
            writes.setdefault(match[1] or match[2], 0)
        elif (match := _synced(line)) is not None and match[1] == str(directory):
            writes = dict.fromkeys(writes, -1_000_000)
        elif (match := _written(line)) is not None and match[1] in writes:
            writes[match[1]] += 1
            if writes[match[1]] == 2:
                found.append(match[1].rpartition("/")[2])
    return [name for name in found if name in names]


@pytest.mark.parametrize(
    ("name", "endings"),
    [
        ("calls.ndjson", (".part", ".part.journal")),
        ("calls.csv", (".part", ".part.journal")),
        ("calls.db", (".part", ".part-wal")),
        ("calls.duckdb", (".part",)),
    ],
)
async def test_names_are_durable_before_the_first_window(build, months, name, endings):
    """The names of the files that hold committed windows are durable before the first window counts."""
    (laboratory,) = await build(months, name, count=1)
    destination = laboratory.place()
    ended = await laboratory.traced(destination)
    assert ended.code == 0, ended
    log = laboratory.log(destination)
    text = log.read_text("utf-8", "replace")
    for ending in endings:
        assert f"{name}{ending}>" in text, "it was never open"
    assert hanging(log, destination.parent, [f"{name}{ending}" for ending in endings]) == []


@pytest.mark.parametrize("name", ["calls.ndjson", "calls.csv", "calls.ndjson.gz", "calls.parquet", "days"])
async def test_the_bytes_of_every_file_are_synced(build, months, week, name):
    """Every file is synced after its last byte: the output, its receipt, and the files for a resume."""
    (laboratory,) = await build(week if name == "days" else months, name, count=1)
    await laboratory.learn()
    destination = laboratory.place()
    ended = await laboratory.traced(destination)
    assert ended.code == 0, ended
    unsynced: dict[str, bool] = {}
    named: set[str] = set()
    for line in laboratory.log(destination).read_text("utf-8", "replace").splitlines():
        if (match := _created(line)) is not None:
            named.add((match[1] or match[2]).rpartition("/")[0])
        elif (match := _written(line)) is not None:
            unsynced[match[1]] = True
        elif (match := _synced(line)) is not None:
            unsynced[match[1]] = False
            named.discard(match[1])
    ours = {path: left for path, left in unsynced.items() if path.startswith(str(destination.parent))}
    assert len(ours) >= 4
    assert [path for path, left in ours.items() if left] == []
    assert named == set(), "directories that got a name, and were not synced since"
