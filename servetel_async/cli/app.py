"""The group ``servetel`` and how it ends: each way has its exit code (see ``exits``)."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from servetel_async.cli import exits
from servetel_async.cli.commands.check import check
from servetel_async.cli.commands.demo import demo
from servetel_async.cli.commands.doctor import doctor
from servetel_async.cli.commands.emulate import emulate
from servetel_async.cli.commands.pull import pull
from servetel_async.cli.commands.sync import sync
from servetel_async.cli.output.terminal import standard_output
from servetel_async.cli.run import install_signal_handlers
from servetel_async.errors import OutputError
from servetel_async.version import __version__

if TYPE_CHECKING:
    from types import FrameType


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, no_args_is_help=False)
@click.version_option(__version__, prog_name="servetel", message="%(prog)s %(version)s")
def servetel() -> None:
    """Every call detail record out of Servetel, Smartflo and Acefone.

    Try `servetel demo` first: it needs no account and no network.
    """


for command in (check, demo, doctor, emulate, pull, sync):
    servetel.add_command(command)


def run() -> int:  # noqa: PLR0911 - a table of endings
    """Run the command line; gives the exit code and lets no exception out."""
    _hold_descriptors()
    install_signal_handlers(_terminate)
    try:
        code = servetel.main(prog_name="servetel", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return exits.report_usage(error)
    except exits.Stopped as stopped:
        return exits.report_stop(stopped.signal)
    except (KeyboardInterrupt, click.Abort):
        return exits.report_stop(signal.SIGINT)
    except SystemExit:  # click's answer to a reader that has gone
        return exits.COMPLETE
    except Exception as error:  # noqa: BLE001 - the last line of defence: an exit code must come of anything
        return _report(error)
    return code if isinstance(code, int) else exits.COMPLETE


def _hold_descriptors() -> None:
    """Fill the places of closed standard streams: else the next file or socket gets one, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _report(error: Exception) -> int:
    """Report it; a text of click's own, like the help, that standard output did not take is no bug."""
    if isinstance(error, OSError) and sys.stdout is not None:
        try:
            with standard_output():
                sys.stdout.flush()  # what was not taken is still there, and is refused again
        except OutputError as refused:
            return exits.report_error(refused, started=True)
    return exits.report_error(error, started=isinstance(error, OutputError))


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise exits.Stopped(signal.Signals(number))
