"""How a command ends: the exit codes, and the messages on standard error.

=============  ============================================================================
0              complete
1              a bug in this package
2              usage or configuration; also a destination that cannot be written, or is not ours to replace
3              not complete, and the same command can complete it
4              not authorised
5              temporary: the network, 429 or 5xx outlasted the retries; or the destination is locked or busy
6              the data does not agree: counts change, records lie outside the range, pages contradict each other
129, 130, 143  interrupted by SIGHUP, SIGINT or SIGTERM
=============  ============================================================================
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import traceback

import click

from servetel_async.cli.output.terminal import say
from servetel_async.cli.output.wording import in_flags
from servetel_async.errors import (
    AuthenticationError,
    BodyTooLargeError,
    CallbackError,
    ConfigurationError,
    OutputError,
    OutputLockedError,
    OutputUnavailableError,
    PagingError,
    PermissionDeniedError,
    RequestRejectedError,
    ResumeMismatchError,
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

#: The first match wins; all other errors are temporary.
_CODES: tuple[tuple[type[ServetelError], int], ...] = (
    (AuthenticationError, NOT_AUTHORISED),
    (PermissionDeniedError, NOT_AUTHORISED),
    (PagingError, DISAGREES),
    (ConfigurationError, USAGE),
    (CallbackError, USAGE),
    (WrongAddressError, USAGE),
    (RequestRejectedError, USAGE),
    (BodyTooLargeError, USAGE),
    (OutputLockedError, TEMPORARY),
    (OutputUnavailableError, TEMPORARY),
    (OutputError, USAGE),
    (StreamClosedError, BUG),
)
#: Flags whose values may be personal; the suggested command leaves the values out.
_PERSONAL = ("--callerid", "--destination", "--did-number", "--call-id", "--agents", "--email")
#: Parts of a database's address that must not be printed: user and password.
_CREDENTIALS = re.compile(r"://.*@|(?<=[?&]password=)[^&]*")


class Stopped(BaseException):
    """A signal has stopped this command. Like ``KeyboardInterrupt`` it is not an error to handle."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.signal = number


def code_of(error: BaseException, *, started: bool = False, kept: bool = False) -> int:
    """Return the exit code of an error.

    Args:
        error: the error that ended the command.
        started: whether requests had been sent: a destination that fails now was good before, and may be again.
        kept: whether windows are committed, so that the same command resumes from there.
    """
    if not isinstance(error, ServetelError):
        return BUG
    code = next((code for kind, code in _CODES if isinstance(error, kind)), TEMPORARY)
    if started and isinstance(error, OutputError) and not isinstance(error, ResumeMismatchError):
        code = TEMPORARY
    return INCOMPLETE if kept and code == TEMPORARY else code


def report_error(error: BaseException, *, started: bool = False, kept: bool = False) -> int:
    """Print what happened, why if known, and what to do, one line each; return the exit code."""
    if isinstance(error, ServetelError):
        page = "" if error.page is None else f" (page {error.page})"
        tries = "" if error.attempts <= 1 else f" after {error.attempts} attempts"
        say(f"Error: {in_flags(error.what)}{page}{tries}")
        if error.why:
            say(f"  Why: {in_flags(error.why)}")
        say(f"  Fix: {in_flags(error.fix) or 'run it again later'}")
        return code_of(error, started=started, kept=kept)
    # The message of a foreign exception may hold a number or a token: its kind and place are enough.
    for line in traceback.format_tb(error.__traceback__):
        for each in line.splitlines():
            say(each)
    say(f"Unexpected error: {type(error).__name__}")
    say("  Why: this is a bug in servetel_async")
    say("  Fix: report it, with the lines above; they hold no data")
    return BUG


def report_usage(error: click.ClickException) -> int:
    """Print what click did not understand, in the same three lines; return the exit code."""
    what = _without_values(error.format_message().rstrip("."), sys.argv[1:])
    why, fix = "", "see what it takes: servetel --help"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        fix = f"see what it takes: {error.ctx.command_path} --help"
    if isinstance(error, click.NoSuchOption):
        what = f"there is no {error.option_name}"
        if error.option_name == "--token":
            why, fix = "a command line can be read by others", "set SERVETEL_TOKEN, or give --token-file"
        elif error.option_name == "--password":
            why, fix = "a command line can be read by others", "give --email and --password-file"
        elif error.possibilities:
            fix = f"perhaps {' or '.join(error.possibilities)}; {fix}"
    return report_error(ConfigurationError(what[:1].lower() + what[1:], why=why, fix=fix))


def _without_values(message: str, arguments: list[str]) -> str:
    """Leave out the values that were given: click repeats them, and a token may be in the wrong place."""
    values = {argument for argument in arguments if not argument.startswith("-")}
    values |= {argument.partition("=")[2] for argument in arguments if argument.startswith("-")} - {""}
    for value in sorted(values, key=len, reverse=True):
        for written in (repr(value)[1:-1], value):
            if len(value) > 3 or f"'{written}'" in message:  # noqa: PLR2004 - a short one may be an English word
                message = message.replace(written, "...")
    return message


def report_stop(number: signal.Signals, what: str = "") -> int:
    """Print that the command was stopped, and what that means; return the exit code."""
    word = "Interrupted" if number == signal.SIGINT else "Terminated"
    say(f"{word}: {what}" if what else f"{word}. Run it again: {again(sys.argv[1:])}")
    return 128 + number


def again(arguments: list[str], *, leave_out: str = "") -> str:
    """Return the command to run again; values that may be personal become an ellipsis.

    Args:
        arguments: the arguments as given.
        leave_out: a flag that would drop what is kept.
    """
    shown: list[str] = []
    hide = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if hide:
            shown.append("...")
        elif argument != leave_out:
            public = _CREDENTIALS.sub(lambda match: "://...@" if match[0].startswith(":") else "...", argument)
            shown.append(f"{flag}=..." if equals and flag in _PERSONAL else public)
        hide = not hide and not equals and flag in _PERSONAL
    return shlex.join(["servetel", *shown])
