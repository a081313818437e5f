"""Files that hold a token, a password or profiles: opened once, without waiting, and refused if others may change them.

A file of root is taken as well, because the secrets of a container belong to root.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from servetel_async.errors import ConfigurationError
from servetel_async.protocol.tokens import Secret, SecretBytes

#: Bytes of a token, a password or a file of profiles at most; a real one is far smaller.
LARGEST_FILE = 64 * 1024
#: Errors for a name without a file.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class SecretFile:
    """A file that holds a token or a password. It is read when it is needed, and again when the token is refused.

    Args:
        path: the file; ``~`` is the home directory.
        what: its name in error messages.
    """

    def __init__(self, path: str | os.PathLike[str], what: str = "the token file") -> None:
        self.path = expand(os.fspath(path))
        self._what = what

    def read(self) -> Secret:
        """Read the file, without its line end.

        Raises:
            ConfigurationError: if it is missing, empty, unreadable, not regular, too large, or readable by others.
        """
        content = Secret(read_private(self.path, self._what).rstrip("\r\n"))
        if not content or content.isspace():
            raise ConfigurationError(
                f"{self._what} is empty", why="it must hold a secret", fix=f"write it into {self.path}"
            )
        return content

    def __call__(self) -> Secret:
        """Return the content, as a token provider does."""
        return self.read()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFile) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


def expand(file: str) -> Path:
    """Return the path that a name means; ``~`` is the home directory."""
    try:
        return Path(file).expanduser()
    except RuntimeError:  # there is no such home directory
        return Path(file)


def read_private(file: Path, what: str) -> Secret:
    """Read a file that may hold a secret. It is refused if other users may read it and this user owns it.

    Only a small regular file is read: opening a pipe may block forever.
    """
    refused: ConfigurationError | None = None
    why, fix = "it is not a text", f"check that {file} is the right file"
    try:
        with open(file, "rb", opener=_open) as opened:
            _check_private(os.fstat(opened.fileno()), file, what)
            content = SecretBytes(opened.read(LARGEST_FILE))
        return content.decode("utf-8-sig")
    except ConfigurationError as error:
        refused = error
    except OSError as error:
        why, fix = (error.strerror or "").lower(), f"check that {file} is yours"
        if error.errno in _NO_FILE:  # a name without a file may be a secret
            fix = "check its name, which is not repeated here: if it was the secret itself, write that into a file"
    except UnicodeError:
        pass
    except ValueError:
        why, fix = "its name holds a NUL", "check its name"
    raise refused or ConfigurationError(f"{what} cannot be read", why=why, fix=fix)


def _open(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer opens at once


def _check_private(found: os.stat_result, file: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(
            f"{what} cannot be read",
            why="it is not a regular file",
            fix=f"write a file, and name it in place of {file}",
        )
    if sys.platform != "win32" and found.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"{what} belongs to another user",
            why="that user may put another token or another address into it",
            fix=f"copy it to a file of your own, and name that in place of {file}",
        )
    if sys.platform != "win32" and stat.S_IMODE(found.st_mode) & 0o022 and found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{what} may be changed by other users", why="it holds a secret", fix=f"run as its owner: chmod go-w {file}"
        )
    if sys.platform != "win32" and stat.S_IMODE(found.st_mode) & 0o077 and found.st_uid == os.geteuid():
        raise ConfigurationError(
            f"{what} may be read by other users", why="it holds a secret", fix=f"run: chmod 600 {file}"
        )
    if found.st_size > LARGEST_FILE:
        raise ConfigurationError(
            f"{what} cannot be read",
            why=f"it is larger than {LARGEST_FILE // 1024} KiB",
            fix=f"check that {file} is the right file",
        )
