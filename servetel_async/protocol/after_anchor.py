"""What a resumed stream hands out of its first window: the calls behind the last one that was handed out, the anchor.

1. Calls in front of the anchor were handed out before, or were added since. Neither is handed out.
2. Calls of the anchor's own second may change places with it. Next to it, those that the checkpoint does not name are
   handed out, in front of it as well.
3. A pass over the window that does not meet the anchor cannot say which calls are behind it. They are kept in mind, and
   the next pass hands them out if it meets them behind the anchor.
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
    """Picks the calls to hand out, page after page in the list's order.

    Attributes:
        reached: whether this pass has met the anchor.
        missed: whether the last whole pass did not.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.reached = False
        self.missed = False
        self._id = checkpoint.id
        self._start = checkpoint.start
        self._named = frozenset(checkpoint.second.ids)
        self._in_front: set[_Key] = set()  # calls that were first met in front of the anchor, in this pass
        self._unsure: set[_Key] = set()  # the same of passes that did not meet the anchor
        self._adjacent: list[CallRecord] = []  # the calls of the anchor's second, directly in front of it

    def begin_pass(self) -> None:
        """Begin to read the window again."""
        if not self.reached:
            self._unsure |= self._in_front
        self.reached = False
        self._in_front.clear()
        self._adjacent.clear()

    def pick(self, records: Sequence[CallRecord], fresh: list[CallRecord]) -> list[CallRecord]:
        """Give the calls to hand out.

        Args:
            records: of a page, or of a part of it, as they came.
            fresh: those of them that this run had not met before.
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
