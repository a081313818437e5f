"""Changes of the table while it is read: new calls in front, late calls in the middle, deletions anywhere."""

import time
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from servetel_async.emulator.calls import Call
from servetel_async.emulator.dataset import Dataset
from servetel_async.emulator.table import Table

__all__ = ["Churn"]

#: Seconds after which the longest call that began with the newest one has ended.
_SETTLED: Final = 4_000


class Churn:
    """Change a table on demand and, if set, before every N-th request."""

    def __init__(
        self,
        table: Table,
        dataset: Dataset,
        *,
        seed: int,
        insert_every: int | None,
        late_every: int | None,
        delete_every: int | None,
    ) -> None:
        self._table = table
        self._clock = dataset.clock
        self._generator = dataset.generator(seed)
        self._random = Random(f"churn {seed}")
        self._insert_every = insert_every
        self._late_every = late_every
        self._delete_every = delete_every

    def before(self, request: int, found: Sequence[Call]) -> bool:
        """Make the changes due before the `request`-th answer, which would hold `found`; return whether any were."""
        changed = False
        if self._insert_every and request % self._insert_every == 0:
            self.insert()
            changed = True
        if self._late_every and request % self._late_every == 0 and found:
            self.insert_late(found[len(found) // 2].start)
            changed = True
        if self._delete_every and request % self._delete_every == 0 and found:
            self._table.delete(self._random.choice(found).id)
            changed = True
        return changed

    def insert(self, start: str | None = None, **fields: Any) -> str:
        """Insert a call that has just ended, by default one second newer than the newest; return its id."""
        return self._insert(self._newest() + 1 if start is None else self._clock.parse(start), 0, fields)

    def insert_late(self, start: int | str | None = None, **fields: Any) -> str:
        """Insert a call that began long ago with the youngest record of all; return its id."""
        newest = self._newest()
        if start is None:
            start = self._table.middle.start if self._table.middle else newest
        elif isinstance(start, str):
            start = self._clock.parse(start)
        return self._insert(start, newest + _SETTLED, fields)

    def _insert(self, start: int, inserted_at: int, fields: dict[str, Any]) -> str:
        call = self._generator.make(start, self._table.next_serial(), inserted_at=inserted_at, **fields)
        self._table.insert(call)
        return call.id

    def _newest(self) -> int:
        return self._table.newest.start if self._table.newest else int(time.time())
