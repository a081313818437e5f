"""Run histories from seeds, and print a short history of each kind of mistake; see ``truth``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from tests.bulk.years.run import look, look_at_known


def show_known(only: str, *, whole: bool) -> int:
    """Print each known history with its mistakes; return 1 if there are any."""
    known = {name: one for name, one in asyncio.run(look_at_known()).items() if only in name}
    for name, one in known.items():
        kinds = ", ".join(dict.fromkeys(kind for kind, _ in one.wrong))
        story = "".join(f"\n    {line}" for line in one.story) if whole or (only and one.wrong) else ""
        sys.stdout.write(f"{name}: {kinds or 'right'}{story}\n")
    wrong = [name for name, one in known.items() if one.wrong]
    sys.stdout.write(f"{len(known)} histories, {len(wrong)} with something wrong\n")
    return 1 if wrong else 0


def main() -> int:
    """Print the mistakes that the seeds show; return 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.bulk.years", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int, default=1, help="histories of each kind of wrong")
    parser.add_argument("--only", default="", help="show only kinds that contain this text")
    parser.add_argument("--whole", action="store_true", help="do not shorten the histories")
    parser.add_argument("--list", action="store_true", help="a line for each wrong, and no histories")
    parser.add_argument("--known", action="store_true", help="the histories that were wrong once")
    options = parser.parse_args()
    if options.known:
        return show_known(options.only, whole=options.whole)
    begun, cpu = time.perf_counter(), time.process_time()
    seeds = range(options.first, options.first + options.seeds)
    found = asyncio.run(
        look(seeds, show=0 if options.list else options.show, only=options.only, shorten=not options.whole)
    )
    for text in found.lines if options.list else found.texts:
        sys.stdout.write(text + ("\n" if options.list else "\n\n"))
    took, used = time.perf_counter() - begun, time.process_time() - cpu
    counts = Counter({kind: len(where) for kind, where in found.wrong.items()})
    for kind, number in counts.most_common():
        first = ", ".join(map(str, found.wrong[kind][:6]))
        sys.stdout.write(f"{number:5} histories: {kind} (seeds {first}{', ...' if number > 6 else ''})\n")
    sys.stdout.write(
        f"{options.seeds} histories, {found.runs} runs, {found.requests} requests, {took:.0f} s, {used:.0f} s of computing; "
        f"{len(found.seeds)} histories with something wrong\n"
    )
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
