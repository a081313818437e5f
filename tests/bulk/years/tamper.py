"""Changes to a destination behind the product's back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from tests.bulk.years.product import connected, has_table, rows_of

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

#: The status of a row that was changed.
SPOILT = "spoilt"


class Spoilt(NamedTuple):
    """One change.

    Attributes:
        what: the change in words.
        serials: the calls whose rows are gone or changed.
        damaged: the destination may be refused from now on.
        dropped: the destination is gone.
    """

    what: str
    serials: frozenset[int] = frozenset()
    damaged: bool = False
    dropped: bool = False


def spoil(path: Path, ending: str, how: str, dice: Random) -> Spoilt | None:
    """Tamper with a destination; None if there is nothing to tamper with."""
    if how == "remove file" and ending != "/":
        path.unlink()
        return Spoilt("removed", damaged=True, dropped=True)
    if ending in (".db", ".duckdb"):
        return _spoil_database(path, ending, how, dice)
    return _spoil_directory(path, how, dice) if ending == "/" else _spoil_file(path, how, dice)


def _spoil_database(path: Path, ending: str, how: str, dice: Random) -> Spoilt | None:
    rows = rows_of(path, ending)
    with connected(path, ending) as database:
        if not has_table(database):
            return None
        if how in ("drop table", "change byte"):
            database.execute("DROP TABLE call_records")
            return Spoilt("its table is dropped", damaged=True, dropped=True)
        if not rows:
            return None
        chosen = dice.sample(rows, dice.choice([1, 1, max(1, len(rows) // 2), len(rows)]))
        keys = ", ".join(f"'1746000000.{row.serial}'" for row in chosen)
        serials = frozenset(row.serial for row in chosen)
        if how == "change rows":
            database.execute(f"UPDATE call_records SET status = '{SPOILT}' WHERE call_id IN ({keys})")
            return Spoilt(f"{len(chosen)} of {len(rows)} rows changed", serials)
        database.execute(f"DELETE FROM call_records WHERE call_id IN ({keys})")
        return Spoilt(f"{len(chosen)} of {len(rows)} rows deleted", serials)


def _spoil_file(path: Path, how: str, dice: Random) -> Spoilt | None:
    data = path.read_bytes()
    if not data:
        return None
    if how in ("delete rows", "remove line"):
        lines = data.splitlines(keepends=True)
        del lines[dice.randrange(len(lines))]
        path.write_bytes(b"".join(lines))
        return Spoilt("a line removed", damaged=True)
    place = data.index(b"answered") if b"answered" in data else 0
    path.write_bytes(data[:place] + bytes([(data[place] + 1) % 256]) + data[place + 1 :])
    return Spoilt("a byte changed", damaged=True)


def _spoil_directory(path: Path, how: str, dice: Random) -> Spoilt | None:
    days = sorted(each for each in path.iterdir() if each.is_dir())
    if not days:
        return None
    day = dice.choice(days)
    if how in ("change byte", "change rows"):
        file = next(iter(sorted(day.glob("*.parquet"))))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] = (data[len(data) // 2] + 1) % 256
        file.write_bytes(data)
        return Spoilt(f"a byte of {day.name} changed", damaged=True)
    shutil.rmtree(day)
    return Spoilt(f"{day.name} removed", damaged=True)
