"""Each Python block of the documentation runs unchanged, and each shown command can be parsed."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import gc
import re
import shlex
import tempfile
import threading
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import servetel_async
from servetel_async.emulator import IST, Dataset, Emulator

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
LOGIN = {"email": "someone@example.com", "password": "made-up-password"}
DAY = "2024-05-06"

_FENCE = re.compile(r"^```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language):
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in _FENCE.finditer(text):
            if match[1] == language:
                yield Block(page, text.count("\n", 0, match.start()) + 2, language, match[2])


# Python


@pytest.fixture(scope="module")
def dataset():
    """A past month, and the last 30 days for ``CallQuery.last``; several pages of 100."""
    now = datetime.now(IST)
    month = Dataset.month("2024-05", calls=250)
    recent = Dataset.range(f"{now - timedelta(days=30):%F %T}", f"{now:%F %T}", calls=900, seed=2)
    assert not {*month.ids} & {*recent.ids}
    return dataclasses.replace(recent, calls=recent.calls + month.calls)


@pytest.fixture
def api(dataset):
    """An emulator in a thread of its own, because most blocks call ``asyncio.run``."""
    started, over = threading.Event(), threading.Event()
    running = []

    async def serve():
        async with Emulator(dataset, **LOGIN) as emulator:
            running.append((asyncio.get_running_loop(), stop := asyncio.Event(), emulator))
            started.set()
            await stop.wait()

    def work():
        try:
            asyncio.run(serve())
        finally:
            over.set()
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(20)
    loop, stop, emulator = running[0]
    yield emulator
    loop.call_soon_threadsafe(stop.set)
    assert over.wait(20)
    thread.join()


@pytest.fixture
def run(api, monkeypatch, tmp_path):
    """Run a block as a program of its own, in an empty directory, with the variables that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SERVETEL_BASE_URL", api.base_url)
    monkeypatch.setenv("SERVETEL_TOKEN", api.token)
    monkeypatch.setenv("PORTAL_EMAIL", LOGIN["email"])
    monkeypatch.setenv("PORTAL_PASSWORD", LOGIN["password"])
    # The pace is tested elsewhere; here it would only slow each block down.
    monkeypatch.setattr("servetel_async.client.choose_rate", lambda rate: None)

    def execute(block):
        names = {"__name__": "__main__"}
        exec(compiled(block), names)
        return names

    yield execute
    gc.collect()  # anything that a block leaves open warns here, and a warning is an error


def compiled(block):
    """Compile a block; its tracebacks point into the page."""
    return compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")


def imported(block):
    """The modules that a block imports, and the names that it takes from them."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in blocks("python")])
def test_a_python_block_runs(block, run):
    """A block runs to its end, without a warning and with nothing left open.

    FastAPI is no dependency, not even of the tests. If it is missing, its block is compiled, and its imports from
    this package are checked.
    """
    missing = {name.split(".")[0] for name, _ in imported(block)} - {"servetel_async"}
    missing = {name for name in missing if find_spec(name) is None}
    assert missing <= {"fastapi"}
    if missing:
        assert compiled(block)
        assert {name for module, name in imported(block) if module == "servetel_async"} <= {*servetel_async.__all__}
        return
    run(block)


def test_the_readmes_handler_answers(run, api):
    """The README's handler returns the missed calls of the day, and leaves nothing after the shutdown."""
    block = next(block for block in blocks("python") if block.page == README and "async def missed_today" in block.text)
    names = run(block)

    async def serve_one():
        try:
            return await names["missed_today"](DAY)
        finally:
            await names["shutdown"]()

    answer = asyncio.run(serve_one())
    missed = api.truth(from_date=f"{DAY} 00:00:00", to_date=f"{DAY} 23:59:59", call_type="m")
    assert missed
    assert answer["status"] == 200
    assert [call["id"] for call in answer["calls"]] == missed[:20]
    assert all(call["at"].startswith(DAY) for call in answer["calls"])


# Commands


