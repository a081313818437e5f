"""The flags that hide numbers and names, for commands that write calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.mask import Mask
from servetel_async.protocol.tokens import as_secret
from servetel_async.secret_files import SecretFile

if TYPE_CHECKING:
    from collections.abc import Callable


#: The variable that holds the key if ``--pseudonyms`` names no file.
KEY_VARIABLE = "SERVETEL_PSEUDONYMS_KEY"

_FLAGS = (
    click.option("--mask", is_flag=True, help="Hide every value that could say something about a person."),
    click.option(
        "--pseudonyms",
        is_flag=False,
        flag_value="",
        metavar="[FILE]",
        help=f"Mask, with the same token for the same number or name. FILE holds the key; else {KEY_VARIABLE}.",
    ),
)


def mask_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the mask flags to a command."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def choose_mask(mask: bool, pseudonyms: str | None) -> Mask | None:
    """Make the mask that the flags ask for; None for no mask.

    Args:
        mask: the value of ``--mask``.
        pseudonyms: the file of ``--pseudonyms``; empty for the environment's key, None without the flag.

    Raises:
        ConfigurationError: if the key is missing or too short, or others may read its file.
    """
    if pseudonyms is None:
        return Mask.chosen(mask, None)
    if pseudonyms:
        return Mask.keyed(SecretFile(pseudonyms, "the file with the key for pseudonyms").read())
    key = as_secret(os.environ.get(KEY_VARIABLE))
    if not key:
        raise ConfigurationError(
            "--pseudonyms needs a key",
            why=f"it names no file, and {KEY_VARIABLE} is not set",
            fix="write a random key into a file that only you may read (openssl rand -hex 32), and name the file",
        )
    return Mask.keyed(key)
