"""The filters of ``CallQuery`` as flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

FILTERS = (
    ("--direction", "inbound or outbound.", False),
    ("--call-type", "c (answered) or m (missed).", False),
    ("--agents", "An agent's id; may be given several times.", True),
    ("--department", "A department's id; may be given several times.", True),
    ("--ivr", "An IVR's id; may be given several times.", True),
    ("--callerid", "The client's number.", False),
    ("--destination", "The account's number that was called.", False),
    ("--did-number", "The number a call was routed from.", False),
    ("--duration", "Seconds with an operator, for example '>=60'.", False),
    ("--services", "A service; may be given several times.", True),
    ("--broadcast", "true or false.", False),
    ("--call-id", "One call, by the id other systems know.", False),
)


def filter_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filter flags to a command."""
    for flag, text, multiple in reversed(FILTERS):
        command = click.option(flag, help=text, multiple=multiple, metavar="TEXT")(command)
    return command


def take_filters(options: dict[str, Any]) -> dict[str, Any]:
    """Take the filters out of a command's options; filters that were not given are left out."""
    names = [flag.removeprefix("--").replace("-", "_") for flag, _, _ in FILTERS]
    return {name: value for name in names if (value := options.pop(name)) not in (None, ())}
