"""No error repeats a secret that was given in the wrong place.

Each canary consists of the letters Q, X, J and Z, so that a part of one is recognised.
"""

from __future__ import annotations

import http.server
import random
import re
import sys
import threading

import click
import pytest

from servetel_async.cli.app import run, servetel

PART = re.compile("[QXJZ]{4,}")
DICE = random.Random(9)
TEXT = ["".join(DICE.choices("QXJZ", k=60)) for _ in range(3)]
SECRETS = {
    "token": f"eyJ{TEXT[0]}.{TEXT[1]}.{TEXT[2]}",
    "short token": TEXT[0][:20],
    "address of a database": f"postgresql://reader:{TEXT[0]}@127.0.0.1:1/calls",
    "address of the API": f"https://user:{TEXT[0]}@127.0.0.1:1/?token={TEXT[1]}",
}
#: An error about the rest of the command line.
OTHERS = re.compile("there is no --|'--month'")
#: An account's name may be printed.
LEFT_OUT = {("doctor", "account")}


def places():
    """Each argument and each flag with a value; a flag of several commands once."""
    known = set()
    for name in ("pull", "sync", "check", "doctor", "demo"):
        for parameter in servetel.get_command(click.Context(servetel), name).params:
            key = parameter.opts[-1], str(parameter.type)
            if getattr(parameter, "is_flag", False) or (name, parameter.name) in LEFT_OUT or key in known:
                continue
            known.add(key)
            yield pytest.param(name, parameter, id=f"{name} {parameter.opts[-1]}")


class Refuse(http.server.BaseHTTPRequestHandler):
    """Refuses every token, so that each command that sends a request ends at once."""

    def do_GET(self):
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def arguments(command, parameter, value, address):
    given = [] if parameter.param_type_name == "argument" else [parameter.opts[-1], value]
    needed = [] if command not in ("pull", "sync", "check") else ["calls.db" if given else value]
    dated = parameter.opts[-1] in ("--from-date", "--to-date", "--month", "--last")
    days = ["--month", "2024-05"] if command == "pull" and not dated else []
    where = [] if parameter.name in ("base_url", "brand") else ["--base-url", address]
    fast = ["--rate", "0"] if command in ("pull", "sync", "check") and parameter.name != "rate" else []
    return [command, *needed, *given, *days, *fast, *(where if command != "demo" else [])]


@pytest.mark.parametrize(("command", "parameter"), list(places()))
def test_no_error_repeats_a_secret_in_the_wrong_place(command, parameter, address, tmp_path, monkeypatch, capsys):
    """No part of a token, or of an address with a password, is printed if it is any flag's value or argument."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SERVETEL_TOKEN", "token-of-this-test")
    for kind, secret in SECRETS.items():
        monkeypatch.setattr(sys, "argv", ["servetel", *arguments(command, parameter, secret, address)])
        code = run()
        shown = "".join(capsys.readouterr())
        found = PART.search(shown)
        assert not found, f"{kind}: {shown}"
        assert code, f"{kind} was taken"
        assert parameter.name == "month" or not OTHERS.search(shown), shown


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("given", [[], ["pull", "calls.db"], ["check", "calls.db"], ["doctor"], ["pull", "--month"]])
def test_no_error_repeats_what_was_given_without_a_flag(given, kind, tmp_path, monkeypatch, capsys):
    """No error repeats a secret in place of a command, or as an extra argument."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["servetel", *given, SECRETS[kind]])
    assert run() == 2
    assert not PART.search("".join(capsys.readouterr()))
