"""Numbers on the command line. Each has bounds, and a number outside them is refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from servetel_async.errors import ConfigurationError

if TYPE_CHECKING:
    _Kind = click.ParamType[float]
else:
    _Kind = click.ParamType  # not generic before click 8.5


class Number(_Kind):
    """A number from ``least`` to ``most``, both included.

    Args:
        least: the smallest that makes sense.
        most: the largest that makes sense.
        whole: whether it must be a whole number.
        zero: what 0 means, if 0 is accepted although it is below ``least``.
    """

    name = "number"

    def __init__(self, least: float, most: float, *, whole: bool = False, zero: str = "") -> None:
        self._least = least
        self._most = most
        self._kind: type[float] = int if whole else float
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number.

        Raises:
            ConfigurationError: if the value is not a number, or out of bounds.
        """
        try:
            number = self._kind(value)
        except ValueError:
            number = float("nan")
        if self._least <= number <= self._most or (self._zero and number == 0):  # false for a NaN
            return number
        zero = f"; 0 means {self._zero}" if self._zero else ""
        help_text = "" if ctx is None else f"; for all options: {ctx.command_path} --help"
        kind = "whole number" if self._kind is int else "number"
        why = f"larger than {self._most:,}" if number > self._most else f"not a {kind}"
        raise ConfigurationError(
            f"{flag_of(param)} must be a {kind} from {self._least:,} to {self._most:,}",
            why=f"this one is {f'smaller than {self._least:,}' if number < self._least else why}",
            fix=f"correct it, or leave it out{zero}{help_text}",
        )


def flag_of(param: click.Parameter | None) -> str:
    """Return the flag of a parameter as a user types it."""
    return param.opts[0] if param is not None else "the value"
