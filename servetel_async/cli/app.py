"""The command group ``servetel``. Each way it can end has its exit code (see ``exits``)."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from servetel_async.cli import exits
from servetel_async.cli.output.terminal import standard_output
from servetel_async.cli.run import install_signal_handlers
from servetel_async.errors import OutputError
from servetel_async.version import __version__

if TYPE_CHECKING:
    from types import FrameType


#: What each command does, in a line. Its module in ``commands`` has its name.
COMMANDS = {
    "check": "Compare an output with what was pulled, and count again.",
    "demo": "Pull a made-up month on this computer; needs no account.",
    "doctor": "Look at the settings and the installation, and ask the API once.",
    "emulate": "Serve the API on this computer, with made-up calls, until Ctrl-C.",
    "pull": "Get a range of calls into a file or a database.",
    "sync": "Keep a database current: read again what may have changed.",
}


class LazyGroup(click.Group):
    """The commands. The module of a command is imported when the command runs or shows its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        """Name all commands, without importing one."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"servetel_async.cli.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=LazyGroup, context_settings=_HELP, no_args_is_help=False)
@click.version_option(__version__, prog_name="servetel", message="%(prog)s %(version)s")
def servetel() -> None:
    """Get every call detail record out of Servetel, Smartflo and Acefone.

    Try `servetel demo` first: it needs no account and no network.
    """


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
    """Report an error. It is not a bug if standard output does not take click's own text, such as the help."""
    if isinstance(error, OSError) and sys.stdout is not None:
        try:
            with standard_output():
                sys.stdout.flush()  # the refused text is still buffered, and is refused again
        except OutputError as refused:
            return exits.report_error(refused, started=True)
    return exits.report_error(error, started=isinstance(error, OutputError))


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise exits.Stopped(signal.Signals(number))
