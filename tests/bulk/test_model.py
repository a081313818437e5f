"""A pull from a server that changes, errs and breaks, in every combination that can be drawn.

Each example draws a table (bursts within one second, gaps, calls on the edges of the range), the habits of the server,
the changes during the read, the failures, the client, and a file or a database. Afterwards:

- the lines are the server's own bytes, newest first, calls of one second by id, and each call once;
- no call is there that the server never had;
- every call that was listed throughout is in the output, or the receipt names its seconds;
- after an error there is no output, and the same pull succeeds once the server works.

Errors that no client can see are not drawn: a server without a count that leaves calls out, and a count that is wrong
by just as much as the list has changed. If a list loses one call and gains another between two replies, a window of
several pages may lose a call unseen: then only one-page windows are checked for every call.
``SERVETEL_MODEL_EXAMPLES=5000`` draws 5000 new examples, the whole torture 200; the suite repeats the same few.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from servetel_async import CallQuery, Retry, ServetelClient, ServetelError
from servetel_async.emulator import Dataset, Emulator, Fault
from servetel_async.emulator.clock import WallClock
from tests.torture.report import SEED, TORTURE, measured

EXAMPLES = int(os.environ.get("SERVETEL_MODEL_EXAMPLES", "200" if TORTURE else "0"))
CLOCK = WallClock()
BEGIN = CLOCK.parse("2024-05-06 09:59:58")
EMPTY = {quirks: Dataset.range("2024-05-01", "2024-05-02", calls=0, php_quirks=quirks) for quirks in (False, True)}
#: How often the same pull is repeated after an error.
RUNS = 6
#: A list that grows with each request also grows with each repeated pull: at this multiple of its first size, plus this
#: many calls, it stops growing, because chasing it further shows nothing and takes hours.
TIMES, MORE = 5, 200

#: Faults that give no page at all, and pages with wrong details.
BROKEN = {
    "500": Fault("status", status=500),
    "503": Fault("status", status=503),
    "html_200": Fault("html_200"),
    "success_false_200": Fault("success_false_200"),
    "retry_after": Fault("retry_after", retry_after=0),
    "results_null": Fault("results_null"),
    "wrong_page": Fault("wrong_page"),
    "truncated_json": Fault("truncated_json"),
    "cut_body": Fault("cut_body"),
    "reset": Fault("reset"),
    "close": Fault("close"),
    "stall": Fault("stall", seconds=0.001),
    "stall_body": Fault("stall_body", seconds=0.001),
    "slow": Fault("slow", seconds=0.002),
}
#: Pages of other calls than the requested ones, with or without a sign of it.
MISPLACED = ["wrong_page", "wrong_page", "previous_page", "repeat_page", "empty_page"]
LYING = {
    "empty_page": Fault("empty_page"),
    "short_page": Fault("short_page"),
    "shorter_page": Fault("short_page", fraction=0.9),
    "repeat_page": Fault("repeat_page"),
    "previous_page": Fault("wrong_page", shift=-1),
    "one_more": Fault("wrong_count", shift=1),
    "one_less": Fault("wrong_count", shift=-1),
    "many_more": Fault("wrong_count", shift=1000),
}


@dataclass(frozen=True)
class World:
    """One example; its text is enough to repeat it."""

    bursts: list[tuple[int, int]]  # seconds after the previous second, and calls
    php_quirks: bool
    page_size: int
    limit_cap: int | None
    echo_limit: str
    count_mode: str
    shuffle_ties: bool
    churn: dict[str, int]
    bounds: str
    faults: list[str]
    probability: float
    seed: int
    concurrency: int
    fast: bool
    before: int | None  # seconds from the first call back to the beginning of the range; None leaves it open
    after: int | None
    age: int | None  # seconds from the last call to the server's clock; None for long ago
    ending: str
    again: bool  # pulled again, after one call has left and another has come
    filed_by: str = "start"
    order: str | None = None

    @property
    def honest(self) -> bool:
        """Nothing fails or changes, and calls are counted."""
        return not self.faults and not self.churn and self.count_mode == "total"

    @property
    def swaps(self) -> bool:
        """One call may leave and another arrive between two replies, which no count shows."""
        return "delete_every" in self.churn and len(self.churn) > 1

    @property
    def seconds(self) -> list[int]:
        at, found = BEGIN, []
        for gap, calls in self.bursts:
            at += gap
            found += [at] * calls
        return found

    @property
    def range(self) -> tuple[int | None, int | None]:
        seconds = self.seconds or [BEGIN]
        first = None if self.before is None else seconds[0] - self.before
        if first is not None and self.clock is not None:
            first = min(first, self.clock)  # a range that has not begun is refused
        last = None if self.after is None else seconds[-1] + self.after
        return first, last if first is None or last is None else max(first, last)

    @property
    def clock(self) -> int | None:
        return None if self.age is None else (self.seconds or [BEGIN])[-1] + self.age


def filed_at(call, filed_by):
    """The second under which a server files a call."""
    return {"start": call.start, "end": call.end, "insertion": call.inserted}[filed_by]


@st.composite
def worlds(draw):
    gaps = st.sampled_from([0, 1, 1, 1, 2, 7, 60, 3_599, 86_400, 20 * 86_400])
    calls = st.one_of(st.integers(1, 3), st.integers(1, 12), st.sampled_from([0, 25, 60]))
    count_mode = draw(st.sampled_from(["total"] * 6 + ["page", "missing"]))
    counted = count_mode == "total"
    # Without a count an empty page is the end of the list: if two in a row are wrong, no client can see it.
    broken = [name for name in BROKEN if counted or name != "results_null"]
    grows, shrinks = ["insert_every", "late_every"], ["delete_every"]
    kinds = draw(st.sampled_from([grows, grows, shrinks, shrinks, grows + shrinks])) if counted else grows
    # A list that grows by one call with every fifth request takes long to chase, so it is drawn rarely.
    often = {} if EXAMPLES else {"late_every": [29, 53, 101]}
    churn = {kind: draw(st.sampled_from(often.get(kind, [5, 7, 11, 23]))) for kind in kinds if draw(st.booleans())}
    lies = [name for name in LYING if not (churn and name in ("one_more", "one_less"))] if counted else []
    size = draw(st.one_of(st.integers(3, 6), st.integers(3, 50)))
    many = st.lists(st.tuples(gaps, calls), max_size=draw(st.sampled_from([2, 12, 40])))
    # A few calls at both edges and none between: windows at the edges that look empty.
    edges = st.tuples(st.integers(1, 8), st.sampled_from([3_600, 86_400, 20 * 86_400]), st.integers(1, 3))
    ends = edges.map(lambda drawn: [(0, drawn[0]), drawn[1:]])
    php_quirks = draw(st.booleans())
    # If records are filed by their insertion, a numeric id does not show it.
    filings = ["start", "start", "end"] if php_quirks else ["start", "start", "end", "insertion"]
    misplaced = [name for name in MISPLACED if name in broken or name in lies]
    return World(
        bursts=draw(st.one_of(many, many, ends)),
        php_quirks=php_quirks,
        filed_by=draw(st.sampled_from(filings)),
        order=draw(st.sampled_from([None, None, "start"])),
        page_size=size,
        limit_cap=draw(st.one_of(st.none(), st.none(), st.integers(2, size))),
        echo_limit=draw(st.sampled_from(["asked", "served"])),
        count_mode=count_mode,
        shuffle_ties=draw(st.booleans()),
        churn=churn,
        bounds=draw(st.sampled_from(["inclusive", "inclusive", "end_exclusive", "start_exclusive"])),
        faults=draw(
            st.one_of(
                st.just([]),
                st.lists(st.sampled_from([*broken, *lies]), max_size=6, unique=True),
                st.lists(st.sampled_from(misplaced), min_size=1, max_size=2, unique=True),
            )
        ),
        probability=draw(st.sampled_from([0.02, 0.1, 0.25])),
        seed=draw(st.integers(0, 999)),
        concurrency=draw(st.integers(1, 8)),
        fast=draw(st.booleans()),
        before=draw(st.sampled_from([0, 0, 1, 3_600, -1, -60, None])),
        after=draw(st.sampled_from([0, 0, 1, 3_600, -1, -60, None])),
        age=draw(st.sampled_from([None, None, 0, 5_000, 90_000])),
        ending=draw(st.sampled_from([".ndjson", ".ndjson", ".db"])),
        again=draw(st.booleans()),
    )


def faults_of(world):
    """The faults of this world, with its probability in total."""
    known = BROKEN | LYING
    each = world.probability / max(1, len(world.faults))
    return [Fault(**{**known[name].__dict__, "probability": each}) for name in world.faults]


def emulator_of(world):
    clock = world.clock
    api = Emulator(
        EMPTY[world.php_quirks],
        seed=world.seed,
        faults=faults_of(world),
        limit_cap=world.limit_cap,
        echo_limit=world.echo_limit,
        count_mode=world.count_mode,
        shuffle_ties=world.shuffle_ties,
        bounds=world.bounds,
        filed_by=world.filed_by,
        order=world.order,
        now=None if clock is None else CLOCK.stamp(clock),
        **world.churn,
    )
    for second in world.seconds:
        api.insert(CLOCK.stamp(second))
    return api


def stamp(instant):
    return None if instant is None else CLOCK.stamp(instant)


async def pulled(client, target, world, api):
    """Pull again after each error, finally from a server that has recovered."""
    first, last = world.range
    query = CallQuery(from_date=stamp(first), to_date=stamp(last))
    existed = target.exists()

    def calm(_progress):
        if len(api._table._calls) > TIMES * len(world.seconds) + MORE:
            api._churn._insert_every = api._churn._late_every = None

    for run in range(RUNS):
        try:
            return await client.pull(target, query=query, fast=world.fast, overwrite=True, on_progress=calm)
        except ServetelError as raised:
            assert world.faults, raised
            assert target.exists() == existed, "an output of a pull that has failed"
        if run == RUNS - 2:
            api._plan._faults.clear()
    raise AssertionError("the server has recovered, the pull has not")


async def check(world, directory):
    """Pull twice, and return how each pull ended."""
    ends = []
    first, last = world.range
    api = emulator_of(world)

    def inside():
        filed = [(call, filed_at(call, world.filed_by)) for call in api._table._calls]
        return {c.id: c for c, at in filed if (first is None or at >= first) and (last is None or at <= last)}

    target = directory / f"calls{world.ending}"
    async with (
        api,
        ServetelClient(
            api.token,
            base_url=api.base_url,
            rate=None,
            page_size=world.page_size,
            max_concurrency=world.concurrency,
            retry=Retry(attempts=4, base=0.0005, throttled_base=0.0005),
        ) as client,
    ):
        for _ in range(1 + world.again):
            before = inside()
            receipt = await pulled(client, target, world, api)
            after = inside()
            ends.append("complete" if receipt.complete else "not proved, and said so")
            ever = {call.id: call for call in (*api._table._calls, *api._table.deleted)}
            believed = "start" if client.conventions is None else client.conventions.filed_by
            judge(world, receipt, target, ever, before.keys() & after.keys(), believed)
            if world.honest:
                assert receipt.counted in (len(after), None)
            assert {path.name for path in directory.iterdir()} == {target.name, f"{target.name}.receipt.json"}
            for key in list(after)[: len(after) // 3 : 3]:
                api.insert_late(CLOCK.stamp(after[key].start))
                api.delete(key)
    return ends


def ids_of_file(believed, receipt, target, ever):
    """The ids in time order; the lines must be those of the server."""
    lines = target.read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    ids = [str(record["id"]) for record in records]
    assert [key for key, times in Counter(ids).items() if times > 1] == []
    assert set(ids) <= ever.keys()
    assert [line for line, key in zip(lines, ids, strict=True) if line != ever[key].body] == []
    keys = [(filed_at(ever[key], believed), key) for key in ids]
    assert keys == sorted(sorted(keys, key=lambda key: key[1]), key=lambda key: key[0], reverse=True)
    assert receipt.records == len(lines)
    return set(ids)


def ids_of_database(_believed, receipt, target, ever):
    """The ids of calls with the server's start; calls that left since stay."""
    with closing(sqlite3.connect(target)) as database:
        rows = database.execute("SELECT id, date || ' ' || time FROM call_records").fetchall()
    assert [(key, start) for key, start in rows if key not in ever or CLOCK.stamp(ever[key].start) != start] == []
    assert receipt.records <= len(rows)
    return {key for key, _ in rows}


