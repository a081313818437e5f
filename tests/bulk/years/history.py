"""A history: accounts, their server's habits, and steps over months, all drawn from one seed.

Nothing here runs. A step is written in words that hold at any clock ("last month", "again"), so a history stays valid
when steps are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

HOUR, DAY = 3600, 86400

#: The ways to end a run early.
KILLS = ("refused", "refused", "cancelled", "cancelled", "full", "blocked")
#: Changes to a destination behind the product's back.
TAMPERS = ("delete rows", "change rows", "drop table", "remove file", "change byte", "remove line")


@dataclass(frozen=True)
class Traits:
    """Habits of the server; the first value of each is the plain one.

    Attributes:
        bounds: which end of a range is left out.
        filed_by: the moment of a call that ranges compare.
        zero_left_out: a count of 0 is not sent.
        count_ignores_dates: the count is that of all calls.
        uncounted: no count is sent.
        cap: calls on a page at most.
        rotating: each reply has another recording URL for the same call.
        lies: how often a page other than the requested one comes, with its own number.
        elsewhere: that page is from the range of the request before, without a sign of it.
        shuffled: calls of one second come in another order each time.
        without_id: share of calls without ``id``.
        reused: share of calls that have the ``id`` of another call of the account.
        shared: share of calls that have the ``id`` of a call of another account.
        late: share of calls that are listed hours or days after their end.
        deleted: share of calls that are deleted one day.
        identity: what distinguishes accounts: the "subject" of a token, a name ("named"), or only the token ("opaque").
        renews: the account gets a new token for each run; never if only the token identifies it.
        right_here: this computer's clock follows the history; otherwise it is the machine's own clock.
    """

    bounds: str = "inclusive"
    filed_by: str = "start"
    zero_left_out: bool = False
    count_ignores_dates: bool = False
    uncounted: bool = False
    cap: int | None = None
    rotating: bool = False
    lies: float = 0.0
    elsewhere: bool = False
    shuffled: bool = False
    without_id: float = 0.0
    reused: float = 0.0
    shared: float = 0.0
    late: float = 0.0
    deleted: float = 0.0
    identity: str = "subject"
    renews: bool = False
    right_here: bool = False


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        what: "pass" (time), "pull", "sync", "check", "tamper", "cap" (the page cap changes).
        seconds: how much time passes.
        calls: how many calls each account makes meanwhile.
        account, place: which account, which destination.
        range: of a pull, see ``play``; "again" repeats the run that was ended.
        kill: how the run is ended; "named" is between the output's name and its receipt. It is not drawn.
        at: the request at which it is ended, or at which the clock is wrong.
        clock: days by which the server's ``Date`` is wrong, at one request or (``clock_stays``) from it on.
        tick: seconds that pass with each request.
        seed: for the remaining choices.
    """

    what: str
    seconds: int = 0
    calls: int = 0
    account: int = 0
    place: int = 0
    range: str = ""
    mask: bool = False
    overwrite: bool = False
    resume: bool = True
    lookback: int = 7 * DAY
    settle: int = 2 * HOUR
    kill: str = ""
    at: int = 0
    clock: int = 0
    clock_stays: bool = False
    tick: int = 0
    tamper: str = ""
    cap: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class History:
    """The whole history; ``endings`` are those of the destinations."""

    seed: int
    accounts: int
    endings: tuple[str, ...]
    traits: Traits
    page_size: int
    concurrency: int
    begins: int  # day of the year
    steps: tuple[Step, ...] = field(default=())


def _some(dice: Random, probability: float, value, otherwise):
    return value if dice.random() < probability else otherwise


def _traits(dice: Random, accounts: int) -> Traits:
    plain = dice.random() < 0.3
    if plain:
        return Traits(late=_some(dice, 0.5, 0.1, 0.0))
    filed_by = dice.choice(["start"] * 18 + ["end", "end", "inserted"])
    identity = dice.choice(["subject", "subject", "named", "opaque"])
    by_id = filed_by != "inserted"  # only the server's own id shows when a call was inserted
    return Traits(
        bounds=dice.choice(["inclusive"] * 8 + ["end_exclusive", "end_exclusive", "start_exclusive"]),
        filed_by=filed_by,
        zero_left_out=dice.random() < 0.15,
        count_ignores_dates=dice.random() < 0.008,
        cap=_some(dice, 0.12, dice.randint(1, 3), None),
        rotating=dice.random() < 0.2,
        lies=_some(dice, 0.07, dice.choice([0.05, 0.25]), 0.0),
        shuffled=dice.random() < 0.2,
        without_id=_some(dice, 0.15 * by_id, dice.choice([0.2, 1.0]), 0.0),
        reused=_some(dice, 0.1 * by_id, 0.1, 0.0),
        shared=_some(dice, 0.3 * by_id * (accounts > 1), 0.4, 0.0),
        late=_some(dice, 0.5, dice.choice([0.05, 0.25]), 0.0),
        deleted=_some(dice, 0.2, 0.1, 0.0),
        identity=identity,
        renews=identity != "opaque" and dice.random() < 0.3,
    )


