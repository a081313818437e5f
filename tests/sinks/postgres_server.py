"""A real PostgreSQL of Debian's package: its own data directory, a free loopback port, and a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
_ACCOUNT = "postgres"


class PostgresServer(NamedTuple):
    """The server's address and login."""

    port: int
    user: str
    password: str
    process: subprocess.Popen[bytes]

    def address(self, database: str = "postgres", *, password: str | None = None) -> str:
        secret = self.password if password is None else password
        return f"postgresql://{self.user}:{secret}@127.0.0.1:{self.port}/{database}"


def _drop() -> dict[str, object]:
    """Drop root's rights: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(_ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Read the server's log until it is ready."""
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if b"ready to accept connections" in line:
            return
    log.write_bytes(said)
    pytest.fail(f"PostgreSQL did not start: {said.decode(errors='replace')[-800:]}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start the server once for all tests; stop it by its own process."""
    if not _PROGRAMS:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(_ACCOUNT)
        except KeyError:
            pytest.skip(f"PostgreSQL does not run as root, and there is no user {_ACCOUNT}")
    programs = _PROGRAMS[-1].parent
    password, rights = secrets.token_urlsafe(18), _drop()
    # Not in pytest's directories: those are closed to the other user.
    home = Path(tempfile.mkdtemp(prefix="servetel-postgres-", dir="/tmp"))
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    try:
        (home / "password").write_text(password + "\n")
        if rights:
            for path in (home, home / "password"):
                shutil.chown(path, _ACCOUNT, _ACCOUNT)
        subprocess.run(
            [
                programs / "initdb",
                f"--pgdata={home / 'data'}",
                "--username=puller",
                f"--pwfile={home / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd=home,
            env=environment,
            **rights,
        )
        port = _free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        process = subprocess.Popen(
            [programs / "postgres", "-D", home / "data", *(f"--{name}={value}" for name, value in settings.items())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=home,
            env=environment,
            **rights,
        )
        try:
            _wait(process, home / "log")
            yield PostgresServer(port, "puller", password, process)
        finally:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
            process.communicate(timeout=30)
    finally:
        shutil.rmtree(home)
