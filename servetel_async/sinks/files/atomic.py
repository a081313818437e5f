"""Files that only their owner may read, and that are there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from servetel_async.errors import OutputError
from servetel_async.sinks.files import ownership
from servetel_async.sinks.files.opened import name_of, open_regular, open_to_read

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger("servetel_async")

_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


#: Errors of a file system that cannot fsync a directory, or cannot open one for it. A disk that fails says EIO.
_NO_DIRECTORY_FSYNC = {
    *(errno.EINVAL, errno.EBADF, errno.EROFS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY),
    *(errno.EACCES, errno.EPERM, errno.EISDIR),
}
#: Endings of the small files beside an output.
RECEIPT, QUARANTINE = ".receipt.json", ".quarantine.ndjson"
_CHECK = "check the directory, its permissions and the free space, or give another destination"


def reason_of(error: OSError) -> str:
    """Return the system's reason, without a path of this machine."""
    reason = os.strerror(error.errno) if error.errno else "the system refused"
    return reason[:1].lower() + reason[1:]


def output_error(name: str, error: OSError, *, fix: str = _CHECK) -> OutputError:
    """Return the error for the output of this name, with the system's reason."""
    return OutputError(f"{name} cannot be written", why=reason_of(error), fix=fix)


def create_private(path: Path) -> int:
    """Create a new file, mode 0600 from its first moment; return its descriptor.

    Raises:
        OSError: if the name is taken, even by a link, or the directory cannot be written.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)


def open_private(path: Path) -> int:
    """Open an existing regular file for reading and writing, never through a link.

    Raises:
        OSError: if the system refuses it.
    """
    return open_regular(path, os.O_RDWR)


class Digest(NamedTuple):
    """Size and SHA-256 of an output."""

    size: int
    sha256: str


class Digester:
    """Computes the digest of an output while it is written."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Take bytes that were written."""
        self.size += len(data)
        self._sha256.update(data)

    def digest(self) -> Digest:
        """Return the digest of all bytes so far."""
        return Digest(self.size, self._sha256.hexdigest())


def digest_of(path: Path) -> Digest:
    """Return the digest of a file, or of all files of a directory.

    Raises:
        OSError: if the system refuses to read one.
    """
    if path.is_dir():
        return digest_of_all(digests_in(path))
    with open_to_read(path, follow=True) as file:
        return Digest(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def digests_in(directory: Path) -> dict[str, Digest]:
    """Return the digest of each file in a directory, by its path in it.

    Raises:
        OSError: if the system refuses to read one.
    """
    files = sorted(each for each in directory.rglob("*") if each.is_file())
    return {each.relative_to(directory).as_posix(): digest_of(each) for each in files}


def digest_of_all(files: dict[str, Digest]) -> Digest:
    """Combine the digests of the files in a directory into one."""
    whole = hashlib.sha256()
    for name, digest in files.items():
        whole.update(f"{name}\0{digest.sha256}\0".encode("utf-8", "surrogateescape"))
    return Digest(sum(digest.size for digest in files.values()), whole.hexdigest())


def remove(path: Path) -> None:
    """Remove a file or a directory of ours, if it exists. Files in a directory that we do not make stay.

    Raises:
        OSError: if the system refuses it.
    """
    with suppress(FileNotFoundError):
        if ownership.is_directory(path):
            ownership.remove_directory(path)
        else:
            path.unlink()


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte: one ``write`` may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def put_in_place(part: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished file its name, and make the name durable.

    Raises:
        FileExistsError: if the name was taken meanwhile, and must not be overwritten.
        OutputError: if a directory that is not ours has the name.
        OSError: if the system refuses it.
    """
    if part.is_dir():
        _put_directory(part, target, overwrite=overwrite)
    elif overwrite:
        part.replace(target)
    else:
        _rename_to_new(part, target)
    sync_directory(target.parent)


def _put_directory(part: Path, target: Path, *, overwrite: bool) -> None:
    """Replace a directory in steps: the old one is moved aside, and removed when the new one has its name."""
    aside = target.with_name(f"{target.name}.part.old")
    if os.path.lexists(target):
        if not overwrite:
            raise FileExistsError
        if not ownership.owns_directory(target):
            raise ownership.foreign(name_of(target))
        remove(aside)
        target.rename(aside)
    part.rename(target)
    remove(aside)


def _rename_to_new(part: Path, target: Path) -> None:
    """Rename without replacing: a hard link fails if the name is taken; a rename would replace the file."""
    try:
        target.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError from None
        part.replace(target)
    else:
        part.unlink()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable (fsync). If the file system refuses this, warn once and continue.

    Raises:
        OSError: if the disk fails.
    """
    if sys.platform == "win32":  # directories cannot be opened there
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_FSYNC:
            raise
        _say_no_directory_fsync(reason_of(error))


@cache
def _say_no_directory_fsync(reason: str) -> None:
    logger.warning(
        "the file system of the destination refuses to fsync a directory (%s): "
        "after a power cut a new file may be missing, and the same command brings it back",
        reason,
    )


def check_place(path: Path) -> None:
    """Check that ``save_private`` can use a path: its name is free or ours, and not too long.

    Raises:
        OutputError: if a file that is not ours has the name.
        OSError: if the system refuses the name.
    """
    for each in (path, _part_of(path)):
        if ownership.is_directory(each):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if os.path.lexists(each) and not ownership.owns_file(each):
            raise ownership.foreign(name_of(each))


def check_places(target: Path) -> None:
    """Check that the small files can be saved beside an output: its receipt and its quarantine.

    Raises:
        OutputError: if a file that is not ours has one of the names.
        OSError: if the system refuses a name.
    """
    for ending in (RECEIPT, QUARANTINE):
        check_place(target.with_name(target.name + ending))


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


class PrivateFile:
    """A small file that was written beside its place: mode 0600, durable, and without its final name yet.

    Raises:
        OutputError: if a file that is not ours has the name.
        OSError: if the system refuses it; then nothing is left of it.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._part = _part_of(path)
        check_place(path)
        with suppress(FileNotFoundError):
            self._part.unlink()
        descriptor = create_private(self._part)
        try:
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            self.discard()
            raise

    def put_in_place(self) -> None:
        """Give the file its final name, and replace an old file of that name.

        Raises:
            OSError: if the system refuses it; the old file is as it was.
        """
        try:
            put_in_place(self._part, self._path, overwrite=True)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._part.unlink()


def save_private(path: Path, data: bytes) -> None:
    """Write a small file, or replace it: mode 0600, whole or not at all.

    Raises:
        OutputError: if a file that is not ours has the name.
        OSError: if the system refuses it; the file is as it was before.
    """
    PrivateFile(path, data).put_in_place()
