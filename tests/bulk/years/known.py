"""Histories that once failed: for each kind of mistake the shortest one that shows it.

``python -m tests.bulk.years --known`` plays them. On correct code they all pass; without a fix, its history fails.
"""

from __future__ import annotations

from dataclasses import replace

from tests.bulk.years.history import DAY, HOUR, History, Step, Traits


def _history(
    *steps: Step,
    ending: str = ".db",
    accounts: int = 1,
    begins: int = 31,
    page_size: int = 5,
    seed: int = 7,
    **traits: object,
) -> History:
    kept = replace(Traits(), **traits)  # type: ignore[arg-type]
    return History(seed, accounts, (ending,), kept, page_size, 1, begins, tuple(steps))


def _days(days: float, calls: int = 0, seed: int = 1) -> Step:
    return Step("pass", seconds=int(days * DAY) + 7, calls=calls, seed=seed)


def _pull(kind: str, **more) -> Step:
    return Step("pull", range=kind, **more)


def _sync(days: int = 7, **more) -> Step:
    return Step("sync", lookback=days * DAY, **more)


def _spoil(how: str, seed: int = 3) -> Step:
    return Step("tamper", tamper=how, seed=seed)


_CHECK = Step("check")
_PULLED = (_days(33, 30), _pull("last month"))
_SYNCED = (_days(5, 30), _sync())
#: In the newest month each account has one call.
_ALIKE = (_days(57, 20), _days(34, 1, 0))

