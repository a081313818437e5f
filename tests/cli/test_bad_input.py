"""Bad input of every kind through the real command: exit code, message and requests."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

import servetel_async
from servetel_async.cli.output.wording import PHRASES, in_flags
from servetel_async.emulator import Fault
from tests.cli.conftest import MONTH

#: Python spellings: ``name=``, ``Name(...)``, ``name=True``.
PYTHON = re.compile(r"(?<![-\w'])[a-z_]+=|\w\(|=(?:True|False|None)")
PULL = ("pull", "a.ndjson")

#: Arguments, and a word of what, why and fix each; "" if that line may be missing.
KNOWN_BEFORE = [
    ((*PULL,), "which calls", "by accident", "--month"),
    ((*PULL, "--month", "2024-05", "--yesterday"), "several ranges", "by accident", "one of"),
    ((*PULL, "--month", "2024-13"), "not a month", "", "YYYY-MM"),
    ((*PULL, "--to-date", "2024-05-01"), "--from-date", "by accident", "--from-date"),
    ((*PULL, "--from-date", "2024-05-09", "--to-date", "2024-05-01"), "lies after --to-date", "no call", "swap"),
    ((*PULL, "--from-date", "yesterday"), "--from-date is not a moment", "YYYY-MM-DD", "--from-date '2024-05-01'"),
    ((*PULL, "--from-date", "2024-02-30"), "--from-date is not a moment", "no such day", "--from-date"),
    ((*PULL, "--last", "soon"), "--last", "", "servetel pull --help"),
    ((*PULL, "--last", "0d"), "--last is 0", "longer", "servetel pull --help"),
    ((*PULL, "--last", "999999d"), "--last is longer than 3650 days", "so old", "--last 7d"),
    ((*PULL, "--last", "3651d"), "--last is longer than 3650 days", "so old", "--last 7d"),
    ((*PULL, "--last", "99999999999d"), "--last is longer than 3650 days", "so old", "--last 7d"),
    ((*PULL, "--last", "9" * 5000 + "h"), "--last is longer than 3650 days", "so old", "--last 7d"),
    ((*PULL, "--last", "-7d"), "--last", "", "--help"),
    ((*PULL, "--last", "1e3d"), "--last", "", "--help"),
    ((*PULL, "--last", "\u0667d"), "--last", "", "--help"),
    ((*PULL, "--month", "0000-13"), "--month is not a month", "01 to 12", "YYYY-MM"),
    ((*PULL, "--month", "0000-01"), "--month is not a month", "01 to 12", "YYYY-MM"),
    ((*PULL, "--month", "10000-01"), "--month is not a month", "four digits", "YYYY-MM"),
    ((*PULL, "--month", "0001-01"), "--month is in the year 1", "before 2000", "--month 2024-05"),
    ((*PULL, "--month", "1999-12"), "--month is in the year 1999", "before 2000", "--month 2024-05"),
    ((*PULL, "--month", "2100-01"), "--month is in the year 2100", "after 2099", "--month 2024-05"),
    ((*PULL, "--month", "9999-12"), "--month is in the year 9999", "after 2099", "--month 2024-05"),
    ((*PULL, "--from-date", "0001-01-01"), "--from-date is in the year 1", "before 2000", "--from-date 2024-05-01"),
    ((*PULL, "--from-date", "9999-12-31"), "--from-date is in the year 9999", "after 2099", "--from-date 2024-05-01"),
    ((*PULL, "--from-date", "0000-01-01"), "--from-date is not a moment", "no such day", "--from-date"),
    (
        (*PULL, "--from-date", "2024-05-01", "--to-date", "9999-12-31 23:59:59"),
        *("--to-date is in the year 9999", "after 2099", "--to-date 2024-05-01"),
    ),
    ((*PULL, *MONTH, "--direction", "sideways"), "direction", "", "inbound"),
    ((*PULL, *MONTH, "--duration", "60"), "--duration needs", "equality", "--duration '>=60'"),
    ((*PULL, *MONTH, "--page-size", "0"), "--page-size must be", "smaller than 1", "--help"),
    ((*PULL, *MONTH, "--page-size", "-1"), "--page-size must be", "smaller than 1", "--help"),
    ((*PULL, *MONTH, "--page-size", "100001"), "--page-size must be", "larger than 100,000", "leave it out"),
    ((*PULL, *MONTH, "--page-size", "9" * 30), "--page-size must be", "larger than 100,000", "leave it out"),
    ((*PULL, *MONTH, "--page-size", "9" * 5000), "--page-size must be", "not a whole number", "leave it out"),
    ((*PULL, *MONTH, "--page-size", "2.5"), "--page-size must be", "not a whole number", "leave it out"),
    ((*PULL, *MONTH, "--concurrency", "0"), "--concurrency must be", "smaller than 1", "leave it out"),
    ((*PULL, *MONTH, "--concurrency", "257"), "--concurrency must be", "larger than 256", "leave it out"),
    ((*PULL, *MONTH, "--concurrency", "inf"), "--concurrency must be", "not a whole number", "leave it out"),
    ((*PULL, *MONTH, "--timeout", "nan"), "--timeout must be", "not a number", "leave it out"),
    ((*PULL, *MONTH, "--timeout", "0"), "--timeout must be", "smaller than 0.001", "leave it out"),
    ((*PULL, *MONTH, "--timeout", "-1"), "--timeout must be", "smaller than 0.001", "leave it out"),
    ((*PULL, *MONTH, "--timeout", "inf"), "--timeout must be", "larger than 86,400", "leave it out"),
    ((*PULL, *MONTH, "--timeout", "1e308"), "--timeout must be", "larger than 86,400", "leave it out"),
    ((*PULL, "--month", "2024-05", "--rate", "nan"), "--rate must be", "not a number", "leave it out"),
    ((*PULL, "--month", "2024-05", "--rate", "-2"), "--rate must be", "smaller than 0.001", "0 means no limit"),
    ((*PULL, "--month", "2024-05", "--rate", "1e-300"), "--rate must be", "smaller than 0.001", "0 means no limit"),
    ((*PULL, "--month", "2024-05", "--rate", "1e300"), "--rate must be", "larger than 1,000", "0 means no limit"),
    ((*PULL, "--month", "2024-05", "--rate", "inf"), "--rate must be", "larger than 1,000", "0 means no limit"),
    ((*PULL, "--month", "2024-05", "--rate", "fast"), "--rate must be", "not a number", "0 means no limit"),
    ((*PULL, *MONTH, "--patience", "99999999999d"), "--patience is longer than", "so long", "--patience 90s"),
    ((*PULL, *MONTH, "--settle", "99999999999h"), "--settle is longer than", "so long", "--settle 90s"),
    ((*PULL, *MONTH, "--settle", "-1h"), "--settle", "", "--help"),
    ((*PULL, *MONTH, "--patience", "soon"), "--patience", "", "--help"),
    ((*PULL, *MONTH, "--settle", "2w"), "--settle", "", "--help"),
    ((*PULL, *MONTH, "--pagesize", "5"), "there is no --pagesize", "", "--page-size"),
    ((*PULL, *MONTH, "--token", "canary-token-123"), "there is no --token", "read by others", "SERVETEL_TOKEN"),
    ((*PULL, *MONTH, "--base-url", "http://example.com"), "--base-url is plain http", "readable", "https"),
    ((*PULL, *MONTH, "--base-url", "https://a", "--brand", "smartflo"), "--base-url and --brand", "", "one of them"),
    ((*PULL, *MONTH, "--brand", "other"), "--brand", "", "--help"),
    ((*PULL, *MONTH, "--token-file", "missing"), "token file cannot be read", "", "which is not repeated here"),
    ((*PULL, *MONTH, "--token-file", "directory.ndjson"), "token file cannot be read", "is a directory", "directory"),
    ((*PULL, *MONTH, "--email", "a@example.com"), "half a login", "and a password", "both --email and --password-file"),
    (
        (*PULL, *MONTH, "--password-file", "secret"),
        "half a login",
        "and a password",
        "both --email and --password-file",
    ),
    (
        (*PULL, *MONTH, "--email", "a@example.com", "--password-file", "missing"),
        *("password file cannot be read", "", "which is not repeated here"),
    ),
    (
        (*PULL, *MONTH, "--email", "canary", "--password-file", "secret"),
        *("e-mail address of the login is not one", "no text with an @", "correct --email"),
    ),
    (
        (*PULL, *MONTH, "--email", "a@example.com", "--password-file", "empty"),
        *("the password file is empty", "hold a secret", "write it into empty"),
    ),
    ((*PULL, *MONTH, "--token-file", "empty"), "the token file is empty", "hold a secret", "write it into empty"),
    (
        (*PULL, *MONTH, "--email", "a@example.com", "--password-file", "secret", "--token-file", "secret"),
        *("both a token and a login", "", "--token-file, or --email and --password-file"),
    ),
    ((*PULL, *MONTH, "--password", "canary"), "there is no --password", "read by others", "--password-file"),
    ((*PULL, *MONTH, "--strict", "--allow-quarantine"), "contradict", "cannot be read", "one of them"),
    (("pull", "-", *MONTH, "--allow-quarantine"), "a file beside the output", "would be lost", "into a file"),
    (("pull", "./", *MONTH), "no name of its own", "need a name", "./calls/"),
    (("pull", "/", *MONTH, "--overwrite"), "no name of its own", "need a name", "./calls/"),
    (("pull", "-", *MONTH, "--json"), "both want", "mixed", "into a file"),
    (("pull",), "missing argument 'DEST'", "", "--help"),
    (("pull", "a.txt", *MONTH), "ending is not known", "decides the format", ".ndjson"),
    (("pull", "a.txt", *MONTH, "--dry-run"), "ending is not known", "decides the format", ".ndjson"),
    (("pull", "none/a.ndjson", *MONTH), "a.ndjson cannot be written", "no such file", "directory"),
    (("pull", "none/a.db", *MONTH), "a.db cannot be written", "no such file", "directory"),
    (("pull", "none/a.ndjson", *MONTH, "--dry-run"), "a.ndjson cannot be written", "no such file", "directory"),
    (("pull", "none/a.db", *MONTH, "--dry-run"), "a.db cannot be written", "no such file", "directory"),
    (("pull", "there.ndjson", *MONTH), "there.ndjson exists", "unasked", "say --overwrite"),
    (("pull", "there.ndjson", *MONTH, "--dry-run"), "there.ndjson exists", "unasked", "say --overwrite"),
    (("pull", "directory.ndjson", *MONTH), "directory.ndjson is a directory", "", "name of a file"),
    (("pull", "there.db", *MONTH), "there.db is no SQLite database", "another kind", "another destination"),
    (
        ("pull", "a.csv", *MONTH, "--columns", "id,nonsense"),
        "name 2 of the columns is no column",
        "",
        "the columns are id, call_id,",
    ),
    (("pull", "a.csv", *MONTH, "--columns", ""), "no column", "", "the columns are"),
    (("pull", "a.csv", *MONTH, "--columns", "id,id"), "twice", "", "the columns are"),
    (("pull", "a.db", *MONTH, "--columns", "id"), "no choice of columns", "one table", ".csv"),
    (("sync", "a.ndjson"), "only a database", "written once", ".db"),
    (("sync", "a.db", "--lookback", "7"), "--lookback", "", "servetel sync --help"),
    (("sync", "a.db", "--every", "0s"), "--every is 0", "longer", "servetel sync --help"),
    (("sync", "a.db", "--every", "99999999999s"), "--every is longer than", "so long", "--every 90s"),
    (("sync", "a.db", "--lookback", "0d"), "--lookback is 0", "longer", "--lookback 12h"),
    (("sync", "a.db", "--lookback", "3651d"), "--lookback is longer than", "so old", "--lookback 12h"),
    (("sync", "a.db", "--rate", "nan"), "--rate must be", "not a number", "servetel sync --help"),
    (("check", "a.db", "--timeout", "0"), "--timeout must be", "smaller", "servetel check --help"),
    (("doctor", "--page-size", "0"), "--page-size must be", "smaller", "servetel doctor --help"),
    (("pull", "a.ndjson", *MONTH, "--max-range", "7"), "--max-range", "", "servetel pull --help"),
    (("pull", "a.ndjson", *MONTH, "--max-range", "32d"), "--max-range must be", "refuses longer", "--max-range 7d"),
    (("check", "a.ndjson"), "no receipt of a.ndjson", "", "pull into it first"),
    (("check", "a.txt"), "ending is not known", "decides the format", ".ndjson"),
    (("nonsense",), "no such command", "", "servetel --help"),
    ((), "missing command", "", "servetel --help"),
]


def parts(ended):
    """What, why and fix; why may be missing."""
    lines = ended.lines
    assert lines[0].startswith("Error: "), lines
    assert lines[-1].startswith("  Fix: "), lines
    why = lines[1] if len(lines) == 3 else ""
    assert len(lines) == 2 or why.startswith("  Why: "), lines
    return lines[0], why, lines[-1]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "there.ndjson").write_text("mine")
    (tmp_path / "there.db").write_text("mine, and no database at all")
    (tmp_path / "directory.ndjson").mkdir()
    (tmp_path / "secret").write_text("canary-password-12\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "empty").write_text(" \n\n")
    (tmp_path / "empty").chmod(0o600)
    return tmp_path


def listing(directory):
    return {path.name: path.read_text() if path.is_file() else None for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "what", "why", "fix"), KNOWN_BEFORE, ids=[" ".join(x[0])[:100] for x in KNOWN_BEFORE]
)
async def test_what_can_be_known_before_costs_no_request(inside, emulate, dataset, place, arguments, what, why, fix):
    """A wrong command line ends with code 2 and a message in its own words; nothing is sent, written or lost."""
    api, before = await emulate(dataset), listing(place)
    ended = await inside(*arguments, api=api)
    assert (ended.code, ended.out, api.requests) == (2, b"", [])
    told = parts(ended)
    assert what in told[0]
    assert why in told[1]
    assert fix in told[2]
    assert not PYTHON.search(" ".join(told)), told
    assert b"canary" not in ended.err
    assert str(place).encode() not in ended.err
    assert listing(place) == before


async def test_no_token(inside):
    """The error says where to put the token, and that the command line is not the place for it."""
    ended = await inside(*PULL, *MONTH)
    assert ended.code == 2
    what, why, fix = parts(ended)
    assert "no token" in what
    assert "SERVETEL_TOKEN_FILE" in why
    assert "set SERVETEL_TOKEN, or give --token-file" in fix
    assert "--email and --password-file" in fix


#: A file of profiles; a word of what, why and fix each.
WRONG_PROFILES = [
    ("[profiles.default]\ntoken = 'x'", "no profile of that name", "", "one of: default"),
    ("[profiles.work]\nurl = 'https://a.example'", "unknown key, 'url'", "another address", "'base_url', 'brand'"),
    ("[profile.work]\ntoken = 'x'", "unknown key, 'profile'", "another address", "[profiles.default]"),
    ("[profiles.work]\nbrand = 5", "'brand' is of type int", "", "give it as a text"),
    ("[profiles.work]\nbrand = 'x'\nbase_url = 'y'", "both 'base_url' and 'brand'", "only one of them", "leave one"),
    ("[profiles.work]\ntoken = 'x'\nemail = 'y'", "both 'token' and 'email'", "only one of them", "leave one"),
    ("[profiles.work]\nemail = 'y'", "half a login", "and a password", "password_file"),
    ("[profiles.work]\nbrand = 'canary'", "no such brand", "which address", "acefone-uk"),
    ("[profiles.work", "is not TOML", "", "logging in"),
]


@pytest.mark.parametrize(("text", "what", "why", "fix"), WRONG_PROFILES, ids=[x[0][:40] for x in WRONG_PROFILES])
@pytest.mark.parametrize("command", ["pull", "sync", "check", "doctor"])
async def test_a_profile_that_is_wrong(inside, emulate, dataset, tmp_path, command, text, what, why, fix):
    """A wrong profile is refused with code 2, even if a variable gives the token: it might go to the wrong address."""
    api = await emulate(dataset)
    config = tmp_path / "config.toml"
    config.write_text(text)
    config.chmod(0o600)
    arguments = {"pull": PULL + MONTH, "sync": ("sync", "a.db"), "check": ("check", "a.db"), "doctor": ("doctor",)}
    ended = await inside(
        *arguments[command], SERVETEL_CONFIG=str(config), SERVETEL_PROFILE="work", SERVETEL_TOKEN=api.token
    )
    assert (ended.code, api.requests) == (2, [])
    told = parts(ended)
    assert what in told[0]
    assert why in told[1]
    assert fix in told[2]
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("a.parquet", "pyarrow", "parquet"),
        ("a.duckdb", "duckdb", "duckdb"),
        ("postgresql://h/d", "asyncpg", "postgres"),
    ],
)
async def test_a_missing_extra(inside, emulate, dataset, monkeypatch, name, module, extra):
    """The error names the missing extra and how to install it, before anything is sent."""
    for room in [room for room in sys.modules if room.startswith("servetel_async.sinks.")]:
        if module in {*vars(sys.modules[room])}:
            monkeypatch.delitem(sys.modules, room)
    monkeypatch.setitem(sys.modules, module, None)
    api = await emulate(dataset)
    ended = await inside("pull", name, *MONTH, api=api)
    assert (ended.code, api.requests) == (2, [])
    what, _, fix = parts(ended)
    assert module in what
    assert f"servetel-async[{extra}]" in fix


async def test_a_password_in_an_address_is_never_shown(inside, emulate, dataset):
    """A password in an address is not shown if the address is wrong or its server is not there."""
    ended = await inside("pull", "postgres-sql://me:canary-1@127.0.0.1:1/calls", *MONTH, api=await emulate(dataset))
    assert ended.code == 2
    assert b"canary" not in ended.err


async def test_a_dead_server(inside, unused_tcp_port_factory, tmp_path):
    """A dead server is a temporary error, and nothing is written."""
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    ended = await inside(*PULL, *MONTH, SERVETEL_TOKEN="canary-token-123", SERVETEL_BASE_URL=url)
    assert ended.code == 5
    assert "refused" in parts(ended)[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["pull", "sync", "doctor"])
async def test_a_wrong_token(inside, emulate, dataset, tmp_path, command):
    """Every command ends as not authorised; the fix names the command line's ways to give a token."""
    destination = {"pull": ("a.db", *MONTH), "sync": ("a.db",), "doctor": ()}[command]
    ended = await inside(command, *destination, api=await emulate(dataset), SERVETEL_TOKEN="canary-token-123")
    assert ended.code == 4
    assert "Error: the API does not accept the token" in ended.err.decode()
    assert "SERVETEL_TOKEN or with --token-file" in ended.err.decode()
    assert b"canary" not in ended.out + ended.err
    assert list(tmp_path.iterdir()) == []


