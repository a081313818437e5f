"""The sixteen promises: the text of each, its number, and the tests that can refute it."""

from __future__ import annotations

from typing import NamedTuple


class Promise(NamedTuple):
    """One promise.

    Attributes:
        number: ``P1`` to ``P16``.
        what: in a few words.
        promised: the number, at the whole size.
        tests: paths from the project's root, as pytest takes them.
        times_the_loop: nothing else may run beside it.
    """

    number: str
    what: str
    promised: str
    tests: tuple[str, ...]
    times_the_loop: bool = False


PROMISES = (
    Promise(
        "P1",
        "truth under faults",
        "10,000 faults of 40 kinds, 20 seeds, 30,000 requests: 0 lost, 0 twice",
        ("tests/torture/test_truth.py", "tests/torture/test_network.py", "tests/torture/test_wrong_clock.py"),
    ),
    Promise(
        "P2",
        "kill -9",
        "at every write, sync and rename, at 100 random moments, twice: the same output",
        (
            "tests/crash/test_kill.py",
            "tests/crash/test_random_moments.py",
            "tests/crash/test_signals.py",
            "tests/crash/test_state.py",
            "tests/crash/test_torn_write.py",
        ),
    ),
    Promise(
        "P3",
        "retries do not multiply an outage",
        "at most 1.1 N + 10 requests for N = 1,000 calls, by 503, reset and timeout",
        ("tests/torture/test_amplification.py",),
    ),
    Promise(
        "P4",
        "a long outage",
        "10 minutes: at most 130 requests, then it ends by itself; a retry after 200 failures; a restart costs 0 pages",
        ("tests/bulk/test_outage.py", "tests/torture/test_long_outage.py"),
    ),
    Promise(
        "P5",
        "overload in a web app",
        "1,000 callers, 8 connections: never more than 8; each ends in time, well or as overloaded",
        ("tests/torture/test_overload.py",),
    ),
    Promise(
        "P6",
        "the loop does not stall",
        "p99 at most 5 ms, longest at most 25 ms",
        ("tests/torture/test_loop_stall.py",),
        times_the_loop=True,
    ),
    Promise(
        "P7",
        "memory",
        "any hostile body: at most 48 MB; a long pull: less than 1 MB per 100,000 calls",
        ("tests/torture/test_memory.py",),
    ),
    Promise(
        "P8",
        "no secret in any output",
        "0 hits of every canary in everything that is printed, logged, raised or saved",
        ("tests/torture/test_canary.py", "tests/client/test_secrets.py"),
    ),
    Promise(
        "P9",
        "the token stays at home",
        "60 redirects, recordings, proxies and forged addresses: 0 on another origin, 0 to private addresses",
        ("tests/torture/test_bearer.py",),
    ),
    Promise(
        "P10",
        "outputs are atomic",
        "polled at 1 kHz, at every kill, no space at every write: never a part of it under its name",
        ("tests/crash/test_disk_full.py", "tests/crash/test_atomic.py"),
    ),
    Promise(
        "P11",
        "hostile bytes",
        "1,000,000 mutated pages: errors of ours only, 50 ms each at most, nothing of the body in them",
        ("tests/torture/test_mutated_pages.py", "tests/torture/test_mutated_replies.py", "tests/torture/test_fuzz.py"),
    ),
    Promise(
        "P12",
        "cancellation",
        "at every tick of a ten-page pull, by asyncio and anyio: 0 tasks, connections, slots left",
        ("tests/torture/test_cancel_everywhere.py",),
    ),
    Promise(
        "P13",
        "lists that move",
        "0 lost, 0 twice of what stays, or it is said; never silently short",
        ("tests/bulk/test_model.py", "tests/torture/test_drift.py", "tests/stream/test_resume_model.py"),
    ),
    Promise(
        "P14",
        "spreadsheets and terminals",
        "200 hostile texts: 0 formulas, 0 control bytes, numbers unchanged",
        ("tests/torture/test_spreadsheets.py",),
    ),
    Promise(
        "P15",
        "certificate errors are final",
        "1 connection for each of 5 faults",
        ("tests/torture/test_certificates.py",),
    ),
    Promise(
        "P16",
        "the receipt",
        "every pull ends with one, and check compares it with the API's counts",
        ("tests/bulk/test_receipt.py", "tests/bulk/test_check.py", "tests/torture/test_receipts.py"),
    ),
)
