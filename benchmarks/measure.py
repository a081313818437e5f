"""Measurements on a machine that is never quiet: interleaved rounds, medians, ratios within one run."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection

CLIENT_CORE, SERVER_CORE = 0, 1
_spawn = get_context("spawn")
#: glibc returns and takes memory at random moments, up to 250 us a page, which is not measured here.
ALLOCATOR = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_TOP_PAD_": "100000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}


def pin(core: int) -> None:
    """Keep this process on one core, if the system can."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})


@contextmanager
def all_cores() -> Iterator[None]:
    """Let this process use every core for a while: a pull has a thread that writes, and dlt has several."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settle_allocator() -> None:
    """Start this program again with a quiet allocator; call it first."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)


@dataclass
class Timing:
    """The times of one contender.

    Attributes:
        wall: seconds of each round; cpu: seconds of this process and its children.
        units: records of a round.
    """

    units: int = 0
    wall: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU per record, the median."""
        return statistics.median(self.cpu) / self.units * 1e6

    @property
    def per_second(self) -> float:
        """Records a second, the median."""
        return self.units / statistics.median(self.wall)

    @property
    def spread(self) -> float:
        """The spread of the rounds: half the distance of the quartiles, over the median."""
        if len(self.cpu) < 3:
            return 0.0
        low, _, high = statistics.quantiles(self.cpu, n=4)
        return (high - low) / 2 / statistics.median(self.cpu)


def interleave(contenders: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, Timing]:
    """Run each once in every round, so that a slow machine slows all of them; one more round warms up.

    Each has a process of its own for all of its rounds, so that its heap does not slow the others.

    Args:
        contenders: by name; each can be pickled, and returns the number of its records.
        rounds: without the first one.
    """
    timings = {name: Timing() for name in contenders}
    with ExitStack() as exits:
        runners = {name: exits.enter_context(_runner(contender)) for name, contender in contenders.items()}
        for number in range(rounds + 1):
            for name, pipe in runners.items():
                pipe.send(None)
                units, wall, cpu = pipe.recv()
                if number:
                    timing = timings[name]
                    timing.units = units
                    timing.wall.append(wall)
                    timing.cpu.append(cpu)
    return timings


def once(contender: Callable[[], int]) -> tuple[int, float, float]:
    """Run it here: records, seconds, seconds of CPU."""
    gc.collect()
    cpu, wall = _cpu(), time.perf_counter()
    units = contender()
    return units, time.perf_counter() - wall, _cpu() - cpu


@contextmanager
def _runner(contender: Callable[[], int]) -> Iterator[Connection]:
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=_serve, args=(there, contender), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join()


def _serve(pipe: Connection, contender: Callable[[], int]) -> None:
    with suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(once(contender))


def ratio(upper: Timing, lower: Timing, *, of: str = "cpu") -> float:
    """The median of the ratios of each round, per record: rounds of one number ran under the same load."""
    pairs = zip(getattr(upper, of), getattr(lower, of), strict=True)
    return statistics.median((mine / upper.units) / (theirs / lower.units) for mine, theirs in pairs)


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
