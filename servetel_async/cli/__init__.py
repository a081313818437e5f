"""The command line. Nothing is imported before it is needed: ``servetel --help`` loads no HTTP client."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run ``servetel`` with this process's arguments; return the exit code."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        if sys.stderr is not None:
            sys.stderr.write(f'The command line needs {" and ".join(missing)}: pip install "servetel-async[cli]"\n')
        return 2
    from servetel_async.cli.app import run  # noqa: PLC0415 - without the extra there is nothing to import

    return run()
