"""strace as an instrument: the system calls of a pull that change the disk, and an accident at any of them.

It counts the calls of each kind and thread separately, so a moment is a kind and a number. Only calls
that touch the files of one destination count, not sockets or the interpreter's own files.
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

#: Calls that write bytes into a file.
WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
#: Calls that change the disk or make its content durable. Not all of them exist on every machine.
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
    """A write that was prevented."""

    path: str
    data: bytes
    offset: int | None


def missing() -> str | None:
    """Why strace cannot be used here; None if it can."""
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
    """The command that traces a process.

    Args:
        process: its number, then strace reports on standard error when it traces; None to start the command behind it.
        destination: of the pull; its directory holds nothing else.
        log: where the calls are recorded.
        inject: an accident, in the syntax of ``strace -e inject=``.
        folders: paths below a destination that is a directory, relative to it.
        whole: record all written bytes.
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
    """Every moment of a traced run, in the order of time."""
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
    """The write before which the process was killed; None if it was another call."""
    lines = log.read_text("ascii", "replace").splitlines()
    # The end of a call may be on a line of its own: "<... write resumed>) = ?".
    threads = {line.split()[0] for line in lines if line.endswith("= ?")}
    ends = [match for line in reversed(lines) if line.split()[0] in threads and (match := _call(line))][:1]
    found = _torn(_plain(ends[0].string)) if ends else None
    if found is None or found[1] not in WRITES:
        return None
    data = _bytes(found[3])
    return Write(found[2], data, None if found[4] is None else int(found[4]))


def _plain(line: str) -> str:
    """Decode a path; it is in hexadecimal if all texts are."""
    return re.sub(r"<((?:\\x[0-9a-f]{2})+)>", lambda path: f"<{_bytes(path[1]).decode()}>", line)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
