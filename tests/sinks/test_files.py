"""Files: every byte is written or an error is raised, and a lock is only held under its own name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from servetel_async.protocol.clock import IST
from servetel_async.sinks.columns import PIECE_BYTES, pieces_of
from servetel_async.sinks.lock import OutputLock
from servetel_async.sinks.sink import Batch

LIMITED = """
import os, resource, sys
from servetel_async.sinks.files import write_all
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    write_all(descriptor, b"x" * 1500)
except OSError as error:
    print(type(error).__name__, os.fstat(descriptor).st_size)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of a file's size")
def test_a_write_that_takes_only_a_part_is_continued(tmp_path):
    """The system takes 1,000 of 1,500 bytes: the rest is tried, and its error is raised."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a")], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.stdout, done.returncode) == ("OSError 1000\n", 0), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no open file can be removed there")
def test_a_lock_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Its last holder removes it between opening and locking: the lock is taken on a new file of that name."""
    import fcntl

    flock, file = fcntl.flock, tmp_path / "a.lock"
    tries = []

    def slow(descriptor, operation):
        tries.append(descriptor)
        if len(tries) == 1:
            file.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    lock = OutputLock(tmp_path / "a")
    lock.acquire()
    assert (len(tries), lock.held, file.exists()) == (2, True, True)
    lock.release()
    assert not file.exists()


def test_a_window_of_large_calls_is_cut_by_its_bytes():
    """Decoded calls are held in memory: a piece has few calls where each is large, and no call is lost."""
    lines = [b"x" * (PIECE_BYTES // 2)] * 5
    assert [len(piece.lines) for piece in pieces_of(Batch(lines, IST))] == [2, 2, 1]
