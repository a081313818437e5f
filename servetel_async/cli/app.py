"""The command group ``servetel``. Each way it can end has its exit code (see ``exits``)."""

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
    """Run the command line; return the exit code and let no exception out."""
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
    except SystemExit:  # click exits so when the reader of the output has gone
        return exits.COMPLETE
    except Exception as error:  # noqa: BLE001 - any error must become an exit code
        return _report(error)
    return code if isinstance(code, int) else exits.COMPLETE


def _hold_descriptors() -> None:
    """Open the null device for closed standard streams. Otherwise the next file or socket would receive the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _report(error: Exception) -> int:
    """Report an error. It is no bug if standard output does not take click's own text, such as the help."""
    if isinstance(error, OSError) and sys.stdout is not None:
        try:
            with standard_output():
                sys.stdout.flush()  # the refused text is still buffered, and is refused again
        except OutputError as refused:
            return exits.report_error(refused, started=True)
    return exits.report_error(error, started=isinstance(error, OutputError))


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise exits.Stopped(signal.Signals(number))
