"""The layers: which package may import which. The architecture page draws them and lists every module."""

import ast
import re
from pathlib import Path

import pytest

import servetel_async

PACKAGE = Path(servetel_async.__file__).parent
PAGE = PACKAGE.parent / "docs" / "explanation" / "architecture.md"
#: From the lowest: a module imports from its own layer and from those below it.
LAYERS = [
    {"errors", "version"},
    {"protocol"},
    {"settings", "secret_files"},
    {"profiles", "aio"},
    {"transport", "sinks", "emulator"},
    {"page_source", "ranges"},
    {"counted_range"},
    {"client_pages"},
    {"streaming", "bulk"},
    {"client"},
    {"cli", "__main__"},
]
#: The same rule inside a package: its folders, and its modules outside of them.
INNER = {
    "sinks": [{"sink", "extras"}, {"table"}, {"files", "formats"}, {"databases"}, {"destination"}],
    "bulk": [{"receipt", "progress"}, {"fetching"}, {"windows"}, {"*"}],
    "cli": [{"exits", "job", "run", "options", "output"}, {"commands"}, {"app"}],
}
#: Packages of one layer that must not import each other.
APART = [
    {"transport", "sinks"},
    {"transport", "emulator"},
    {"sinks", "emulator"},
    {"streaming", "bulk"},
    {"settings", "secret_files"},
    {"aio", "profiles"},
]
#: Libraries that a package must not use.
OUTSIDE = {
    "protocol": {"aiohttp", "anyio", "asyncio", "tenacity"},
    "sinks": {"aiohttp"},
    "transport": {"click", "rich"},
}
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def imports(file):
    """All modules that a file imports, except for the type checker."""
    tree = ast.parse(file.read_text("utf-8"))
    typed = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""


def layer(name, layers):
    """The number of a name's layer; ``*`` is every name that no other layer lists."""
    numbers = [index for index, names in enumerate(layers) if name in names]
    return numbers[0] if numbers else next(index for index, names in enumerate(layers) if "*" in names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file):
    """No module imports from a layer above its own, or from a forbidden package."""
    here = file.relative_to(PACKAGE).with_suffix("").parts
    for name in imports(file):
        first, *rest = name.split(".")
        if first != "servetel_async":
            assert first not in OUTSIDE.get(here[0], set()), name
            continue
        if not rest:
            continue  # the public names
        assert layer(rest[0], LAYERS) <= layer(here[0], LAYERS), name
        assert {here[0], rest[0]} not in APART, name
        if rest[0] == here[0] in INNER and len(rest) > 1 and here[1:] not in ((), ("__init__",)):
            assert layer(rest[1], INNER[here[0]]) <= layer(here[1], INNER[here[0]]), name


def test_the_page_lists_every_module():
    """The architecture page lists every module and no others."""
    text = PAGE.read_text("utf-8")
    listed = {
        f"{package.removeprefix('servetel_async').lstrip('/')}/{name}".lstrip("/")
        for package, names in re.findall(r"^\*\*`([\w/]+?)/?`\*\*\n\n((?:- .*\n)+)", text, re.MULTILINE)
        for name in re.findall(r"^- `(\w+\.py)`: ", names, re.MULTILINE)
    }
    assert listed == {str(file.relative_to(PACKAGE)) for file in FILES if file.name != "__init__.py"}
