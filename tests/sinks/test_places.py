"""Where an output may be, and which files there are ours: all others stay as they are."""

from __future__ import annotations

import os
import shutil

import pytest

from servetel_async import ConfigurationError, OutputError
from servetel_async.sinks.destination import sink_for
from servetel_async.sinks.files import ownership, places
from servetel_async.sinks.files.atomic import remove, save_private
from servetel_async.sinks.sink import PullIdentity, Span
from tests.sinks.life import finished, open_for

CLAIM = PullIdentity("pull", "scope", "account")
RECEIPT = b'{"destination":"a"}'
DAY = Span("2024-05-01 00:00:00", "2024-05-01 23:59:59")
NAMES = ("a.ndjson", "a.csv", "a.ndjson.gz", "a.parquet", "a/", "a.db", "a.duckdb")
FILES = ("a.ndjson", "a.csv", "a.ndjson.gz", "a.parquet")
DATABASES = ("a.db", "a.duckdb")
#: A user's own text.
THESIS = "not a call in it\n"


def tree(directory):
    """Each path below, with its kind and its bytes."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        else:
            found[name] = ("directory", b"") if path.is_dir() else ("file", path.read_bytes())
    return found


@pytest.fixture
def pull(tmp_path, batch_of):
    """Write one window of one call; finish unless it is to be killed before."""

    def run(name, *, killed=False, fresh=False, number=1, **options):
        sink = sink_for(f"{tmp_path}/{name}", **options)
        try:
            open_for(sink, CLAIM, fresh=fresh)
            sink.begin(b'{"pull":"p"}')
            sink.commit(
                batch_of(b'{"id":"%d","date":"2024-05-01","time":"10:00:00","agent_name":"A"}' % number), DAY, b"{}"
            )
            if not killed:
                finished(sink, RECEIPT)
        finally:
            sink.abandon()

    return run


def plant(path, kind):
    """Put a user's own file, directory or link there."""
    if kind == "directory":
        path.mkdir()
        (path / "thesis").write_text(THESIS)
    elif kind == "link":
        (path.parent / "elsewhere").write_text(THESIS)
        path.symlink_to("elsewhere")
    else:
        path.write_text(THESIS)


@pytest.mark.parametrize("text", ["./", "../", "/", "x/../", "x/..//", "/.//"])
def test_a_destination_without_a_name_of_its_own_is_refused(text):
    """Neither the current directory nor its parent nor the root is replaced."""
    with pytest.raises(ConfigurationError, match="no name of its own") as caught:
        sink_for(text)
    assert "./calls/" in caught.value.fix