KNOWN: dict[str, History] = {
    # Time
    "sync after a pull of a month that was not over": _history(
        _days(1.5, 4), _pull("this month"), _days(18, 30), _sync()
    ),
    "sync after a pull of another range": _history(*_SYNCED, _days(50, 40, 2), _pull("open"), _sync()),
    "sync without settling, after a pause": _history(_days(5, 20), _sync(settle=0), _days(50, 40, 2), _sync(settle=0)),
    "sync after one reply whose clock was a year ahead": _history(
        *_SYNCED, _days(1, 3, 2), _sync(at=1, clock=365), _days(60, 40), _sync()
    ),
    "sync after a pull with a reply whose clock was 40 days ahead": _history(
        *_SYNCED, _days(1, 3, 2), _pull("open", at=1, clock=40), _days(60, 40), _sync()
    ),
    "sync after a reply whose clock was 40 days behind": _history(
        *_SYNCED, _days(1, 3, 2), _sync(at=1, clock=-40), _days(60, 40, 3), _sync()
    ),
    "sync after a run whose clock was 40 days ahead": _history(
        *_SYNCED, _days(1, 3, 2), _sync(at=1, clock=40, clock_stays=True), _days(3, 10, 3), _sync()
    ),
    "sync long after a run whose clock was 40 days ahead": _history(
        *_SYNCED, _days(1, 3, 2), _sync(at=1, clock=40, clock_stays=True), _days(60, 40), _sync(), right_here=True
    ),
    "a month that was not over, resumed after its end": _history(
        _days(9.5, 40), _pull("this month", kill="refused", at=12), _days(12, 30, 2), _pull("again"), ending=".ndjson"
    ),
    "a day that was not over, resumed the next day": _history(
        _days(9.5, 90), _pull("today", kill="refused", at=12), _days(1, 40, 2), _pull("again"), page_size=1
    ),
    "a day that was read under a clock a day ahead, resumed when that was past": _history(
        _days(9.5, 90),
        _pull("today", kill="blocked", at=1, clock=1, clock_stays=True, settle=3 * DAY),
        _days(1.1, 40, 2),
        _pull("again", settle=3 * DAY),
        ending=".ndjson",
        right_here=True,
    ),
    "a named range whose first run committed nothing": _history(
        *_SYNCED, _pull("last 24h", kill="refused", at=5), _days(3, 20, 2), _pull("last 24h")
    ),
    "a range that is not over": _history(_days(9.5, 10), _pull("this month")),
    "a range that has not begun": _history(_days(9.5, 10), _pull("future")),
    # Verdicts
    "a late call before a run with nothing left to read": _history(
        *(_days(29.5, 30), _pull("last month", kill="blocked", at=2), _days(9), _pull("again")),
        ending=".ndjson",
        late=1.0,
    ),
    "a late call before a database is resumed": _history(
        _days(29.5, 30), _pull("last month", kill="refused", at=9), _days(9), _pull("again"), late=1.0
    ),
    "a list that changed until the receipt could not be saved": _history(
        *(_days(60, 60, 2), _pull("three months", kill="blocked", at=2, tick=6 * HOUR), _pull("again")),
        ending=".ndjson",
        begins=0,
        late=1.0,
    ),
    "a late call after a file got its name": _history(
        *(_days(29.5, 30), _pull("last month", kill="named"), _days(9), _pull("again")), ending=".ndjson", late=1.0
    ),
    "a file got its name where the end of a range is left out": _history(
        *(_days(2.5, 20, 0), _pull("yesterday", kill="named"), _pull("again")), ending=".ndjson", bounds="end_exclusive"
    ),
    "a late call after an empty file got its name": _history(
        *(_days(28.1, 1, 10), _pull("last month", kill="named"), _days(9), _pull("again")),
        ending=".ndjson",
        late=1.0,
    ),
    "a late call before an empty file is resumed": _history(
        *(_days(28.1, 1, 10), _pull("last month", kill="blocked", at=2), _days(9), _pull("again")),
        ending=".ndjson",
        late=1.0,
    ),
    "late calls before a pull without counts is resumed at its end": _history(
        *(_days(29.5, 30), _pull("last month", kill="blocked", at=8), _days(9), _pull("again")),
        ending=".ndjson",
        late=1.0,
        uncounted=True,
    ),
    "late calls before a pull without counts is resumed": _history(
        *(_days(60, 60, 2), _pull("three months", kill="refused", at=32), _days(9), _pull("again")),
        begins=0,
        ending=".ndjson",
        late=1.0,
        uncounted=True,
    ),
    "a file with a call less than counted is resumed": _history(
        *(_days(33, 30, 1), _pull("last month", kill="blocked", at=4), _days(1), _pull("again")),
        ending=".ndjson",
        reused=1.0,
    ),
    "a sync with a call less than counted, and one soon after": _history(
        *(_days(5, 4, 256), _sync(), _days(1), _sync()), reused=0.3
    ),
    "a sync with a call less than counted, and one long after": _history(
        *(_days(5, 4, 256), _sync(), _days(30), _sync()), reused=0.3
    ),
    # Accounts
    "two accounts sync one database": _history(*_SYNCED, _sync(account=1), accounts=2),
    "two accounts have the same ids": _history(
        _days(5, 20), _sync(account=1), _sync(account=0), accounts=2, shared=1.0
    ),
    "another account resumes a file": _history(
        *(*_ALIKE, _pull("three months", kill="refused", at=7), _pull("again", account=1)),
        accounts=2,
        begins=0,
        ending=".ndjson",
    ),
    "another account resumes a database": _history(
        *(*_ALIKE, _pull("three months", kill="refused", at=7), _pull("again", account=1)), accounts=2, begins=0
    ),
    "another account pulls where one was interrupted": _history(
        *(*_ALIKE, _pull("yesterday", account=1), _pull("three months", kill="refused", at=7)),
        _pull("again", account=1),
        accounts=2,
        begins=0,
    ),
    "another account checks a file": _history(
        _days(34, 1, 0), _pull("last month"), Step("check", account=1), accounts=2, ending=".ndjson"
    ),
    "another account checks a database": _history(
        _days(34, 1, 6), _pull("last month"), Step("check", account=1), accounts=2
    ),
    "an account checks a database that another one used last": _history(*_SYNCED, _sync(account=1), _CHECK, accounts=2),
    "a renewed token resumes": _history(
        _days(70, 80), _pull("three months", kill="refused", at=22), _pull("again"), ending=".ndjson", renews=True
    ),
    # Content
    "check after a row was deleted": _history(*_PULLED, _spoil("delete rows"), _CHECK),
    "check after rows were changed": _history(*_PULLED, _spoil("change rows"), _CHECK),
    "check after the table was dropped": _history(*_PULLED, _spoil("drop table"), _CHECK),
    "check after the database was removed": _history(*_PULLED, _spoil("remove file"), _CHECK),
    "check after a byte was changed": _history(*_PULLED, _spoil("change byte"), _CHECK, ending=".ndjson"),
    "check after a day was removed": _history(*_PULLED, _spoil("remove file"), _CHECK, ending="/"),
    "check after a byte of a day was changed": _history(*_PULLED, _spoil("change byte"), _CHECK, ending="/"),
    "check after a row of DuckDB was deleted": _history(*_PULLED, _spoil("delete rows"), _CHECK, ending=".duckdb"),
    "check of an earlier pull that got a late call": _history(
        _days(29.5, 30), _pull("last month"), _days(9, 4, 2), _pull("yesterday"), _CHECK, late=1.0
    ),
    "check after rows of an earlier pull were deleted": _history(
        *_PULLED, _days(1, 3, 2), _pull("yesterday"), _spoil("delete rows"), _CHECK
    ),
    "check after a row of a window that was only counted again was deleted": _history(
        *(*_SYNCED, _days(2, 5, 2), _sync(), _spoil("delete rows", 4), _CHECK)
    ),
    "check of what a later pull has left of a window, which got a late call": _history(
        *(_days(28.1, 3, 961), _pull("last month"), _pull("yesterday"), _days(9), _CHECK), late=1.0
    ),
    "sync after the table was dropped": _history(*_SYNCED, _spoil("drop table"), _sync()),
    "sync after the table of a pull was dropped": _history(
        _days(31, 30), _pull("last month"), _spoil("drop table"), _sync()
    ),
    "one id in two windows": _history(_days(70, 40), _pull("three months"), reused=0.05),
    "one id in two pulls, and a check": _history(
        _days(58.5, 40), _pull("last month"), _pull("this month"), _CHECK, reused=0.05, begins=0
    ),
    "calls without id whose URL rotates": _history(*_SYNCED, _sync(), _sync(), without_id=1.0, rotating=True),
    "calls without id that change": _history(_days(5, 60, 3), _sync(), _days(2, 3, 2), _sync(), without_id=1.0),
    # The server's habits
    "check where the end of a range is left out": _history(
        _days(2.5, 60, 5), _pull("yesterday"), _CHECK, bounds="end_exclusive"
    ),
    "check where the start of a range is left out": _history(
        _days(3, 60), _pull("yesterday"), _CHECK, bounds="start_exclusive"
    ),
    "check after late calls where the end of a range is left out": _history(
        _days(2.5, 60, 24), _pull("yesterday"), _days(7, 5, 2), _CHECK, bounds="end_exclusive", late=0.6
    ),
    "sync after late calls where the end of a range is left out": _history(
        *(_days(5, 60, 2), _sync(), _days(3, 5, 2), _sync(), _days(3, 5, 3), _sync()), bounds="end_exclusive", late=0.6
    ),
    "check where a count of 0 is left out": _history(
        _days(35, 25, 2), _sync(), _sync(), _CHECK, zero_left_out=True, page_size=10
    ),
    "bounds are learnt from pages that are not those asked for": _history(
        *(_days(2.5, 6, 440), _pull("yesterday")),
        ending=".ndjson",
        page_size=3,
        bounds="end_exclusive",
        lies=0.25,
        seed=431,
    ),
    "bounds are learnt from pages of other ranges": _history(
        *(_days(2.5, 6, 440), _pull("yesterday")),
        ending=".ndjson",
        page_size=3,
        bounds="end_exclusive",
        lies=0.25,
        elsewhere=True,
        seed=23,
    ),
    "counts that ignore the dates": _history(_days(34, 80), _pull("last month"), count_ignores_dates=True),
    "counts of more than forty pages that ignore the dates": _history(
        _days(34, 80), _pull("last month"), page_size=1, count_ignores_dates=True
    ),
    "calls that are filed by their end": _history(
        _days(34, 80), _pull("last month"), _CHECK, filed_by="end", page_size=1
    ),
    "calls that are filed by their end, the first of which does not show it": _history(
        _days(2.5, 3, 319), _pull("today"), page_size=3, filed_by="end"
    ),
    "calls that are filed by their insertion": _history(*_PULLED, _CHECK, filed_by="inserted", late=0.3),
    "calls that are filed by their end where the end of a range is left out": _history(
        _days(0.3, 3, 10), _pull("today"), page_size=1, bounds="end_exclusive", filed_by="end"
    ),
    "two calls of one second where the start of a range is left out": _history(
        _days(10, 60, 14), _sync(1), page_size=1, bounds="start_exclusive"
    ),
    "sync where calls are filed by their end": _history(*_SYNCED, _days(2, 10, 2), _sync(), _CHECK, filed_by="end"),
    # Masks
    "sync after a masked pull": _history(_days(9.5, 40), _pull("this month", mask=True), _sync()),
    "a pull that is resumed with a mask": _history(
        _days(70, 80), _pull("three months", kill="refused", at=22), _pull("again", mask=True), ending=".ndjson"
    ),
}
