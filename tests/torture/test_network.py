"""Dropped, refused, lost and slow packets, on the level of the network.

Each case runs in a network namespace of its own: nothing on this machine is changed. It needs root on Linux, ``nft``,
``ip`` and ``tc``; elsewhere it is skipped, with the reason.
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

HERE = Path(__file__).parent
CALLS = 4_000 if TORTURE else 600
SHORT = {"connect": 0.5, "read": 0.5, "total": 5.0}
LONG = {"connect": 5.0, "read": 10.0, "total": 60.0}
DROP = "nft add rule inet test packets tcp dport {port} drop"
RESET = "nft add rule inet test packets tcp dport {port} reject with tcp reset"
LOSS = "nft add rule inet test packets tcp dport {{port}} numgen random mod 100 < {percent} drop"
#: Loopback's packets are larger than the limit of the rule.
SLOW = ["ip link set lo mtu 1500", "tc qdisc add dev lo root tbf rate 8mbit burst 32kb latency 400ms"]

pytestmark = pytest.mark.timeout(600 if TORTURE else 60)


def missing():
    """Why no namespace can be made here; None if it can."""
    absent = [name for name in ("unshare", "ip", "nft", "tc") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    tried = ["unshare", "-n", "sh", "-c", "ip link set lo up && nft add table inet t"]
    done = subprocess.run(tried, capture_output=True, check=False)
    return None if done.returncode == 0 else "no network namespace may be made here"


@pytest.fixture(scope="module")
def pull():
    reason = missing()
    if reason is not None:
        pytest.skip(reason)

    def run(**job):
        given = {"calls": CALLS, "attempts": 8, "timeouts": SHORT, **job}
        environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent)}
        command = ["unshare", "-n", sys.executable, str(HERE / "in_a_namespace.py"), json.dumps(given)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return json.loads(done.stdout)

    return run


def test_packets_into_nothing(pull):
    """A server that never answers a connection gives an error after the attempts, and gets no request."""
    said = pull(before=[DROP], attempts=2)
    assert said["error"] == "RequestTimeoutError"
    assert said["requests"] == 0
    measured("P1", f"all packets dropped: {said['error']} after {sum(said['events'].values())} events")


def test_connections_are_refused(pull):
    """Connections that are refused by a reset give an error, and the server gets no request."""
    said = pull(before=[RESET], attempts=2)
    assert said["error"] is not None
    assert said["requests"] == 0


@pytest.mark.parametrize("percent", [10, 30] if TORTURE else [10])
def test_packets_get_lost(pull, percent):
    """TCP resends lost packets; every call is there."""
    said = pull(before=[LOSS.format(percent=percent)], timeouts=LONG)
    assert said["whole"], said
    measured("P1", f"{percent} % of all packets lost: every call is there, {said['requests']} requests")


def test_the_line_goes_dead_in_the_middle(pull):
    """If open connections fall silent, the pull continues over new ones and is complete."""
    said = pull(during=[DROP], after=5, seconds=1.5)
    assert said["whole"], said
    assert sum(said["events"].values()) > said["events"]["well"], "nothing was disturbed"
    measured("P1", f"dead for 1.5 s in the middle: every call is there, {said['events']}")


def test_connections_are_reset_in_the_middle(pull):
    """If a firewall resets all connections, the pull continues over new ones and is complete."""
    said = pull(during=[RESET], after=5, seconds=1.0)
    assert said["whole"], said
    assert sum(said["events"].values()) > said["events"]["well"], "nothing was disturbed"
    measured("P1", f"reset for 1 s in the middle: every call is there, {said['events']}")


def test_a_slow_line_is_no_fault(pull):
    """At 8 Mbit/s pages are slow, but bytes arrive steadily, so nothing times out."""
    said = pull(before=SLOW, timeouts={"connect": 5.0, "read": 2.0, "total": 30.0})
    assert said["whole"], said
    assert set(said["events"]) == {"well"}
    measured("P1", f"8 Mbit/s: every call is there, {said['requests']} requests, none timed out")
