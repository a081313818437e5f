"""A model of resuming: random lists that change between two runs and within one, held against the truth.

Each seed draws a list of calls (none to 70; seconds with several calls; ids that two calls share), a server (its page cap, the meaning of its
``count``, the order of calls of one second, which may change with each run), a first stream that is stopped somewhere, and up to five
resumed streams, each from the checkpoint of the one before. Between two runs calls come and go, in front of the checkpoint and behind it; the
cap and the page size change; the client may be a new one. Within a run, if the server counts, at most one change happens. Pages may fail, be
empty once, or be another page once; ``anext`` may be cancelled.

A run that starts at the checkpoint of the call A has to deliver each call that is in the list from the run's first request to its last, that
started in A's second or before it, and that was not delivered when the checkpoint was taken. The model counts as

- *short in silence*: a stream that finished and lacks one of these; or a whole chain of runs that ended well and lacks a call that was in the
  list all the time;
- *twice*: a call that was delivered when the checkpoint was taken comes again, or one comes twice in a run;
- *in front*: a call that started after A's second comes;
- *a false error*: any error, except the page failure that the model planted, and ``ResumeMismatchError`` if A was removed, before the
  run or in it. A list that changed is no excuse: the first run of a list reads it again, so a resumed one has to do so too;
- *a missed error*: A was removed before the run, and no error says so;
- *a needless rereading*: a list that did not change during the run is read again.

Pages come from a source in memory, behind the client's own stream: ``python -m tests.stream.resume_model --seeds 5000`` takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from servetel_async import IST, CallQuery, ResumeMismatchError, Retry, ServerError, ServetelError
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.streaming.stream import CallStream
from servetel_async.transport.call import Fetched
from servetel_async.transport.retry import History

NEWEST = dt.datetime(2024, 5, 31, 22, 0)  # noqa: DTZ001 - the wall clock of the account
QUERY = CallQuery(from_date="2024-03-01", to_date="2024-05-31")
WRONGS = ["short in silence", "twice", "in front", "a false error", "a missed error", "a needless rereading"]


class Call(NamedTuple):
    """A call: another start makes another call of the same id."""

    start: str
    id: str


@dataclass
class Listing:
    """The server's list and habits, and the source of a stream's pages."""

    dice: Random
    calls: list[Call]
    counts: str
    cap: int = 1000
    zone: dt.tzinfo = IST
    retry: Retry = field(default_factory=Retry)
    window_of_pages: int = 4
    closed: bool = False
    counted_range: object = None
    longest_range: dt.timedelta = dt.timedelta(days=31)
    count_is_total: bool = False
    page_cap: int | None = None
    bounds: object = None
    asked: int = 0
    change_at: int = -1
    fault_at: int = -1
    fault: str = ""
    failed: bool = False
    removed: set[Call] = field(default_factory=set)
    ever_removed: set[Call] = field(default_factory=set)
    new: int = 0

    def start_page(self, page):
        """Answer from the list as it is now; the answer is read later."""
        self.asked += 1
        if self.asked == self.change_at:
            self.change()
        task = asyncio.ensure_future(self._deliver(self._answer(page), self.dice.random() < 0.3))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # a page that is never read
        return task

    def _answer(self, page):
        inside = [call for call in self.calls if page.window.first <= call.start <= page.window.last]
        size = min(page.page_size, self.cap)
        number, rows = page.number, inside[(page.number - 1) * size : page.number * size]
        count = {"total": len(inside), "page": len(rows), "missing": None}[self.counts]
        if self.asked == self.fault_at:
            if self.fault == "fails":
                self.failed = True
                return ServerError("planted")
            if self.fault == "is empty":
                rows, count = [], count if self.counts == "total" else None
            elif self.fault == "is another":
                number += 1
        body = {"page": number, "results": [{"id": c.id, "date": c.start[:10], "time": c.start[11:]} for c in rows]}
        if count is not None:
            body["count"] = count
        return json.dumps(body).encode()

    async def _deliver(self, answer, late):
        await asyncio.sleep(0)
        if late:
            await asyncio.sleep(0)
        if isinstance(answer, ServerError):
            raise answer
        return Fetched(PageReader().read(Reply(200, answer), time.time()), History(sent=1), len(answer), 0.0)

    # What happens to the list

    def add(self, seconds_later: int, again: Call | None = None) -> None:
        self.new += 1
        start = NEWEST + dt.timedelta(seconds=seconds_later)
        call = Call(f"{start:%Y-%m-%d %H:%M:%S}", again.id if again is not None else f"new{self.new:05}")
        if call not in self.calls:
            self.calls.append(call)
            self.calls.sort(key=lambda each: each.start, reverse=True)

    def remove(self, first: int, number: int) -> None:
        gone = self.calls[first : first + number]
        self.removed.update(gone)
        self.ever_removed.update(gone)
        del self.calls[first : first + number]

    def shuffle_seconds(self) -> None:
        """Give calls of one second in another order."""
        self.dice.shuffle(self.calls)
        self.calls.sort(key=lambda each: each.start, reverse=True)

    def change(self, place: int | None = None, most: int = 1) -> None:
        """Add or remove some calls, at the front or anywhere; ``place`` is where a stream was stopped."""
        dice, number = self.dice, self.dice.randint(1, most)
        what = dice.choice(
            ["front", "front", "anywhere", "twin", "remove", "remove in front", "remove behind", "remove it"]
        )
        place = dice.randrange(len(self.calls) + 1) if place is None else place
        if what == "front":
            later = 60 * self.new + 1
            for _ in range(number):
                self.add(later)
                later += dice.randint(0, 2)
        elif what == "anywhere" and self.calls:
            for _ in range(min(number, 3)):
                self.add(_seconds(dice.choice(self.calls)) + dice.randint(-1, 1))
        elif what == "twin" and self.calls:
            self.add(_seconds(dice.choice(self.calls)) + dice.randint(-2, 2), again=dice.choice(self.calls))
        elif what == "remove":
            self.remove(dice.randrange(len(self.calls) + 1), number)
        elif what == "remove in front":
            self.remove(max(0, place - number), min(number, place))
        elif what == "remove behind":
            self.remove(place + 1, number)
        elif what == "remove it" and dice.random() < 0.3:
            self.remove(place, 1)


def _seconds(call: Call) -> int:
    return int((dt.datetime.fromisoformat(call.start) - NEWEST).total_seconds())


class Run(NamedTuple):
    """How one stream ended."""

    got: list[Call]
    error: ServetelError | None
    finished: bool
    checkpoint: str | None


class Model:
    """One seed; ``wrong`` holds its findings."""

    def __init__(self, seed: int) -> None:
        dice = self.dice = Random(seed)
        apart = dice.choice([0, 1, 1, 2, 60, 90_000])
        calls, second = [], 0
        for number in range(dice.choice([dice.randint(0, 12), dice.randint(0, 70)])):
            second -= dice.randint(0, apart) if dice.random() < 0.9 else apart
            twin = calls and dice.random() < 0.05
            start = f"{NEWEST + dt.timedelta(seconds=second):%Y-%m-%d %H:%M:%S}"
            call = Call(start, dice.choice(calls).id if twin else f"call{number:05}")
            if call not in calls:
                calls.append(call)
        self.list = Listing(dice, calls, dice.choice(["total", "total", "total", "missing", "page"]))
        self.restless = dice.random() < 0.3
        self.wrong: list[str] = []
        self.handed_out: set[Call] = set()
        self.at: dict[str, tuple[Call, frozenset[Call]]] = {}  # by checkpoint: its call, and the calls delivered then
        self.runs = self.requests = 0

    async def run(self) -> None:
        first = set(self.list.calls)
        checkpoint: str | None = None
        went_well = True
        for _ in range(self.dice.randint(2, 6)):
            self._change_between(checkpoint)
            run = await self._one(checkpoint)
            went_well = went_well and run.error is None
            self.handed_out.update(run.got)
            checkpoint = run.checkpoint
            if isinstance(run.error, ResumeMismatchError) or (run.finished and self.dice.random() < 0.7):
                break
            if checkpoint is None and not run.finished:
                went_well = False
                break
        if went_well and run.finished:
            lost = first - self.list.ever_removed - self.handed_out
            if lost:
                self._note("short in silence", f"the chain lacks {sorted(lost)[:3]}")

    def _change_between(self, checkpoint: str | None) -> None:
        dice, listing = self.dice, self.list
        listing.change_at = listing.fault_at = -1
        listing.failed = False
        listing.removed = set()
        if self.restless:
            listing.shuffle_seconds()
        if checkpoint is not None:
            anchor = self.at[checkpoint][0]
            for _ in range(dice.choice([0, 0, 1, 1, 2])):
                place = listing.calls.index(anchor) if anchor in listing.calls else None
                listing.change(place, most=dice.choice([1, 3, 12, 40]))
        if dice.random() < 0.5:
            listing.cap = dice.choice([1000, 1000, dice.randint(1, 12)])
        listing.count_is_total = listing.count_is_total and dice.random() < 0.5  # a new client has learnt nothing

    async def _one(self, start: str | None) -> Run:
        dice, listing = self.dice, self.list
        listing.asked = 0
        if dice.random() < 0.25 and listing.counts == "total":
            listing.change_at = dice.randint(2, 8)
        elif dice.random() < 0.3:
            listing.fault_at, listing.fault = dice.randint(1, 6), dice.choice(["fails", "is empty", "is another"])
        most = dice.choice([None, None, None, dice.randint(1, 8)])
        size = dice.choice([dice.randint(1, 12), dice.randint(1, 12), 100])
        size = size if most is None else min(size, most)
        stop = dice.choice([None, dice.randint(1, 40), dice.randint(1, 12)])
        listing.window_of_pages = dice.choice([1, 2, 8])
        before = list(listing.calls)
        stream = CallStream(listing, QUERY, page_size=size, max_records=most, start=start)
        got: list[Call] = []
        error, ended = None, False
        by_pages, nervous = dice.random() < 0.3, dice.random() < 0.2
        pages = stream.pages()
        try:
            while stop is None or len(got) < stop:
                item = await self._step(pages if by_pages else stream, nervous)
                for record in item.records if by_pages else (item,):
                    got.append(Call(f"{record.date} {record.time}", record.id))
                self._remember(start, stream.checkpoint, got)
                if listing.asked > 3000:
                    self._note("a false error", "no end")
                    break
        except StopAsyncIteration:
            ended = True
        except ServetelError as failure:
            error = failure
        finished = ended and (most is None or len(got) < most)
        checkpoint = stream.checkpoint
        await stream.aclose()
        self.runs += 1
        self.requests += listing.asked
        self._judge(start, before, got, error, finished=finished)
        if (
            stream.stats.rereadings
            and before == listing.calls
            and (listing.fault != "is empty" or listing.fault_at < 0)
        ):
            self._note("a needless rereading", f"{stream.stats.rereadings} times")
        return Run(got, error, finished, checkpoint)

    async def _step(self, stream, nervous):
        while nervous and self.dice.random() < 0.5:
            step = asyncio.ensure_future(anext(stream))
            for _ in range(self.dice.randint(0, 4)):
                await asyncio.sleep(0)
            if not step.done():
                step.cancel()
            await asyncio.wait({step})
            if not step.cancelled():
                return step.result()
        return await anext(stream)

    def _remember(self, start: str | None, checkpoint: str | None, got: list[Call]) -> None:
        """If a list moves, the checkpoint stays where it was: calls delivered after it may come again."""
        if checkpoint is not None and checkpoint not in self.at:
            known = frozenset[Call]() if start is None else self.at[start][1]
            self.at[checkpoint] = got[-1], known.union(got)

    # The truth

    def _judge(self, start, before, got, error, *, finished) -> None:
        listing = self.list
        there = [call for call in before if call in listing.calls]
        anchor, known = (None, frozenset()) if start is None else self.at[start]
        want = {call for call in there if call not in known and (anchor is None or call.start <= anchor.start)}
        gone = anchor is not None and anchor not in before
        lost_in_it = anchor is not None and anchor in listing.removed and not gone
        if len(set(got)) < len(got) or known.intersection(got):
            self._note("twice", f"{sorted(set(got) & known)[:3]}")
        if anchor is not None and any(call.start > anchor.start for call in got):
            self._note("in front", "")
        if finished and not gone and want - set(got):
            self._note("short in silence", f"{len(want - set(got))} of {len(want)}")
        if gone and not isinstance(error, ResumeMismatchError) and (finished or got):
            self._note("a missed error", "")
        if error is None or (listing.failed and isinstance(error, ServerError)):
            return
        if isinstance(error, ResumeMismatchError) and (gone or lost_in_it):
            return
        self._note("a false error", repr(error))

    def _note(self, kind: str, what: str) -> None:
        self.wrong.append(
            f"{kind}: {what} (run {self.runs}, list of {len(self.list.calls)}, counts {self.list.counts})"
        )


async def look(seeds: range) -> tuple[Counter[str], list[str], int, int]:
    """Run seeds; returns the number of each fault, the first of them, runs and requests."""
    wrongs, first = Counter[str](), list[str]()
    runs = requests = 0
    for seed in seeds:
        model = Model(seed)
        await model.run()
        runs, requests = runs + model.runs, requests + model.requests
        wrongs.update({wrong.split(":")[0] for wrong in model.wrong})
        first += [f"seed {seed}: {wrong}" for wrong in model.wrong][: max(0, 20 - len(first))]
    return wrongs, first, runs, requests


def main() -> int:
    """Print the findings; 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    wrongs, first, runs, requests = asyncio.run(look(range(options.first, options.first + options.seeds)))
    lines = [*first, f"{options.seeds} seeds, {runs} runs, {requests} requests, {time.perf_counter() - begun:.0f} s"]
    lines += [", ".join(f"{wrongs[wrong]} {wrong}" for wrong in WRONGS)]
    sys.stdout.write("\n".join([*lines, ""]))
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
