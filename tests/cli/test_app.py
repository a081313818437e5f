"""The command group: help, version, imports, and a core install without the extra."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import servetel_async
from servetel_async.version import __version__

HEAVY = ("aiohttp", "msgspec", "anyio", "tenacity", "rich", "servetel_async.client", "servetel_async.emulator")


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",)])
def test_help_and_version_load_no_http_client(arguments):
    """The list of commands and the version import no command, so nothing heavy."""
    code = f"""
import json, sys
from servetel_async.cli import main
sys.argv[0] = "servetel"
assert main() == 0
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    status, out, err = run(code, *arguments)
    assert (status, err) == (0, "")
    assert json.loads(out.splitlines()[-1]) == []


def test_version_and_module():
    """``python -m servetel_async`` is the same command."""
    done = subprocess.run(
        [sys.executable, "-m", "servetel_async", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"servetel {__version__}")


@pytest.mark.parametrize("gone", ["click", "rich"])
def test_without_the_extra_there_is_a_hint(gone):
    """A core install without the command line says how to install it."""
    code = f"""
import importlib.util as util, sys
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == {gone!r} else find(name, *rest)
from servetel_async.cli import main
sys.exit(main())
"""
    status, out, err = run(code)
    assert (status, out) == (2, "")
    assert "servetel-async[cli]" in err
    assert len(err.splitlines()) == 1


def test_the_root_gives_every_name_it_lists():
    """Names are loaded at their first use; ``import *``, ``dir`` and attributes agree."""
    names: dict[str, object] = {}
    exec("from servetel_async import *", names)
    assert set(servetel_async.__all__) <= names.keys()
    assert set(servetel_async.__all__) <= set(dir(servetel_async))
    assert all(getattr(servetel_async, name) is names[name] for name in servetel_async.__all__)
    with pytest.raises(AttributeError):
        servetel_async.no_such_name  # noqa: B018
