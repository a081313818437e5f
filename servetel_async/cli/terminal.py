"""What reaches a terminal: lines on standard error, with nothing in them that a terminal would obey."""

from __future__ import annotations

import sys
from contextlib import suppress


def escape(text: str, *, keep: str = "") -> str:
    r"""Make control characters, direction marks and lone surrogates visible: ESC becomes ``\x1b``.

    Names and messages come from a server. A terminal obeys what it prints, so what cannot be seen is spelt out.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def say(line: str) -> None:
    """Write a line to standard error. Nobody may be listening: that must not end a pull."""
    with suppress(OSError, ValueError):
        sys.stderr.write(_encodable(escape(line), sys.stderr.encoding) + "\n")
        sys.stderr.flush()


def put(line: str = "") -> None:
    """Write a line of data to standard output, at once."""
    sys.stdout.write(_encodable(escape(line), sys.stdout.encoding) + "\n")
    sys.stdout.flush()


def _encodable(text: str, encoding: str | None) -> str:
    """A terminal that is not UTF-8 gets escapes for what it cannot show, never a crash."""
    return text.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")