async def test_a_server_that_ignores_the_dates(inside, emulate, dataset, tmp_path):
    """The data does not agree: nothing is written, and the fix names no Python argument."""
    record = next(dataset.records()) | {"date": "2019-01-01"}
    body = json.dumps({"count": 1, "limit": 100, "size": 1, "page": 1, "results": [record]}).encode()
    api = await emulate(dataset, faults=[Fault("status", status=200, body=body)])
    ended = await inside(*PULL, *MONTH, api=api)
    assert ended.code == 6
    told = parts(ended)
    assert "ignored the dates" in told[1]
    assert not PYTHON.search(" ".join(told))
    assert list(tmp_path.iterdir()) == []


async def test_a_server_without_mercy(inside, emulate, dataset):
    """A 429 with a time beyond the longest wait is temporary; the fix is a flag."""
    api = await emulate(dataset, faults=[Fault("retry_after", retry_after=86400)])
    ended = await inside(*PULL, *MONTH, api=api)
    assert ended.code == 5
    assert "--rate 1" in parts(ended)[2]


@pytest.mark.skipif(sys.platform == "win32", reason="needs ulimit")
@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
async def test_a_full_disk(servetel, emulate, dataset, tmp_path, name):
    """No space for the first window is temporary, because nothing is kept; the reason is the system's."""
    ended = await servetel("pull", name, *MONTH, api=await emulate(dataset), limit="ulimit -f 700")
    assert ended.code == 5, ended.err
    what, why = ended.lines[-3:-1]
    assert f"{name} cannot be written" in what
    assert why.startswith("  Why: ")
    assert not (tmp_path / name).exists()


