"""A reader that checks the output's name a thousand times a second sees nothing, or the whole output."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from servetel_async import ServetelClient
from servetel_async.emulator import Dataset, Emulator
from tests.crash.laboratory import content
from tests.torture.report import TORTURE, measured

CALLS = 20_000 if TORTURE else 1_000
MONTH = ("2024-05-01", "2024-05-31")
NAMES = ("calls.ndjson", "calls.csv", "calls.ndjson.gz", "calls.parquet", "calls.db", "calls.duckdb")

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


class Onlooker(threading.Thread):
    """Reads the file of that name again and again."""

    def __init__(self, place):
        super().__init__()
        self.looks = 0
        self.seen = set()
        self.over = threading.Event()
        self._place = place

    def run(self):
        while not self.over.wait(0.001):
            self.looks += 1
            if self._place.exists():
                self.seen.add(self._look())

    def _look(self):
        if self._place.suffix == ".db":  # the receipt is written into it later
            with closing(sqlite3.connect(f"file:{self._place}?mode=ro", uri=True)) as database:
                return database.execute("SELECT count(*) FROM call_records").fetchone()[0]
        if self._place.suffix == ".duckdb":  # one program at a time may open it
            return self._place.stat().st_size > 0
        return content(self._place)


@pytest.mark.parametrize("name", NAMES)
async def test_the_name_never_shows_a_part(tmp_path, name):
    """The output is absent or whole: an early reader gets the same bytes as a later one."""
    dataset = Dataset.month("2024-05", calls=CALLS)
    place = tmp_path / name
    onlooker = Onlooker(place)
    onlooker.start()
    try:
        async with (
            Emulator(dataset) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=100) as client,
        ):
            receipt = await client.pull(place, from_date=MONTH[0], to_date=MONTH[1])
            for _ in range(500):  # one more read, now that it is there
                if onlooker.seen or not onlooker.is_alive():
                    break
                await asyncio.sleep(0.01)
    finally:
        onlooker.over.set()
        onlooker.join()
    whole = {".db": CALLS, ".duckdb": True}.get(place.suffix) or content(place)
    assert onlooker.seen == {whole}
    assert receipt.records == CALLS
    measured("P10", f"{name}: looked at {onlooker.looks:,} times, never a part of it")


async def test_a_file_that_is_replaced_is_the_old_one_or_the_new_one(tmp_path):
    """With ``overwrite=True`` the name always holds the old file or the new one."""
    place = tmp_path / "calls.csv"
    place.write_text("an older month\n")
    old = content(place)
    onlooker = Onlooker(place)
    onlooker.start()
    try:
        async with (
            Emulator(Dataset.month("2024-05", calls=CALLS)) as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=100) as client,
        ):
            await client.pull(place, from_date=MONTH[0], to_date=MONTH[1], overwrite=True)
    finally:
        onlooker.over.set()
        onlooker.join()
    assert onlooker.seen <= {old, content(place)}
    assert old in onlooker.seen
    measured("P10", f"replaced: looked at {onlooker.looks:,} times, the old one or the new one")
