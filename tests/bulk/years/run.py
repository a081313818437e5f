"""Run many histories, and shorten those that show a mistake."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from servetel_async.transport.accounts import forget_accounts
from tests.bulk.years.history import History, Traits, draw
from tests.bulk.years.known import KNOWN
from tests.bulk.years.play import Play
from tests.bulk.years.product import cheap_fingerprints
from tests.bulk.years.server import Door

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A file system in memory, if there is one: a run waits for the disk a hundred times.
MEMORY = Path("/dev/shm")
#: How often a history is played again to shorten it.
MOST_REPLAYS = 80


@dataclass
class Found:
    """The mistakes found: their seeds by kind, and the first histories as text."""

    wrong: dict[str, list[int]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    runs: int = 0
    requests: int = 0

    @property
    def seeds(self) -> set[int]:
        return {seed for seeds in self.wrong.values() for seed in seeds}


async def play(history: History, door: Door, session: aiohttp.ClientSession) -> Play:
    """Play a history in its own directory."""
    forget_accounts()
    memory = MEMORY if MEMORY.is_dir() else None
    with cheap_fingerprints(), tempfile.TemporaryDirectory(dir=memory, prefix="years-") as folder:
        one = Play(history, door, session, Path(folder))
        await one.run()
    return one


async def look(seeds: Iterable[int], *, show: int = 1, only: str = "", shorten: bool = True) -> Found:
    """Play the histories of these seeds."""
    found = Found()
    async with Door() as door, aiohttp.ClientSession() as session:
        for seed in seeds:
            history = draw(seed)
            one = await play(history, door, session)
            found.runs += one.runs
            found.requests += one.requests
            found.lines += [f"seed {seed} ({habits_of(history)}): {kind}: {what}" for kind, what in one.wrong]
            for kind in dict.fromkeys(kind for kind, _ in one.wrong):
                known = found.wrong.setdefault(kind, [])
                known.append(seed)
                if len(known) <= show and only in kind:
                    shortest = await shortened(history, kind, door, session) if shorten else one
                    found.texts.append(as_text(kind, shortest))
    return found


async def play_one(history: History) -> Play:
    """Play a history with its own server."""
    async with Door() as door, aiohttp.ClientSession() as session:
        return await play(history, door, session)


async def look_at_known() -> dict[str, Play]:
    """Play the histories that once failed, by name."""
    return {name: await play_one(history) for name, history in KNOWN.items()}


async def shortened(history: History, kind: str, door: Door, session: aiohttp.ClientSession) -> Play:
    """The shortest history found that still shows this kind of mistake."""
    best = await play(history, door, session)
    replays, changed = 0, True
    while changed:
        changed = False
        for simpler in simpler_ones(best.history):
            replays += 1
            if replays > MOST_REPLAYS:
                return best
            one = await play(simpler, door, session)
            if any(found == kind for found, _ in one.wrong):
                best, changed = one, True
                break
    return best


def simpler_ones(history: History) -> Iterator[History]:
    """The same history with one step less, a plainer step, or a plainer server."""
    steps = history.steps
    for index in reversed(range(len(steps))):
        yield dataclasses.replace(history, steps=steps[:index] + steps[index + 1 :])
    plain = Traits()
    for name in (each.name for each in dataclasses.fields(Traits)):
        if getattr(history.traits, name) != getattr(plain, name):
            traits = dataclasses.replace(history.traits, **{name: getattr(plain, name)})
            yield dataclasses.replace(history, traits=traits)
    for index, step in enumerate(steps):
        for name, value in (
            ("mask", False),
            ("tick", 0),
            ("clock", 0),
            ("settle", 7200),
            ("calls", 2),
            ("calls", step.calls // 2),
        ):
            if getattr(step, name) not in (value, 0, 1, False) and value != getattr(step, name):
                plainer = dataclasses.replace(step, **{name: value})
                yield dataclasses.replace(history, steps=(*steps[:index], plainer, *steps[index + 1 :]))


def habits_of(history: History) -> str:
    """The server's traits that are not plain."""
    traits, plain = dataclasses.asdict(history.traits), dataclasses.asdict(Traits())
    return ", ".join(f"{name}={value}" for name, value in traits.items() if value != plain[name]) or "plain"


def as_text(kind: str, one: Play) -> str:
    """A readable form of a history."""
    history = one.history
    lines = [
        f"== {kind} (seed {history.seed}; {history.accounts} accounts; pages of {history.page_size}, {history.concurrency} at once)",
        f"   server: {habits_of(history)}",
        *(f"   {line}" for line in one.story),
    ]
    return "\n".join(lines)
