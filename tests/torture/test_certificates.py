"""P15: a wrong certificate is not retried, and its server gets no token."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl

import aiohttp
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from servetel_async import TLSError
from tests.tls import serving, trusting
from tests.torture.report import TORTURE, measured
from tests.torture.storm import FIRST, LAST, client_of
from tests.transport.wire_server import WireServer

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
HOST = "127.0.0.1"

pytestmark = pytest.mark.timeout(600 if TORTURE else 60)


def signed_by_itself(directory) -> ssl.SSLContext:
    """A self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "leaf.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


FAULTS = {
    "untrusted": lambda authority, directory: serving(trustme.CA().issue_cert(HOST)),
    "wrong host": lambda authority, directory: serving(authority.issue_cert("api.example.com")),
    "wrong address": lambda authority, directory: serving(authority.issue_cert("127.0.0.2")),
    "expired": lambda authority, directory: serving(
        authority.issue_cert(HOST, not_before=NOW - 9 * DAY, not_after=NOW - DAY)
    ),
    "not yet valid": lambda authority, directory: serving(
        authority.issue_cert(HOST, not_before=NOW + DAY, not_after=NOW + 9 * DAY)
    ),
    "signed by itself": lambda authority, directory: signed_by_itself(directory),
}
"""Each makes what its server serves."""


async def stream(client, directory):
    return [call.id async for call in client.calls(FIRST, LAST)]


WAYS = {
    "a page": lambda client, directory: client.fetch_page(),
    "a count": lambda client, directory: client.count(FIRST, LAST),
    "a stream": stream,
    "a pull": lambda client, directory: client.pull(directory / "calls.ndjson", FIRST, LAST),
    "a login": lambda client, directory: client.fetch_page(),
}


LOGIN = {"token": None, "email": "a@example.com", "password": "a password"}


@pytest.fixture
async def session(authority):
    """A session that trusts the tests' authority."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(authority))) as session:
        yield session


@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_certificate_is_final(way, authority, session, tmp_path):
    """Each certificate fault costs one connection, no request and no token; the error says what to check."""
    connections = {}
    for name, make in FAULTS.items():
        async with WireServer(tls=make(authority, tmp_path)) as server:
            async with client_of(server, session, **LOGIN if way == "a login" else {}) as client:
                with pytest.raises(TLSError) as caught:
                    await WAYS[way](client, tmp_path)
            connections[name] = server.connections
            assert server.asked == 0, name
            assert (caught.value.retryable, caught.value.stopped_by) == (False, "final"), name
            assert "certificates" in caught.value.fix, name
    assert not list(tmp_path.glob("calls*"))
    measured("P15", f"{way}: connections for each of {len(FAULTS)} faults: {sorted(set(connections.values()))}")
    assert set(connections.values()) == {1}, connections


async def test_a_wrong_certificate_behind_a_good_one_is_final_too(authority, session):
    """If a server's certificate becomes wrong while the client is in use, the next connection is final."""
    good = serving(authority.issue_cert(HOST))
    async with WireServer(tls=good) as server, client_of(server, session) as client:
        await client.fetch_page()
        server._tls = FAULTS["expired"](authority, None)
        for writer in server._writers:
            writer.transport.abort()
        await server.until(lambda: server.open == 0)
        with pytest.raises(TLSError):
            await client.fetch_page()
        assert (server.connections, server.asked) == (2, 1)


async def test_the_right_certificate_is_accepted(authority, session):
    """The counterpart of the tests above: the right certificate is accepted."""
    async with (
        WireServer(tls=serving(authority.issue_cert(HOST))) as server,
        client_of(server, session) as client,
    ):
        assert len((await client.fetch_page()).records) == 1
        assert server.asked == server.connections == 1
