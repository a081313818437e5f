"""What holds for every test: nothing of this computer's own configuration is read."""

import os

import pytest
import trustme


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No token, address or profile of whoever runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("SERVETEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SERVETEL_CONFIG", "")
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)  # programs that are run are run as users do
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def authority():
    """Who signs the tests' certificates."""
    return trustme.CA()
