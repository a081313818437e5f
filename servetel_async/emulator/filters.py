"""The query parameters of the records route, as predicates on the compact rows.

An unknown parameter is silently ignored: the API does so, and a misspelt filter then returns everything.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from servetel_async.emulator.calls import Call
from servetel_async.emulator.clock import WallClock

__all__ = ["BadParameterError", "Bounds", "FiledBy", "Filter", "Pairs", "decimal"]

#: Query parameters in the order they were sent, decoded.
Pairs: TypeAlias = Iterable[tuple[str, str]]
#: Which bounds belong to the range.
Bounds: TypeAlias = Literal["inclusive", "end_exclusive", "start_exclusive"]
#: The moment of a call that is compared with the dates.
FiledBy: TypeAlias = Literal["start", "end", "insertion"]
_Predicate: TypeAlias = Callable[[Call], bool]

_DECIMAL: Final = re.compile(r"[0-9]{1,18}")
_ARRAY: Final = re.compile(r"(agents|department|ivr)(\[\d*\])?")
_OPERATORS: Final[dict[str, Callable[[int, int], bool]]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
}
_CALL_TYPES: Final = {"c": True, "m": False}
_FLAGS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class BadParameterError(ValueError):
    """A parameter that the API refuses: its name, and the sentence of the answer."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The filters of one query; hashable, so that pages of the same query share one search.

    `since` and `until` are instants in seconds, inclusive, and bound the moment under which a call is filed.
    Empty fields do not filter.
    An agent's calls are those that the agent answered or dialled; a missed call has none.
    """

    since: int | None = None
    until: int | None = None
    agents: frozenset[str] = frozenset()
    department: frozenset[str] = frozenset()
    ivr: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    call_type: str = ""
    direction: str = ""
    callerid: str = ""
    destination: str = ""
    did_number: str = ""
    duration: str = ""
    operator: str = "="
    broadcast: str = ""
    call_id: str = ""

    @classmethod
    def parse(cls, query: Pairs, clock: WallClock, *, knows_call_id: bool = True, bounds: Bounds = "inclusive") -> Self:
        """Read a query; if a scalar was sent twice, the last one counts, as in PHP.

        Raises:
            BadParameterError: if a date, the duration or its operator is malformed.
        """
        scalars: dict[str, str] = {}
        arrays: dict[str, set[str]] = {"agents": set(), "department": set(), "ivr": set()}
        for name, value in query:
            if array := _ARRAY.fullmatch(name):
                arrays[array[1]].update(_identifiers(value))
            else:
                scalars[name] = value
        services = scalars.get("services", "").lower()
        return cls(
            since=_instant("from_date", scalars.get("from_date"), clock, later=bounds == "start_exclusive"),
            until=_instant("to_date", scalars.get("to_date"), clock, later=-(bounds == "end_exclusive")),
            agents=frozenset(arrays["agents"]),
            department=frozenset(arrays["department"]),
            ivr=frozenset(arrays["ivr"]),
            services=frozenset(services.split(",")) if services else frozenset(),
            call_type=scalars.get("call_type", ""),
            direction=scalars.get("direction", ""),
            callerid=_digits(scalars.get("callerid", "")),
            destination=_digits(scalars.get("destination", "")),
            did_number=_digits(scalars.get("did_number", "")),
            duration=_seconds(scalars.get("duration", "")),
            operator=_operator(scalars.get("operator") or "="),
            broadcast=scalars.get("broadcast", "").lower(),
            call_id=scalars.get("call_id", "") if knows_call_id else "",
        )

    def predicates(self) -> list[_Predicate]:
        """Return a test for each filter that is set, except the dates, by which the table is sorted."""
        compare, seconds = _OPERATORS[self.operator], int(self.duration or 0)
        answered, broadcast = _CALL_TYPES.get(self.call_type), _FLAGS.get(self.broadcast)
        tests: tuple[tuple[object, _Predicate], ...] = (
            (self.agents, lambda call: call.agent in self.agents),
            (self.department, lambda call: call.department in self.department),
            (self.ivr, lambda call: call.ivr in self.ivr),
            (self.services, lambda call: not self.services.isdisjoint(call.service.lower().split(","))),
            (answered is not None, lambda call: call.answered is answered),
            (self.direction, lambda call: call.direction == self.direction),
            (self.callerid, lambda call: _digits(call.client_number) == self.callerid),
            (
                self.destination,
                lambda call: call.direction == "inbound" and _digits(call.did_number) == self.destination,
            ),
            (self.did_number, lambda call: _digits(call.did_number) == self.did_number),
            (self.duration, lambda call: compare(call.duration, seconds)),
            (broadcast is not None, lambda call: call.is_broadcast is broadcast),
            (self.call_id, lambda call: call.call_id == self.call_id),
        )
        return [test for is_set, test in tests if is_set]


def _identifiers(value: str) -> list[str]:
    """Return the ids in `agent|0501`, `agent||0501`, a bare `0501`, or several of them with commas."""
    return [item.rpartition("|")[2] for item in value.split(",") if item]


def _digits(number: str) -> str:
    """Drop the plus sign; if it was sent unescaped, it has become a space, and will match nothing."""
    return number.removeprefix("+")


def _instant(name: str, text: str | None, clock: WallClock, *, later: int) -> int | None:
    if not text:
        return None
    try:
        return clock.parse(text) + later
    except ValueError as error:
        label = name.replace("_", " ")
        raise BadParameterError(name, f"The {label} does not match the format Y-m-d H:i:s.") from error


def decimal(text: str) -> int | None:
    """Read a number in digits; None if it is not one, or too long for any database."""
    return int(text) if _DECIMAL.fullmatch(text) else None


def _seconds(text: str) -> str:
    if text and decimal(text) is None:
        raise BadParameterError("duration", "The duration must be an integer.")
    return text


def _operator(sign: str) -> str:
    if sign not in _OPERATORS:
        raise BadParameterError("operator", "The selected operator is invalid.")
    return sign
