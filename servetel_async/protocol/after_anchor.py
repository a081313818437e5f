"""The calls that a resumed stream delivers from its first window: those behind the anchor, the last delivered call.

1. Calls in front of the anchor were delivered before, or were added since. They are not delivered.
2. Calls of the anchor's own second may change places with it. If such a call is next to the anchor and the checkpoint
   does not name it, it is delivered, even in front of the anchor.
3. A pass over the window that does not meet the anchor cannot say which calls are behind it. Its calls are remembered,
   and the next pass delivers those that it meets behind the anchor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.checkpoint import start_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servetel_async.protocol.checkpoint import Checkpoint
    from servetel_async.protocol.records import CallRecord

_Key = tuple[str, str | None, str | None]


class AfterAnchor:
    """Pick the calls to deliver, page after page in the list's order.

    Attributes:
        reached: whether this pass has met the anchor.
        missed: whether the last whole pass did not meet it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.reached = False
        self.missed = False
        self._id = checkpoint.id
        self._start = checkpoint.start
        self._named = frozenset(checkpoint.second.ids)
        self._in_front: set[_Key] = set()  # calls that this pass first met in front of the anchor
        self._unsure: set[_Key] = set()  # calls of passes that did not meet the anchor
        self._adjacent: list[CallRecord] = []  # the calls of the anchor's second, directly in front of it

    def begin_pass(self) -> None:
        """Begin to read the window again."""
        if not self.reached:
            self._unsure |= self._in_front
        self.reached = False
        self._in_front.clear()
        self._adjacent.clear()

    def pick(self, records: Sequence[CallRecord], fresh: list[CallRecord]) -> list[CallRecord]:
        """Return the calls to deliver.

        Args:
            records: the records of a page or of a part of it, as they came.
            fresh: those of them that are new in this run.
        """
        if self.reached and len(fresh) == len(records):
            return [record for record in fresh if not self._is_named(record)]
        new = set(map(id, fresh))
        picked: list[CallRecord] = []
        for record in records:
            key = (record.id, record.date, record.time)
            in_its_second = bool(self._start) and start_of(record) == self._start
            if record.id == self._id and start_of(record) == self._start:
                self.reached = True
                picked += self._adjacent
                self._adjacent.clear()
            elif not in_its_second and not self.reached:
                self._adjacent.clear()
            if self._is_named(record) or not (id(record) in new or key in self._unsure):
                continue
            self._unsure.discard(key)
            if self.reached:
                picked.append(record)
            elif in_its_second:
                self._adjacent.append(record)
                self._in_front.add(key)
            else:
                self._in_front.add(key)
        self._in_front.difference_update([(record.id, record.date, record.time) for record in picked])
        return picked

    def _is_named(self, record: CallRecord) -> bool:
        return record.id in self._named and start_of(record) == self._start
