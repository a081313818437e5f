"""The place of an output: a name of its own in a directory, resolved once, and neither a link nor a mount point."""

from __future__ import annotations

import os
import re
from pathlib import Path

from servetel_async.errors import ConfigurationError, OutputError

_MOUNTS = Path("/proc/self/mountinfo")
#: Number of the field in a line that holds the mount point.
_POINT = 4


def resolve(text: str) -> Path:
    """Return the absolute path of a destination: a later ``chdir`` or a changed link of a parent does not move it.

    Links of its parents are followed now. Its own name is kept as it is.

    Raises:
        ConfigurationError: if it has no name of its own (``./``, ``../``, ``/``), or the current directory is gone.
    """
    path = Path(text)
    if path.name in {"", ".."}:
        raise ConfigurationError(
            "the destination has no name of its own",
            why="the output and the files beside it need a name in a directory",
            fix="give a name, for example ./calls/",
        )
    try:
        return Path(os.path.realpath(path.parent)) / path.name
    except OSError:
        raise ConfigurationError(
            "the current directory is gone", why="the destination is relative to it", fix="give an absolute path"
        ) from None


def refuse_mount_point(path: Path, name: str) -> None:
    """Refuse a mount point: no rename replaces it, and files beside it are on another file system.

    Raises:
        OutputError: if the path is a mount point.
    """
    if _is_mount_point(path):
        inside = "calls/" if path.is_dir() else path.name
        fix = f"give a name inside of it: {name}/{inside}" if path.is_dir() else "mount the directory that holds it"
        raise OutputError(f"{name} is a mount point", why="a mount point cannot be replaced", fix=fix)


def _is_mount_point(path: Path) -> bool:
    """Whether the system lists a path as a mount point: ``ismount`` misses a bind mount of the same file system."""
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:  # not Linux, or no /proc
        return os.path.ismount(path)
    wanted = os.fsencode(path)
    return any(_unescape(line.split()[_POINT]) == wanted for line in lines)


def _unescape(point: bytes) -> bytes:
    """Decode a mount point: the list writes a blank, a tab, a line end and a backslash as three octal digits."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), point)
