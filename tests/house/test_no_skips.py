"""The plugin that CI runs the tests with: a skipped test counts as failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BEGIN = "import pytest\n"


def run(directory, text):
    """Run one file of tests with the plugin; returns pytest's last line."""
    (directory / "test_it.py").write_text(BEGIN + text, "ascii")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.no_skips", "-p", "no:cacheprovider", "-c", os.devnull, "."],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        text=True,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("def test_it(): pytest.skip('not installed: nft')", "1 failed"),
        ("@pytest.mark.skipif(True, reason='not Linux')\ndef test_it(): pass", "1 error"),
        ("@pytest.fixture\ndef it(): pytest.skip('no')\ndef test_it(it): pass", "1 error"),
        ("pytest.importorskip('not_there')\ndef test_it(): pass", "1 error"),
        ("@pytest.mark.skipif(True, reason='atheris is not installed: clang')\ndef test_it(): pass", "1 skipped"),
        ("@pytest.mark.xfail\ndef test_it(): assert False", "1 xfailed"),
        ("def test_it(): pass", "1 passed"),
    ],
)
def test_a_skip_is_a_failure(tmp_path, text, ends):
    """Any skip counts as a failure, except for the listed reasons and for expected failures."""
    assert run(tmp_path, text).startswith(ends)
