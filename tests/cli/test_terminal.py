"""What reaches a terminal, and how progress is put."""

from __future__ import annotations

import pytest

from servetel_async.bulk.progress import PullProgress
from servetel_async.cli.progress import Log, describe, waiting
from servetel_async.cli.terminal import escape
from servetel_async.transport.transport import Event


def progress(records=12_300, total=37_431, retries=0):
    return PullProgress(records=records, total=total, pages=1, requests=1, retries=retries, received=1, seconds=60.0)


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x9b31m", "a\rb", "\x07", "\u202eevil", "\x1b]8;;http://x\x07", "\ud800", "\x7f"]
)
def test_nothing_that_a_terminal_obeys_passes(text):
    """ESC, C1, BEL, CR, direction marks and lone surrogates are spelt out."""
    assert escape(text).isprintable()
    assert escape(text).isascii() or "evil" in escape(text)


def test_names_and_markup_stay_readable():
    """Letters of every script, and brackets, are left alone."""
    assert escape("आरव शर्मा [bold]x[/]") == "आरव शर्मा [bold]x[/]"


def test_progress_as_a_line():
    """Calls, rate, remaining time, and retries where there were any."""
    assert describe(progress()) == "12,300 of 37,431 calls, 205/s, 2 min left"
    assert describe(progress(total=None, retries=3)) == "12,300 calls, 205/s, 3 retried"
    assert waiting(Event("wait", 12, 429, 4.2, 0, "RateLimitError")) == "page 12: RateLimitError, trying again in 4 s"


def test_a_log_line_every_ten_seconds():
    """Without a terminal there is a line now and then, also while it waits."""
    now, lines = [0.0], []
    log = Log(clock=lambda: now[0], write=lines.append)
    for now[0] in range(35):
        log.show(progress())
    assert len(lines) == 3
    now[0] = 50.0
    log.note(Event("request", 1, 200))
    log.note(Event("wait", 1, 503, 20.0, 0, "ServerError"))
    assert lines[3:] == ["page 1: ServerError, trying again in 20 s"]
