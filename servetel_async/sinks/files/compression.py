"""A new file of bytes: plain, or compressed with gzip or Zstandard."""

from __future__ import annotations

import importlib
import os
import sys
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from servetel_async.errors import ConfigurationError
from servetel_async.sinks.extras import missing
from servetel_async.sinks.files.atomic import create_private, write_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GZIP, ZSTD = ".gz", ".zst"
_GZIP_HEADER = 16  # zlib's flag for a gzip header; its time stamp is 0, so equal data gives equal bytes
_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _NoPacker:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> _Packer:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | _GZIP_HEADER)


def _zstd() -> Any:
    """Return the Zstandard module of Python 3.14, or its backport.

    Raises:
        ConfigurationError: if the backport is not installed, or this Python was built without the module.
    """
    own = sys.version_info >= (3, 14)
    try:
        return importlib.import_module("compression.zstd" if own else "backports.zstd")
    except ImportError:
        if own:
            raise ConfigurationError(
                "this Python was built without Zstandard", fix="use .gz, or another build of Python"
            ) from None
        raise missing("backports.zstd", "zstd") from None


class _Deflate:
    """Zlib with the interface of Zstandard: data after a flush is compressed on its own."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(1)

    def compress(self, data: bytes, /) -> bytes:
        return self._packer.compress(data)

    def flush(self) -> bytes:
        end = self._packer.flush()
        self._packer = zlib.compressobj(1)
        return end


def fast_packer() -> _Packer:
    """Make the fastest compressor, for data that is read again soon: Zstandard takes a fifth of zlib's time.

    One compressor serves many windows, each compressed on its own. Its workspace is a megabyte, and to allocate and
    free that for each window would fragment the memory.
    """
    try:
        return cast("_Packer", _zstd().ZstdCompressor(level=1))
    except ConfigurationError:
        return _Deflate()


def unpack(data: bytes) -> bytes:
    """Decompress data that a ``fast_packer`` of this run or of another has compressed.

    Raises:
        ConfigurationError: if the data needs Zstandard, which is no longer installed.
    """
    if data.startswith(_ZSTD_MAGIC):
        return cast("bytes", _zstd().decompress(data))
    return zlib.decompress(data)


def _zstd_maker() -> Callable[[], _Packer]:
    zstd = _zstd()
    # The checksum lets a reader see that a file was damaged; gzip has one in any case.
    options = {zstd.CompressionParameter.compression_level: _ZSTD_LEVEL, zstd.CompressionParameter.checksum_flag: 1}
    return lambda: zstd.ZstdCompressor(options=options)


class PackedFile:
    """One new file, mode 0600, written from its beginning to its end.

    Args:
        packing: ``".gz"``, ``".zst"``, or None for the bytes as they are.

    Raises:
        ConfigurationError: if the packing is not known, or its library is not installed.
    """

    def __init__(self, packing: str | None = None) -> None:
        if packing is None:
            self._make_packer: Callable[[], _Packer] = _NoPacker
        elif packing == GZIP:
            self._make_packer = _gzip
        elif packing == ZSTD:
            self._make_packer = _zstd_maker()
        else:
            raise ConfigurationError("the packing is not known", fix=f"use {GZIP} or {ZSTD}")
        self._packer: _Packer = _NoPacker()
        self._descriptor: int | None = None

    def open(self, path: Path) -> None:
        """Create the file; refuse a name that is taken, and never follow a link.

        Raises:
            OSError: if the system refuses it.
        """
        self._packer = self._make_packer()
        self._descriptor = create_private(path)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: if the system refuses it.
        """
        assert self._descriptor is not None  # noqa: S101 - for the type checker: it is open
        write_all(self._descriptor, self._packer.compress(data))

    def close(self) -> None:
        """Write the rest of the compressed data, and make the file durable.

        Raises:
            OSError: if the system refuses it.
        """
        assert self._descriptor is not None  # noqa: S101 - for the type checker: it is open
        write_all(self._descriptor, self._packer.flush())
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)

    def abandon(self) -> None:
        """Close the file, even if it is not complete. Never raises; doing it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
