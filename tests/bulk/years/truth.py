"""The rules that hold after each step: the claims about a destination agree with the server's calls.

A call that was listed during the whole run, in a range that a receipt calls complete, has to be in the destination with
the server's content. A call that came or left during the run may be there or not. These are mistakes:

- *lost in silence*: a complete range lacks such a call;
- *a gap after a sync*: a successful sync lacks a call that was listed before it, was filed after the last sync's
  look-back, and lies outside the range that it names;
- *wrong content*: a call has content that the server never sent, or sent only before its last reading;
- *twice*: a call is there twice;
- *of another account*: a file or database has calls of an account that did not write it;
- *vanished*: a database lost a call that it had;
- *mask undone*: a call that was masked is in clear after a sync, or a masked pull left one in clear;
- *future*: a range that has not begun is called complete;
- *not over*: a range that is not over is called complete without saying up to when, or up to a future moment;
- *another range*: the receipt names a smaller range than the requested one;
- *check misses tampering*, *check misses a late call* (in a complete and final range), *check misses another account*:
  it agrees;
- *a false alarm*: not complete, without a reason in the history;
- *a false error*: an error, without a reason in the history;
- *check differs falsely*: no call has changed;
- *a crash*: an exception that is not the product's;
- *without end*: a run that needs too many requests.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bulk.years.history import DAY
from tests.bulk.years.product import account_of
from tests.bulk.years.server import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bulk.years.history import Traits
    from tests.bulk.years.product import Claimed, Row
    from tests.bulk.years.server import Account, Call
    from tests.bulk.years.state import Asked, Claim, Place

FALSE_COMPLETE = (
    *(
        "lost in silence",
        "a gap after a sync",
        "wrong content",
        "twice",
        "of another account",
        "vanished",
        "mask undone",
    ),
    *("future", "not over", "another range"),
    *(
        "check misses tampering",
        "check misses a late call",
        "check misses a replaced call",
        "check misses another account",
    ),
)
FALSE_ALARM = ("a false alarm", "a false error", "check differs falsely", "a crash", "without end")


@dataclass
class Seen:
    """The findings of one step."""

    wrong: list[tuple[str, str]] = field(default_factory=list)

    def note(self, kind: str, what: str) -> None:
        self.wrong.append((kind, what))


def names(calls: Iterable[Call]) -> str:
    """Some calls, in readable form."""
    found = sorted(calls, key=lambda call: call.filed)
    shown = ", ".join(f"{stamp(call.filed)}" for call in found[:3])
    return f"{len(found)} calls: {shown}" if len(found) > 1 else f"one call: {shown}"


def judge_claim(
    seen: Seen,
    place: Place,
    account: Account,
    asked: Asked,
    claimed: Claimed,
    ended: int,
    *,
    database: bool,
    clock_ok: bool,
) -> None:
    """Compare a receipt that says complete with the truth."""
    began = asked.began
    if clock_ok and claimed.first > ended:
        seen.note("future", f"{stamp(claimed.first)} to {stamp(claimed.last)}")
    elif clock_ok and claimed.proved > ended:
        seen.note("not over", f"up to {stamp(claimed.proved)}, and it is {stamp(ended)}")
    elif clock_ok and claimed.verdict == "complete" and (asked.last is None or asked.last > ended):
        seen.note("not over", f"{claimed.text}; it is {stamp(ended)}")
    must = [
        call for call in account.between(claimed.first, claimed.proved) if call.listed <= began and call.gone > ended
    ]
    missing = [call for call in must if call.serial not in place.rows]
    missing = [call for call in missing if not _excused(call, missing, place, account, asked, claimed, ended)]
    if missing:
        seen.note("lost in silence", names(missing))
    if asked.kind == "sync" and clock_ok:
        _judge_gap(seen, place, account, asked, claimed, ended)
    if clock_ok:
        _judge_range(seen, asked, claimed)
    _judge_content(seen, place, asked, must, ended, database=database)


def _excused(
    call: Call, missing: list[Call], place: Place, account: Account, asked: Asked, claimed: Claimed, ended: int
) -> bool:
    """Whether no client can know that this call is missing, or its owner has removed it."""
    looks_again = asked.kind == "sync" or asked.resumes
    if looks_again and call.serial in place.spoilt | place.replaced:
        return True
    first, last = next(
        (window for window in claimed.windows if window[0] <= call.filed <= window[1]), (claimed.first, claimed.last)
    )
    since = place.oldest if looks_again else asked.began
    inside = list(account.between(first, last))
    left = [other for other in inside if other.listed < other.gone and since < other.gone <= ended]
    if looks_again:  # as many calls have left the window as have come: its count is unchanged
        return len(left) >= sum(other in missing for other in inside)
    came = [other for other in inside if asked.began < other.listed <= ended]
    return bool(left and came)


def _judge_gap(seen: Seen, place: Place, account: Account, asked: Asked, claimed: Claimed, ended: int) -> None:
    first = due_from(place, asked)
    due = [
        call
        for call in account.between(first, min(ended, claimed.proved))
        if call.listed <= asked.began and call.gone > ended
    ]
    due = [
        call for call in due if not claimed.first <= call.filed <= claimed.last and not _is_final(call, place, asked)
    ]
    gap = [call for call in due if call.serial not in place.rows and call.serial not in place.spoilt | place.replaced]
    if gap:
        seen.note("a gap after a sync", f"{names(gap)}; from {stamp(first)} on everything was due")


def _is_final(call: Call, place: Place, asked: Asked) -> bool:
    """Whether a run has read its second when it was older than the look-back: then no late call is expected in it."""
    return any(
        claim.account == asked.account
        and claim.first <= call.filed <= claim.last
        and claim.began - call.filed >= asked.step.lookback
        for claim in place.claims
    )


def due_from(place: Place, asked: Asked) -> int:
    """The start of a sync's duty: the look-back of the last one, or the end of a pull whose range was not over."""
    first = place.synced.get(asked.owner, asked.began) - asked.step.lookback
    first = max(first - first % DAY, place.territory.get(asked.owner, 0))
    return min([first, *place.unfinished.get(asked.owner, [])])


