"""Lengths of time on the command line: ``90s``, ``30m``, ``2h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from servetel_async.cli.options.numbers import flag_of
from servetel_async.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import NoReturn

    _Kind = click.ParamType[timedelta]
else:
    _Kind = click.ParamType  # not generic before click 8.5

_LENGTH = re.compile(r"(\d+)([smhd])", re.ASCII)
_EXAMPLES = {"s": "90s", "m": "30m", "h": "12h", "d": "7d"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
#: About ten years: no call is older, and no outage lasts longer.
LONGEST = timedelta(days=3650)
_DIGITS = 10


class Duration(_Kind):
    """A length of time: a whole number and its unit.

    Args:
        units: the allowed units.
        zero: whether 0 is allowed.
    """

    name = "duration"

    def __init__(self, units: str = "smhd", *, zero: bool = False) -> None:
        self._units = units
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a length of time."""
        if isinstance(value, timedelta):
            return value
        match = _LENGTH.fullmatch(str(value))
        if match is None or match[2] not in self._units:
            self._refuse(param, ctx)
        number = match[1].lstrip("0")
        if not number and not self._zero:
            raise ConfigurationError(
                f"{flag_of(param)} is 0",
                why="this length of time must be longer than 0",
                fix=self._fix(param, ctx),
            )
        if len(number) > _DIGITS or int(number or 0) * _UNITS[match[2]] > LONGEST.total_seconds():
            raise ConfigurationError(
                f"{flag_of(param)} is longer than {LONGEST.days} days",
                why="no account has calls so old, and no outage lasts so long",
                fix=self._fix(param, ctx),
            )
        return timedelta(seconds=int(number or 0) * _UNITS[match[2]])

    def _refuse(self, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        self.fail(f"a length of time has a number and a unit, for example {self._examples()}", param, ctx)

    def _fix(self, param: click.Parameter | None, ctx: click.Context | None) -> str:
        help_text = "" if ctx is None else f"; for all options: {ctx.command_path} --help"
        return f"for example {flag_of(param)} {self._examples()}{help_text}"

    def _examples(self) -> str:
        return " or ".join(_EXAMPLES[unit] for unit in self._units)


def rough(seconds: float) -> str:
    """Format seconds for people, in one unit or two: ``40 s``, ``12 min``, ``2 h 5 min``, ``3 d 4 h``."""
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


SETTLE = click.option(
    "--settle", default="2h", show_default=True, type=Duration(zero=True), help="How late calls may still arrive."
)
PATIENCE = click.option(
    "--patience",
    default="30m",
    show_default=True,
    type=Duration(zero=True),
    help="How long to wait for the end of an outage.",
)
