"""A computer with a wrong clock, by libfaketime: the pulled calls do not depend on it.

Needs ``faketime``; without it the tests are skipped, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.report import TORTURE, measured

ROOT = Path(__file__).parent.parent.parent
CLOCKS = ("-10y", "+10y", "-1h", "+1h") if TORTURE else ("-10y", "+1h")
#: The server sends its time; the range has no end.
PULL = """
import asyncio, json, sys, tempfile, time
from pathlib import Path
from servetel_async import ServetelClient
from servetel_async.emulator import Dataset, Emulator

async def main():
    dataset = Dataset.range("2024-05-06 09:00:00", "2024-05-06 18:59:59", calls=300)
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "calls.ndjson"
        async with (
            Emulator(dataset, now="2024-05-06 19:30:00") as api,
            ServetelClient(api.token, base_url=api.base_url, rate=None, page_size=50) as client,
        ):
            receipt = await client.pull(target, from_date="2024-05-06")
            whole = sorted(target.read_bytes().splitlines()) == sorted(call.body for call in dataset.calls)
            print(json.dumps([time.strftime("%Y"), whole, receipt.to_date, receipt.final_until]))

asyncio.run(main())
"""


@pytest.mark.timeout(300 if TORTURE else 60)
@pytest.mark.parametrize("clock", CLOCKS)
def test_the_servers_clock_is_what_counts(clock):
    """With a clock that is years or an hour wrong, an open range ends at the server's present, and is complete."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("not installed: faketime")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DONT_FAKE_MONOTONIC": "1"}
    command = [faketime, "-f", clock, sys.executable, "-c", PULL]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    year, whole, end, final_until = json.loads(done.stdout)
    assert (whole, end, final_until) == (True, "2024-05-06 19:30:00", "2024-05-06 17:30:00")
    measured("P1", f"a clock that is {clock} off ({year}): every call is there, up to the server's now")
