"""One token, password, recording's secret, name and number must not appear in any output except the calls themselves.

Each canary is a constant of a module, because a test's variable would be found in its own frames.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import copy
import importlib
import logging
import pickle
import pkgutil
import sqlite3
import sys
import traceback
import warnings
from pathlib import Path

import pytest
import rich.pretty
import rich.traceback

import servetel_async
from servetel_async import ServetelError
from servetel_async.bulk.ledger import Unreadable
from servetel_async.cli import exits
from servetel_async.protocol.clock import IST
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.rows import rows_of
from servetel_async.sinks.sink import Batch
from tests.bulk.small_server import Answer, SmallServer
from tests.client.test_secrets import ALL, NAME, NUMBER, PASSWORD, person, said
from tests.torture.error_scenarios import SCENARIOS, people, people_at, refuse_from
from tests.torture.report import TORTURE, measured
from tests.transport.conftest import connect, loop_log, serve, stack
from tests.transport.leaks import TOKEN, shown
from tests.transport.wire_server import page, reply

__all__ = ["connect", "loop_log", "serve", "stack"]

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)


def hits(text):
    """The canaries in a text, in upper or lower case; each is named by its beginning."""
    text = text.casefold()
    return [canary[:12] for canary in ALL if canary.casefold() in text]


# Every class of error -------------------------------------------------------------------------------------------------

#: Classes that no scenario raises, and why.
UNREACHED = {ServetelError: "the root of the tree: it is caught, and never raised itself"}


def every_class(kind=ServetelError):
    """The class and all its subclasses in the package."""
    for module in pkgutil.walk_packages(servetel_async.__path__, "servetel_async."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    yield kind
    for each in kind.__subclasses__():
        if each.__module__.startswith("servetel_async"):
            yield from every_class(each)


def test_every_class_has_a_scenario():
    """Every class of error has a scenario, or a reason and is raised nowhere."""
    assert set(every_class()) == {*SCENARIOS, *UNREACHED}
    names = {kind.__name__ for kind in UNREACHED}
    for file in Path(servetel_async.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in names, f"{file.name}:{node.lineno}"


def forms_of(error):
    """Every form in which an error reaches a log, a tracker, a queue or a terminal."""
    yield from shown(error).items()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle {protocol}", pickle.dumps(error, protocol).decode("latin-1")
    yield "deepcopy", repr(vars(copy.deepcopy(error)))
    yield "notes", repr(getattr(error, "__notes__", ()))
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "x", (), (type(error), error, error.__traceback__))
    yield "log", logging.Formatter().format(record)
    group = ExceptionGroup("several", [error])
    told = traceback.TracebackException.from_exception(group, capture_locals=True, max_group_depth=5)
    yield "group", "".join(told.format())
    drawn = rich.traceback.Traceback.extract(
        *(type(error), error, error.__traceback__), show_locals=True, locals_max_string=None, locals_max_length=None
    )
    frames = [frame for link in drawn.stacks for frame in link.frames]
    yield "rich", " ".join(str(value) for frame in frames for value in (frame.locals or {}).values())


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
async def test_no_form_of_an_error_tells_a_secret(kind, serve, connect, tmp_path, caplog, capsys):
    """No form of an error, log at DEBUG, asyncio's debug mode, warning or last line of a command shows a secret."""
    caplog.set_level(logging.DEBUG)
    for name in ("servetel_async", "asyncio", *(name for name in logging.root.manager.loggerDict if "aiohttp" in name)):
        caplog.set_level(logging.DEBUG, logger=name)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.0  # so that every callback is logged as slow
    looked = 0
    for number, scenario in enumerate(SCENARIOS[kind]):
        directory = tmp_path / str(number)
        directory.mkdir()
        loop.set_debug(True)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            error = await caught(scenario, serve, connect, directory)
        loop.set_debug(False)
        assert type(error) is kind, f"scenario {number}: {error!r}"
        for form, text in forms_of(error):
            looked += 1
            assert hits(text) == [], f"scenario {number}, {form}"
        assert hits(" ".join(str(each.message) for each in warned)) == []
        exits.report_error(error)
        assert hits("".join(capsys.readouterr())) == []
        assert hits(" ".join(map(str, directory.rglob("*")))) == []
    records = [record for record in caplog.records if record.name.startswith(("servetel", "aiohttp", "asyncio"))]
    assert hits(" ".join(f"{each.getMessage()} {each.args!r} {each.exc_info!r}" for each in records)) == []
    measured("P8", f"{kind.__name__}: {len(SCENARIOS[kind])} ways, {looked} forms, {len(records)} log records: 0 hits")


async def caught(scenario, *given):
    try:
        await scenario(*given)
    except Exception as error:
        return error
    return None


def test_what_is_looked_for_can_be_found():
    """The search works: a secret in an error or in a frame is found in each of the forms."""

    def fail():
        held = NUMBER
        raise ServetelError(f"{TOKEN} {held[:0]}")

    try:
        fail()
    except ServetelError as error:
        seen = {form for form, text in forms_of(error) if hits(text)}
        held = {form for form, text in forms_of(error) if NUMBER in text}
    assert seen >= {
        "str",
        "repr",
        "args",
        "vars",
        "pickle",
        "pickle 0",
        "deepcopy",
        "log",
        "group",
        "traceback",
        "rich",
    }
    assert held == {"traceback with locals", "group", "rich"}


async def test_no_call_prints_a_person(serve, connect):
    """Neither ``repr`` nor rich, which inspects values itself, shows the person of a call."""
    found = await connect(await serve(reply(page(person(1), count=1)))).fetch_page()
    row = rows_of(PageReader().read(Reply(200, found.raw), 0.0))[0]
    values = (
        found,
        *found.records,
        *found.records[0].call_flow,
        row,
        Batch([row.line], IST),
        Unreadable("no", f"{NAME}"),
    )
    for value in values:
        assert hits(repr(value) + rich.pretty.pretty_repr(value, max_width=10_000)) == [], type(value).__name__
    assert hits(found.raw.decode())


