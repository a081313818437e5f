"""Files and locks of an output: every byte, every name, and no file of another program."""

from __future__ import annotations

import errno
import json
import pathlib
import subprocess
import sys

import pytest

from servetel_async.errors import OutputError
from servetel_async.protocol.clock import IST
from servetel_async.sinks.files.atomic import digest_of, put_in_place, remove
from servetel_async.sinks.files.lock import OutputLock
from servetel_async.sinks.formats.csv import CsvEncoder
from servetel_async.sinks.formats.ndjson import StdoutSink
from servetel_async.sinks.sink import Batch
from servetel_async.sinks.table.columns import PIECE_BYTES, pieces_of

LIMITED = """
import os, resource, sys
from servetel_async.sinks.files.atomic import write_all
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    write_all(descriptor, b"x" * 1500)
except OSError as error:
    print(type(error).__name__, os.fstat(descriptor).st_size)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of a file's size")
def test_a_write_that_takes_only_a_part_is_continued(tmp_path):
    """The system writes 1,000 of 1,500 bytes: the rest is written too, and its error is raised."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "a")], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.stdout, done.returncode) == ("OSError 1000\n", 0), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no open file can be removed there")
def test_a_lock_file_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Its last holder removes it between opening and locking: the lock is taken on a new file."""
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


def test_a_lock_file_that_is_another_runs_stays(tmp_path):
    """Our lock file was removed, and another run made its own: only that run removes it."""
    ours, theirs = OutputLock(tmp_path / "a"), OutputLock(tmp_path / "a")
    ours.acquire()
    (tmp_path / "a.lock").unlink()
    theirs.acquire()
    ours.release()
    assert (tmp_path / "a.lock").exists()
    theirs.release()
    assert not (tmp_path / "a.lock").exists()


def test_a_window_of_large_calls_is_cut_by_its_bytes():
    """Decoded calls use memory: a piece has few calls if each is large, and no call is lost."""
    lines = [b"x" * (PIECE_BYTES // 2)] * 5
    assert [len(piece.lines) for piece in pieces_of(Batch(lines, IST))] == [2, 2, 1]


def test_the_digest_of_a_directory_knows_the_names(tmp_path):
    """The same bytes under another name give another digest."""
    for directory, name in (("a", "1"), ("b", "2")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / name).write_text("same")
    first, second = digest_of(tmp_path / "a"), digest_of(tmp_path / "b")
    assert (first.size, first.sha256 == second.sha256) == (4, False)


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_hard_links(tmp_path, monkeypatch, taken):
    """There a file is renamed, and an existing file of that name stays as it is."""

    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(pathlib.Path, "hardlink_to", refuse)
    part, target = tmp_path / "a.part", tmp_path / "a"
    part.write_text("new")
    if taken:
        target.write_text("mine")
        with pytest.raises(FileExistsError):
            put_in_place(part, target, overwrite=False)
        assert (part.read_text(), target.read_text()) == ("new", "mine")
    else:
        put_in_place(part, target, overwrite=False)
        assert (part.exists(), target.read_text()) == (False, "new")


def test_a_link_to_a_directory_is_removed_and_not_the_directory(tmp_path):
    """The link's target belongs to another program."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "theirs")
    remove(link)
    assert not link.is_symlink()
    assert (tmp_path / "theirs" / "file").read_text() == "mine"


def test_a_standard_output_that_was_closed_is_refused(monkeypatch):
    """Its descriptor may belong to another file by now, so nothing is written to it."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="is closed"):
        StdoutSink().open()


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", "\x01", "\u202e", "\x9f"])
@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\uff1d"])
def test_a_formula_behind_an_unseen_character_is_guarded(tmp_path, batch_of, unseen, sign):
    """A spreadsheet may drop the character before it looks for the sign."""
    text = f"{unseen}{sign}cmd()"
    encoder = CsvEncoder(("agent_name", "notes"))
    encoder.open(tmp_path / "a")
    encoder.write(batch_of(json.dumps({"id": "1", "agent_name": text, "notes": text}).encode()))
    encoder.close()
    assert (tmp_path / "a").read_text("utf-8").splitlines()[1] == f"'{text},'{text}"