def prose(page):
    """A page's text with its blocks emptied; lines keep their numbers."""
    return _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), page.read_text("utf-8"))


def commands():
    """Every ``servetel ...`` of a console block and of the text; in the text it may lack its arguments."""
    for block in blocks("console"):
        for number, line in enumerate(block.text.splitlines(), block.line):
            for index, words in enumerate(servetel_words(line.removeprefix("$ ")), 1):
                yield pytest.param(words, id=f"{block.page.relative_to(ROOT)}:{number}:{index}")
    for page in PAGES:
        for number, line in enumerate(prose(page).splitlines(), 1):
            for code in _INLINE.finditer(line):
                if code[1].startswith("servetel "):
                    (words,) = servetel_words(code[1])
                    yield pytest.param([*words, "--help"], id=f"{page.relative_to(ROOT)}:{number}:{code.start() + 1}")


def servetel_words(line):
    """The arguments of each ``servetel`` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += ":=,@"
    words = None
    for word in [*lexer, ";"]:
        if word.strip("();<>|&") == "":
            if words is not None:
                yield words
            words = None
        elif words is not None:
            words.append(word)
        elif word.rpartition("/")[2] == "servetel":
            words = []


@pytest.fixture(scope="module")
def servetel():
    pytest.importorskip("click", reason="the command line is an extra")
    from servetel_async.cli.app import servetel

    return servetel


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_parses(words, servetel):
    """The command and its flags exist, and their values have the right type. Nothing is run."""
    from click.exceptions import Exit

    group = not words or words[0].startswith("-")
    name, command, rest = (
        ("servetel", servetel, words) if group else (words[0], commands_of(servetel)[words[0]], words[1:])
    )
    with contextlib.suppress(Exit):  # of --help and --version
        command.make_context(name, list(rest))


def commands_of(group):
    """The commands of a group by their names."""
    return {name: group.get_command(None, name) for name in group.list_commands(None)}


def flags_of(command):
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts) if flag[:2] == "--"}


@pytest.mark.parametrize("name", ["demo", "pull", "emulate"])
def test_the_reference_knows_every_flag(name, servetel):
    """A command's section names all of its flags and no others."""
    text = (ROOT / "docs/reference/command-line.md").read_text("utf-8")
    section = next(part for part in text.split("\n## ") if part.startswith(f"`servetel {name}"))
    assert set(re.findall(r"`(--[a-z-]+)", section)) == flags_of(commands_of(servetel)[name])


def test_the_reference_knows_every_command(servetel):
    """The reference names all commands and no others."""
    text = (ROOT / "docs/reference/command-line.md").read_text("utf-8")
    assert set(re.findall(r"^## `servetel (\w+)", text, re.MULTILINE)) == set(commands_of(servetel))


def test_no_page_names_a_flag_that_is_not_there(servetel):
    """A flag in the text belongs to one of our commands, except on the page about work on the project."""
    known = {"--help", "--version"}.union(*(flags_of(command) for command in commands_of(servetel).values()))
    for page in PAGES:
        if page.name != "CONTRIBUTING.md":
            named = {flag for code in _INLINE.findall(prose(page)) for flag in re.findall(r"(?:^| )(--[a-z-]+)", code)}
            assert named <= known, page


@pytest.mark.parametrize("name", ["demo", "tests"])
def test_the_readmes_marked_commands(name):
    """Each marked command is one line behind its marker, which people copy and ``.ci/run`` reads."""
    text = README.read_text("utf-8")
    assert text.count(f"<!-- {name} -->\n") == 1
    fence = _FENCE.match(text, text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n"))
    assert fence is not None
    assert fence[1] == "console"
    assert fence[2].startswith("python3 -m venv ")
    assert fence[2].count("\n") == 1


def test_the_lesson_and_the_readme_have_one_demo():
    """The first lesson shows the README's demo command."""
    text = README.read_text("utf-8")
    fence = _FENCE.search(text, text.index("<!-- demo -->"))
    assert fence is not None
    assert fence[0] in (ROOT / "docs/start/demo.md").read_text("utf-8")