async def test_a_table_of_another_program(inside, emulate, dataset, tmp_path):
    """A table of another program is refused and left unchanged."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE call_records (id TEXT)")
        database.commit()
    api = await emulate(dataset)
    ended = await inside("pull", "a.db", *MONTH, api=api)
    assert (ended.code, api.requests) == (2, [])
    assert "other columns" in parts(ended)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("say --overwrite (overwrite=True), or not", "say --overwrite, or not"),
        ("from_date lies after to_date", "--from-date lies after --to-date"),
        ("lower page_size, or raise Timeouts(read=, total=)", "lower --page-size, or raise --timeout"),
        ("agents= holds a value", "--agents holds a value"),
        (
            "that was: direction=inbound, from_date, callerid=...",
            "that was: --direction inbound, --from-date, --callerid ...",
        ),
        ("the columns are id, call_id, duration", "the columns are id, call_id, duration"),
        ("a duration of calls", "a duration of calls"),
        ("use the same --mask or key of --pseudonyms (mask=)", "use the same --mask or key of --pseudonyms"),
        ("if that clock is not the account's, check zone=", "if that clock is not the account's, check --zone"),
    ],
)
def test_messages_speak_of_flags(text, said):
    """Names of Python arguments become flags; other words stay unchanged."""
    assert in_flags(text) == said


def test_each_phrase_stands_in_the_library():
    """Each phrase that is translated here occurs in the library."""
    sources = Path(servetel_async.__file__).parent
    text = "".join(path.read_text("utf-8") for path in sources.rglob("*.py") if path.name != "wording.py")
    text = text.replace('\\"', '"')
    for phrase in PHRASES:
        if phrase != "RateLimit(per_second=)":  # made of a name at run time
            assert phrase in text, phrase
