"""The house: which room may import which, how large a room may be, and what stands in the public one."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import servetel_async

PACKAGE = Path(servetel_async.__file__).parent
#: From the ground up: a room may import from its own storey and from those below it.
STOREYS = [
    {"version", "errors"},
    {"protocol"},
    {"settings", "secret_files"},
    {"profiles"},
    {"transport", "sinks", "emulator"},
    {"page_source", "stats", "ranges", "piece"},
    {"resume", "counted_range", "client_pages"},
    {"inquiry"},
    {"window_reading"},
    {"reading", "counting"},
    {"stream"},
    {"call_search"},
    {"client"},
    {"bulk"},
    {"cli", "__main__"},
]
#: Names that are imported inside a function, because they lead upstairs.
DOORS = {("client", "bulk")}
#: Rooms that know nothing of each other although they stand on one storey.
STRANGERS = {("transport", "sinks"), ("transport", "emulator"), ("sinks", "emulator"), ("reading", "counting")}
OUTSIDE = {
    "protocol": {"aiohttp", "anyio", "asyncio", "tenacity"},
    "sinks": {"aiohttp"},
    "transport": {"click", "rich"},
}

FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def room(module):
    """The room of ``servetel_async.room.file``."""
    return module.split(".")[1] if "." in module else ""


def imports(file):
    """All modules that a file imports, and whether inside a function; what only the type checker reads is left out."""
    tree = ast.parse(file.read_text("utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typed = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            yield name, id(node) in inside


def storey(name):
    return next(index for index, rooms in enumerate(STOREYS) if name in rooms)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    """No room imports from a storey above its own, nor from a stranger; upstairs lead only doors that are known."""
    here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name, in_function in imports(file):
        if not name.startswith("servetel_async."):
            assert name.split(".")[0] not in OUTSIDE.get(here, set()), name
            continue
        there = room(name)
        if in_function and (here, there) in DOORS:
            continue
        assert storey(there) <= storey(here), name
        assert (here, there) not in STRANGERS, name
        assert (there, here) not in STRANGERS, name


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_is_one_noun(file):
    """A file stays under about 400 lines and says at its head what it is."""
    text = file.read_text("utf-8")
    assert text.count("\n") <= 420
    assert ast.get_docstring(ast.parse(text))


def test_the_public_names_are_sorted_and_there():
    """``__all__`` is what ``dir`` and a star import give, in order, and each name can be had."""
    names = servetel_async.__all__
    assert sorted(names, key=lambda name: (not name.isupper(), name[0].islower() or name[0] == "_", name)) == names
    assert all(hasattr(servetel_async, name) for name in names)
    assert set(names) <= set(dir(servetel_async))


def test_importing_loads_no_server_and_no_client():
    """``import servetel_async`` costs nothing until a name is used; the client never loads aiohttp's server half."""
    script = (
        "import json, sys; import servetel_async; bare = sorted(sys.modules); "
        "servetel_async.ServetelClient; print(json.dumps([bare, sorted(sys.modules)]))"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    bare, loaded = json.loads(shown)
    assert not {"aiohttp", "msgspec", "tenacity", "anyio"} & set(bare)
    assert not {"aiohttp.web", "click", "rich", "sqlite3", "servetel_async.emulator", "servetel_async.bulk"} & set(
        loaded
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_a_decoder_raises_is_named_once(file):
    """Releases of msgspec raise different classes for one fault: handlers name ``UNDECODABLE``, never one of them."""
    classes = {"DecodeError", "MsgspecError", "UnicodeDecodeError"}
    if file.name == "undecodable.py":
        return
    for handler in ast.walk(ast.parse(file.read_text("utf-8"))):
        caught = getattr(handler, "type", None) if isinstance(handler, ast.ExceptHandler) else None
        if caught is not None:
            assert not classes & {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(caught)}
