"""One writer per output: a lock that dies with its process."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from servetel_async.errors import OutputError, OutputLockedError
from servetel_async.sinks.files.atomic import output_error, reason_of
from servetel_async.sinks.files.opened import name_of
from servetel_async.sinks.files.ownership import foreign

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _claim(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _claim(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
#: Errors that say that another process holds the lock.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}  # the last one is Windows' own


class OutputLock:
    """The right to write ``DEST``: held on ``DEST.lock``, which exists only while a run holds the lock.

    The lock is in the kernel, not in the file: a killed run leaves a file without a lock.
    """

    def __init__(self, target: Path) -> None:
        self._name = name_of(target)
        self._file = target.with_name(target.name + ".lock")
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, or fail at once.

        Raises:
            OutputLockedError: if another run has the lock.
            OutputError: if the directory is missing or cannot be written, its file system has no locks, or another
                program's file has the lock's name.
        """
        while self._descriptor is None:
            try:
                descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o600)
            except OSError as error:
                raise output_error(self._name, error) from error
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size:  # ours is empty, and it is removed in the end
                os.close(descriptor)
                raise foreign(name_of(self._file))
            try:
                _claim(descriptor)
            except OSError as error:
                os.close(descriptor)
                raise self._refused(error) from None
            if self._is_in_place(descriptor):
                self._descriptor = descriptor
            else:  # its last holder removed it between the two calls above
                os.close(descriptor)

    def clear(self) -> None:
        """Remove the lock file of a killed run; a lock that a run holds stays."""
        if os.path.lexists(self._file):
            with suppress(OutputError):
                self.acquire()
                self.release()

    def release(self) -> None:
        """Release the lock. Releasing again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if sys.platform == "win32":  # no open file can be removed there
            os.close(descriptor)
        if sys.platform == "win32" or self._is_in_place(descriptor):
            with suppress(OSError):
                self._file.unlink()
        if sys.platform != "win32":
            os.close(descriptor)

    def _refused(self, error: OSError) -> OutputError:
        if error.errno in _HELD:
            return OutputLockedError(
                f"another run is writing {self._name}",
                why="its lock is held by a process that is alive",
                fix="wait until it has ended, or give another destination",
            )
        return OutputError(
            f"{self._name} cannot be locked",
            why=f"its file system refuses locks ({reason_of(error)}), so two runs could write it at once",
            fix="give a destination on a local disk, then copy the finished output",
        )

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat(follow_symlinks=False))
        except OSError:
            return False
