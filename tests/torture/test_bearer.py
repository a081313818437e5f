"""The token goes only to the address that the client was given.

An audit hook records every address that a socket of the process connects to, and every name that it looks up; the
servers record every request. The client downloads no recordings and follows no redirect, so it connects only to its
``base_url``. That may be a private address, such as a gateway of one's own; then the certificate keeps the token
from a forged address.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys

import aiohttp
import pytest
import trustme

from servetel_async import ConfigurationError, Retry, ServetelClient, ServetelError, Timeouts, TLSError
from tests.bulk.small_server import Answer, SmallServer, calls_at
from tests.tls import serving, trusting
from tests.torture.addresses import BASE_URLS, LOCATIONS, POINTERS, PRIVATE, STATUSES
from tests.torture.report import TORTURE, measured
from tests.transport.conftest import connect, loop_log, serve, stack
from tests.transport.leaks import TOKEN
from tests.transport.wire_server import OK, call, closed_port, page, reply

__all__ = ["connect", "loop_log", "serve", "stack"]

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)

EMAIL, PASSWORD = "canary.person@example.com", "canary-password-93f1"
DAY = "2024-05-02"
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "WS_PROXY", "FTP_PROXY")
QUICK = Retry(attempts=2, base=0.001, throttled_base=0.001)

#: Connections and look-ups of this process while it is watched; a hook cannot be removed.
_watched = []


def _hook(event, arguments):
    if _watched and event == "socket.connect":
        _watched[-1].append(arguments[1])
    elif _watched and event == "socket.getaddrinfo":
        _watched[-1].append(arguments[0])


sys.addaudithook(_hook)


@contextlib.contextmanager
def watch():
    """Record all connections and look-ups inside this context."""
    seen = []
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


def elsewhere(seen, *homes):
    return [address for address in seen if address not in [("127.0.0.1", home.port) for home in homes]]


def asking(client, what):
    """The kinds of calls; each is a request of its own."""
    return {
        "page": lambda: client.fetch_page(),
        "count": lambda: client.count(DAY, DAY),
        "stream": lambda: client.calls(DAY, DAY).collect(),
        "call": lambda: client.get_call("17146577.1", from_date=DAY, to_date=DAY),
    }[what]()


def in_place(text, home, other):
    return text.replace("{home}", str(home.port)).replace("{other}", str(other.port)).replace("{{}}", "{}")


async def outcome_of(work):
    try:
        await work
    except ServetelError as error:
        return error
    return None


def tell(cases, seen, strangers):
    """Record the count, and check that it is zero."""
    carrying = [request for stranger in strangers for request in stranger.requests if request.header("Authorization")]
    connections = sum(stranger.connections for stranger in strangers)
    measured(
        "P9",
        f"{cases} cases: {len(carrying)} tokens on another origin, {connections + len(seen)} connections or look-ups "
        "of any other address, private ones among them",
    )
    assert seen == []
    assert (carrying, connections) == ([], 0)


def test_what_is_watched_is_seen(serve):
    """The watch works: a connection and a look-up are recorded."""
    with watch() as seen, socket.socket() as other:
        with contextlib.suppress(OSError):
            other.connect(("127.0.0.1", closed_port()))
        socket.getaddrinfo("localhost", 80)
    assert len(seen) >= 2
    assert "localhost" in seen


async def test_no_redirect_takes_the_token_away(serve, connect):
    """A redirect to any address, with every status and for every call, is refused after one request."""
    other, cases, strange, act = await serve(), 0, [], None
    home = await serve(lambda _request: act)
    client = connect(home, retry=QUICK)
    for number, location in enumerate(LOCATIONS):
        for status in STATUSES if TORTURE or number < 8 else (STATUSES[number % len(STATUSES)],):
            cases += 1
            what = ("page", "count", "stream", "call")[cases % 4]
            act = reply(b"", status, ("Location", in_place(location, home, other).encode().decode("latin-1")))
            before = home.asked
            with watch() as seen:
                error = await outcome_of(asking(client, what))
            strange += elsewhere(seen, home)
            assert type(error).__name__ in ("WrongAddressError", "MalformedResponseError"), (location, error)
            assert home.asked <= before + QUICK.attempts
            assert home.requests[-1].header("Host") == f"127.0.0.1:{home.port}"
    assert cases >= 60
    tell(cases, strange, [other])


async def test_no_header_or_body_of_a_page_is_followed(serve, connect):
    """Addresses in pages, errors and records, recordings included, are never connected to."""
    other, cases, strange, act = await serve(), 0, [], None
    home = await serve(lambda _request: act)
    client = connect(home, retry=QUICK)
    for name, value in POINTERS:
        for status in (200, 401, 403, 407, 421, 426, 429, 503):
            cases += 1
            act = reply(page(call(1), count=1), status, (name, in_place(value, home, other)))
            with watch() as seen:
                await outcome_of(asking(client, "page"))
            strange += elsewhere(seen, home)
    for address in (*PRIVATE, "evil.example"):
        for scheme in ("http", "https", "ftp", "file"):
            cases += 1
            url = f"{scheme}://{address}:{other.port}/a.mp3?token=x"
            record = call(1, recording_url=url, voicemail_recording=True, aws_call_recording_identifier=url)
            links = {"next": url, "next_page_url": url, "links": {"next": {"href": url}}, "redirect": url}
            act = reply(page(record, count=1, **links))
            with watch() as seen:
                await outcome_of(asking(client, ("page", "stream")[cases % 2]))
            strange += elsewhere(seen, home)
    tell(cases, strange, [other])


@pytest.mark.parametrize("ending", [".ndjson", ".csv", ".parquet", ".db"])
async def test_no_recording_is_fetched_by_a_pull(serve, connect, tmp_path, ending):
    """A pull writes the addresses of recordings, and requests none of them."""
    other = await serve()

    def recorded(asked):
        rows = [
            call(
                1,
                id=key,
                date=start[:10],
                time=start[11:],
                recording_url=f"http://{PRIVATE[int(key[-4:])]}:{other.port}/a",
            )
            for start, key in asked.rows
        ]
        return Answer(body=page(*rows, count=len(asked.found), number=asked.page))

    starts = [f"{DAY} 10:00:{number:02}" for number in range(len(PRIVATE))]
    async with SmallServer(calls_at(*starts), recorded) as home:
        with watch() as seen:
            receipt = await connect(home.base_url).pull(tmp_path / f"calls{ending}", DAY, DAY)
        assert {f"http://{address[0]}:{address[1]}" for address in seen} == {home.base_url}
    assert receipt.records == len(PRIVATE)
    assert other.connections == 0


async def test_no_redirect_takes_a_password_away(serve, connect):
    """A login and a refresh are sent once, to the API alone."""
    other, cases, strange, act = await serve(), 0, [], None

    def play(request):
        if request.path.endswith(("login", "refresh")) and act is not None:
            return act
        return (
            reply(b'{"access_token": "canary-token-of-a-login", "expires_in": 3600}') if "auth" in request.path else OK
        )

    home = await serve(play)
    for path in ("login", "refresh"):
        for status in STATUSES:
            for location in LOCATIONS[5:12]:
                cases += 1
                client = connect(home, email=EMAIL, password=PASSWORD, retry=QUICK)
                act = reply(b"", status, ("Location", in_place(location, home, other)))
                if path == "refresh":
                    act, redirect = None, act
                    await client.fetch_page()
                    act, client._transport.tokens._refresh_at = redirect, 0.0
                before = home.asked
                with watch() as seen:
                    error = await outcome_of(client.fetch_page())
                await client.aclose()
                assert error is not None
                assert home.asked == before + (1 if path == "login" else 2)
                strange += elsewhere(seen, home)
    tell(cases, strange, [other])


async def test_no_proxy_of_the_environment_sees_the_token(serve, connect, monkeypatch, tmp_path):
    """Neither a variable nor a ``.netrc`` changes the address or the headers of a request."""
    proxy, cases, strange = await serve(), 0, []
    home = await serve()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\ndefault login a password b\n")
    netrc.chmod(0o600)
    for name in PROXIES:
        for value in ("http://127.0.0.1:{p}", "127.0.0.1:{p}", "http://a:b@127.0.0.1:{p}", "socks5://127.0.0.1:{p}"):
            cases += 1
            with monkeypatch.context() as patch:
                patch.setenv(name, value.replace("{p}", str(proxy.port)))
                patch.setenv("NETRC", str(netrc))
                patch.setenv("NO_PROXY", "")
                patch.setenv("no_proxy", "")
                client = connect(home)
                with watch() as seen:
                    await client.fetch_page()
                await client.aclose()
            assert home.requests[-1].header("Authorization") == f"Bearer {TOKEN}"
            assert home.requests[-1].header("Proxy-Authorization") is None
            strange += elsewhere(seen, home)
    tell(cases, strange, [proxy])


async def test_a_proxy_that_was_asked_for_sees_no_token(serve, authority):
    """A proxy of a given session learns only the address, because the request is in TLS."""
    home = await serve(tls=serving(authority.issue_cert("localhost")), name="localhost")
    proxy = await serve(reply(b"", 502))
    cases = 0
    for options in ({"proxy": proxy.url}, {"proxy": proxy.url, "headers": {"X-Mine": "1"}}, {"trust_env": True}):
        with pytest.MonkeyPatch.context() as patch, watch() as seen:
            patch.setenv("https_proxy", proxy.url)
            patch.setenv("no_proxy", "")
            connector = aiohttp.TCPConnector(ssl=trusting(authority))
            async with aiohttp.ClientSession(connector=connector, **options) as session:
                client = ServetelClient(TOKEN, base_url=home.url, session=session, rate=None, retry=QUICK)
                assert await outcome_of(client.fetch_page()) is not None
                await client.aclose()
        cases += 1
        assert elsewhere(seen, proxy, home) == []
    assert proxy.asked >= cases
    assert {request.method for request in proxy.requests} == {"CONNECT"}
    assert [request for request in proxy.requests if request.header("Authorization")] == []
    assert not any(TOKEN in repr(request.headers) for request in proxy.requests)
    assert home.asked == 0
    measured("P9", f"{cases} proxies that were asked for, over TLS: 0 tokens in their requests")


# Addresses that are forged --------------------------------------------------------------------------------------------------


class ForgedNames(aiohttp.abc.AbstractResolver):
    """A resolver that resolves every name to these ports of this computer, one after the other."""

    def __init__(self, *ports):
        self.ports = list(ports)
        self.asked = 0

    async def resolve(self, host, port=0, family=socket.AF_INET):
        port = self.ports[min(self.asked, len(self.ports) - 1)]
        self.asked += 1
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


NAMES = ("api.servetel.example", "metadata.google.internal", "api-account-uk.example")


@pytest.mark.parametrize("forged", ["another certificate", "an unknown authority", "another name", "no TLS", "nobody"])
async def test_a_forged_address_gets_no_request(serve, forged):
    """If a name resolves to a forged address, the certificate check fails before a byte of the request is sent."""
    ours, theirs = trustme.CA(), trustme.CA()
    requests = 0
    for name in NAMES:
        stranger = await serve(
            greeting=reply() if forged == "no TLS" else None,
            tls={
                "another certificate": serving(theirs.issue_cert("localhost")),
                "an unknown authority": serving(theirs.issue_cert(name)),
                "another name": serving(ours.issue_cert("evil.example")),
            }.get(forged),
        )
        resolver = ForgedNames(closed_port() if forged == "nobody" else stranger.port)
        connector = aiohttp.TCPConnector(ssl=trusting(ours), resolver=resolver, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            client = ServetelClient(
                TOKEN, base_url=f"https://{name}", session=session, rate=None, retry=QUICK, timeouts=Timeouts(total=5)
            )
            error = await outcome_of(client.fetch_page())
            await client.aclose()
        assert isinstance(error, TLSError) or (forged in ("no TLS", "nobody") and error is not None)
        assert resolver.asked
        requests += stranger.asked
    measured("P9", f"{len(NAMES)} names that were forged to lead to {forged}: {requests} requests")
    assert requests == 0


async def test_a_name_that_moves_between_two_requests_gets_none(serve):
    """If the second look-up is forged (DNS rebinding), the second request is not sent."""
    ours = trustme.CA()
    home = await serve(
        reply(*[page(call(1), count=1), 200, ("Connection", "close")]), tls=serving(ours.issue_cert("api.example"))
    )
    stranger = await serve(tls=serving(ours.issue_cert("evil.example")))
    resolver = ForgedNames(home.port, stranger.port)
    connector = aiohttp.TCPConnector(ssl=trusting(ours), resolver=resolver, use_dns_cache=False, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = ServetelClient(TOKEN, base_url="https://api.example", session=session, rate=None, retry=QUICK)
        assert await outcome_of(client.fetch_page()) is None
        assert isinstance(await outcome_of(client.fetch_page()), TLSError)
        await client.aclose()
    assert (home.asked, resolver.asked, stranger.requests) == (1, 2, [])


async def test_an_address_that_could_leak_is_refused():
    """Plain HTTP to another computer, user info, queries and other schemes are refused at once, without a look-up."""
    accepted = []
    with watch() as seen:
        for url in BASE_URLS:
            try:
                ServetelClient(TOKEN, base_url=url)
            except ConfigurationError:
                continue
            accepted.append(url)
    measured("P9", f"{len(BASE_URLS)} addresses that could leak: {len(accepted)} accepted, {len(seen)} looked up")
    assert (accepted, seen) == ([], [])


@pytest.mark.parametrize(
    "value", ["1\r\nAuthorization: x", "1\nHost: evil.example", "1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n"]
)
async def test_no_filter_forges_a_request(serve, connect, value):
    """No filter value can add a header or another request."""
    home = await serve()
    with pytest.raises(ConfigurationError):
        await connect(home).count(DAY, DAY, callerid=value)
    assert home.connections == 0


async def test_two_accounts_of_one_session_keep_their_tokens(serve):
    """Two clients of a shared session each send their own token to their own address."""
    homes = [await serve(http_page(number)) for number in (1, 2, 3)]
    async with aiohttp.ClientSession(
        base_url=homes[0].url, headers={"Authorization": "Bearer of-its-owner"}
    ) as session:
        clients = [
            ServetelClient(f"{TOKEN}-{number}", base_url=home.url, session=session, rate=None)
            for number, home in enumerate(homes)
        ]
        for _ in range(3):
            for client in clients:
                await client.fetch_page()
        for client in clients:
            await client.aclose()
    for number, home in enumerate(homes):
        assert {request.header("Authorization") for request in home.requests} == {f"Bearer {TOKEN}-{number}"}


def http_page(number):
    return reply(json.dumps({"count": 1, "results": [call(number)]}).encode())
