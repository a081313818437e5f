"""Lengths of time on the command line: ``90s``, ``30m``, ``2h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from typing import NoReturn

    _Kind = click.ParamType[timedelta]
else:
    _Kind = click.ParamType  # not generic before click 8.5

_LENGTH = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Duration(_Kind):
    """A whole number and its unit.

    Args:
        units: those that are allowed.
        zero: whether no time at all is allowed.
    """

    name = "duration"

    def __init__(self, units: str = "smhd", *, zero: bool = False) -> None:
        self._units = units
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        match = _LENGTH.fullmatch(str(value))
        if match is None or match[2] not in self._units or not (self._zero or int(match[1])):
            self._refuse(param, ctx)
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])

    def _refuse(self, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        examples = {"s": "90s", "m": "30m", "h": "12h", "d": "7d"}
        said = " or ".join(examples[unit] for unit in self._units)
        self.fail(f"a length of time has a number and a unit, for example {said}", param, ctx)


def rough(seconds: float) -> str:
    """For people, in one unit or two: ``40 s``, ``12 min``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    if seconds < _HOUR:
        return f"{minutes} min"
    if seconds < _DAY:
        return _two(minutes, _MINUTE, "h", "min")
    return _two(round(seconds / _HOUR), 24, "d", "h")


def _two(number: int, size: int, large: str, small: str) -> str:
    many, rest = divmod(number, size)
    return f"{many} {large} {rest} {small}" if rest else f"{many} {large}"