@pytest.mark.parametrize("text", ["a b/", "%41/", "é/", "-x.ndjson", "x.ndjson/", "x/./a.db", "x/./"])
def test_odd_names_are_names(text, tmp_path, monkeypatch):
    """Any name that the file system accepts works."""
    monkeypatch.chdir(tmp_path)
    assert sink_for(text).place is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_later_chdir_moves_nothing(name, tmp_path, monkeypatch, batch_of):
    """A relative destination is resolved once, when the pull begins."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path / "begun")
    sink = sink_for(name)
    for step in (
        lambda: open_for(sink, CLAIM),
        lambda: sink.begin(b"{}"),
        lambda: sink.commit(batch_of(b'{"id":"1"}'), DAY, b"{}"),
        lambda: finished(sink, RECEIPT),
        sink.abandon,
    ):
        step()
        monkeypatch.chdir(tmp_path / "later")
    assert {each.name for each in (tmp_path / "begun").iterdir()} == {
        name.rstrip("/"),
        f"{name.rstrip('/')}.receipt.json",
    }
    assert tree(tmp_path / "later") == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_link_of_a_parent_is_followed_once(name, tmp_path, batch_of):
    """A link that points to another directory later moves no file."""
    (tmp_path / "begun").mkdir()
    (tmp_path / "later").mkdir()
    (tmp_path / "current").symlink_to("begun")
    sink = sink_for(f"{tmp_path}/current/{name}")
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("later")
    sink.commit(batch_of(b'{"id":"1"}'), DAY, b"{}")
    finished(sink, RECEIPT)
    sink.abandon()
    assert len(list((tmp_path / "begun").iterdir())) == 2
    assert tree(tmp_path / "later") == {}


def test_a_current_directory_that_is_gone(tmp_path, monkeypatch):
    """The error says so; an absolute path still works."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match="current directory is gone"):
        sink_for("a.ndjson")
    assert sink_for(tmp_path / "a.ndjson").place == tmp_path / "a.ndjson"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_the_place_of_the_output_is_refused(name, overwrite, tmp_path, pull):
    """It is neither followed nor replaced."""
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "thesis").write_text(THESIS)
    (tmp_path / name.rstrip("/")).symlink_to("big" if name == "a/" else "big/thesis")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="symbolic link"):
        pull(name, overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
@pytest.mark.parametrize(
    "ending", [".part", ".part.new", ".part.journal", ".lock", ".receipt.json", ".receipt.json.part"]
)
@pytest.mark.parametrize("name", ["a.ndjson", "a.csv", "a/"])
@pytest.mark.parametrize("fresh", [False, True])
def test_what_has_the_name_of_a_file_of_ours_and_is_not_is_refused(name, ending, kind, fresh, tmp_path):
    """The error comes before any request; the file is unchanged, even with fresh or overwrite."""
    plant(tmp_path / f"a{name.removeprefix('a').rstrip('/')}{ending}", kind)
    before = tree(tmp_path)
    sink = sink_for(f"{tmp_path}/{name}", overwrite=True)
    with pytest.raises(OutputError):
        open_for(sink, CLAIM, fresh=fresh)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("ending", [".part", ".part.new"])
def test_what_appears_after_the_first_look_is_refused_too(ending, tmp_path):
    """A file that appears between opening and beginning stays as it is."""
    sink = sink_for(tmp_path / "a.csv")
    open_for(sink, CLAIM)
    plant(tmp_path / f"a.csv{ending}", "file")
    with pytest.raises(OutputError, match="not made by this program"):
        sink.begin(b"{}")
    sink.abandon()
    assert (tmp_path / f"a.csv{ending}").read_text() == THESIS


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *(
            ("a.db", ending)
            for ending in (".part", ".part-wal", ".part-journal", ".quarantine.ndjson", ".receipt.json")
        ),
        *(("a.duckdb", ending) for ending in (".part", ".part.new", ".part.wal", ".lock")),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_the_same_beside_a_database(name, ending, kind, fresh, tmp_path):
    """A database is built from these files, so they are checked too."""
    plant(tmp_path / f"{name}{ending}", kind)
    before = tree(tmp_path)
    sink = sink_for(tmp_path / name)
    with pytest.raises(OutputError):
        open_for(sink, CLAIM, fresh=fresh)
    assert tree(tmp_path) == before


def test_another_database_under_the_name_of_a_part_is_refused(tmp_path, pull):
    """It is a user's real SQLite database, without a table of ours."""
    sqlite3 = pytest.importorskip("sqlite3")
    with sqlite3.connect(tmp_path / "a.db.part") as database:
        database.execute("CREATE TABLE theses (text)")
    database.close()
    before = tree(tmp_path)
    for fresh in (False, True):
        with pytest.raises(OutputError, match="not made by this program"):
            pull("a.db", fresh=fresh)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_beside_ours_that_we_never_make_is_left(name, tmp_path, pull):
    """``DEST.part.old`` is a directory that was replaced: for a file we never make one."""
    for kind, ending in (("file", ".part.old"), ("directory", ".bak")):
        plant(tmp_path / f"{name}{ending}", kind)
    before = tree(tmp_path)
    pull(name)
    assert before.items() <= tree(tmp_path).items()


@pytest.mark.parametrize(
    ("before", "fits"),
    [
        ({}, True),
        ({"_made_by_servetel_async": ""}, True),
        ({"_made_by_servetel_async": "", "day=2024-05-01/part-0.parquet": "x"}, True),
        ({"thesis": THESIS}, False),
        ({"_made_by_servetel_async": "", "thesis": THESIS}, False),
        ({"_made_by_servetel_async": "", "day=2024-05-01/thesis": THESIS}, False),
        ({"_made_by_servetel_async": "", "mine/part-0.parquet": "x"}, False),
        ({"_made_by_servetel_async": "", "day=2024-05-01": THESIS}, False),
        ({"day=2024-05-01/part-0.parquet": "of an earlier version"}, False),
    ],
    ids=str,
)
def test_which_directory_is_replaced(before, fits, tmp_path, pull):
    """It is empty, or has the marker and only files of ours; one of an earlier version has no marker."""
    (tmp_path / "a").mkdir()
    for name, text in before.items():
        (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "a" / name).write_text(text)
    there = tree(tmp_path)
    with pytest.raises(OutputError, match="exists"):
        pull("a/")
    assert tree(tmp_path) == there
    if fits:
        pull("a/", overwrite=True)
        assert set(tree(tmp_path / "a")) == {
            *("_made_by_servetel_async", "day=2024-05-01", "day=2024-05-01/part-0.parquet")
        }
        return
    with pytest.raises(OutputError, match="not made by this program") as caught:
        pull("a/", overwrite=True)
    assert "move or remove it yourself" in caught.value.fix.lower()
    assert tree(tmp_path) == there


@pytest.mark.parametrize("ending", [".part.new", ".part.old"])
def test_a_directory_of_ours_that_a_kill_left_goes(ending, tmp_path, pull):
    """A kill may leave only the marker, or an unfinished day."""
    pull("a/", killed=True)
    left = tmp_path / f"a{ending}"
    ownership.make_directory(left)
    (left / "day=2024-05-01").mkdir()
    (left / "day=2024-05-01" / "part-0.parquet").write_bytes(b"half")
    pull("a/", fresh=True)
    assert {each.name for each in tmp_path.iterdir()} == {"a", "a.receipt.json"}


def test_a_foreign_file_in_a_directory_of_ours_outlives_its_removal(tmp_path):
    """A file that appears at that moment stays, and so does its directory."""
    for name in ("root", "day"):
        directory = tmp_path / name
        ownership.make_directory(directory)
        (directory / "day=2024-05-01").mkdir()
        (directory / "day=2024-05-01" / "part-0.parquet").touch()
        thesis = directory / ("thesis" if name == "root" else "day=2024-05-01/thesis")
        thesis.write_text(THESIS)
        remove(directory)
        assert thesis.read_text() == THESIS
        assert not (directory / "day=2024-05-01" / "part-0.parquet").exists()


def test_a_foreign_directory_that_appears_meanwhile_is_not_replaced(tmp_path, batch_of):
    """The check is made when the name is given, also with --overwrite."""
    sink = sink_for(f"{tmp_path}/a/", overwrite=True)
    open_for(sink, CLAIM)
    sink.begin(b"{}")
    sink.commit(batch_of(b'{"id":"1"}'), DAY, b"{}")
    plant(tmp_path / "a", "directory")
    with pytest.raises(OutputError, match="not made by this program"):
        finished(sink)
    sink.abandon()
    assert (tmp_path / "a" / "thesis").read_text() == THESIS


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv"])
def test_a_pipe_in_the_place_of_a_file_is_not_replaced(name, tmp_path, pull):
    """Only a regular file is replaced."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(OutputError):
        pull(name, overwrite=True)
    assert (tmp_path / name).is_fifo()


@pytest.mark.parametrize("size", range(len(b'0123abcd {"kind":"begin",') + 1))
def test_every_beginning_of_a_journal_is_ours(size, tmp_path, pull):
    """A kill may cut it anywhere; the next run still accepts it."""
    pull("whole.ndjson", killed=True)
    journal = tmp_path / "a.ndjson.part.journal"
    journal.write_bytes((tmp_path / "whole.ndjson.part.journal").read_bytes()[:size])
    journal.chmod(0o600)
    pull("a.ndjson")
    assert not journal.exists()


def test_a_journal_whose_part_was_not_made_yet_begins_anew(tmp_path, pull):
    """The journal is made first, because it shows that the part is ours."""
    pull("a.ndjson", killed=True)
    journal = tmp_path / "a.ndjson.part.journal"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    (tmp_path / "a.ndjson.part").unlink()
    pull("a.ndjson")
    assert {each.name for each in tmp_path.iterdir()} == {"a.ndjson", "a.ndjson.receipt.json"}


@pytest.mark.parametrize("left", [b"", b"{", b'{\n  "destination"', b'{\n  "destination": "a", "que'])
def test_a_receipt_that_a_kill_cut_off_is_replaced(left, tmp_path):
    """It begins like our receipts."""
    (tmp_path / "a.receipt.json.part").write_bytes(left)
    save_private(tmp_path / "a.receipt.json", RECEIPT)
    assert tree(tmp_path) == {"a.receipt.json": ("file", RECEIPT)}


def test_a_foreign_receipt_that_appears_meanwhile_is_kept(tmp_path):
    """Our receipt then cannot be saved."""
    plant(tmp_path / "a.receipt.json", "file")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="not made by this program"):
        save_private(tmp_path / "a.receipt.json", RECEIPT)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", DATABASES)
def test_a_part_of_ours_that_holds_nothing_yet_is_taken(name, tmp_path, pull):
    """A kill right after it was made leaves an empty file, or a database without tables."""
    part = tmp_path / f"{name}.part"
    if name == "a.db":
        part.touch()
    else:
        pytest.importorskip("duckdb").connect(str(part)).close()
    part.chmod(0o600)
    pull(name)
    assert {each.name for each in tmp_path.iterdir()} == {name, f"{name}.receipt.json"}


def test_a_sqlite_part_of_one_empty_page_is_taken(tmp_path, pull):
    """A kill came between the first page and the first table."""
    sqlite3 = pytest.importorskip("sqlite3")
    database = sqlite3.connect(tmp_path / "a.db.part")
    database.execute("PRAGMA page_size = 16384")
    database.execute("PRAGMA journal_mode = WAL")
    database.close()
    assert (tmp_path / "a.db.part").stat().st_size == 16384
    (tmp_path / "a.db.part").chmod(0o600)
    pull("a.db")
    assert {each.name for each in tmp_path.iterdir()} == {"a.db", "a.db.receipt.json"}


@pytest.mark.parametrize("left", ["nothing", "half of its first page"])
@pytest.mark.parametrize("header", ["whole", "half"])
def test_a_sqlite_journal_that_was_not_synced_yet_is_ours(left, header, tmp_path, pull):
    """A kill during the first page leaves it with zeros, because its magic is written at the first sync."""
    sqlite3 = pytest.importorskip("sqlite3")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    database = sqlite3.connect(scratch / "b.db", isolation_level=None)
    database.execute("PRAGMA page_size = 16384")
    database.execute("BEGIN IMMEDIATE")
    database.execute("PRAGMA user_version = 1")
    journal = (scratch / "b.db-journal").read_bytes()
    database.execute("COMMIT")
    database.close()
    page = (scratch / "b.db").read_bytes()
    assert (len(journal), journal[:12], len(page)) == (512, bytes(12), 16384)
    files = {
        "a.db.part": b"" if left == "nothing" else page[:8192],
        "a.db.part-journal": journal if header == "whole" else journal[:14],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)

    pull("a.db")

    assert {each.name for each in tmp_path.iterdir()} == {"a.db", "a.db.receipt.json", "scratch"}


def test_a_sqlite_part_of_one_page_with_a_view_is_not_taken(tmp_path, pull):
    """A view needs no page of its own, but a user made it."""
    sqlite3 = pytest.importorskip("sqlite3")
    database = sqlite3.connect(tmp_path / "a.db.part")
    database.execute("CREATE VIEW mine AS SELECT 1")
    database.close()
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="not made by this program"):
        pull("a.db")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("at", [0, 1 << 20, (1 << 20) - 5])
def test_a_text_is_found_anywhere_in_a_large_file(at, tmp_path):
    """It may lie across two pieces of the file."""
    file = tmp_path / "a"
    file.write_bytes(b"x" * at + b"servetel_pulls" + b"x" * 100)
    assert ownership.holds(file, b"servetel_pulls")
    assert not ownership.holds(file, b"servetel_windows")
    assert not ownership.holds(tmp_path, b"x")


def test_mount_points_with_odd_names(tmp_path, monkeypatch):
    """The system writes spaces and backslashes as octal digits."""
    table = tmp_path / "mountinfo"
    table.write_text(r"36 35 98:0 / /srv/my\040data\134x rw,noatime - ext3 /dev/root rw" + "\n")
    monkeypatch.setattr(places, "_MOUNTS", table)
    with pytest.raises(OutputError, match="is a mount point"):
        places.refuse_mount_point(places.Path(r"/srv/my data\x"), "x")
    places.refuse_mount_point(places.Path("/srv/my"), "my")


def test_mount_points_without_a_list_of_them(tmp_path, monkeypatch):
    """On other systems the devices of a directory and its parent decide."""
    monkeypatch.setattr(places, "_MOUNTS", tmp_path / "none")
    with pytest.raises(OutputError, match="is a mount point"):
        places.refuse_mount_point(places.Path("/"), "/")
    places.refuse_mount_point(tmp_path, "a")


def test_a_copy_of_a_directory_of_ours_is_ours(tmp_path, pull):
    """The marker is copied too."""
    pull("a/")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    pull("b/", overwrite=True, number=2)
    assert tree(tmp_path / "a").keys() == tree(tmp_path / "b").keys()


def test_readers_do_not_see_the_marker(tmp_path, pull):
    """DuckDB and Arrow read the calls; Polars and pandas too, as the tests of Parquet show."""
    pull("a/")
    duckdb, dataset = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow.dataset")
    with duckdb.connect(":memory:") as database:
        read = "SELECT id, CAST(day AS text) FROM read_parquet(?, hive_partitioning = true)"
        assert database.execute(read, [f"{tmp_path}/a/**/*.parquet"]).fetchall() == [("1", "2024-05-01")]
    assert dataset.dataset(tmp_path / "a", partitioning="hive").count_rows() == 1
    assert (tmp_path / "a" / ownership.MARKER).read_bytes() == b""
