"""What holds for every test: nothing of this computer's own configuration is read."""

import gc
import itertools
import os
import signal

import pytest
import trustme

from servetel_async.transport.accounts import forget_accounts

#: Tests between two times at which all that is left is taken out of the garbage collector's sight.
FREEZE_AFTER = 25
_ended = itertools.count(1)


def pytest_runtest_logfinish():
    """Keep collections fast: many tests collect, and each would walk over everything that earlier tests have loaded."""
    if next(_ended) % FREEZE_AFTER == 0:
        gc.collect()
        gc.freeze()


def pytest_configure():
    """A shell starts what it runs in the background deaf to Ctrl-C, and so would be every program that is tested."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No token, address or profile of whoever runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("SERVETEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SERVETEL_CONFIG", "")
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # programs that are run are run as users do
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(autouse=True)
def unknown_accounts():
    """A server of one test may have the port of another test's server: it is not the account that was paused there."""
    forget_accounts()


@pytest.fixture(scope="session")
def authority():
    """Who signs the tests' certificates."""
    return trustme.CA()
