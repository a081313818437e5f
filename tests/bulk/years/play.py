"""Play a history: run each step with the product, and compare its claims with the truth."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from servetel_async import CallQuery, ServetelError
from tests.bulk.years import product, tamper, truth
from tests.bulk.years.history import DAY, History, Step
from tests.bulk.years.server import Account, Api, Door, Run, make_calls, second, stamp
from tests.bulk.years.state import Asked, Claim, Pending, Place

if TYPE_CHECKING:
    import aiohttp

BEGINNING = second("2025-01-01 00:00:00")


class Play:
    """One history; ``wrong`` holds the kind and text of each mistake, ``story`` the events."""

    def __init__(self, history: History, door: Door, session: aiohttp.ClientSession, folder: Path) -> None:
        dice = Random(history.seed)
        self.history = history
        self.traits = history.traits
        self.accounts = [Account(index, history.traits.identity) for index in range(history.accounts)]
        for account in self.accounts:
            account.renew(history.seed)
        self.api = door.api = Api(self.accounts, history.traits, BEGINNING + history.begins * DAY, dice)
        self.places = [Place() for _ in history.endings]
        self.paths = []
        for index, ending in enumerate(history.endings):
            (folder / str(index)).mkdir()
            self.paths.append(folder / str(index) / ("calls" + ("" if ending == "/" else ending)))
        self.wrong: list[tuple[str, str]] = []
        self.story: list[str] = []
        self.runs = self.requests = 0
        self._door = door
        self._session = session
        self._asked: dict[int, Asked] = {}  # the last pull of each place

    async def run(self) -> None:
        for step in self.history.steps:
            await getattr(self, f"_{step.what}")(step)

    def _tell(self, text: str) -> None:
        self.story.append(f"{stamp(self.api.now)}  {text}")

    # Steps

    async def _pass(self, step: Step) -> None:
        begun = self.api.now
        self.api.now += step.seconds
        make_calls(self.accounts, self.traits, begun, self.api.now, step.calls, Random(step.seed))
        self._tell(f"{step.seconds / DAY:.2f} days later; {step.calls} calls meanwhile")

    async def _cap(self, step: Step) -> None:
        self.api.cap = step.cap
        self._tell(f"pages hold {step.cap or 'as many calls as asked for'}")

    async def _tamper(self, step: Step) -> None:
        place, path, ending = self.places[step.place], self.paths[step.place], self.history.endings[step.place]
        if not path.exists():
            return
        done = tamper.spoil(path, ending, step.tamper, Random(step.seed))
        if done is None:
            return
        self._tell(f"{path.name}: {done.what}")
        place.spoilt |= done.serials
        place.dropped = place.dropped or done.dropped
        place.damaged = place.damaged or done.damaged
        place.rows = {row.serial: row for row in self._read(step.place)}

    async def _check(self, step: Step) -> None:
        account = self.accounts[step.account]
        self.api.run = Run()
        async with self._client(account) as client:
            verdict = await product.check(client, self._name(step.place))
        self._tell(f"account {step.account} checks {self.paths[step.place].name}: {verdict}")
        self._judged(truth.judge_check, self.places[step.place], account, self.accounts, verdict, self.api.now)

    async def _pull(self, step: Step) -> None:
        await self._do(step, self._range(step))

    async def _sync(self, step: Step) -> None:
        await self._do(step, (None, None, None))

    # Runs

    async def _do(self, step: Step, dates: tuple[int | None, int | None, str | None]) -> None:
        place, path, ending = self.places[step.place], self.paths[step.place], self.history.endings[step.place]
        if place.dropped:
            place.forget()
        if step.what == "sync" and not product.SYNC_MASKS:
            step = dataclasses.replace(step, mask=False)
        asked = Asked(step.what, step.account, step, *dates, began=self.api.now)
        pending = place.pendings.get(asked.identity) if step.resume else None
        asked = asked._replace(pending=pending)
        if step.what == "pull":
            self._asked[step.place] = asked
        before, existed = dict(place.rows), path.exists()
        outcome, run, ended_early = await self._run(step, asked)
        self.runs += 1
        self.requests += run.requests
        self._tell(f"{self._describe(asked)}: {outcome}")
        place.writers.add(step.account)
        place.oldest = min(place.oldest, asked.began)
        found = self._read(step.place)
        place.rows = {row.serial: row for row in found}
        database = ending in (".db", ".duckdb")
        account, ended, clock_ok = self.accounts[step.account], self.api.now, run.requests < run.clock_at
        claimed = outcome.claimed
        first, last = (asked.first or 0, asked.last or ended) if claimed is None else (claimed.first, claimed.last)
        doubt = truth.reason_for_doubt(
            *(place, account, asked, first, last, ended, self.traits), database=database, clock_ok=clock_ok
        )
        if run.was_endless:
            self._note("without end", f"{run.requests} requests")
        elif claimed is None:
            self._judge_error(asked, outcome, planned=ended_early or doubt, existed=existed and not database)
        self._mend(place)
        if database or claimed:  # otherwise the output is an earlier one, or missing
            self._judged(truth.judge_rows, place, before, found, self.accounts, asked, database=database)
        if claimed or run.requests:
            place.masks.add(step.mask)
        if claimed is None:
            if run.requests:
                committed = max(outcome.committed, pending.committed if pending else 0)
                committed = max(committed, step.kill == "cancelled")  # it may have been cancelled during a commit
                if not database or not existed:
                    place.pendings.clear()
                place.pendings[asked.identity] = Pending(asked, committed, doubt)
                place.runs.setdefault(asked.owner, []).append(asked.began)
            return
        judged = len(self.wrong)
        if claimed.verdict != "not complete":
            self._judged(
                *(truth.judge_claim, place, account, asked, claimed, ended), database=database, clock_ok=clock_ok
            )
        elif not doubt:
            self._note("a false alarm", claimed.text)
        lies = self.traits.lies or self.traits.count_ignores_dates
        certain = clock_ok and not lies and claimed.verdict != "not complete" and not self._is_untrue(judged)
        self._remember(place, asked, claimed, ended, database=database, clock_ok=clock_ok, certain=certain)

    async def _run(self, step: Step, asked: Asked) -> tuple[product.Outcome, Run, bool]:
        """Run the product; returns how it ended, and whether the history ended it."""
        run = self.api.run = Run(tick=step.tick)
        if step.clock:
            run.clock_at, run.clock_by, run.clock_stays = step.at, step.clock * DAY, step.clock_stays
        if step.kill == "refused":
            run.refuse_from = step.at
        fired: list[str] = []
        receipt = self.paths[step.place].with_name(f"{self.paths[step.place].name}.receipt.json")

        def on_request(number: int) -> None:
            if number != step.at or fired:
                return
            if step.kill == "cancelled":
                fired.append("cancelled")
                task.cancel()
            elif step.kill == "blocked" and not receipt.exists():
                fired.append("blocked")
                receipt.mkdir()

        run.on_request = on_request
        size = Random(step.seed).choice([200, 1500, 4000, 20_000, 60_000]) if step.kill == "full" else None
        if self.traits.renews:
            self.accounts[step.account].renew(self.history.seed)
        async with self._client(self.accounts[step.account]) as client:
            here = (lambda: self.api.now) if self.traits.right_here else None
            with (
                product.files_of_at_most(size),
                product.clock_here(here),
                product.receipts_fail(wanted=step.kill == "named"),
            ):
                task = asyncio.ensure_future(self._call(client, step, asked))
                outcome = await task
        if "blocked" in fired:
            with suppress(OSError):
                receipt.rmdir()
        return outcome, run, bool(fired) or run.was_refused or step.kill in ("full", "named")

    def _call(self, client, step: Step, asked: Asked):
        name = self._name(step.place)
        if step.what == "sync":
            return product.sync(client, name, lookback=step.lookback, settle=step.settle, mask=step.mask)
        dates = {
            name: stamp(moment)
            for name, moment in (("from_date", asked.first), ("to_date", asked.last))
            if moment is not None
        }
        return product.pull(
            client,
            name,
            CallQuery(**dates),
            name=asked.name,
            mask=step.mask,
            overwrite=step.overwrite,
            resume=step.resume,
            settle=step.settle,
        )

    def _judge_error(self, asked: Asked, outcome: product.Outcome, *, planned: bool, existed: bool) -> None:
        step, place = asked.step, self.places[asked.step.place]
        if not isinstance(outcome.error, ServetelError | asyncio.CancelledError):
            self._note("a crash", repr(outcome.error))
            return
        other = bool(place.pendings) and asked.identity not in place.pendings
        masks = bool(place.masks - {step.mask})
        future = (asked.first or 0) > asked.began
        unknown = self.traits.identity == "opaque" and bool(place.writers - {step.account})
        if not (planned or (existed and not step.overwrite) or other or masks or future or unknown):
            self._note("a false error", str(outcome))

    def _is_untrue(self, judged: int) -> bool:
        """Whether a claim was wrong about calls, rather than in its words."""
        return any(kind not in ("not over", "future") for kind, _ in self.wrong[judged:])

    def _remember(
        self,
        place: Place,
        asked: Asked,
        claimed: product.Claimed,
        ended: int,
        *,
        database,
        clock_ok,
        certain,
    ) -> None:
        account, owner = asked.account, asked.owner
        if not database:
            place.claims, place.oldest, place.masks = [], asked.since, {asked.step.mask}
            place.pendings.clear()
        place.damaged = False
        place.pendings.pop(asked.identity, None)
        claim = Claim(account, claimed.first, claimed.proved, claimed.final, asked.began, ended, certain)
        place.claims = [
            old
            for old in place.claims
            if old.account != account or not (claim.first <= old.first and old.last <= claim.last and certain)
        ]
        place.claims.append(claim)
        if asked.kind == "sync" and clock_ok:
            due = truth.due_from(place, asked)
            place.territory[owner] = min(due, place.territory.get(owner, due))
            place.synced[owner] = asked.began
            place.runs[owner], place.unfinished[owner] = [], []
        else:
            place.runs.setdefault(owner, []).append(asked.began)
        if asked.kind == "pull" and clock_ok and claimed.first <= ended < claimed.last:
            place.unfinished.setdefault(owner, []).append(ended)

    def _mend(self, place: Place) -> None:
        """Record that calls that were read again are as the server has them."""
        calls = {call.serial: call for account in self.accounts for call in account.calls}
        for serial in list(place.spoilt):
            row = place.rows.get(serial)
            if row is not None and row.status != tamper.SPOILT:
                place.spoilt.discard(serial)
                place.mended.add(serial)
        place.replaced = {serial for serial in place.replaced if serial not in place.rows and serial in calls}

    # Details

    def _client(self, account: Account):
        return product.client_of(self.history, self._door.base_url, account, self._session)

    def _name(self, place: int) -> str:
        return str(self.paths[place]) + ("/" if self.history.endings[place] == "/" else "")

    def _read(self, place: int) -> list[product.Row]:
        try:
            return product.rows_of(self.paths[place], self.history.endings[place])
        except Exception as error:
            if not self.places[place].damaged:
                self._note("a crash", f"{self.paths[place].name} cannot be read: {error!r}")
            return []

    def _note(self, kind: str, what: str) -> None:
        self.wrong.append((kind, what))
        self.story.append(f"{'':19}  ! {kind}: {what}")

    def _judged(self, judge, *args, **kwargs) -> None:
        seen = truth.Seen()
        judge(seen, *args, **kwargs)
        for kind, what in seen.wrong:
            self._note(kind, what)

    def _describe(self, asked: Asked) -> str:
        step = asked.step
        said = [f"account {asked.account} {asked.kind}s {self.paths[step.place].name}"]
        if asked.kind == "pull":
            dates = [("from ", asked.first), ("to ", asked.last)]
            said += [
                asked.name or " ".join(word + stamp(moment) for word, moment in dates if moment is not None) or "all"
            ]
        else:
            said += [f"look-back {step.lookback // DAY} d"]
        said += ["resumed"] * asked.resumes + ["masked"] * step.mask + ["settle 0"] * (not step.settle)
        said += ["overwrite"] * (asked.kind == "pull" and step.overwrite) + ["not resumed"] * (not step.resume)
        said += [f"{step.kill} at request {step.at}"] * bool(step.kill) + [f"{step.tick} s a request"] * bool(step.tick)
        if step.clock:
            said += [f"Date wrong by {step.clock} d {'from' if step.clock_stays else 'at'} request {step.at}"]
        return ", ".join(said)

    def _range(self, step: Step) -> tuple[int | None, int | None, str | None]:
        """First and last second, and the name of a range that changes daily."""
        now, kind = self.api.now, step.range
        if kind == "again":
            last = self._asked.get(step.place)
            if last is not None and last.name is None:
                return last.first, last.last, None
            kind = "last 24h" if last is not None else "last month"
        today = now - now % DAY
        this, previous, third = (_month(now, back) for back in (0, 1, 3))
        return {
            "this month": (*this, None),
            "last month": (*previous, None),
            "three months": (third[0], previous[1], None),
            "today": (today, today + DAY - 1, None),
            "yesterday": (today - DAY, today - 1, None),
            "open": (today - 9 * DAY, None, None),
            "all": (None, None, None),
            "last 24h": (now - DAY, None, "last 24h"),
            "to come": (today - 3 * DAY, today + 20 * DAY - 1, None),
            "future": (today + 30 * DAY, today + 40 * DAY, None),
        }[kind]


def _month(now: int, back: int) -> tuple[int, int]:
    """First and last second of the month, or of the month so many months before."""
    begin = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0)
    for _ in range(back):
        begin = (begin - timedelta(days=1)).replace(day=1)
    end = (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp()) - 1
