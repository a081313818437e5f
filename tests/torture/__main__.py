"""Run the tests of all promises and print the table: promise, measurement and seeds.

``python -m tests.torture`` is the whole size, about an hour on two cores, with a fresh seed. ``--quick`` takes
minutes. Names such as ``P1 P8`` run only these.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.torture.promises import PROMISES, Promise

ROOT = Path(__file__).parent.parent.parent


def run(promise: Promise, environment: dict[str, str]) -> tuple[int, float]:
    """Run its tests on every core, or one by one if the loop is timed; returns pytest's code, and seconds."""
    began = time.monotonic()
    sys.stdout.write(f"\n{promise.number} {promise.what}\n")
    sys.stdout.flush()
    workers = "0" if promise.times_the_loop else "auto"
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-n", workers, "--dist", "worksteal"]
    command = [sys.executable, "-m", "pytest", *options, *promise.tests]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return code, time.monotonic() - began


def read(report: Path) -> dict[str, list[dict[str, str]]]:
    """The measurements, by promise."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for line in report.read_text("utf-8").splitlines():
        entry = json.loads(line)
        found[entry["promise"]].append(entry)
    return found


def table(wanted: list[Promise], ends: dict[str, tuple[int, float]], found: dict[str, list[dict[str, str]]]) -> int:
    """Print the promises and the measurements; returns the number of broken promises."""
    broken = 0
    for promise in wanted:
        code, seconds = ends.get(promise.number, (0, 0.0))
        kept = code == 0 and bool(found[promise.number])
        broken += not kept
        took = f" ({seconds:.0f} s)" if seconds else ""
        sys.stdout.write(f"{promise.number:4}{'kept' if kept else 'BROKEN':8}{promise.what}{took}\n")
        sys.stdout.write(f"{'':12}promised: {promise.promised}\n")
        for entry in found[promise.number] or [{"value": "nothing", "seeds": ""}]:
            seeds = f" [seeds {entry['seeds']}]" if entry["seeds"] else ""
            sys.stdout.write(f"{'':12}measured: {entry['value']}{seeds}\n")
    sys.stdout.write(f"{len(wanted) - broken} of {len(wanted)} promises kept\n")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("promises", nargs="*", metavar="P1", help="only these")
    parser.add_argument("--quick", action="store_true", help="the size of the ordinary suite")
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--from", dest="report", type=Path, help="run nothing: show what a suite has measured")
    chosen = parser.parse_args()
    unknown = set(chosen.promises) - {each.number for each in PROMISES}
    if unknown:
        parser.error(f"no such promise: {', '.join(sorted(unknown))}")
    wanted = [each for each in PROMISES if not chosen.promises or each.number in chosen.promises]
    if chosen.report is not None:
        return min(1, table(wanted, {}, read(chosen.report)))
    seed = secrets.randbelow(1_000_000) if chosen.seed is None else chosen.seed
    size = f"seed {seed}, {'quick' if chosen.quick else 'whole'} size\n"
    sys.stdout.write(size)  # now too: a run that is stopped may be repeated
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "measured.jsonl"
        report.touch()
        environment = os.environ | {"SERVETEL_TORTURE_REPORT": str(report), "SERVETEL_TORTURE_SEED": str(seed)}
        environment["SERVETEL_TORTURE"] = "" if chosen.quick else "1"
        # The loop is timed first, because the disk is still busy after the others.
        order = sorted(wanted, key=lambda promise: not promise.times_the_loop)
        ends = {promise.number: run(promise, environment) for promise in order}
        found = read(report)
    sys.stdout.write(f"\n{size}")
    return min(1, table(wanted, ends, found))


if __name__ == "__main__":
    sys.exit(main())
