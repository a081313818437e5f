"""The time of a typed stream by lines, from samples of the running line.

A timer of CPU time interrupts the process; C code counts for the line that called it.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import contenders
from benchmarks.page_server import serving
from benchmarks.section import Section, table

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: Seconds of CPU time between two samples; a kernel's own clock may make it a little more.
INTERVAL = 0.001
SIZES = (100, 1000)
MOST = 12
#: The part that a line belongs to, by a text in its file's path; the first match counts.
PARTS = {
    "benchmarks/": "the consumer's own loop",
    "protocol/decoding": "decoding",
    "protocol/record_reader": "decoding",
    "protocol/window_filter": "each call once, and inside of its window",
    "servetel_async/stream": "the stream",
    "servetel_async/reading": "the stream",
    "protocol/": "page arithmetic, verdicts",
    "servetel_async/": "transport",
    "aiohttp": "aiohttp",
    "yarl": "aiohttp",
    "multidict": "aiohttp",
    "": "event loop, sockets",
}


def looked_at(work: Callable[[], object]) -> Counter[tuple[str, str, int]]:
    """Run it, and count its samples by file, function and line."""
    found: Counter[tuple[str, str, int]] = Counter()

    def look(_signal: int, frame: FrameType | None) -> None:
        if frame is not None:
            found[frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return found


def by_part(found: Counter[tuple[str, str, int]]) -> Counter[str]:
    parts: Counter[str] = Counter()
    for (file, _, _), times in found.items():
        parts[next(part for piece, part in PARTS.items() if piece in file)] += times
    return parts


def lines_of(found: Counter[tuple[str, str, int]]) -> list[list[str]]:
    """Return the most expensive lines, with their source."""
    rows = []
    for (file, function, line), times in found.most_common(MOST):
        text = Path(file).read_text("utf-8").splitlines()[line - 1].strip() if Path(file).exists() else ""
        short = "/".join(Path(file).parts[-2:])
        rows.append([f"{times / found.total():.0%}", f"{short}:{line}", f"`{function}`", f"`{text:.80}`"])
    return rows


def run(*, quick: bool) -> Section:
    calls, rounds = (10_000, 2) if quick else (50_000, 10)
    found: dict[int, Any] = {}
    with serving(calls) as url:
        for size in SIZES:
            contenders.stream(f"{url}/plain", size, calls)
            found[size] = looked_at(
                lambda size=size: [contenders.stream(f"{url}/plain", size, calls) for _ in range(rounds)]
            )
    parts = {size: by_part(each) for size, each in found.items()}
    names = [name for name, _ in parts[SIZES[0]].most_common()]
    rows = [[name, *(f"{parts[size][name] / parts[size].total():.0%}" for size in SIZES)] for name in names]
    lines = ["Shares of a typed stream's CPU time:", ""]
    lines += table(["", *(f"pages of {size}" for size in SIZES)], rows)
    for size in SIZES:
        lines += [f"The dearest lines, pages of {size}:", "", *table(["", "", "", ""], lines_of(found[size]))]
    return Section("Where the time goes", lines)