def _judge_range(seen: Seen, asked: Asked, claimed: Claimed) -> None:
    if asked.kind != "pull":
        return
    if asked.first is not None and claimed.first > asked.first:
        seen.note("another range", f"from {stamp(claimed.first)}, not from {stamp(asked.first)}")
    elif asked.name and asked.pending and not asked.pending.committed and claimed.first < (asked.first or 0):
        seen.note("another range", f"from {stamp(claimed.first)}, although that run had committed nothing")
    now = asked.since if asked.is_closed else asked.began
    last = now if asked.last is None else min(asked.last, now)
    if claimed.last < last:
        seen.note("another range", f"up to {stamp(claimed.last)}, not to {stamp(last)}")


def _judge_content(seen: Seen, place: Place, asked: Asked, must: list[Call], ended: int, *, database: bool) -> None:
    wrong = []
    in_full = place.synced.get(asked.owner, asked.began) - DAY
    for call in must:
        row = place.rows.get(call.serial)
        if row is None or call.serial in place.spoilt:
            continue
        since = asked.since
        if asked.kind == "sync":
            earlier = place.runs.get(asked.owner, [])
            since = min([asked.since, *earlier]) if call.filed >= in_full else place.oldest
        versions = call.versions_between(since, ended)
        if row.start != stamp(call.start) or (row.status, row.charges) not in versions:
            wrong.append(call)
    if wrong:
        seen.note("wrong content", names(wrong))
    if asked.step.mask or not database:
        clear = [call for call in must if call.serial in place.rows and place.rows[call.serial].number == call.number]
        hidden = [call for call in must if call.serial in place.rows and call not in clear]
        if (asked.step.mask and clear) or (hidden and not asked.step.mask):
            seen.note("mask undone", f"{len(clear)} in clear, {len(hidden)} masked, asked for {asked.step.mask=}")


