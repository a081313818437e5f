"""File systems without locks, the fsync of a directory, or a rename over a mount point."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = [sys.executable, str(HERE / "one_output.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
NAMES = ("a.ndjson", "a.csv", "days/", "a.db", "a.duckdb")


def run(*command):
    """Run it; returns its JSON output and its standard error."""
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


def under_strace(tmp_path, call, error, *destinations, path=None):
    """Write into destinations while a system call fails; only calls on a path if one is given."""
    only = [] if path is None else ["-P", str(path)]
    log = ["-o", str(tmp_path.parent / "strace.log")]
    inject = f"inject={call}:error={error}"
    return run("strace", "-f", "-qq", *log, *only, "-e", f"trace={call}", "-e", inject, *SCRIPT, *destinations)


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP", "EINVAL"])
@pytest.mark.parametrize("name", ["a.ndjson", "a.db"])
def test_a_file_system_without_locks_says_so(tmp_path, name, error):
    """The error does not blame another run; it gives the reason and the fix, and nothing is written."""
    [[kind, text]], _ = under_strace(tmp_path, "flock", error, str(tmp_path / name))
    assert kind == "OutputError"
    assert "cannot be locked" in text
    assert "refuses locks" in text
    assert "local disk" in text
    assert {each.name for each in tmp_path.iterdir()} <= {f"{name}.lock"}


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("error", ["EAGAIN", "EACCES"])
def test_a_lock_that_is_held_says_so(tmp_path, error):
    """Both errors mean that another process holds the lock."""
    [[kind, text]], _ = under_strace(tmp_path, "flock", error, str(tmp_path / "a.ndjson"))
    assert kind == "OutputLockedError"
    assert "Another run is writing" in text


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize(("error", "kind"), [("ENOLCK", "OutputError"), ("EAGAIN", "OutputLockedError")])
def test_duckdbs_own_lock(tmp_path, error, kind):
    """DuckDB locks its file itself; the system's error decides here too."""
    duckdb = str(tmp_path / "a.duckdb")
    assert run(*SCRIPT, duckdb)[0] == [[]]
    [[found, _]], _ = under_strace(tmp_path, "fcntl", error, duckdb, path=duckdb)
    assert found == kind


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize(("call", "error"), [("fsync", "EINVAL"), ("fsync", "EROFS"), ("openat", "EACCES")])
@pytest.mark.parametrize("name", NAMES)
def test_a_directory_that_cannot_be_synced_is_said_once(tmp_path, name, call, error):
    """The output is written with one warning: its bytes are durable, but a power cut may lose its name."""
    here = tmp_path / "here"
    here.mkdir()
    found, said = under_strace(tmp_path, call, error, f"{here}/{name}", f"{here}/b{name}", path=here)
    assert found == [[], []]
    assert said.count("refuses to fsync a directory") == 1
    assert (here / name).exists()


@pytest.mark.usefixtures("tracing")
def test_a_disk_that_fails_at_the_sync_of_a_directory_is_an_error(tmp_path):
    """An input/output error at the fsync of a directory is an error."""
    here = tmp_path / "here"
    here.mkdir()
    [[kind, text]], _ = under_strace(tmp_path, "fsync", "EIO", f"{here}/a.ndjson", path=here)
    assert kind == "OutputError"
    assert "nput/output error" in text


def missing():
    """Why mounts are not possible here; None if they are."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(tried, capture_output=True, check=False)
    return None if done.returncode == 0 else "nothing may be mounted here"


@pytest.fixture
def mounted(tmp_path):
    """Run the script in a namespace with a mount; nothing on this machine is changed."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)

    def go(mount, *destinations):
        shell = f'{mount} && exec "$@"'
        return run("unshare", "--map-root-user", "--mount", "sh", "-c", shell, "sh", *SCRIPT, *destinations)[0]

    return go


@pytest.mark.parametrize("mount", ["mount -t tmpfs none {0}", "mount --bind {1} {0}"])
def test_a_mounted_directory_is_refused_and_one_inside_of_it_works(mounted, tmp_path, mount):
    """A mount point is refused: no rename replaces it, and its part file would be on another file system."""
    volume, other = tmp_path / "the data", tmp_path / "other"
    volume.mkdir()
    other.mkdir()
    command = mount.format(f"'{volume}'", f"'{other}'")
    refused, *works = mounted(command, f"{volume}/", f"{volume}/calls/", f"{volume}/a.ndjson", f"{volume}/a.db")
    assert refused[0] == "OutputError"
    assert "is a mount point" in refused[1]
    assert "the data/calls/" in refused[1]
    assert works == [[], [], []]
    assert {each.name for each in tmp_path.iterdir()} == {"the data", "other"}


@pytest.mark.parametrize("name", ["a.ndjson", "a.db", "a.duckdb"])
def test_a_mounted_file_is_refused(mounted, tmp_path, name):
    """A single mounted file is refused, because its other files would be outside of the mount."""
    (tmp_path / name).touch()
    (tmp_path / "other").touch()
    [[kind, text]] = mounted(f"mount --bind {tmp_path}/other {tmp_path}/{name}", str(tmp_path / name))
    assert kind == "OutputError"
    assert "mount the directory that holds it" in text.lower()


def test_a_finished_sqlite_file_is_read_from_a_read_only_medium(mounted, tmp_path):
    """A finished SQLite file needs no log, so it can be read from a read-only medium."""
    here = tmp_path / "here"
    here.mkdir()
    assert run(*SCRIPT, f"{here}/a.db", f"{here}/a.db")[0] == [[], []]
    read = "import sqlite3; print(sqlite3.connect(%r).execute('SELECT count(*) FROM call_records').fetchall()[0])"
    shell = f'mount --bind {here} {here} && mount -o remount,bind,ro {here} && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, "sh", sys.executable, "-c"]
    done = subprocess.run([*command, read % f"{here}/a.db"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "(1,)\n", done.stderr
    assert {each.name for each in here.iterdir()} == {"a.db", "a.db.receipt.json"}
