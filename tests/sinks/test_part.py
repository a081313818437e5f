"""A file's life: windows count once they are journaled, the name comes last, and a kill may come at any moment."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import stat

import pytest

from servetel_async import OutputError, OutputLockedError
from servetel_async.sinks.files.atomic import digest_of, remove
from servetel_async.sinks.files.file_sink import FileSink
from servetel_async.sinks.formats.csv import CsvEncoder
from servetel_async.sinks.formats.ndjson import LinesEncoder
from servetel_async.sinks.formats.parquet import DaysEncoder
from servetel_async.sinks.sink import PullIdentity, Span
from servetel_async.sinks.table.columns import check_columns
from tests.sinks.life import finished, named_without_receipt, open_for

CLAIM = PullIdentity("pull", "scope", "account")
HEADER = b'{"pull":"p"}'
NAMES = ("id", "agent_name")


def csv(path, **options):
    return FileSink(path, CsvEncoder(check_columns(NAMES)), **options)


def packed(path, **options):
    return FileSink(path, LinesEncoder(".gz"), **options)


def days(path, **options):
    return FileSink(path, DaysEncoder(check_columns(NAMES)), directory=True, **options)


KINDS = pytest.mark.parametrize("make", [FileSink, csv, packed, days], ids=["lines", "csv", "gz", "days"])


def span(number):
    return Span(f"2024-05-{number:02} 00:00:00", f"2024-05-{number:02} 23:59:59")


def entry(number):
    return b'{"n":%d}' % number


def contents(path):
    """The bytes of every file below, by name; for packed or typed files they are the same each time."""
    if path.is_dir():
        return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}
    return path.read_bytes()


@pytest.fixture
def windows(batch_of):
    """Three windows of two calls, newest first."""
    return {
        number: batch_of(
            *(b'{"id":"%d-%d","date":"2024-05-%02d","time":"10:00:00"}' % (number, row, number) for row in range(2))
        )
        for number in (3, 2, 1)
    }


@pytest.fixture
def begun(windows):
    """Open a sink, begin, and commit some windows."""

    def start(sink, *numbers):
        open_for(sink, CLAIM)
        sink.begin(HEADER)
        for number in numbers:
            sink.commit(windows[number], span(number), entry(number))
        return sink

    return start


def end(sink):
    output = finished(sink)
    sink.abandon()
    return output


def kill(sink):
    """Release what a dead process releases, and nothing else."""
    sink._is_new = False
    sink.abandon()


@KINDS
def test_a_pull_from_beginning_to_end(begun, tmp_path, make):
    """It leaves only the output and its receipt; size and digest are those of the output."""
    output = end(begun(make(tmp_path / "a"), 3, 2, 1))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json"}
    if make is not days:
        data = (tmp_path / "a").read_bytes()
        assert output == (len(data), hashlib.sha256(data).hexdigest(), {})
    else:
        files = contents(tmp_path / "a")
        assert output.size == sum(map(len, files.values()))
        assert output.files == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        assert output.sha256 == digest_of(tmp_path / "a").sha256


def test_plain_lines_are_the_servers_bytes(begun, windows, tmp_path):
    """They come in the order in which the windows were committed."""
    end(begun(FileSink(tmp_path / "a"), 3, 2, 1))
    lines = [line for number in (3, 2, 1) for line in windows[number].lines]
    assert (tmp_path / "a").read_bytes().splitlines() == lines


@KINDS
def test_nothing_bears_the_name_before_the_end(begun, tmp_path, make):
    """Until then there are the part, its journal and the lock, private whatever the umask."""
    before = os.umask(0)
    try:
        sink = begun(make(tmp_path / "a"), 3)
        assert {path.name for path in tmp_path.iterdir()} == {"a.part", "a.part.journal", "a.lock"}
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        end(sink)
        modes |= {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    assert {mode for name, mode in modes.items() if name != "a" and not name.startswith("day=")} == {0o600}
    assert modes["a"] == (0o700 if make is days else 0o600)


@KINDS
def test_a_killed_pull_is_gone_on_from(begun, windows, tmp_path, make):
    """Header and entries come back unchanged, and the result is that of a pull without a kill."""
    end(begun(make(tmp_path / "whole"), 3, 2, 1))
    kill(begun(make(tmp_path / "a"), 3, 2))
    sink = make(tmp_path / "a")
    saved = open_for(sink, CLAIM)
    assert (saved.header, saved.entries) == (HEADER, [entry(3), entry(2)])
    sink.commit(windows[1], span(1), entry(1))
    end(sink)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


@KINDS
def test_a_kill_in_the_midst_of_a_window_takes_that_window_alone(begun, windows, tmp_path, make):
    """Bytes after the last journaled window are cut off, and so is an incomplete journal line."""
    end(begun(make(tmp_path / "whole"), 3, 2))
    kill(begun(make(tmp_path / "a"), 3))
    with (tmp_path / "a.part").open("ab") as part, (tmp_path / "a.part.journal").open("ab") as journal:
        part.write(b'{"id":"half a win' * 1000)
        journal.write(b'00000000 {"kind":"win')
    sink = make(tmp_path / "a")
    assert open_for(sink, CLAIM).entries == [entry(3)]
    sink.commit(windows[2], span(2), entry(2))
    end(sink)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


@KINDS
def test_a_kill_before_the_name_was_given(begun, tmp_path, make):
    """The journal announces the output; the next run makes the same bytes."""
    sink = begun(make(tmp_path / "a"), 3, 2)
    for ending in (".part", ".part.journal"):
        shutil.copy(tmp_path / f"a{ending}", tmp_path / f"saved{ending}")
    named_without_receipt(sink, tmp_path / "a")
    done = (tmp_path / "a.part.journal").read_bytes()
    whole = contents(tmp_path / "a")
    kill(sink)
    shutil.rmtree(tmp_path / "a") if make is days else (tmp_path / "a").unlink()
    shutil.copy(tmp_path / "saved.part", tmp_path / "a.part")
    (tmp_path / "a.part.journal").write_bytes(done)
    (tmp_path / "a.part.new").write_bytes(b"half of it")
    again = make(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3), entry(2)]
    end(again)
    assert contents(tmp_path / "a") == whole
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json", "saved.part", "saved.part.journal"}


@KINDS
def test_a_kill_before_the_receipt(begun, tmp_path, make):
    """The journal knows that the output has its name: only the receipt is written."""
    sink = begun(make(tmp_path / "a"), 3, 2)
    named_without_receipt(sink, tmp_path / "a")
    whole = contents(tmp_path / "a")
    kill(sink)
    again = make(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3), entry(2)]
    output = end(again)
    assert contents(tmp_path / "a") == whole
    assert output[:2] == digest_of(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json"}


@KINDS
def test_an_output_that_has_its_name_takes_no_more_windows(begun, windows, tmp_path, make):
    """The next run says so, and the output is unchanged."""
    sink = begun(make(tmp_path / "a"), 3)
    named_without_receipt(sink, tmp_path / "a")
    whole = contents(tmp_path / "a")
    kill(sink)
    again = make(tmp_path / "a")
    open_for(again, CLAIM)
    with pytest.raises(OutputError, match="finished already"):
        again.commit(windows[2], span(2), entry(2))
    again.abandon()
    assert contents(tmp_path / "a") == whole


@KINDS
def test_a_window_that_is_committed_again_takes_the_place_of_its_first_commit(begun, batch_of, tmp_path, make):
    """Its new calls replace the old ones at the same position."""
    newer = batch_of(b'{"id":"new","date":"2024-05-03","time":"10:00:00"}')
    sink = begun(make(tmp_path / "a"), 3, 2)
    sink.commit(newer, span(3), b'{"n":"again"}')
    kill(sink)
    sink = make(tmp_path / "a")
    assert open_for(sink, CLAIM).entries == [entry(3), entry(2), b'{"n":"again"}']
    end(sink)
    if make is FileSink:
        ids = [line[7:10] for line in (tmp_path / "a").read_bytes().splitlines()]
        assert ids == [b"new", b"2-0", b"2-1"]
    elif make is csv:
        assert (tmp_path / "a").read_bytes() == b"id,agent_name\r\nnew,\r\n2-0,\r\n2-1,\r\n"


def test_every_bit_of_the_part_counts(begun, tmp_path):
    """A byte that another program changed never reaches the output: the run fails with our own error."""
    kill(begun(csv(tmp_path / "a"), 3, 2))
    saved = {name: (tmp_path / name).read_bytes() for name in ("a.part", "a.part.journal")}
    data = saved["a.part"]
    for index in range(len(data)):
        (tmp_path / "a.part").write_bytes(data[:index] + bytes([data[index] ^ 1 << index % 8]) + data[index + 1 :])
        sink = csv(tmp_path / "a")
        open_for(sink, CLAIM)
        with pytest.raises(OutputError, match="not as this program left it"):
            finished(sink)
        sink.abandon()
        assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("make", [FileSink, csv], ids=["lines", "csv"])
def test_every_bit_of_the_journal_counts(begun, windows, tmp_path, make):
    """The journal is refused, or the last window is read again: no output is ever wrong."""
    end(begun(make(tmp_path / "whole"), 3, 2))
    kill(begun(make(tmp_path / "a"), 3, 2))
    saved = {name: (tmp_path / name).read_bytes() for name in ("a.part", "a.part.journal")}
    data = saved["a.part.journal"]
    refused = 0
    for index in range(len(data)):
        (tmp_path / "a.part").write_bytes(saved["a.part"])
        (tmp_path / "a.part.journal").write_bytes(
            data[:index] + bytes([data[index] ^ 1 << index % 8]) + data[index + 1 :]
        )
        sink = make(tmp_path / "a")
        try:
            entries = open_for(sink, CLAIM).entries
        except OutputError:
            refused += 1
            continue
        assert entries == [entry(3)]
        sink.commit(windows[2], span(2), entry(2))
        end(sink)
        assert contents(tmp_path / "a") == contents(tmp_path / "whole")
        (tmp_path / "a").unlink()
        (tmp_path / "a.receipt.json").unlink()
    assert refused == len(data) - 1


@KINDS
def test_a_part_that_lost_bytes_is_refused(begun, tmp_path, make):
    """The journal records its length."""
    kill(begun(make(tmp_path / "a"), 3))
    data = (tmp_path / "a.part").read_bytes()
    (tmp_path / "a.part").write_bytes(data[:-1])
    with pytest.raises(OutputError, match="not as this program left it"):
        open_for(make(tmp_path / "a"), CLAIM)


@KINDS
def test_a_missing_part_is_an_output_error(begun, tmp_path, make):
    """A journal alone cannot be resumed."""
    kill(begun(make(tmp_path / "a"), 3))
    (tmp_path / "a.part").unlink()
    with pytest.raises(OutputError):
        open_for(make(tmp_path / "a"), CLAIM)


@KINDS
def test_a_fresh_pull_drops_what_was_left(begun, windows, tmp_path, make):
    """It drops even unreadable files, and none of their content is in the output."""
    end(begun(make(tmp_path / "whole"), 2))
    kill(begun(make(tmp_path / "a"), 3, 2))
    journal = tmp_path / "a.part.journal"
    journal.write_bytes(journal.read_bytes()[:40] + b"damaged\n")
    sink = make(tmp_path / "a")
    assert open_for(sink, CLAIM, fresh=True) is None
    sink.begin(HEADER)
    sink.commit(windows[2], span(2), entry(2))
    end(sink)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json", "whole", "whole.receipt.json"}


@KINDS
def test_a_fresh_pull_that_never_begins_leaves_what_was_left(begun, tmp_path, make):
    """A failed login destroys no earlier work."""
    kill(begun(make(tmp_path / "a"), 3, 2))
    sink = make(tmp_path / "a")
    assert open_for(sink, CLAIM, fresh=True) is None
    sink.abandon()
    again = make(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3), entry(2)]
    end(again)


@KINDS
def test_beginning_anew_over_what_was_read(begun, windows, tmp_path, make):
    """Windows of another pull are dropped when this one begins."""
    end(begun(make(tmp_path / "whole"), 2))
    kill(begun(make(tmp_path / "a"), 3, 1))
    sink = make(tmp_path / "a")
    assert open_for(sink, CLAIM) is not None
    sink.begin(HEADER)
    sink.commit(windows[2], span(2), entry(2))
    end(sink)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


@KINDS
def test_nothing_committed_leaves_nothing(begun, tmp_path, make):
    """After opening or beginning alone no part is left."""
    open_for(make(tmp_path / "a"), CLAIM)
    sink = make(tmp_path / "b")
    begun(sink)
    sink.abandon()
    sink.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


@KINDS
def test_a_second_run_is_locked_out(begun, tmp_path, make):
    """It fails at once, even with fresh, and takes nothing from the first."""
    first = begun(make(tmp_path / "a"), 3)
    for fresh in (False, True):
        second = make(tmp_path / "a")
        with pytest.raises(OutputLockedError):
            open_for(second, CLAIM, fresh=fresh)
        second.abandon()
    end(first)


@KINDS
def test_what_exists_is_refused(tmp_path, make):
    """The error comes before any request, and the file is unchanged; so is a link that leads nowhere."""
    (tmp_path / "a").mkdir() if make is days else (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        open_for(make(tmp_path / "a"), CLAIM)
    if make is not days:
        (tmp_path / "b").symlink_to(tmp_path / "nowhere")
        with pytest.raises(OutputError, match="exists"):
            open_for(make(tmp_path / "b"), CLAIM)
        assert (tmp_path / "a").read_text() == "mine"


@KINDS
def test_what_appears_meanwhile_is_not_replaced(begun, tmp_path, make):
    """A file that took the name first keeps it, and the pull can be finished later."""
    sink = begun(make(tmp_path / "a"), 3)
    (tmp_path / "a").mkdir() if make is days else (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        finished(sink)
    sink.abandon()
    if make is days:
        (tmp_path / "a").rmdir()
    else:
        assert (tmp_path / "a").read_text() == "mine"
        (tmp_path / "a").unlink()
    again = make(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3)]
    end(again)


@KINDS
def test_overwriting_replaces_at_the_end_only(begun, tmp_path, make):
    """The old output stays complete until the new one is, and then it is removed."""
    end(begun(make(tmp_path / "a"), 2))
    old = contents(tmp_path / "a")
    sink = begun(make(tmp_path / "a", overwrite=True), 3)
    assert contents(tmp_path / "a") == old
    end(sink)
    end(begun(make(tmp_path / "b"), 3))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for path in (tmp_path / "b", tmp_path / "b.receipt.json"):
        remove(path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json"}


@KINDS
def test_overwriting_does_not_change_the_kind(tmp_path, make):
    """A directory is never replaced by a file, nor a file by a directory."""
    (tmp_path / "a").write_text("mine") if make is days else (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="directory"):
        open_for(make(tmp_path / "a", overwrite=True), CLAIM)


def test_a_directory_that_stepped_aside_goes(begun, tmp_path):
    """A kill after the new directory got its name leaves the old one; the next run removes it."""
    sink = begun(days(tmp_path / "a", overwrite=True), 3)
    named_without_receipt(sink, tmp_path / "a")
    kill(sink)
    (tmp_path / "a.part.old").mkdir()
    again = days(tmp_path / "a", overwrite=True)
    open_for(again, CLAIM)
    end(again)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.receipt.json"}


def test_the_last_word_of_a_journal_counts(begun, windows, tmp_path):
    """After a failed finish, more windows, another finish and a kill, the output is that of the second finish."""
    sink = begun(FileSink(tmp_path / "a"), 3)
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(OutputError, match="exists"):
        finished(sink)
    kill(sink)
    (tmp_path / "a").unlink()
    sink = FileSink(tmp_path / "a")
    open_for(sink, CLAIM)
    sink.commit(windows[2], span(2), entry(2))
    named_without_receipt(sink, tmp_path / "a")
    kill(sink)
    again = FileSink(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3), entry(2)]
    end(again)
    assert len((tmp_path / "a").read_bytes().splitlines()) == 4


@pytest.mark.parametrize("left", ["a.part", "a.part.new", "a.lock"])
@KINDS
def test_planted_links_are_not_followed(begun, tmp_path, make, left):
    """A link in place of our own file is refused; link and target are unchanged."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / left).symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError):
        begun(make(tmp_path / "a"), 3)
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / left).readlink() == tmp_path / "precious"


@pytest.mark.parametrize("place", ["none/a", "file/a", "x" * 250, "x" * 300])
@KINDS
def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path, make, place):
    """The error gives the reason, such as a missing directory or a long name, but no path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        open_for(make(tmp_path / place), CLAIM)
    assert str(tmp_path) not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
@KINDS
def test_a_full_disk_takes_the_window_alone(begun, windows, tmp_path, make):
    """Earlier commits are there for the next run."""
    sink = begun(make(tmp_path / "a"), 3)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, sink._descriptor)
    os.close(full)
    with pytest.raises(OutputError, match="No space"):
        sink.commit(windows[2], span(2), entry(2))
    sink.abandon()
    again = make(tmp_path / "a")
    assert open_for(again, CLAIM).entries == [entry(3)]
    end(again)


def test_a_receipt_that_cannot_be_saved_leaves_the_output(begun, tmp_path):
    """The next run counts the calls again, but reads none."""
    sink = begun(FileSink(tmp_path / "a"), 3)
    named_without_receipt(sink, tmp_path / "a")
    sink.abandon()
    assert (tmp_path / "a").exists()