def judge_rows(
    seen: Seen,
    place: Place,
    before: dict[int, Row],
    found: list[Row],
    accounts: list[Account],
    asked: Asked,
    *,
    database: bool,
) -> None:
    """Compare a destination's rows with its earlier ones, whatever the run reported, even if it failed."""
    calls = {call.serial: call for account in accounts for call in account.calls}
    twice = [calls[serial] for serial, times in Counter(row.serial for row in found).items() if times > 1]
    if twice:
        seen.note("twice", names(twice))
    allowed = place.writers if database else {asked.account}
    foreign = [calls[row.serial] for row in found if account_of(row.serial) not in allowed]
    if foreign:
        seen.note("of another account", names(foreign))
    if not database:
        return
    held = {(account_of(serial), calls[serial].id) for serial in place.rows}
    lost = [calls[serial] for serial in before if serial not in place.rows]
    replaced = [call for call in lost if call.id is not None and (account_of(call.serial), call.id) in held]
    place.replaced.update(call.serial for call in replaced)
    vanished = [call for call in lost if call not in replaced]
    if vanished:
        seen.note("vanished", names(vanished))
    clear = {serial for serial, row in place.rows.items() if row.number == calls[serial].number}
    if asked.kind == "sync" and not asked.step.mask and clear & place.masked:
        seen.note("mask undone", names(calls[serial] for serial in clear & place.masked))
    place.masked = set(place.rows) - clear


def reason_for_doubt(
    place: Place,
    account: Account,
    asked: Asked,
    first: int,
    last: int,
    ended: int,
    traits: Traits,
    *,
    database: bool,
    clock_ok: bool,
) -> bool:
    """Whether the history gives a reason to call a range not complete."""
    inside = [call for call in account.between(first, last) if call.listed <= ended]
    since = asked.since if asked.is_closed else asked.began
    changed = any(since < moment <= ended for call in inside for moment in (call.listed, call.gone))
    times = Counter(call.id for call in account.calls if call.listed <= ended and call.id is not None)
    # A sync also reads before the range that it names; a file cannot distinguish two calls of one id and second.
    alike = Counter((call.id, call.start) for call in inside if call.id is not None)
    reused = (database and any(times[call.id] > 1 for call in account.calls)) or any(n > 1 for n in alike.values())
    excused = asked.pending is not None and asked.pending.excused
    lies = traits.lies > 0 or traits.count_ignores_dates
    return changed or reused or excused or lies or not clock_ok or bool(place.spoilt | place.replaced) or place.damaged


def judge_check(seen: Seen, place: Place, account: Account, accounts: list[Account], verdict: str, now: int) -> None:
    """Compare a check's result with the changes since the claims."""
    calls = {call.serial: call for each in accounts for call in each.calls}
    own = [claim for claim in place.claims if claim.account == account.index]
    if verdict.startswith("crashed"):
        seen.note("a crash", verdict)
    if not place.claims:
        return
    covered = [calls[serial] for serial in place.spoilt if _is_claimed(calls[serial], place.claims)]
    certain = [claim for claim in own if claim.certain]
    replaced = [calls[serial] for serial in place.replaced if _is_claimed(calls[serial], certain)]
    late = [call for claim in certain for call in _late(claim, place, account, now)]
    # A check also covers the commits of an interrupted run, although no run made a claim about them.
    stranger = account.index not in place.writers and [
        call for claim in place.claims for call in account.between(claim.first, claim.last) if call.lists_at(now)
    ]
    if verdict == "agrees":
        for what, found in (("a late call", late), ("a replaced call", replaced), ("another account", stranger)):
            if found:
                seen.note(f"check misses {what}", names(found))
        if covered or place.damaged:
            seen.note("check misses tampering", names(covered) if covered else "it was damaged")
        return
    doubtful = place.damaged or place.spoilt or place.mended or place.replaced or place.pendings or late
    if not own or doubtful or not all(claim.certain for claim in place.claims):
        return
    changed = [
        call
        for claim in place.claims
        for each in accounts
        if each.index == claim.account
        for call in each.between(claim.first, claim.last)
        if claim.began < call.listed <= now or claim.began < call.gone <= now
    ]
    if not changed:
        seen.note("check differs falsely", verdict)


def _is_claimed(call: Call, claims: list[Claim]) -> bool:
    mine = account_of(call.serial)
    return any(claim.account == mine and claim.first <= call.filed <= claim.last for claim in claims)


def _late(claim: Claim, place: Place, account: Account, now: int) -> list[Call]:
    """Calls missing from the destination that arrived in a complete and final range from which no call has left."""
    inside = list(account.between(claim.first, min(claim.last, claim.final, claim.ended)))
    if any(claim.began < call.gone <= now for call in inside):
        return []
    came = [call for call in inside if claim.ended < call.listed <= now]
    return [call for call in came if call.serial not in place.rows]
