"""``servetel emulate``: the API on loopback until Ctrl-C."""

from __future__ import annotations

import signal

import pytest


async def start(launch, *arguments):
    running = await launch("emulate", "--port", "0", "--calls", "50", *arguments)
    lines = [(await running.process.stdout.readline()).decode().strip() for _ in range(2)]
    return running, dict(line.removeprefix("export ").split("=", 1) for line in lines)


async def test_it_serves_what_a_pull_can_read(launch, servetel):
    """It prints address and token as lines for a shell, serves calls of the last days, and ends cleanly at Ctrl-C."""
    running, environment = await start(launch)
    ended = await servetel("pull", "-", "--last", "31d", "--rate", "0", **environment)
    assert (ended.code, len(ended.out.splitlines())) == (0, 50)
    running.signal(signal.SIGINT)
    stopped = await running.end()
    assert stopped.code == 0
    assert b"Traceback" not in stopped.err


async def test_knobs_and_faults_are_flags(launch, servetel):
    """A token, a month, a cap and a fault can be set by flags."""
    fault = ("--fault", "status:page=2,status=503,times=1")
    running, environment = await start(
        launch, "--month", "2024-05", "--limit-cap", "20", "--token", "of-my-own-123", *fault
    )
    assert environment["SERVETEL_TOKEN"] == "of-my-own-123"
    ended = await servetel("pull", "a.db", "--month", "2024-05", "--rate", "0", "--json", **environment)
    assert ended.code == 0
    assert b'"event":"wait"' in ended.out
    running.signal(signal.SIGTERM)
    assert (await running.end()).code == 143


@pytest.mark.parametrize(
    "arguments",
    [("--fault", "nonsense"), ("--fault", "status:pages=1"), ("--fault", "status:page=x"), ("--month", "may")],
)
async def test_wrong_knobs(servetel, arguments):
    """Wrong flags end with 2 and a message."""
    ended = await servetel("emulate", "--calls", "5", *arguments)
    assert ended.code == 2
    assert b"Error" in ended.err
