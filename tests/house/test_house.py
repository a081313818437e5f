"""The package: file sizes, public names, and what an import loads."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import servetel_async

PACKAGE = Path(servetel_async.__file__).parent
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_file_is_one_noun(file):
    """A file has fewer than about 400 lines and a docstring at its head."""
    text = file.read_text("utf-8")
    assert text.count("\n") <= 420
    assert ast.get_docstring(ast.parse(text))


def test_the_public_names_are_sorted_and_there():
    """``__all__`` is sorted, agrees with ``dir`` and a star import, and each name exists."""
    names = servetel_async.__all__
    assert sorted(names, key=lambda name: (not name.isupper(), name[0].islower() or name[0] == "_", name)) == names
    assert all(hasattr(servetel_async, name) for name in names)
    assert set(names) <= set(dir(servetel_async))


def test_importing_loads_no_server_and_no_client():
    """``import servetel_async`` loads nothing until a name is used; the client never loads aiohttp's server."""
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
    """Handlers name ``UNDECODABLE``, because releases of msgspec raise different classes for one fault."""
    classes = {"DecodeError", "MsgspecError", "UnicodeDecodeError"}
    if file.name == "undecodable.py":
        return
    for handler in ast.walk(ast.parse(file.read_text("utf-8"))):
        caught = getattr(handler, "type", None) if isinstance(handler, ast.ExceptHandler) else None
        if caught is not None:
            assert not classes & {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(caught)}
