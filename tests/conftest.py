"""Fixtures for every test: nothing of this computer's own configuration is read."""

import asyncio.constants
import gc
import itertools
import os
import signal

import pytest
import trustme

from servetel_async.transport.accounts import forget_accounts

# asyncio's debug mode notes ten frames of the stack for each callback, which takes a fifth of the tests' time.
asyncio.constants.DEBUG_STACK_DEPTH = 1
#: Tests of the fingerprint itself, and tests whose programs continue what another process began.
SLOW_FINGERPRINTS = {"tests.protocol.test_account_table", "tests.client.test_identify", "tests.cli.test_resuming"}
#: Tests between two freezes of all remaining objects, which the garbage collector then skips.
FREEZE_AFTER = 25
_ended = itertools.count(1)


def pytest_runtest_logfinish():
    """Keep collections fast: many tests collect, and each would walk over everything that earlier tests have loaded."""
    if next(_ended) % FREEZE_AFTER == 0:
        gc.collect()
        gc.freeze()


def pytest_configure():
    """Restore Ctrl-C: a shell starts background programs with it ignored, and so would be every tested program."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No token, address or profile of the user reaches the tests."""
    for name in [name for name in os.environ if name.startswith("SERVETEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SERVETEL_CONFIG", "")
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # programs run as users run them
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(autouse=True)
def unknown_accounts():
    """Forget all accounts, because two tests' servers may have the same port."""
    forget_accounts()


@pytest.fixture(autouse=True)
def quick_fingerprints(request, monkeypatch):
    """A fingerprint takes 30 ms so that numbers cannot be tried quickly; only its own tests need that."""
    if request.module.__name__ not in SLOW_FINGERPRINTS:
        monkeypatch.setattr("servetel_async.protocol.account._ROUNDS", 1)


@pytest.fixture(scope="session")
def authority():
    """The authority that signs the tests' certificates."""
    return trustme.CA()
