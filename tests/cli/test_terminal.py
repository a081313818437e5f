"""Text that reaches a terminal, and the progress display."""

from __future__ import annotations

import io
import sys

import pytest

from servetel_async.bulk.progress import PullProgress
from servetel_async.cli.options.durations import rough
from servetel_async.cli.output.estimates import Estimate
from servetel_async.cli.output.progress import Bar, Log, display
from servetel_async.cli.output.situation import Situation
from servetel_async.cli.output.terminal import escape, say
from servetel_async.transport.endpoint import Event

GOOD = Event("request", 1, 200)
FAILED = Event("request", 12, 503)


def progress(records=12_300, total=37_431, retries=0):
    return PullProgress(
        records=records,
        total=total,
        windows=1,
        kept=0,
        pages=1,
        requests=1,
        retries=retries,
        received=1,
        waited=4.2,
        seconds=60.0,
    )


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def situation(clock):
    return Situation(1800.0, clock)


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x9b31m", "a\rb", "\x07", "\u202eevil", "\x1b]8;;http://x\x07", "\ud800", "\x7f"]
)
def test_nothing_that_a_terminal_obeys_passes(text):
    """Control characters, direction marks and lone surrogates are spelt out."""
    assert escape(text).isprintable()
    assert escape(text).isascii() or "evil" in escape(text)


def test_names_and_markup_stay_readable():
    """Letters of every script, and brackets, are unchanged."""
    assert escape("आरव शर्मा [bold]x[/]") == "आरव शर्मा [bold]x[/]"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (4.2, "4 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (1800, "30 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
        (273600, "3 d 4 h"),
    ],
)
def test_a_length_of_time_for_people(seconds, said):
    """A length of time has one unit, or two."""
    assert rough(seconds) == said


def test_the_first_row(situation, clock):
    """Calls, rate and remaining time; the rate is known after a second, the remaining time if the total is."""
    assert situation.first_row() == "asking the API"
    situation.take(progress(records=300))
    assert situation.first_row() == "300 of 37,431 calls"
    clock.now += 10
    situation.take(progress(records=2300))
    assert situation.first_row() == "2,300 of 37,431 calls, 200/s, 3 min left"
    situation.take(progress(records=2300, total=None))
    assert situation.first_row() == "2,300 calls, 200/s"


def test_the_rate_is_that_of_the_last_half_minute(situation, clock):
    """Older progress, and calls that an earlier run kept, do not count in the rate."""
    situation.take(progress(records=10_000))
    for second in range(1, 61):
        clock.now += 1
        situation.take(progress(records=10_000 + 100 * second + (900 * (second - 30) if second > 30 else 0)))
    assert ", 1,000/s, " in situation.first_row()


def test_the_rate_sinks_while_nothing_comes(situation, clock):
    """While nothing comes the rate falls, and without a rate no remaining time is shown."""
    situation.take(progress(records=100))
    clock.now += 1
    situation.take(progress(records=200))
    clock.now += 9
    assert situation.first_row() == "200 of 37,431 calls, 10/s, 1 h 2 min left"


def test_the_second_row_is_empty_while_all_is_well(situation):
    """The second row is empty while there is nothing to report."""
    situation.note(GOOD)
    situation.take(progress())
    assert situation.second_row() == ""


def test_the_second_row_tells_a_wait_for_as_long_as_it_lasts(situation, clock):
    """The second row shows the page, reason and length of a wait while it lasts."""
    situation.note(Event("wait", 12, 429, 4.2, 0, "RateLimitError"))
    assert situation.second_row() == "page 12: RateLimitError, trying again in 4 s"
    clock.now += 4.3
    assert situation.second_row() == ""


def test_the_second_row_tells_a_failure_for_a_moment(situation, clock):
    """The second row shows a failed page for a moment; the pull retries it."""
    situation.note(GOOD)
    situation.note(FAILED)
    assert situation.second_row() == "page 12: HTTP 503, trying again"
    clock.now += 6
    assert situation.second_row() == ""


def test_the_second_row_counts_retries(situation):
    """The second row counts the retries so far."""
    situation.take(progress(retries=3))
    assert situation.second_row() == "3 retries so far, 4 s waited"


