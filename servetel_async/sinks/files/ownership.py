"""The files and directories that this program made. Only these are ever removed or replaced unasked.

1. A directory is ours if it holds the marker and otherwise only files that we make. An empty one holds nothing to lose.
2. The marker is written first and removed last, so a run that is killed in between leaves a directory that is ours.
   It is an empty file: Polars reads no directory with two kinds of files, and skips empty ones. DuckDB reads the
   ``.parquet`` names only; Spark and Arrow skip names that begin with ``_``.
3. A small file is ours if it begins as ours do. A kill may leave the first bytes of one, or none.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from servetel_async.errors import OutputError
from servetel_async.sinks.files.opened import name_of, objection_to, open_to_read, planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

MARKER = "_made_by_servetel_async"
#: Every file that we make in a directory: a Parquet file of a day, or a new DuckDB database with its log.
_is_made_by_us = re.compile(
    rf"{MARKER}|day=[^/]+/part-\d+\.parquet|database(?:\.wal(?:\.checkpoint|\.recovery)?)?"
).fullmatch
#: How the small files begin, without white space; ``X`` is a hexadecimal digit.
_BEGINNINGS = {
    ".part.journal": b'XXXXXXXX{"kind":"begin"',
    ".receipt.json": b'{"destination":',
    ".quarantine.ndjson": b'{"reason":',
}
_HEXADECIMAL = b"0123456789abcdef"
#: Enough to see how a file begins.
_START = 64
#: Most bytes of a text that is looked for.
_LONGEST = 64
#: Bytes that are read at a time.
_PIECE = 1 << 20


def make_directory(path: Path) -> None:
    """Create a directory of ours, mode 0700, with its marker.

    Raises:
        OSError: if the system refuses it.
    """
    path.mkdir(mode=0o700)
    os.close(os.open(path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def is_directory(path: Path) -> bool:
    """Whether a directory has this name; a link to one does not count."""
    return _kind(path) == stat.S_IFDIR


def owns_directory(path: Path) -> bool:
    """Whether a directory of ours, or an empty one, has this name."""
    if not is_directory(path):
        return False
    held = list(_files(path))
    return all(ours for _, ours in held) and (not any(path.iterdir()) or os.path.lexists(path / MARKER))


def remove_directory(path: Path) -> None:
    """Remove a directory of ours. Anything in it that we do not make stays, and the directory with it.

    Raises:
        OSError: if the system refuses it.
    """
    for file, ours in list(_files(path)):
        if ours and file.name != MARKER:
            file.unlink()
    for day in [each for each in path.iterdir() if is_directory(each)]:
        _remove_empty(day)
    if [each.name for each in path.iterdir()] in ([], [MARKER]):
        (path / MARKER).unlink(missing_ok=True)
        _remove_empty(path)


def _remove_empty(directory: Path) -> None:
    if not any(directory.iterdir()):
        directory.rmdir()


def _files(path: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each entry of a directory and of its directories of days, and whether we make such a file."""
    for each in path.iterdir():
        if is_directory(each) and each.name.startswith("day="):
            for file in each.iterdir():
                yield file, _is_file_of_ours(file, f"{each.name}/{file.name}")
        else:
            yield each, _is_file_of_ours(each, each.name)


def _is_file_of_ours(file: Path, name: str) -> bool:
    return _kind(file) == stat.S_IFREG and _is_made_by_us(name) is not None


def owns_file(path: Path) -> bool:
    """Whether a small file of ours has this name: a journal, a receipt, a quarantine, or a part of one.

    Raises:
        OSError: if it cannot be read.
    """
    if not is_file(path):
        return False
    name = path.name
    while name.endswith(".part"):
        name = name.removesuffix(".part")
    wanted = next(start for ending, start in _BEGINNINGS.items() if name.endswith(ending))
    with open_to_read(path) as file:
        start = b"".join(file.read(_START).split())
    return all(
        byte in _HEXADECIMAL if expected == ord("X") else byte == expected
        for byte, expected in zip(start, wanted, strict=False)
    )


def is_file(path: Path) -> bool:
    """Whether a regular file has this name; a link to one does not count."""
    return _kind(path) == stat.S_IFREG


def is_empty_file(path: Path) -> bool:
    """Whether an empty regular file has this name: it holds nothing to lose."""
    return is_file(path) and path.lstat().st_size == 0


def holds(path: Path, *texts: bytes) -> bool:
    """Whether a regular file holds one of these texts anywhere.

    Raises:
        OSError: if it cannot be read.
    """
    if not is_file(path):
        return False
    kept = b""
    with open_to_read(path) as file:
        while piece := file.read(_PIECE):
            if any(text in kept + piece for text in texts):
                return True
            kept = piece[-_LONGEST:]
    return False


def refuse_foreign_part(
    part: Path, endings: Iterable[str], ours: Iterable[bytes], is_blank: Callable[[Path], bool]
) -> None:
    """Refuse a database under the name of a part, or a file beside it, that is not ours.

    Args:
        part: the path at which an interrupted pull leaves its database.
        endings: the endings of the library's files beside it, and of the directory in which it was made.
        ours: texts, of which a database of ours or its log holds one.
        is_blank: whether a file holds nothing to lose.

    Raises:
        OutputError: if one of them is not ours.
        OSError: if one of them cannot be read.
    """
    names = (part, *(part.with_name(f"{part.name}{ending}") for ending in endings))
    there = [path for path in names if os.path.lexists(path)]
    named = any(holds(path, *ours) for path in there)
    for path in there:
        name = name_of(path)
        is_known_file = is_file(path) and (named or is_empty_file(path) or is_blank(path))
        if not is_known_file and (path == part or not owns_directory(path)):
            raise foreign(name)
        if is_file(path) and (why := objection_to(path.lstat(), names=_names_of(path))):
            raise planted(name, why)


def _names_of(path: Path) -> int:
    """Return how many names of ours a part has: a kill between two steps of naming leaves a second one.

    It is made in a directory beside it, and in the end it gets the output's name.
    """
    target = path.with_name(path.name.removesuffix(".part"))
    made_in = path.with_name(f"{path.name}.new")
    others = [] if target == path else [target]
    others += made_in.iterdir() if owns_directory(made_in) else []
    return 1 + sum(is_file(other) and other.samefile(path) for other in others)


def foreign(name: str) -> OutputError:
    """Return the error for a file or directory that is not ours."""
    return OutputError(
        f"{name} was not made by this program",
        why="only what this program made is replaced or removed",
        fix="move or remove it yourself, or give another destination",
    )


def _kind(path: Path) -> int:
    """Return the type bits of a name; 0 if there is no such file.

    Raises:
        OSError: if the name is too long, or the system refuses to say.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_IFMT(path.lstat().st_mode)
    return 0
