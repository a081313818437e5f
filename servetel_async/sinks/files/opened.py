"""Open existing files safely: under their names may be a link, a pipe, a device or another user's file.

Each is opened once, without waiting and without following a link. The checks use its descriptor, so the file cannot be
exchanged between the check and the use. A database library opens its files by their names: these are checked before
that and after it, in a directory where no other user may rename them.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from servetel_async.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedReader
    from pathlib import Path

_QUIETLY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def name_of(path: Path) -> str:
    """Return a file's name as text for messages and receipts: bytes that are not UTF-8 are spelt out."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a regular file; return its descriptor.

    Args:
        path: the name of the file.
        flags: the flags of ``os.open``.
        follow: whether the name may be a link: the user gave it.

    Raises:
        OSError: if the system refuses it; ``EINVAL`` if it is not a regular file.
    """
    descriptor = os.open(path, flags | _QUIETLY | (0 if follow else _NO_LINK))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fspath(path))
    return descriptor


def open_to_read(path: Path, *, follow: bool = False) -> BufferedReader:
    """Open a regular file for reading; see ``open_regular``."""
    return os.fdopen(open_regular(path, follow=follow), "rb")


def objection_to(found: os.stat_result, *, names: int = 1, closed: int = 0o077, owner: int | None = None) -> str:
    """Return why a file of our own cannot be trusted; empty if it is as we leave it.

    Args:
        found: the status of the file.
        names: most names of the file: two if a kill came between the new name and the removal of the old one.
        closed: the rights that no other user may have. Our state gives none.
        owner: the required owner; None is this user.
    """
    if sys.platform == "win32":
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "it is a symbolic link" if stat.S_ISLNK(found.st_mode) else "it is not a regular file"
    if found.st_uid != (os.geteuid() if owner is None else owner):
        return "it belongs to another user"
    if found.st_nlink > names:
        return "it has a second name, so another file may be changed with it"
    if stat.S_IMODE(found.st_mode) & closed:
        return "other users may read or write it"
    return ""


def refuse_planted_database(path: Path, endings: Iterable[str], *, owner: int | None = None) -> None:
    """Refuse a database, or a log beside it, that another user owns or that all users may write.

    A database library opens a log by its name, and merges its content into the database. The owner of a database may
    let other users read it and a group write it.

    Args:
        path: the database.
        endings: the endings of its logs.
        owner: the required owner, for a database that is only read; None is this user.

    Raises:
        OutputError: if there is such a file.
        OSError: if a file cannot be examined.
    """
    names = 1 if owner is None else sys.maxsize  # a second name matters for a file that is written
    for each in (path, *(path.with_name(f"{path.name}{ending}") for ending in endings)):
        try:
            found = each.lstat()
        except FileNotFoundError:
            continue
        if each != path and stat.S_ISDIR(found.st_mode):
            continue  # no library opens it as a log
        if why := objection_to(found, names=names, closed=0o002, owner=owner):
            name = name_of(each)
            raise OutputError(
                f"{name} cannot be trusted",
                why=f"{why}, so calls in it may be forged",
                fix=f"if it is yours, make it yours alone: chown and chmod o-w {name}; else give another destination",
            )


def refuse_open_directory(path: Path) -> None:
    """Refuse a database in a directory where all users may rename and remove files of others.

    A database library opens its files by their names, and waits for ever if a name has become a pipe. In a directory
    with the sticky bit, such as ``/tmp``, only the owner of a file may rename it.

    Raises:
        OutputError: if it is in such a directory.
        OSError: if the directory cannot be looked at.
    """
    mode = path.parent.stat().st_mode
    if sys.platform != "win32" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise OutputError(
            f"the directory of {name_of(path)} is open to all users",
            why="every user may exchange its files, so calls may be forged while they are written",
            fix="run: chmod o-w on the directory; or make one of your own: mkdir -m 700",
        )


def refuse_lone_log(path: Path, endings: Iterable[str]) -> None:
    """Refuse a log without its database: it would be read into the new database as soon as that has the name.

    Raises:
        OutputError: if there is such a log.
    """
    for ending in endings:
        log = path.with_name(f"{path.name}{ending}")
        if os.path.lexists(log):
            raise OutputError(
                f"{name_of(log)} is there without {name_of(path)}",
                why="it belongs to a database of that name, and would be read into the new one",
                fix="bring its database back, or remove it",
            )


def planted(name: str, why: str) -> OutputError:
    """Return the error for a file that is not as we leave it."""
    return OutputError(
        f"{name} cannot be resumed",
        why=f"{why}, so what is in it may be forged",
        fix=f"if it is yours, run: chmod 600 {name}; if not, remove it, or give another destination",
    )