def test_the_second_row_tells_an_outage(situation, clock):
    """The second row shows how long an outage lasts, its reason and the patience, until the next good reply."""
    situation.note(GOOD)
    for _ in range(5):
        clock.now += 24
        situation.note(FAILED)
    assert situation.second_row() == (
        "no good answer from the API for 2 min (page 12: HTTP 503, trying again); waiting up to 30 min"
    )
    situation.note(GOOD)
    assert situation.second_row() == ""


def test_the_second_row_tells_silence(situation, clock):
    """The second row shows silence, because a stalled request looks like a hang."""
    situation.note(GOOD)
    clock.now += 12
    assert situation.second_row() == "nothing has come for 12 s"


def test_the_second_row_tells_the_work_at_the_end(situation, clock):
    """The second row shows the last step, because a large file takes time."""
    situation.take(progress(records=37_431))
    clock.now += 12
    assert situation.second_row() == "making the output"


def test_a_log_line_every_ten_seconds(clock, situation):
    """Without a terminal there is a line every ten seconds, whatever happens meanwhile."""
    lines = []
    log = Log(situation, clock, lines.append)
    for _ in range(35):
        log.note(GOOD)
        log.show(progress())
        log.tick()
        clock.now += 1
    assert lines == ["12,300 of 37,431 calls, 0/s"] * 3


def test_a_log_goes_on_in_an_outage(clock, situation):
    """The log continues in an outage, because a silent log looks like a hang."""
    lines = []
    log = Log(situation, clock, lines.append)
    for _ in range(30):
        clock.now += 1
        log.note(FAILED)
        log.tick()
    assert len(lines) == 3
    assert all("no good answer" in line for line in lines)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class GoneTerminal(Terminal):
    def write(self, text):
        raise OSError(5, "Input/output error")


def test_two_rows_on_a_terminal(monkeypatch):
    """The two rows are drawn, and other programs' lines beside them stay whole."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    bar = display(quiet=False)
    assert isinstance(bar, Bar)
    bar.start()
    bar.show(progress())
    bar.note(Event("wait", 12, 429, 60.0, 0, "RateLimitError"))
    bar.tick()
    say("an estimate")
    bar.stop()
    for text in ("12,300 of 37,431 calls", "page 12: RateLimitError, trying again in 60 s", "an estimate\n"):
        assert text in terminal.getvalue()


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    """If the terminal is closed, the pull continues."""
    monkeypatch.setattr(sys, "stderr", GoneTerminal())
    monkeypatch.setenv("TERM", "xterm")
    bar = display(quiet=False)
    bar.start()
    bar.show(progress())
    bar.tick()
    bar.stop()


class NotebookStream:
    """A stream with only what print() needs."""

    def __init__(self):
        self.said = []

    def write(self, text):
        self.said.append(text)

    def flush(self):
        pass


def test_a_notebook_gets_lines(monkeypatch):
    """A replaced standard error may lack ``isatty``, ``fileno`` and an encoding, and gets lines."""
    monkeypatch.setattr(sys, "stderr", stream := NotebookStream())
    assert isinstance(display(quiet=False), Log)
    say("12 calls")
    assert stream.said == ["12 calls\n"]


@pytest.mark.parametrize(
    ("calls", "options", "said"),
    [
        (37_431, {}, "37,431 calls, about 400 requests, about 3 min 20 s at 2 requests/s"),
        (250, {}, "250 calls, about 4 requests, about 2.0 s at 2 requests/s"),
        (1, {"rate": 0}, "1 call, about 2 requests, as fast as the API answers"),
        (0, {"rate": 0.5}, "0 calls, about 1 request, about 2.0 s at 0.5 requests/s"),
        (
            900,
            {"read": 800, "rate": 0},
            "900 calls, 800 of them read already, about 2 requests, as fast as the API answers",
        ),
    ],
)
def test_an_estimate(calls, options, said):
    """Calls, requests and time; a large number of requests is rounded, because it is an estimate."""
    assert str(Estimate.of(calls, **{"page_size": 100, "rate": 2.0, **options})) == said
