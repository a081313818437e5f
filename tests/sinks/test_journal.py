"""The journal of a file: its lines are trusted; a cut last line is ignored; any other damage is refused."""

from __future__ import annotations

import os
import stat
import zlib

import pytest

from servetel_async import ResumeMismatchError
from servetel_async.sinks.files.journal import FORMAT, Journal, Line

WINDOW = Line("window", first="2024-05-01 00:00:00", last="2024-05-01 23:59:59", end=12, crc=7)


@pytest.fixture
def path(tmp_path):
    """A journal with a beginning and two windows."""
    journal = Journal.create(tmp_path / "j", b'{"pull":1}')
    journal.append(WINDOW)
    journal.append(WINDOW)
    journal.close()
    return tmp_path / "j"


def kinds(path):
    journal = Journal.open(path)
    if journal is None:
        return None
    journal.close()
    return [line.kind for line in journal.lines]


def test_it_says_what_was_written(path):
    """Header and windows come back complete."""
    journal = Journal.open(path)
    journal.close()
    assert bytes(journal.lines[0].body) == b'{"pull":1}'
    assert (journal.lines[0].kind, journal.lines[0].format) == ("begin", FORMAT)
    assert journal.lines[1:] == [WINDOW, WINDOW]


@pytest.mark.parametrize("body", [b'{"kind":"\xff"}', b"[", b'{"kind":1}'])
def test_a_line_that_is_sound_and_cannot_be_decoded_is_of_another_version(path, body):
    """The checksum agrees, so the line is undamaged despite bad UTF-8, no JSON, or another shape."""
    path.write_bytes(path.read_bytes() + b"%08x %s\n" % (zlib.crc32(body), body))
    with pytest.raises(ResumeMismatchError) as raised:
        Journal.open(path)
    assert "another version" in raised.value.why


def test_it_is_gone_on_with(path):
    """A line added after opening follows the others."""
    journal = Journal.open(path)
    journal.append(Line("done", size=5, sha256="x"))
    journal.close()
    assert kinds(path) == ["begin", "window", "window", "done"]


def test_a_cut_line_did_not_happen(path):
    """Wherever a kill cuts the file, the complete lines count, and the next line starts on its own line."""
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 0x0A]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        count = sum(end <= length for end in ends)
        assert kinds(path) == (["begin", "window", "window"][:count] or None)
        if count:
            journal = Journal.open(path)
            journal.append(Line("done"))
            journal.close()
            assert kinds(path) == [*["begin", "window", "window"][:count], "done"]


def test_a_flipped_bit_is_never_believed(path):
    """A flipped bit anywhere is refused, or makes the last line count as cut."""
    whole = path.read_bytes()
    for index in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << bit]) + whole[index + 1 :])
            try:
                found = kinds(path)
            except ResumeMismatchError:
                continue
            assert (index, found) == (len(whole) - 1, ["begin", "window"])


@pytest.mark.parametrize("text", [b'{"kind":"begin","format":2}', b'{"kind":"window"}', b'{"odd":1}', b"[]"])
def test_another_versions_journal_is_refused(tmp_path, text):
    """It is undamaged, but this version cannot read it."""
    (tmp_path / "j").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    (tmp_path / "j").chmod(0o600)
    with pytest.raises(ResumeMismatchError, match="nother version") as caught:
        Journal.open(tmp_path / "j")
    assert str(tmp_path) not in str(caught.value)


def test_it_is_private_and_new(tmp_path):
    """It has mode 0600 whatever the umask, and is never created through a link."""
    before = os.umask(0)
    try:
        Journal.create(tmp_path / "j", b"{}").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "j").stat().st_mode) == 0o600
    (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Journal.create(tmp_path / "k", b"{}")
    assert not (tmp_path / "elsewhere").exists()