def draw(seed: int) -> History:
    """Draw a history."""
    dice = Random(seed)
    accounts = dice.choice([1, 2])
    endings = tuple(
        dice.choice([".db"] * 10 + [".ndjson"] * 8 + [".duckdb", "/"]) for _ in range(dice.choice([1, 1, 2]))
    )
    steps = [_pass(dice, dice.choice([12, 35, 70]) * DAY)]
    for _ in range(dice.randint(2, 6)):
        steps += _deed(dice, accounts, endings)
        steps.append(_pass(dice, 0))
    return History(
        seed=seed,
        accounts=accounts,
        endings=endings,
        traits=_traits(dice, accounts),
        page_size=dice.choice([1, 2, 3, 5, 10, 100]),
        concurrency=dice.choice([1, 1, 2, 4]),
        begins=dice.randint(0, 59),
        steps=tuple(steps),
    )


def _pass(dice: Random, seconds: int) -> Step:
    if not seconds:
        unit, most = dice.choice(
            [(60, 50), (HOUR, 20), (HOUR, 30), (DAY, 1), (DAY, 3), (DAY, 10), (DAY, 10), (DAY, 45)]
        )
        seconds = dice.randint(1, most) * unit + dice.randint(0, 59)
    calls = min(dice.choice([0, 6, 15, 25]), 2 + seconds // (2 * HOUR))
    return Step("pass", seconds=seconds, calls=calls, seed=dice.randrange(10**6))


def _deed(dice: Random, accounts: int, endings: tuple[str, ...]) -> list[Step]:
    place, account = dice.randrange(len(endings)), dice.randrange(accounts)
    is_database = endings[place] in (".db", ".duckdb")
    what = dice.choices(["pull", "sync", "check", "tamper", "cap"], [40, 45 if is_database else 0, 14, 14, 2])[0]
    seed = dice.randrange(10**6)
    if what == "check":
        return [Step("check", account=account, place=place)]
    if what == "cap":
        return [Step("cap", cap=dice.choice([None, 1, 2, 5]))]
    if what == "tamper":
        spoil = Step("tamper", place=place, tamper=dice.choice(TAMPERS), seed=seed)
        after = Step("check", account=account, place=place) if dice.random() < 0.7 else None
        return [spoil] if after is None else [spoil, after]
    run = Step(what, account=account, place=place, seed=seed)
    ranges = [
        "this month",
        "this month",
        "last month",
        "three months",
        "today",
        "today",
        "yesterday",
        "open",
        "all",
        "last 24h",
    ]
    if what == "pull":
        run = replace(
            run,
            range=dice.choice([*ranges, "to come", "future"]),
            mask=dice.random() < 0.15,
            overwrite=dice.random() < 0.6,
            resume=dice.random() < 0.95,
        )
    else:
        run = replace(run, lookback=dice.choice([1, 2, 2, 2, 2, 3, 3, 7, 12]) * DAY, mask=dice.random() < 0.04)
    run = replace(
        run,
        settle=_some(dice, 0.2, 0, 2 * HOUR),
        tick=_some(dice, 0.1, dice.choice([1, 30, 600, 3600]), 0),
    )
    if dice.random() < 0.12:
        run = replace(
            run,
            at=dice.randint(1, 8),
            clock=(clock := dice.choice([40] * 4 + [-40] * 2 + [365, -365])),
            # A whole run far ahead shows only in this computer's clock, which does not move with these histories.
            clock_stays=dice.random() < 0.5 and clock < 0,
        )
    if dice.random() < 0.35:
        return _ended_and_begun_again(dice, run, accounts)
    after = Step("check", account=account, place=place) if dice.random() < 0.3 else None
    return [run] if after is None else [run, after]


def _ended_and_begun_again(dice: Random, run: Step, accounts: int) -> list[Step]:
    """A run that is ended, some time, and mostly the same run again; sometimes with another account or a mask."""
    # A run whose first reply is refused commits nothing; most runs need fewer than thirty requests.
    steps = [replace(run, kill=dice.choice(KILLS), at=dice.choice([1, 2, 3, 4, 5, 7, 10, 15, 25]), clock=0)]
    for _ in range(dice.choice([1, 1, 1, 2])):
        if dice.random() < 0.85:
            steps.append(_pass(dice, 0))
        again = replace(run, range="again", tick=0, clock=0)
        if accounts > 1 and dice.random() < 0.25:
            again = replace(again, account=1 - run.account)
        if dice.random() < 0.08:
            again = replace(again, mask=not run.mask)
        steps.append(again)
    if dice.random() < 0.5:
        steps.append(Step("check", account=run.account, place=run.place))
    return steps
