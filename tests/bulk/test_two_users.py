"""Another user of the machine plants files where a pull will look: in a directory like /tmp, open to all users.

The tests plant them as a real other user, with only that user's rights.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from servetel_async import CallQuery, OutputError, ServetelError
from servetel_async.bulk.check import check
from servetel_async.bulk.pull import pull
from tests.bulk.living_server import LivingServer, every

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may act for two users"),
    pytest.mark.timeout(60),
]

NOW = "2024-05-10 12:00:00"
DAYS = CallQuery(from_date="2024-05-01", to_date="2024-05-07")
#: Only root may change it.
SHADOW = Path("/etc/shadow")
FILES, DATABASES = ["a.ndjson", "a.csv", "a.parquet", "days/"], ["a.db", "a.duckdb"]
KINDS = FILES + DATABASES


@pytest.fixture
def shared(request):
    """A directory in which every user may create files; if it is sticky, only their owner may remove them."""
    directory = Path(tempfile.mkdtemp(prefix="servetel-two-users-"))
    directory.chmod(getattr(request, "param", 0o1777))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def server():
    async with LivingServer([*every(120, "2024-05-01", NOW)], NOW) as server:
        yield server


def as_another_user(command, directory):
    """Run a shell command as an unprivileged user."""
    who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    subprocess.run([*who, "sh", "-ec", command], cwd=directory, check=True, timeout=20)


class StopError(Exception):
    """Raised by a program to end a pull."""


async def interrupted(server, target):
    """Leave the state of a killed pull."""

    def stop(progress):
        if progress.windows:
            raise StopError

    async with server.client(page_size=2) as client:
        with contextlib.suppress(StopError):
            await pull(client, target, DAYS, on_progress=stop)


def name_in(directory, kind):
    return f"{directory}/{kind}"


@pytest.mark.parametrize("shared", [0o1777, 0o777], ids=oct, indirect=True)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_state_of_another_users_pull_is_not_resumed(kind, server, shared, tmp_path):
    """The files are whole and their checksums agree, but their owner may have written anything into them."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    await interrupted(server, name_in(theirs, kind))
    left = sorted(each.name for each in theirs.iterdir())
    assert left
    for each in theirs.iterdir():
        shutil.move(each, shared / each.name)
    for each in [*shared.rglob("*")]:
        os.chown(each, 65534, 65534)
    async with server.client() as client:
        with pytest.raises(OutputError) as refused:
            await asyncio.wait_for(pull(client, name_in(shared, kind), DAYS), 30)
    reasons = ("another user", "was not made by this program", "is open to all users")
    assert any(reason in str(refused.value) for reason in reasons)
    assert sorted(each.name for each in shared.iterdir()) == left


PLANTED = {
    "a pipe": "mkfifo {}",
    "a link to a file of the victim": "ln -s /etc/shadow {}",
    "a link to a device": "ln -s /dev/zero {}",
    "a link to nothing": "ln -s /nowhere/at/all {}",
    "a directory": "mkdir {} && touch {}/x",
    "a file of its own": "echo x > {}",
    "an empty file of its own": ": > {}",
}
STATE = {
    "a.ndjson": [".part", ".part.journal", ".lock", ".receipt.json", ".quarantine.ndjson", ".receipt.json.part"],
    "a.csv": [".part", ".part.journal", ".part.new", ".lock"],
    "days/": [".part", ".part.journal", ".part.new", ".part.old", ".lock"],
    "a.db": [".part", ".part-wal", ".part-shm", ".part-journal", ".lock", ".receipt.json"],
    "a.duckdb": [".part", ".part.wal", ".lock"],
}


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize(("kind", "ending"), [(kind, ending) for kind in STATE for ending in STATE[kind]])
async def test_what_another_user_planted_is_refused_or_has_no_effect(kind, ending, planted, server, shared):
    """No hang, no call from elsewhere, no changed file of the victim; otherwise an error names the file."""
    before = SHADOW.stat()
    name = f"{kind.rstrip('/')}{ending}"
    as_another_user(PLANTED[planted].format(name, name), shared)
    async with server.client() as client:
        try:
            receipt = await asyncio.wait_for(pull(client, name_in(shared, kind), DAYS), 30)
        except ServetelError as error:
            assert isinstance(error, OutputError)
            assert error.fix
            return
        assert receipt.complete
        assert (await check(client, name_in(shared, kind))).agrees
    after = SHADOW.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_mode) == (after.st_mtime_ns, after.st_size, after.st_mode)
    for each in [*shared.rglob("*")]:
        if each.is_file() and not each.is_symlink() and each.stat().st_uid == 0:
            assert not each.stat().st_mode & 0o077, each.name


