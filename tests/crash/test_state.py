"""The state that a pull leaves for the next one is used only if it is intact, and by one run at a time."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from servetel_async import AuthenticationError, OutputError, ResumeMismatchError, Retry, ServetelClient
from servetel_async.emulator import Emulator, Fault
from tests.crash.laboratory import PAGE_SIZE, PATIENCE, SLOTS, beside, chosen
from tests.torture.report import TORTURE

FILES = ("calls.ndjson", "calls.csv", "calls.parquet")
DATABASES = ("calls.db", "calls.duckdb")
#: Bits that are flipped, one at a time.
FLIPS = 3_000 if TORTURE else 50

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


@pytest.fixture
async def api(months):
    """Refuses the 40th request for good: a pull ends there, with some windows committed."""
    async with Emulator(months.dataset, faults=[Fault("status", status=401, nth=40, times=1)]) as api:
        yield api


@pytest.fixture
async def client(api):
    retry = Retry(attempts=2, base=0.001)
    options = {"rate": None, "retry": retry, "page_size": PAGE_SIZE, "max_concurrency": SLOTS}
    async with ServetelClient(api.token, base_url=api.base_url, **options) as client:
        yield client


@pytest.fixture
def dates(months):
    return {"from_date": months.first, "to_date": months.last}


async def interrupt(client, destination, dates):
    destination.parent.mkdir()
    with pytest.raises(AuthenticationError):
        await client.pull(destination, **dates)
    assert not destination.exists()


def state(destination):
    """All files there, byte for byte."""
    return {path.name: path.read_bytes() for path in destination.parent.iterdir()}


@pytest.mark.parametrize("name", chosen(FILES, "calls.ndjson"))
async def test_a_journal_with_a_wrong_bit_is_refused(client, dates, tmp_path, name):
    """A journal with any flipped bit ends the pull before it sends or writes anything."""
    destination = tmp_path / "work" / name
    await interrupt(client, destination, dates)
    journal = beside(destination, ".part.journal")
    sound = journal.read_bytes()
    assert sound.count(b"\n") >= 2
    chance = random.Random(name)
    for _ in range(FLIPS):
        flipped = bytearray(sound)
        flipped[chance.randrange(len(sound) - 1)] ^= 1 << chance.randrange(8)  # a line without its end does not count
        journal.write_bytes(flipped)
        before = state(destination)
        with pytest.raises(ResumeMismatchError) as caught:
            await client.pull(destination, **dates)
        assert caught.value.fix
        assert state(destination) == before
    journal.write_bytes(sound)
    assert (await client.pull(destination, **dates)).complete


@pytest.mark.parametrize("name", chosen(FILES, "calls.ndjson"))
async def test_a_part_with_a_wrong_bit_is_never_called_whole(client, dates, tmp_path, name):
    """Committed bytes that have changed since end the pull with an error; no output is made of them."""
    destination = tmp_path / "work" / name
    await interrupt(client, destination, dates)
    part = beside(destination, ".part")
    sound, journal = part.read_bytes(), beside(destination, ".part.journal").read_bytes()
    chance = random.Random(name)
    for _ in range(20 if TORTURE else 3):
        flipped = bytearray(sound)
        flipped[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        part.write_bytes(flipped)
        beside(destination, ".part.journal").write_bytes(journal)
        with pytest.raises(OutputError, match="not as this program left it"):
            await client.pull(destination, **dates)
        assert not destination.exists()


@pytest.mark.parametrize("name", DATABASES)
async def test_a_damaged_database_is_refused(client, dates, tmp_path, name):
    """An unfinished database with a damaged head is refused, and nothing of it is overwritten."""
    destination = tmp_path / "work" / name
    await interrupt(client, destination, dates)
    part = beside(destination, ".part")
    part.write_bytes(b"\xff" * 64 + part.read_bytes()[64:])
    before = part.read_bytes()
    with pytest.raises(ResumeMismatchError):
        await client.pull(destination, **dates)
    assert part.read_bytes() == before


@pytest.mark.parametrize("name", [*FILES, *DATABASES])
async def test_the_state_of_another_query_is_not_taken_over(client, api, dates, tmp_path, name):
    """Another query for the same destination is refused, and the first one can still be completed."""
    destination = tmp_path / "work" / name
    await interrupt(client, destination, dates)
    with pytest.raises(ResumeMismatchError):
        await client.pull(destination, **{**dates, "to_date": "2024-07-31"})
    receipt = await client.pull(destination, **dates)
    assert receipt.complete
    assert receipt.records == 400


@pytest.mark.parametrize("name", chosen([*FILES, *DATABASES], "calls.ndjson", "calls.db"))
async def test_without_resume_it_begins_anew(client, api, dates, tmp_path, name):
    """``resume=False`` drops the state of another query, and nothing of it is in the output."""
    destination = tmp_path / "work" / name
    await interrupt(client, destination, dates)
    receipt = await client.pull(destination, **{**dates, "to_date": "2024-02-15"}, resume=False)
    assert receipt.complete
    assert receipt.records == len(api.truth(from_date="2024-01-01 00:00:00", to_date="2024-02-15 23:59:59"))
    names = sorted(path.name for path in destination.parent.iterdir())
    assert names == [name, f"{name}.receipt.json"]


@pytest.mark.parametrize("name", chosen([*FILES, *DATABASES], "calls.ndjson", "calls.db"))
async def test_one_destination_has_one_writer(build, months, name):
    """While a run writes, another one is refused; when the first is killed, the next one resumes it."""
    first, second = await build(months, name)
    await second.learn()
    first.whole, first.windows = second.whole, second.windows
    first.api.add_fault(Fault("stall", nth=40))
    destination = first.place()
    process = await first.begin(destination)
    running = asyncio.create_task(first.go())
    async with asyncio.timeout(PATIENCE):
        while not first.api.fired["stall"]:
            assert not running.done(), running
            await asyncio.sleep(0.01)
    refused = await second.pull(destination)
    assert refused.said["error"] == "OutputLockedError"
    assert all(refused.said[part] for part in ("what", "why", "fix"))
    os.kill(process, signal.SIGKILL)
    assert (await running).killed
    await first.resume(destination, first.asked())