# The command line --------------------------------------------------------------------------------------------------------------

BOOT = "import logging, sys; logging.basicConfig(level=0); from servetel_async.cli.app import run; sys.exit(run())"


def unreadable(asked):
    answer = people(asked)
    return Answer(
        body=answer.body.replace(b'"notes"', b'"x"').replace(
            b'{"id": "call-0007"', b'"' + NAME.encode() + b'", {"id": "call-0007"'
        )
    )


def always(status, body=None):
    text = said(422).steps[0].data.partition(b"\r\n\r\n")[2]
    return lambda _asked: Answer(status=status, body=text if body is None else body)


MONTH = ("--month", "2024-05", "--rate", "0", "--callerid", f"+{NUMBER}", "--page-size", "5", "--concurrency", "1")
COMMANDS = {
    "csv": [
        (("pull", "a.csv", *MONTH), people, 0),
        (("check", "a.csv", "--callerid", f"+{NUMBER}", "--rate", "0"), people, 0),
    ],
    "lines, as events": [
        (("pull", "a.ndjson", "--json", *MONTH), people, 0),
        (("pull", "a.ndjson", "--json", *MONTH), people, 2),
    ],
    "masked": [
        (("pull", "masked.ndjson", "--mask", *MONTH), people, 0),
        (("pull", "masked.db", "--mask", *MONTH), people, 0),
    ],
    "database": [
        (("pull", "a.db", "--agents", NAME, *MONTH), people, 0),
        (("pull", "a.db", "--agents", NAME, *MONTH), people, 0),
    ],
    "sync": [(("sync", "b.db", "--lookback", "7d", "--rate", "0", "--callerid", f"+{NUMBER}"), people, 0)],
    "interrupted": [
        (("pull", "b.csv", "--patience", "0s", *MONTH), refuse_from(90), 3),
        (("pull", "b.csv", "--json", "--fast", "--patience", "0s", *MONTH), refuse_from(9), 3),
        (("pull", "b.csv", "--month", "2024-05", "--rate", "0", "--callerid", NUMBER[:-1]), people, 2),
    ],
    "interrupted database": [(("pull", "b.db", "--patience", "0s", *MONTH), refuse_from(90), 3)],
    "quarantine": [(("pull", "c.csv", *MONTH), unreadable, 6), (("pull", "d.csv", "--json", *MONTH), unreadable, 6)],
    "refused": [
        (("pull", "e.csv", *MONTH), always(401), 4),
        (("pull", "e.csv", "--json", *MONTH), always(422), 2),
        (("pull", "e.csv", "--dry-run", *MONTH), always(200, b"<html>" + NAME.encode()), 5),
        (("doctor",), always(403), 4),
        (("doctor", "--probe", "--rate", "0"), people, 0),
    ],
    "mistaken": [
        (("pull", "e.csv", "--token", TOKEN, *MONTH), people, 2),
        (("pull", "f.csv", "--agent-name", NAME, *MONTH), people, 2),
        (("pull", f"postgresql://u:{PASSWORD}@127.0.0.1:1/calls", *MONTH), people, 5),
        (("pull", f"postgresql://u@127.0.0.1:1/calls?password={PASSWORD}", "--json", *MONTH), people, 5),
        (("pull", "none/a.csv", "--json", *MONTH), people, 2),
    ],
}
DATA = (".csv", ".ndjson", ".part", ".quarantine.ndjson")


async def command(api, directory, arguments):
    """Run it with every logger at DEBUG, in asyncio's debug mode and with all warnings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-c", BOOT, *arguments),
        cwd=directory,
        env={"PATH": "/bin", "HOME": str(directory), "PYTHONPATH": str(Path.cwd()), "PYTHONASYNCIODEBUG": "1"}
        | {"SERVETEL_TOKEN": TOKEN, "SERVETEL_BASE_URL": api.base_url, "PYTHONWARNINGS": "always"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode() + err.decode()


def state_of(file):
    """The content of a file without its calls: all of it, or the other tables of a database."""
    if file.suffix in (".db", ".part") and file.read_bytes().startswith(b"SQLite"):
        with contextlib.closing(sqlite3.connect(file)) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            told = [name for name in tables if name != "call_records" or file.name.startswith("masked")]
            return " ".join(str(database.execute(f"SELECT * FROM {name}").fetchall()) for name in told)
    if file.name.endswith(DATA) and not file.name.startswith("masked"):
        return ""
    return file.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("name", COMMANDS)
async def test_no_command_tells_a_secret(name, tmp_path):
    """No command shows a secret on a stream, or in a name, a receipt, saved state, or a masked output."""
    looked = 0
    async with SmallServer(people_at(600 if name.startswith("interrupted") else 60)) as api:
        for arguments, habit, expected in COMMANDS[name]:
            api.habit = habit
            api.asked.clear()
            code, text = await command(api, tmp_path, arguments)
            assert code == expected, (arguments[:3], text[-2000:])
            assert hits(text) == [], arguments[:2]
            files = [file for file in tmp_path.rglob("*") if file.is_file()]
            assert hits(" ".join(map(str, files))) == []
            for file in files:
                looked += 1
                assert hits(state_of(file)) == [], file.name
    measured("P8", f"servetel, {name}: {len(COMMANDS[name])} commands with all logs, {looked} files: 0 hits")
    if name.startswith("interrupted"):
        assert list(tmp_path.glob("b.*.part*"))
    if name == "quarantine":
        assert len(list(tmp_path.glob("*.quarantine.ndjson"))) == 2