@pytest.mark.parametrize("planted", ["a pipe", "a link to a device", "a file of its own"])
async def test_a_receipt_that_another_user_planted_is_not_believed(planted, server, shared):
    """A check neither waits for a pipe nor reads a device, and refuses any file that is not a receipt."""
    (shared / "a.ndjson").write_bytes(b"{}\n")
    as_another_user(PLANTED[planted].format("a.ndjson.receipt.json"), shared)
    async with server.client() as client:
        with pytest.raises(ServetelError):
            await asyncio.wait_for(check(client, name_in(shared, "a.ndjson")), 30)


@pytest.mark.parametrize("kind", ["a.db", "a.duckdb"])
@pytest.mark.parametrize("owner", [0, 65534], ids=["own", "of another user"])
async def test_a_database_of_another_user_is_not_kept_current(kind, owner, server, shared):
    """Its ledger may claim calls that were never read. A database of this user is kept current."""
    target = name_in(shared, kind)
    async with server.client() as client:
        await pull(client, target, DAYS)
        os.chown(target, owner, owner)
        if owner == 0:
            assert (await pull(client, target, DAYS)).complete
            return
        before = Path(target).read_bytes()
        with pytest.raises(OutputError, match="belongs to another user"):
            await pull(client, target, DAYS)
    assert Path(target).read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "ending"), [("a.db", "-wal"), ("a.db", "-journal"), ("a.db", "-shm"), ("a.duckdb", ".wal")]
)
@pytest.mark.parametrize("planted", ["a pipe", "a link to a file of the victim", "a file of its own"])
async def test_a_log_that_another_user_planted_is_not_brought_into_a_database(kind, ending, planted, server, shared):
    """The library would open it by name: a pull and a check refuse it first, and the database is unchanged."""
    target = name_in(shared, kind)
    async with server.client() as client:
        await pull(client, target, DAYS)
        before = Path(target).read_bytes()
        as_another_user(PLANTED[planted].format(f"{kind}{ending}", f"{kind}{ending}"), shared)
        for asked in (pull(client, target, DAYS), check(client, target)):
            with pytest.raises(OutputError, match=r"cannot be trusted"):
                await asyncio.wait_for(asked, 30)
    assert Path(target).read_bytes() == before


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize("shared", [0o777], ids=oct, indirect=True)
async def test_a_database_in_a_directory_that_is_open_to_all_is_refused(kind, server, shared):
    """Its library opens files by their names, and every user may exchange them there."""
    async with server.client() as client:
        for ask in (pull, check):
            with pytest.raises(OutputError, match="is open to all users"):
                await ask(client, name_in(shared, kind), DAYS)
    assert [each.name for each in shared.iterdir()] == []


@pytest.mark.parametrize(
    ("kind", "shared"),
    [(kind, 0o1777) for kind in KINDS] + [(kind, 0o777) for kind in FILES],
    indirect=["shared"],
)
async def test_an_attacker_who_exchanges_names_all_the_time_gains_nothing(kind, server, shared):
    """Links, pipes and forged files come and go under every name of a pull's state, between each check and use.

    Each run ends with the API's calls only or with an error of ours, and no file of the victim changes.
    """
    before = SHADOW.stat()
    bare = kind.rstrip("/")
    names = " ".join(f"{bare}{ending}" for ending in (*STATE.get(kind, [".part", ".part.journal", ".lock"]), ""))
    exchange = f"""
        for round in $(seq 100000); do
            for name in {names}; do
                ln -s /etc/shadow $name; rm -f $name; mkfifo $name; rm -f $name; echo forged > $name; rm -f $name
            done
        done"""
    who = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    attacker = subprocess.Popen(
        [*who, "sh", "-c", exchange],
        cwd=shared,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    outcomes = []
    try:
        for _ in range(10):
            async with server.client() as client:
                try:
                    again = kind not in ("a.db", "a.duckdb")
                    receipt = await asyncio.wait_for(pull(client, name_in(shared, kind), DAYS, overwrite=again), 30)
                except ServetelError as error:
                    assert isinstance(error, OutputError), repr(error)
                    outcomes.append(str(error))
                else:
                    outcomes.append(receipt.complete)
                    assert receipt.complete
    finally:
        os.killpg(attacker.pid, signal.SIGKILL)
        attacker.communicate()  # until the last program of the attacker has closed its end
    assert outcomes
    after = SHADOW.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_mode) == (after.st_mtime_ns, after.st_size, after.st_mode)
