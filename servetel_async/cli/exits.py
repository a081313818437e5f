"""How a command ends: the exit codes, and what is said on standard error.

========  =================================================================================
0         complete
1         a bug in this package
2         usage or configuration, also a destination that cannot be written
3         not complete, and the same command can complete it
4         not authorised
5         temporary: the network, 429 or 5xx outlasted the retries; nothing usable was written
6         the data does not agree: counts that move, records outside of the range, pages that contradict
130, 143  interrupted by SIGINT or SIGTERM
========  =================================================================================
"""

from __future__ import annotations

import shlex
import signal
import sys
import traceback

from servetel_async.cli.terminal import say
from servetel_async.errors import (
    AuthenticationError,
    BodyTooLargeError,
    ConfigurationError,
    OutputError,
    PagingError,
    PermissionDeniedError,
    RequestRejectedError,
    ServetelError,
    StreamClosedError,
    WrongAddressError,
)

COMPLETE = 0
BUG = 1
USAGE = 2
INCOMPLETE = 3
NOT_AUTHORISED = 4
TEMPORARY = 5
DISAGREES = 6

#: First match wins; what is not listed is temporary.
_CODES: tuple[tuple[type[ServetelError], int], ...] = (
    (AuthenticationError, NOT_AUTHORISED),
    (PermissionDeniedError, NOT_AUTHORISED),
    (PagingError, DISAGREES),
    (ConfigurationError, USAGE),
    (WrongAddressError, USAGE),
    (RequestRejectedError, USAGE),
    (BodyTooLargeError, USAGE),
    (OutputError, USAGE),
    (StreamClosedError, BUG),
)
#: Flags whose values may be personal; the command that is suggested again leaves them out.
_PERSONAL = ("--callerid", "--destination", "--did-number", "--call-id", "--agents")


class Stopped(BaseException):
    """A signal asked this command to stop, and it has. Like ``KeyboardInterrupt`` it is no error to be handled."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.signal = number


def code_of(error: BaseException, *, started: bool = False) -> int:
    """Give the exit code of an error.

    Args:
        error: what ended the command.
        started: requests had been sent: a destination that fails now was good before, and may be again.
    """
    if not isinstance(error, ServetelError):
        return BUG
    if started and isinstance(error, OutputError):
        return TEMPORARY
    return next((code for kind, code in _CODES if isinstance(error, kind)), TEMPORARY)


def report_error(error: BaseException, *, started: bool = False) -> int:
    """Say what happened, why where that is known, and what to do: one line each. Gives the exit code."""
    if isinstance(error, ServetelError):
        page = "" if error.page is None else f" (page {error.page})"
        tries = "" if error.attempts <= 1 else f" after {error.attempts} attempts"
        say(f"Error: {error.what}{page}{tries}")
        if error.why:
            say(f"  Why: {error.why}")
        say(f"  Fix: {error.fix or 'run it again later'}")
        return code_of(error, started=started)
    # The message of a foreign exception may hold anything, also a number or a token: its kind and place are enough.
    for line in traceback.format_tb(error.__traceback__):
        for each in line.splitlines():
            say(each)
    say(f"Error: {type(error).__name__}, which nobody expected")
    say("  Why: this is a bug in servetel_async")
    say("  Fix: report it, with the lines above; they hold no data")
    return BUG


def report_stop(number: signal.Signals) -> int:
    """Say that it was stopped and how to begin again; gives the exit code."""
    word = "Interrupted" if number == signal.SIGINT else "Terminated"
    say(f"{word}: what there is, if anything, is not complete.")
    say(f"Run it again: {again(sys.argv[1:])}")
    return 128 + number


def again(arguments: list[str]) -> str:
    """Write the command anew; values that may be personal become an ellipsis."""
    shown: list[str] = []
    hide = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if hide:
            shown.append("...")
        else:
            shown.append(f"{flag}=..." if equals and flag in _PERSONAL else argument)
        hide = not hide and not equals and flag in _PERSONAL
    return shlex.join(["servetel", *shown])
