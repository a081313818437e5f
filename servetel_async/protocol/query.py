"""A query for calls: every documented parameter, typed, checked before anything is sent.

The API silently ignores an unknown parameter and then sends the whole history. So no parameter here is free-form: a
misspelt keyword is a ``TypeError`` or ``ConfigurationError``, never other people's calls.
"""

from __future__ import annotations

import calendar
import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Literal, Self, TypedDict, cast

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.clock import IST, Moment, account_time, stamp, wall_clock
from servetel_async.protocol.wall_range import wall_windows
from servetel_async.protocol.windows import Window

ArrayStyle = Literal["brackets", "indexed", "repeat", "comma"]
ARRAY_STYLES: tuple[ArrayStyle, ...] = ("brackets", "indexed", "repeat", "comma")

Direction = Literal["inbound", "outbound"]
CallType = Literal["c", "m", "answered", "missed"]

_CALL_TYPES = {"c": "c", "m": "m", "answered": "c", "missed": "m"}
_DURATION = re.compile(r"\s*(>=|<=|!=|>|<)\s*(\d{1,9})\s*")
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_ARRAYS = ("agents", "department", "ivr")
_TEXTS = ("callerid", "destination", "did_number", "broadcast", "call_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuery:
    """A selection of calls. Frozen; equal queries are equal values; its ``repr`` shows no phone number.

    Args:
        from_date: first moment: an aware ``datetime``, a ``date``, or ``"YYYY-MM-DD[ HH:MM:SS]"`` of the account.
        to_date: last moment, inclusive; a day without a time means its last second.
        direction: ``"inbound"`` or ``"outbound"``.
        call_type: ``"c"`` or ``"answered"``; ``"m"`` or ``"missed"``.
        agents: one agent id or several, bare or as ``"agent|ID"``.
        department: one department id or several.
        ivr: one IVR id or several.
        callerid: the client's number.
        destination: the account's number that an inbound call reached.
        did_number: the number a call was routed from.
        duration: ``">60"``, ``(">=", 60)``: seconds, with one of ``> < >= <= !=``.
        services: one service or several.
        broadcast: whether broadcast calls are wanted; text is sent as it is.
        call_id: one call, by the id that other systems know.

    Raises:
        ConfigurationError: if the API would misread a value, a ``datetime`` is naive, or the range is reversed.
    """

    from_date: Moment | None = None
    to_date: Moment | None = None
    direction: Direction | None = None
    call_type: CallType | None = None
    agents: str | Iterable[str] | None = None
    department: str | Iterable[str] | None = None
    ivr: str | Iterable[str] | None = None
    callerid: str | None = None
    destination: str | None = None
    did_number: str | None = None
    duration: str | tuple[str, int] | None = None
    services: str | Iterable[str] | None = None
    broadcast: bool | str | None = None
    call_id: str | None = None

    def __post_init__(self) -> None:
        """Normalise every value once, so that equal questions are equal queries."""
        put = object.__setattr__
        put(self, "direction", _one_of("direction", self.direction, {"inbound": "inbound", "outbound": "outbound"}))
        put(self, "call_type", _one_of("call_type", self.call_type, _CALL_TYPES))
        agents = _several("agents", self.agents)
        put(self, "agents", agents and tuple(_agent(agent) for agent in agents))
        put(self, "department", _several("department", self.department))
        put(self, "ivr", _several("ivr", self.ivr))
        put(self, "services", _several("services", self.services, lower=False))
        put(self, "duration", _duration(self.duration))
        if isinstance(self.broadcast, bool):
            put(self, "broadcast", "true" if self.broadcast else "false")
        for name in _TEXTS:
            put(self, name, _text(name, getattr(self, name)))
        # Two moments of one kind compare in any zone; a mixed pair is compared when the account's zone is known.
        if isinstance(self.from_date, datetime) == isinstance(self.to_date, datetime):
            self.window(IST)
        else:
            for name, moment in (("from_date", self.from_date), ("to_date", self.to_date)):
                if moment is not None:
                    wall_clock(moment, IST, name=name)
        for name in ("from_date", "to_date"):
            moment = getattr(self, name)
            if isinstance(moment, datetime) and moment.fold:  # times of one zone are equal if they differ only by it
                put(self, name, account_time(moment, UTC, name=name))

    @classmethod
    def month(cls, month: str, **filters: Any) -> Self:
        """Select all of ``"2024-05"``, first to last second, on the account's wall clock."""
        match = _MONTH.fullmatch(month) if isinstance(month, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if match is None or not (1 <= int(match[2]) <= 12 and int(match[1])):  # noqa: PLR2004 - months of a year
            raise ConfigurationError(
                "that is not a month",
                why="a year has four digits, and its months are 01 to 12",
                fix='write it as "YYYY-MM", for example "2024-05"',
            )
        year, number = int(match[1]), int(match[2])
        last = calendar.monthrange(year, number)[1]
        return cls(from_date=date(year, number, 1), to_date=date(year, number, last), **filters)

    @classmethod
    def day(cls, day: date | str, **filters: Any) -> Self:
        """Select one day, first to last second, on the account's wall clock."""
        if isinstance(day, datetime):
            raise ConfigurationError("day is a moment, not a day", fix="give a date, or use from_date and to_date")
        if isinstance(day, str) and len(day) != len("YYYY-MM-DD"):
            raise ConfigurationError("that is not a day", fix='write it as "YYYY-MM-DD", for example "2024-05-02"')
        return cls(from_date=day, to_date=day, **filters)

    @classmethod
    def last(cls, *, days: float = 0, hours: float = 0, now: datetime | None = None, **filters: Any) -> Self:
        """Select the time just passed, up to ``now`` (aware; by default the present moment)."""
        end = now if now is not None else datetime.now(UTC)
        start = None
        with contextlib.suppress(Exception):  # ``now`` may be of any class
            # In UTC: in a zone whose clock changes, ``-`` would move the wall clock, not the moment.
            moment = end if end.utcoffset() is None else end.astimezone(UTC)
            earlier = moment - timedelta(days=days, hours=hours)
            start = earlier if earlier < moment else None
        if start is None:
            raise ConfigurationError(
                "last() needs a length of time above 0 that ends within the calendar",
                fix="for example CallQuery.last(days=7)",
            )
        return cls(from_date=start, to_date=end, **filters)

    def replace(self, **changes: Any) -> Self:
        """Return the same query with some values changed, checked anew."""
        _known(changes)
        return dataclasses.replace(self, **changes)

    def windows(self, zone: tzinfo = IST) -> tuple[Window, ...]:
        """Return the requested range on the account's wall clock, newest first: nearly always a single window.

        If the range lies in the doubled hour of autumn, there may be two, with seconds between them that certainly lie
        outside. ``protocol/wall_range.py`` has the rules.

        Raises:
            ConfigurationError: if ``from_date`` lies after ``to_date``.
        """
        return wall_windows(self.from_date, self.to_date, zone)

    def window(self, zone: tzinfo = IST) -> Window:
        """Return the window from the first to the last second of ``windows()``.

        Raises:
            ConfigurationError: if ``from_date`` lies after ``to_date``.
        """
        windows = self.windows(zone)
        return Window(windows[-1].start, windows[0].end)

    def left_out(self, zone: tzinfo = IST) -> list[Window]:
        """Return the seconds of ``window()`` that are in none of ``windows()``: nearly always an empty list."""
        windows = self.windows(zone)
        return Window(windows[-1].start, windows[0].end).without(list(windows)) if len(windows) > 1 else []

    def params(
        self, zone: tzinfo = IST, *, array_style: ArrayStyle = "brackets", window: Window | None = None
    ) -> Params:
        """Encode as pairs, in a fixed order; ``window`` replaces the query's own range."""
        window = window if window is not None else self.window(zone)
        pairs = Params()
        if window.start is not None:
            pairs.append(("from_date", stamp(window.start)))
        if window.end is not None:
            pairs.append(("to_date", stamp(window.end)))
        for name in _ARRAYS:
            pairs.extend(_array(name, getattr(self, name), array_style))
        for name in ("call_type", "direction", *_TEXTS):
            value = getattr(self, name)
            if value is not None:
                pairs.append((name, value))
        if self.services:
            pairs.append(("services", ",".join(self.services)))
        if self.duration is not None:
            operator, seconds = cast("tuple[str, int]", self.duration)  # as __post_init__ made it
            pairs += [("duration", str(seconds)), ("operator", operator)]
        return pairs

    def fingerprint(self, zone: tzinfo = IST) -> str:
        """Return twelve hex digits that distinguish queries and show no number."""
        parts = [f"{name}={value}" for name, value in self.params(zone)]
        parts += [f"without {window}" for window in self.left_out(zone)]
        text = "\0".join(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        asked = [
            f"{name}={getattr(self, name)!r}" for name in ("from_date", "to_date") if getattr(self, name) is not None
        ]
        asked += [f"{field.name}=..." for field in dataclasses.fields(self)[2:] if getattr(self, field.name)]
        return f"CallQuery({', '.join(asked)})"


class Filters(TypedDict, total=False):
    """The filters of ``CallQuery``, by name."""

    direction: Direction
    call_type: CallType
    agents: str | Iterable[str]
    department: str | Iterable[str]
    ivr: str | Iterable[str]
    callerid: str
    destination: str
    did_number: str
    duration: str | tuple[str, int]
    services: str | Iterable[str]
    broadcast: bool | str
    call_id: str


class Params(list[tuple[str, str]]):
    """Pairs that do not print: they hold phone numbers, and tracebacks print local variables."""

    def __repr__(self) -> str:
        return f"<{len(self)} parameters>"


NAMES = frozenset(field.name for field in dataclasses.fields(CallQuery))


def build_query(
    query: CallQuery | None, from_date: Moment | None, to_date: Moment | None, filters: dict[str, Any]
) -> CallQuery:
    """Make one query from a method's arguments: a query, keywords, or a query and changes to it."""
    given = dict(filters)
    filters.clear()  # the caller's frame lives while it waits, and should hold no phone number
    try:
        return _build(query, from_date, to_date, given)
    except ConfigurationError as error:
        mistake = error
    given.clear()
    raise mistake.with_traceback(None)  # the frames below hold the arguments


def _build(
    query: CallQuery | None, from_date: Moment | None, to_date: Moment | None, given: dict[str, Any]
) -> CallQuery:
    _known(given)
    if from_date is not None:
        given["from_date"] = from_date
    if to_date is not None:
        given["to_date"] = to_date
    if query is None:
        return CallQuery(**given)
    if not isinstance(query, CallQuery):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"query is a {type(query).__name__}", fix="give a CallQuery, or the filters by name")
    return query.replace(**given) if given else query


def _known(names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ConfigurationError(
            f"the API has no parameter {unknown[0]!r}",
            why="it ignores unknown parameters and sends the whole history instead",
            fix=f"the filters are: {', '.join(sorted(NAMES))}",
        )


def _one_of(name: str, value: object, known: dict[str, str]) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in known:
        raise ConfigurationError(
            f"{name}= has a value that the API does not know", fix=f"use one of {', '.join(known)}"
        )
    return known[value.lower()]


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(
            f"{name}= must be a text that is not empty and holds no control character",
            why="the API ignores a filter that it cannot read",
            fix=f"write numbers as text: {name}='...'",
        )
    return value.strip()


def _several(name: str, value: object, *, lower: bool = True) -> tuple[str, ...] | None:
    """Make a tuple of one text or several; the API wants names in lower case."""
    if value is None:
        return None
    if isinstance(value, str):
        items: list[object] = [value]
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        items = list(cast("Iterable[object]", value))
        if isinstance(value, AbstractSet):  # a set has another order in each process; a query needs one order
            items.sort(key=str)
    else:
        raise ConfigurationError(f"{name}= must be a text or several texts", fix=f"for example {name}=[...] of ids")
    texts = tuple(text for text in (_text(name, item) for item in items) if text is not None)
    if len(texts) < max(1, len(items)):
        raise ConfigurationError(
            f"{name}= holds nothing",
            why="the API would take that for no filter at all",
            fix=f"leave {name} out to ask for all",
        )
    return tuple(text.lower() for text in texts) if lower else texts


def _agent(agent: str) -> str:
    """Return ``agent|ID``, also from a bare id and from the old page's ``agent||ID``."""
    kind, bar, identifier = agent.rpartition("|")
    if bar and kind.rstrip("|") != "agent":
        raise ConfigurationError("agents= holds a value of another kind", fix="write an agent as its id, or 'agent|ID'")
    if not identifier:
        raise ConfigurationError("agents= holds an agent without an id", fix="write an agent as its id, or 'agent|ID'")
    return f"agent|{identifier}"


def _duration(value: object) -> tuple[str, int] | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        parts = cast("tuple[Any, ...]", value)
        value = "".join(str(part) for part in parts) if len(parts) == 2 else None  # noqa: PLR2004 - operator, seconds
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(
            "duration= needs an operator and whole seconds",
            why="the API compares with >, <, >=, <= or !=, never for equality",
            fix="for example duration='>=60' or duration=('>=', 60)",
        )
    return match[1], int(match[2])


def _array(name: str, values: tuple[str, ...] | None, style: ArrayStyle) -> list[tuple[str, str]]:
    if values is None:
        return []
    if style == "brackets":
        return [(f"{name}[]", value) for value in values]
    if style == "indexed":
        return [(f"{name}[{index}]", value) for index, value in enumerate(values)]
    if style == "repeat":
        return [(name, value) for value in values]
    return [(name, ",".join(values))]
