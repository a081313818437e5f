"""strace as an instrument: which system calls of a pull change what is on the disk, and an accident at any of them.

It counts each kind of call of each thread by itself, so a moment has two names: the kind, and its number. Only calls
that touch the files of one destination are looked at; sockets, and the interpreter's own files, do not count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: Calls that bring bytes into a file.
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
#: Calls after which the disk is another one, or knows what is on it. Not all of them exist on every machine.
CALLS = (
    *WRITES,
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "ftruncate"),
    *("fallocate", "openat", "mkdir", "mkdirat", "rmdir"),
)
_ENDINGS = (
    *("", ".lock", ".receipt.json", ".receipt.json.part", ".part", ".part.journal", ".part.new", ".part.old"),
    *("-wal", "-shm", "-journal", ".part-wal", ".part-shm", ".part-journal"),
    *(
        ".part.new/_made_by_servetel_async",
        ".part.new/database",
        ".part.new/database.wal",
        ".part.new/database.wal.checkpoint",
    ),
    *(".wal", ".wal.checkpoint", ".wal.recovery", ".part.wal", ".part.wal.checkpoint", ".part.wal.recovery"),
)
_call = re.compile(r"(\d+) +(\w+)\((.*)").match
_torn = re.compile(r'\d+ +(\w+)\(\d+<([^>]*)>, "((?:\\x[0-9a-f]{2})*)", \d+(?:, (\d+))?').match


class Moment(NamedTuple):
    """Right before the ``number``-th call of that kind."""

    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


class Write(NamedTuple):
    """A write that did not happen."""

    path: str
    data: bytes
    offset: int | None


def missing() -> str | None:
    """Why strace cannot be used here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-f", "-qq", "-e", "trace=?write", "-o", "/dev/null", sys.executable, "-I", "-S", "-c", ""]
    tried = subprocess.run(command, capture_output=True, check=False)
    return None if tried.returncode == 0 else "strace is not permitted to trace here (ptrace)"


def command(
    process: int | None,
    destination: Path,
    log: Path,
    *,
    inject: str = "",
    folders: Iterable[str] = (),
    whole: bool = False,
) -> list[str]:
    """The command that looks at a process.

    Args:
        process: its number, it says on standard error that it looks; None to begin the one whose command follows.
        destination: of the pull; its directory holds nothing else.
        log: where the calls are noted.
        inject: an accident, as ``strace -e inject=`` takes it.
        folders: paths below a destination that is a directory, relative to it.
        whole: note all bytes of what is written.
    """
    names = [f"{destination.name}{ending}" for ending in _ENDINGS]
    paths = [destination.parent, *(destination.parent / name for name in names)]
    paths += [destination.with_name(f"{destination.name}{end}") / each for end in ("", ".part.new") for each in folders]
    options = ["-xx", "-s", "100000000"] if whole else ["-s", "0"]
    options += [f"-P{path}" for path in (*names, *paths)]
    options += ["-e", f"trace={','.join(f'?{call}' for call in CALLS)}"]
    if inject:
        options += ["-e", f"inject={inject}"]
    options += ["-qq"] if process is None else ["-p", str(process)]
    return ["strace", "-f", "-y", "-o", str(log), *options]


def moments(log: Path) -> Iterator[Moment]:
    """Every moment of a run that was looked at, in the order of time."""
    counted: Counter[tuple[str, str]] = Counter()
    seen: set[Moment] = set()
    for line in log.read_text("utf-8", "replace").splitlines():
        found = _call(line)
        if found is None:
            continue
        thread, call, rest = found.groups()
        counted[thread, call] += 1
        moment = Moment(call, counted[thread, call])
        changes = call != "openat" or "O_CREAT" in rest
        if changes and moment not in seen:
            seen.add(moment)
            yield moment


def last_write(log: Path) -> Write | None:
    """The write before which the process was killed; None where it was another call."""
    lines = log.read_text("ascii", "replace").splitlines()
    # The end of a call may stand on a line of its own: "<... write resumed>) = ?".
    threads = {line.split()[0] for line in lines if line.endswith("= ?")}
    ends = [match for line in reversed(lines) if line.split()[0] in threads and (match := _call(line))][:1]
    found = _torn(_plain(ends[0].string)) if ends else None
    if found is None or found[1] not in WRITES:
        return None
    data = _bytes(found[3])
    return Write(found[2], data, None if found[4] is None else int(found[4]))


def _plain(line: str) -> str:
    """Paths are noted in hexadecimal where all texts are."""
    return re.sub(r"<((?:\\x[0-9a-f]{2})+)>", lambda path: f"<{_bytes(path[1]).decode()}>", line)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
