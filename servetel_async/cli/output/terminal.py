"""Text on a terminal: lines without characters that a terminal would obey."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from servetel_async.sinks.files.atomic import output_error

if TYPE_CHECKING:
    from collections.abc import Generator


def escape(text: str) -> str:
    r"""Make control characters, direction marks and lone surrogates visible: ESC becomes ``\x1b``.

    Names and messages come from a server. A terminal obeys control characters, so invisible characters are spelt out.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def is_terminal() -> bool:
    """Whether standard error is a terminal. Its replacement (such as a notebook's stream) may have no ``isatty``."""
    try:
        return sys.stderr is not None and bool(sys.stderr.isatty())
    except (AttributeError, OSError, ValueError):
        return False


def say(line: str) -> None:
    """Write a line to standard error. A closed standard error must not end a pull."""
    if sys.stderr is None:  # it was closed before Python began
        return
    with suppress(OSError, ValueError):
        sys.stderr.write(_encodable(escape(line), getattr(sys.stderr, "encoding", None)) + "\n")
        sys.stderr.flush()


def put(line: str = "") -> None:
    """Write a line of data to standard output, at once; see ``standard_output``."""
    if sys.stdout is None:
        return
    with standard_output():
        sys.stdout.write(_encodable(escape(line), getattr(sys.stdout, "encoding", None)) + "\n")
        sys.stdout.flush()


@contextmanager
def standard_output() -> Generator[None, None, None]:
    """Guard writes to standard output. It is not an error if the reader has gone and wants no more.

    Raises:
        OutputError: if it takes no more for another reason; later writes go nowhere.
    """
    try:
        yield
    except OSError as error:
        mute()
        if isinstance(error, BrokenPipeError):
            return
        raise output_error("standard output", error, fix="look where it goes to, then run it again") from error


def mute() -> None:
    """Send standard output nowhere: its buffered text would fail again when Python ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


def _encodable(text: str, encoding: str | None) -> str:
    """Escape what the encoding cannot show: a terminal that is not UTF-8 must not cause a crash."""
    return text.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")