def judge(world, receipt, target, ever, stayed, believed):
    ids = (ids_of_file if target.suffix == ".ndjson" else ids_of_database)(believed, receipt, target, ever)
    assert receipt.records == sum(window.records for window in receipt.windows)
    edges = [(CLOCK.parse(window.first), CLOCK.parse(window.last)) for window in receipt.windows]
    assert (receipt.windows[0].last, receipt.windows[-1].first) == (receipt.to_date, receipt.from_date)
    assert all(newer[0] == older[1] + 1 for newer, older in itertools.pairwise(edges)), "a gap between windows"
    if world.honest:
        assert receipt.complete, receipt.certified
    flaws = [flaw for window in receipt.windows for flaw in window.flaws]
    if not receipt.complete:
        # Nothing can be established if the calls to be looked up leave meanwhile.
        others = ("did not stop changing", "before the oldest", *(["could not be established"] if world.churn else []))
        assert flaws or any(words in receipt.certified for words in others), receipt
    lost = [CLOCK.stamp(filed_at(ever[key], world.filed_by)) for key in stayed - ids]
    lost = [second for second in lost if second <= receipt.to_date]  # an open range ends at the server's clock
    if world.swaps:
        leaves = [window for window in receipt.windows if not re.search("counted|re", window.proof)]
        lost = [second for second in lost if any(window.first <= second <= window.last for window in leaves)]
    if lost:
        assert not receipt.complete, f"lost silently: {sorted(lost)}"
        named = [(flaw[:19], flaw[23:42]) for flaw in flaws]
        unnamed = [second for second in lost if not any(begin <= second <= end for begin, end in named)]
        assert not unnamed or "did not stop changing" in receipt.certified, (unnamed, receipt)


@pytest.mark.timeout(0 if EXAMPLES else 300)
def test_nothing_is_ever_silently_lost():
    """A call that is listed throughout is in the output once, as it was sent, or the receipt names its second."""
    ends = Counter()

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES or 40,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(worlds())
    def look_into(world):
        with tempfile.TemporaryDirectory() as directory:
            ends.update(asyncio.run(check(world, Path(directory))))

    look_into()
    measured("P13", f"{ends.total()} pulls of lists that move and lie: {dict(ends)}, 0 lost silently", seeds=str(SEED))
