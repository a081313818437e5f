"""Packed files: they unpack to the same bytes, are durable when closed, and private."""

from __future__ import annotations

import gzip
import importlib
import os
import pathlib
import stat
import sys

import pytest

from servetel_async import ConfigurationError
from servetel_async.sinks.files.compression import PackedFile, fast_packer
from servetel_async.sinks.files.compression import unpack as unpack_fast

OPENED = {None: bytes, ".gz": gzip.decompress}


def unpack(packing, data):
    if packing != ".zst":
        return OPENED[packing](data)
    own = sys.version_info >= (3, 14)
    return importlib.import_module("compression.zstd" if own else "backports.zstd").decompress(data)


def pack(path, packing, *pieces):
    file = PackedFile(packing)
    file.open(path)
    for piece in pieces:
        file.write(piece)
    file.close()
    return path.read_bytes()


@pytest.mark.parametrize("packing", [None, ".gz", ".zst"])
def test_every_byte_comes_back(tmp_path, packing):
    """Pieces of any size, and even no piece, form one stream."""
    pieces = [b"a" * 1_000_000, b"", b"b\n", os.urandom(300_000)]
    assert unpack(packing, pack(tmp_path / "a", packing, *pieces)) == b"".join(pieces)


@pytest.mark.parametrize("packing", [None, ".gz", ".zst"])
def test_an_empty_file_can_be_unpacked(tmp_path, packing):
    """A file without calls is valid too."""
    assert unpack(packing, pack(tmp_path / "a", packing)) == b""


@pytest.mark.parametrize("packing", [None, ".gz", ".zst"])
def test_equal_calls_give_equal_bytes(tmp_path, packing):
    """The file contains neither a time nor a name."""
    assert pack(tmp_path / "a", packing, b"x", b"y") == pack(tmp_path / "b", packing, b"x", b"y")


@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_damaged_file_is_found_out(tmp_path, packing):
    """Both formats have a checksum of their content."""
    data = bytearray(pack(tmp_path / "a", packing, os.urandom(5000)))
    data[2500] ^= 1
    with pytest.raises(Exception, match=r"CRC check failed|checksum"):
        unpack(packing, bytes(data))


@pytest.mark.parametrize("packing", [None, ".gz", ".zst"])
def test_it_is_private_from_its_first_moment(tmp_path, packing):
    """It has mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        file = PackedFile(packing)
        file.open(tmp_path / "a")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    finally:
        os.umask(before)
        file.abandon()


def test_a_link_is_not_followed(tmp_path):
    """A planted link counts as an existing file."""
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        PackedFile().open(tmp_path / "a")
    assert not (tmp_path / "elsewhere").exists()


def test_an_unknown_packing_is_refused():
    """Only known endings are accepted."""
    with pytest.raises(ConfigurationError, match="packing"):
        PackedFile(".bz2")


def test_a_missing_library_is_told_at_once(monkeypatch):
    """The error comes before any request, and says how to install it."""
    own = sys.version_info >= (3, 14)
    monkeypatch.setitem(sys.modules, "compression.zstd" if own else "backports.zstd", None)
    with pytest.raises(ConfigurationError) as caught:
        PackedFile(".zst")
    assert caught.value.fix == ("use .gz, or another build of Python" if own else "pip install 'servetel-async[zstd]'")


@pytest.mark.parametrize("library", ["zstd", "zlib"])
def test_a_part_s_windows_are_packed_one_by_one(monkeypatch, library):
    """With or without Zstandard one packer serves many windows, and each can be unpacked alone."""
    if library == "zlib":
        own = sys.version_info >= (3, 14)
        monkeypatch.setitem(sys.modules, "compression.zstd" if own else "backports.zstd", None)
    packer = fast_packer()
    windows = [[b"[1]\n" * 1000, b"[2]\n"], [], [b"[3]\n"]]
    packed = [b"".join([*map(packer.compress, pieces), packer.flush()]) for pieces in windows]
    monkeypatch.undo()
    assert [unpack_fast(window) for window in reversed(packed)] == [b"[3]\n", b"", b"[1]\n" * 1000 + b"[2]\n"]
    assert {window.startswith(b"\x28\xb5\x2f\xfd") for window in packed} == {library == "zstd"}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("packing", [None, ".gz", ".zst"])
def test_a_full_disk_is_told_and_let_go_of(tmp_path, packing):
    """Data that a packer held back fails at the end; abandoning twice closes once."""
    file = PackedFile(packing)
    file.open(tmp_path / "a")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._descriptor)
    os.close(full)
    with pytest.raises(OSError, match="No space"):
        file.write(os.urandom(100_000))
        file.close()
    file.abandon()
    file.abandon()
