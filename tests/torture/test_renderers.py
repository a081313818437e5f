"""Renderers of tracebacks cut long local variables first. No part of a secret may show.

Secrets consist of the letters Q, X, J and Z in random order, so that any part of one is recognised.
"""

from __future__ import annotations

import io
import json
import logging
import random
import re
import traceback

import pytest
import rich.console
import rich.traceback

from tests.torture import error_scenarios
from tests.torture.error_scenarios import LOGIN, SCENARIOS
from tests.torture.report import TORTURE, measured
from tests.transport.conftest import connect, loop_log, serve, stack

loguru = pytest.importorskip("loguru")
sentry_sdk = pytest.importorskip("sentry_sdk")
stackprinter = pytest.importorskip("stackprinter")
structlog = pytest.importorskip("structlog")

loguru.logger.remove()  # its own handler prints to standard error

__all__ = ["connect", "loop_log", "serve", "stack"]

pytestmark = pytest.mark.timeout(3600 if TORTURE else 120)

HELD = "QXJZ" * 6
LENGTHS = (25, 48, 90, 900) if TORTURE else (90,)
#: Scenarios of each class.
MOST = None if TORTURE else 1
#: Three characters reveal nothing.
PART = re.compile("[QXJZ]{4,}")


class Canaries:
    """A token and a login of a given length. No variable of a test's frame holds their texts."""

    def __init__(self, length):
        dice = random.Random(length)
        self.token, self.password, self.person = ("".join(dice.choices("QXJZ", k=length)) for _ in range(3))

    def __repr__(self):
        return "Canaries()"

    def into(self, connect):
        """Make clients with these secrets."""

        def make(server, token=self.token, **options):
            if "email" in options:
                options |= {"email": f"{self.person}@example.com", "password": self.password}
            return connect(server, token, **options)

        return make


# What prints an error with the variables of its frames ------------------------------------------------------------------


def by_stdlib(error):
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def by_logging(error):
    record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (error,), (type(error), error, error.__traceback__))
    return logging.Formatter().format(record)


def by_rich(error, **options):
    console = rich.console.Console(file=io.StringIO(), width=2000)
    parts = (type(error), error, error.__traceback__)
    console.print(rich.traceback.Traceback.from_exception(*parts, show_locals=True, width=2000, **options))
    return console.file.getvalue()


def by_rich_uncut(error):
    return by_rich(error, locals_max_length=None, locals_max_string=None)


def by_structlog(error):
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    return json.dumps(transform((type(error), error, error.__traceback__)))


def by_structlog_without_rich(error):
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True, use_rich=False)
    return json.dumps(transform((type(error), error, error.__traceback__)))


def by_structlog_console(error):
    shown = io.StringIO()
    structlog.dev.RichTracebackFormatter(show_locals=True, width=2000)(shown, (type(error), error, error.__traceback__))
    return shown.getvalue()


def by_loguru(error):
    shown = io.StringIO()
    number = loguru.logger.add(shown, backtrace=False, diagnose=True)
    loguru.logger.opt(exception=error).error("failed")
    loguru.logger.remove(number)
    return shown.getvalue()


def by_stackprinter(error):
    return stackprinter.format(error, show_vals="all", truncate_vals=100_000)


def by_stackprinter_cut(error):
    return stackprinter.format(error)


def by_sentry(error):
    found = []

    class Transport(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope):
            found.append(envelope.serialize().decode())

    client = sentry_sdk.Client(
        "http://key@127.0.0.1/1",
        transport=Transport,
        include_local_variables=True,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    event, hint = sentry_sdk.utils.event_from_exception(error, client_options=client.options)
    client.capture_event(event, hint=hint)
    client.close(timeout=0)
    return " ".join(found)


def by_pytest(error):
    found = pytest.ExceptionInfo.from_exception(error)
    return str(found.getrepr(showlocals=True, style="long", truncate_locals=False))


def by_pytest_cut(error):
    return str(pytest.ExceptionInfo.from_exception(error).getrepr(showlocals=True, style="long"))


RENDERERS = [
    *(by_stdlib, by_logging, by_rich, by_rich_uncut, by_structlog, by_structlog_without_rich, by_structlog_console),
    *(by_loguru, by_stackprinter, by_stackprinter_cut, by_sentry, by_pytest, by_pytest_cut),
]


def without_frames_of_tests(error):
    """Cut the frames in front of the package's own, because they are a user's, with the user's own values."""
    frame = error.__traceback__
    while frame is not None and not frame.tb_frame.f_globals["__name__"].startswith("servetel_async"):
        frame = frame.tb_next
    return error.with_traceback(frame)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.__name__)
async def test_no_renderer_shows_a_part_of_a_secret(kind, length, serve, connect, tmp_path, monkeypatch):
    """No renderer of local variables shows a part of a secret in any error; the whole size has 25 to 900 characters."""
    canaries = Canaries(length)
    monkeypatch.setattr(error_scenarios, "PASSWORD", canaries.password)
    monkeypatch.setitem(LOGIN, "password", canaries.password)
    looked = 0
    for number, scenario in enumerate(SCENARIOS[kind][:MOST]):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(kind) as raised:
            await scenario(serve, canaries.into(connect), directory)
        error = without_frames_of_tests(raised.value)
        for render in RENDERERS:
            looked += 1
            found = PART.search(render(error))
            assert not found, f"{len(found[0])} characters by {render.__name__}, scenario {number}"
    measured("P8", f"{kind.__name__}, {length} characters: {looked} printed tracebacks: 0 parts of a secret")


@pytest.mark.parametrize("render", RENDERERS, ids=lambda render: render.__name__)
def test_each_renderer_shows_what_a_frame_holds(render):
    """Each renderer prints a frame's variables, and plain texts in them show."""

    def fail(held):
        raise ValueError(held[:0])

    with pytest.raises(ValueError) as raised:
        fail(HELD)
    assert bool(PART.search(render(raised.value))) is (render is not by_logging)
