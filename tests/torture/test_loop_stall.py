"""How long one loop iteration delays other tasks while calls are streamed, pulled and requested by many callers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.loop_under_load import LOADS
from tests.torture.report import TORTURE, measured
from tests.torture.server_process import server_of

HERE = Path(__file__).parent
CALLS = 100_000 if TORTURE else 10_000
CALLERS = 1_000 if TORTURE else 200
#: Seconds of all iterations but one in a hundred, and of the longest.
USUAL, LONGEST = 0.005, 0.025
#: Of fewer iterations one in a hundred is the longest.
FEW = 500

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


@pytest.fixture(scope="module")
def address():
    with server_of(CALLS) as address:
        yield address


def turns_of(load, address):
    """The CPU time of every iteration of a loop under this load, without development mode."""
    command = [sys.executable, str(HERE / "loop_under_load.py"), load, *address, str(CALLERS)]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300).stdout)


@pytest.mark.parametrize("load", LOADS)
def test_no_turn_is_long(address, load):
    """Other tasks of the loop wait 5 ms at most, and up to 25 ms once in a hundred iterations.

    The best of five counts, because other programs on the machine only make an iteration longer.
    """
    usual = longest = 1.0
    number = 0
    for _ in range(5):
        turns = turns_of(load, address)
        number += len(turns)
        share = 0.99 if len(turns) >= FEW else 0.95
        usual = min(usual, turns[int(share * len(turns))])
        longest = min(longest, turns[-1])
        if usual <= USUAL and longest <= LONGEST:
            break
    measured(
        "P6", f"{load}: p{share * 100:.0f} {usual * 1e3:.1f} ms, longest {longest * 1e3:.1f} ms of {number:,} turns"
    )
    assert usual <= USUAL
    assert longest <= LONGEST
