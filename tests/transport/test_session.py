"""The session of a client: loops, processes and owners; what every request sends, and what never goes to another host."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from servetel_async import (
    IST,
    Brand,
    CallQuery,
    ConfigurationError,
    ConnectionFailedError,
    Retry,
    ServetelClient,
    ServetelError,
    WrongAddressError,
    __version__,
)
from servetel_async.transport.attempt import _arrive
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import ACTS, OK, PATH, closed_port, reply

# What is sent --------------------------------------------------------------------------------------------------------------


async def test_a_request_says_who_asks_and_for_what(serve, connect):
    """Each header that the API wants is sent once, with this library's name and version, and nothing about the computer."""
    server = await serve()
    await connect(server).fetch_page()

    (request,) = server.requests
    names = [name.lower() for name, _ in request.headers]
    assert len(names) == len(set(names))
    assert request.header("Accept") == "application/json"
    assert request.header("User-Agent") == f"servetel-async/{__version__}"
    assert request.header("Cache-Control") == "no-cache"
    assert request.header("Authorization") == f"Bearer {TOKEN}"
    assert set(names) <= {"host", "accept", "user-agent", "cache-control", "authorization", "accept-encoding"}
    assert (request.method, request.path, request.body) == ("GET", PATH, b"")


async def test_a_given_session_sends_the_same_headers(serve, connect):
    """A given session sends the same headers as our own."""
    server = await serve()
    await connect(server).fetch_page()
    async with aiohttp.ClientSession() as session:
        await connect(server, session=session).fetch_page()

    own, given = (dict(request.headers) for request in server.requests)
    assert given == own


async def test_a_given_sessions_own_headers_stay(serve, connect):
    """Default headers of a given session are sent, with the client's token."""
    server = await serve()
    headers = {"X-Tenant": "7", "User-Agent": "mine/1", "Authorization": "Bearer somebody-elses"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await connect(server, session=session).fetch_page()

    (request,) = server.requests
    assert request.header("X-Tenant") == "7"
    assert [value for name, value in request.headers if name == "Authorization"] == [f"Bearer {TOKEN}"]


QUERY = {
    "callerid": "+910000012345",
    "agents": ["agent|0501000000001", "502"],
    "department": "Sales & Support/100%",
    "duration": ">=60",
    "services": ["IVR", "Queue"],
    "call_id": "a b?c#d=e;f",
}


async def test_the_query_is_encoded_so_that_php_reads_it_back(serve, connect):
    """Plus signs, brackets, bars, blanks and all other special characters are percent-encoded once."""
    server = await serve()
    query = CallQuery(from_date="2024-05-01", to_date="2024-05-03 09:30:00", **QUERY)
    await connect(server).fetch_page(query, page_size=50)

    (request,) = server.requests
    raw = request.target.partition("?")[2]
    assert "callerid=%2B910000012345" in raw
    assert "agents%5B%5D=agent%7C0501000000001&agents%5B%5D=agent%7C502" in raw
    assert "from_date=2024-05-01%2000%3A00%3A00&to_date=2024-05-03%2009%3A30%3A00" in raw
    assert not set(raw) & set("+[]|<>#;? '\"")
    assert request.query == [
        ("from_date", "2024-05-01 00:00:00"),
        ("to_date", "2024-05-03 09:30:00"),
        ("agents[]", "agent|0501000000001"),
        ("agents[]", "agent|502"),
        ("department[]", "sales & support/100%"),
        ("callerid", "+910000012345"),
        ("call_id", "a b?c#d=e;f"),
        ("services", "IVR,Queue"),
        ("duration", "60"),
        ("operator", ">="),
        ("page", "1"),
        ("limit", "50"),
    ]


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("brackets", ["agents[]", "agents[]"]),
        ("indexed", ["agents[0]", "agents[1]"]),
        ("repeat", ["agents", "agents"]),
        ("comma", ["agents"]),
    ],
)
async def test_the_array_style_is_the_clients(style, names, serve, connect):
    """The encoding of several agents is a setting, because hosts differ."""
    server = await serve()
    await connect(server, array_style=style).fetch_page(CallQuery(agents=["1", "2"]))

    assert [name for name, _ in server.requests[0].query if name.startswith("agents")] == names


async def test_a_path_in_the_base_url_is_kept(serve, connect):
    """The path of the base URL is kept, for a proxy that serves the API below a path."""
    server = await serve()
    await connect(f"{server.url}/api/servetel/").fetch_page()

    assert server.requests[0].path == f"/api/servetel{PATH}"


async def test_cookies_are_not_kept(serve, connect):
    """A cookie that the server sets is not sent back: requests do not depend on each other."""
    server = await serve(
        reply(OK.steps[0].data.partition(b"\r\n\r\n")[2], 200, ("Set-Cookie", "session=canary; Path=/"))
    )
    client = connect(server.url.replace("127.0.0.1", "localhost"))
    for _ in range(3):
        await client.fetch_page()

    assert [request.header("Cookie") for request in server.requests] == [None] * 3


# What is never sent elsewhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "where", ["same", "other", "{other}", "https", "file:///etc/passwd", "//evil.example/", "", "http://["]
)
async def test_a_redirect_is_refused_and_the_token_stays_home(where, status, serve, connect):
    """No redirect is followed, so the other server gets no request."""
    other = await serve()
    location = {"same": "/elsewhere", "other": f"{other.url}{PATH}", "https": f"https://127.0.0.1:{other.port}/"}.get(
        where, where
    )
    server = await serve(reply(b"", status, ("Location", location)))

    error = await failure_of(connect(server).fetch_page())

    assert type(error) is WrongAddressError
    assert (server.asked, other.connections) == (1, 0)
    assert location not in str(error) or len(location) < 2
    assert_clean(error)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_of_the_environment_is_not_used(name, monkeypatch, serve, connect):
    """A proxy of the environment is ignored, so the token goes to the API alone."""
    monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    server = await serve()

    assert len((await connect(server).fetch_page()).records) == 1


async def test_a_netrc_does_not_replace_the_token(monkeypatch, tmp_path, serve, connect):
    """A ``.netrc`` for the host is ignored."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = await serve()
    await connect(server).fetch_page()

    assert server.requests[0].header("Authorization") == f"Bearer {TOKEN}"


# Whose session it is -------------------------------------------------------------------------------------------------------


async def test_a_given_session_is_used_and_never_closed(serve):
    """A given session is never closed: its owner closes it."""
    server = await serve()
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with ServetelClient(TOKEN, base_url=server.url, session=session, rate=None) as client:
                await client.fetch_page()
            assert not session.closed
        assert server.connections == 1


@pytest.mark.parametrize("which", ["session", "connector"])
async def test_a_given_session_that_is_closed_is_said_so(which, serve, connect):
    """A given session that is closed raises one of our errors."""
    server = await serve()
    session = aiohttp.ClientSession()
    client = connect(server, session=session)
    await (session if which == "session" else session.connector).close()

    error = await failure_of(client.fetch_page())

    assert type(error) is ConfigurationError
    assert server.asked == 0
    assert_clean(error)
    await session.close()


async def test_a_given_session_that_raises_for_status_changes_no_verdict(serve, connect):
    """``raise_for_status`` of the caller's session does not turn a refused token into a protocol error."""
    server = await serve(reply(b'{"success": false, "message": "no"}', 400))
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        error = await failure_of(connect(server, session=session).fetch_page())

    assert type(error).__name__ == "RequestRejectedError"
    assert server.asked == 1
    assert_clean(error)


async def test_a_given_session_with_credentials_of_its_own_is_refused(serve, connect):
    """The constructor refuses it, because the session's login would be sent in place of the token."""
    server = await serve()
    with pytest.warns(DeprecationWarning):
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with session:
        with pytest.raises(ConfigurationError, match="credentials"):
            connect(server, session=session)


async def test_a_given_sessions_hidden_resend_is_stopped_too(serve, connect):
    """Aiohttp's own second try of a GET is off in any session, so each request on the wire is a counted attempt."""
    server = await serve(ACTS["reset before head"])
    async with aiohttp.ClientSession() as session:
        error = await failure_of(connect(server, session=session).fetch_page())

    assert type(error) is ConnectionFailedError
    assert server.asked == error.attempts == 4


async def test_trace_configs_see_the_requests(serve, connect):
    """A caller's trace config sees every request of the session that the client makes."""
    ended: list[int] = []
    trace = aiohttp.TraceConfig()

    async def on_end(_session, _context, params) -> None:
        ended.append(params.response.status)

    trace.on_request_end.append(on_end)
    server = await serve([reply(b"", 503), OK])
    await connect(server, trace_configs=[trace]).fetch_page()

    assert ended == [503, 200]


# Opening and closing -------------------------------------------------------------------------------------------------------


async def test_a_client_works_without_async_with_and_closes_twice(serve):
    """A client opens at its first use; a second close does nothing."""
    server = await serve()
    client = ServetelClient(TOKEN, base_url=server.url)
    await client.fetch_page()
    await client.aclose()
    await client.aclose()
    await server.until(lambda: not server.open)


async def test_a_client_may_be_entered_twice(serve):
    """A second ``async with`` opens the client again, with new connections."""
    server = await serve()
    client = ServetelClient(TOKEN, base_url=server.url, rate=None)
    for _ in range(2):
        async with client:
            await client.fetch_page()
        await server.until(lambda: not server.open)

    assert server.connections == 2


async def test_a_closed_client_says_so(serve, connect):
    """Using a closed client raises a clear error, and nothing is sent, not even a login."""
    server = await serve()
    for options in ({}, {"email": "a@example.com", "password": "pw"}):
        client = connect(server, **options)
        await client.aclose()
        for work in (
            client.fetch_page,
            client.count,
            client.calls().collect,
            lambda client=client: client.get_call("1.2"),
        ):
            error = await failure_of(work())
            assert type(error) is ConfigurationError
            assert "closed" in str(error)
            assert "async with" in error.fix

    assert server.connections == 0


async def test_closing_ends_what_is_under_way(serve, connect):
    """When ``aclose`` returns, the page tasks of a stream and their connections have ended."""
    server = await serve(ACTS["head hangs"])
    client = connect(server)
    stream = client.calls()
    reading = asyncio.ensure_future(failure_of(anext(stream)))
    await server.until(lambda: server.asked == 1)

    await client.aclose()

    assert not client._tasks
    assert isinstance(await reading, ServetelError)
    await server.until(lambda: not server.open)


async def test_closing_survives_being_cancelled(serve, connect):
    """A cancelled ``aclose`` closes the client first, and then raises the cancellation."""
    server = await serve(ACTS["head hangs"])
    client = connect(server)
    reading = asyncio.ensure_future(failure_of(anext(client.calls())))
    await server.until(lambda: server.asked == 1)
    closing = asyncio.ensure_future(client.aclose())
    await asyncio.sleep(0)
    closing.cancel()

    results = await asyncio.gather(closing, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError | None)
    await reading
    await server.until(lambda: not server.open)


# Loops and processes -------------------------------------------------------------------------------------------------------


def in_another_thread(work):
    """Run a coroutine in a loop of its own, in a thread of its own."""
    outcome = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(work()))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


async def test_two_running_loops_cannot_share_a_client(serve, connect):
    """A client in use in one loop refuses to work in another before anything is sent, and still works in the first."""
    server = await serve()
    client = connect(server)
    await client.fetch_page()

    thread, outcome = in_another_thread(client.fetch_page)
    while thread.is_alive():
        await asyncio.sleep(0.001)
    thread.join()

    assert type(outcome[0]) is ConfigurationError
    assert "loop" in str(outcome[0])
    assert "per loop" in outcome[0].fix
    assert len((await client.fetch_page()).records) == 1
    assert server.connections == 1


SERVER = """
import asyncio, contextlib, os, socket, sys, threading
from servetel_async import ServetelClient, ConfigurationError

BODY = b'{"count": 1, "limit": 100, "size": 1, "page": 1, "results": [{"id": "6633", "call_id": "1.2"}]}'
REPLY = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(BODY), BODY)
accepted = []

def speak(connection):
    with connection, contextlib.suppress(OSError):
        while True:
            head = b""
            while not head.endswith(b"\\r\\n\\r\\n"):
                more = connection.recv(65536)
                if not more:
                    return
                head += more
            connection.sendall(REPLY)

def listen():
    listener = socket.create_server(("127.0.0.1", 0))
    def accept():
        while True:
            connection, _ = listener.accept()
            accepted.append(connection.fileno())
            threading.Thread(target=speak, args=(connection,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return "http://127.0.0.1:%d" % listener.getsockname()[1]

URL = os.environ.get("SERVER_URL") or listen()
client = ServetelClient("canary-token-5f1d7c0b9a3e", base_url=URL, rate=None)

async def one():
    return len((await client.fetch_page()).records)
"""


#: A slow loop iteration depends on the machine; all other log lines of the loop are checked.
CALM = "import logging; logging.getLogger('asyncio').setLevel(logging.ERROR)\n"


def script(text: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script over the server above; a warning is an error, and development mode watches."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("SERVETEL_", "COV_", "COVERAGE"))
    }
    return subprocess.run(
        [sys.executable, *(flags or ("-X", "dev", "-W", "error")), "-c", CALM + SERVER + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**clean, **environment},
    )


#: The server of the script runs in a thread, because the child must not inherit it.
FORKING = ("-W", "default", "-W", "ignore:This process:DeprecationWarning")


def silent(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_several_runs_one_after_another():
    """A client made outside of a loop works in several ``asyncio.run`` without being closed, and prints nothing on stderr."""
    text = """
    print([asyncio.run(one()) for _ in range(3)], len(accepted))
    """

    assert silent(script(text)).strip() == "[1, 1, 1] 3"


def test_an_open_client_at_the_end_of_the_interpreter():
    """Exiting with an open client, an open stream and a page under way prints nothing on stderr."""
    text = """
    async def main():
        await one()
        stream = client.calls()
        await anext(stream)
        asyncio.ensure_future(client.count())
        await asyncio.sleep(0)
        globals()["kept"] = stream
    asyncio.run(main())
    print("end")
    """

    assert silent(script(text)).strip() == "end"


def test_an_open_client_whose_last_reference_goes():
    """A client that is dropped while its loop runs prints nothing when the loop ends."""
    text = """
    async def main():
        global client
        await one()
        del client
        import gc; gc.collect()
        await asyncio.sleep(0)
    asyncio.run(main())
    print("end")
    """

    assert silent(script(text)).strip() == "end"


def test_a_loop_that_is_closed_without_ado():
    """A loop that is closed without ending its generators prints no line with an address on stderr."""
    text = """
    loop = asyncio.new_event_loop()
    print(loop.run_until_complete(one()))
    loop.close()
    print(asyncio.run(one()))
    """
    done = script(text, "-W", "default")

    assert done.stdout.split() == ["1", "1"]
    assert "canary" not in done.stderr
    assert "/v1/" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_forked_child_opens_connections_of_its_own():
    """After a fork the client works in the child on a new connection, and in the parent on its old ones."""
    text = """
    async def use():
        return await one() + await one()

    print("parent", asyncio.run(use()), flush=True)
    loop = asyncio.new_event_loop()
    print("parent", loop.run_until_complete(one()), flush=True)
    child = os.fork()
    if child == 0:
        print("child", asyncio.run(use()), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    before = len(accepted)
    print("parent", loop.run_until_complete(one()), len(accepted) == before, flush=True)
    loop.run_until_complete(client.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    """

    assert silent(script(text, *FORKING)).split() == [
        "parent",
        "2",
        "parent",
        "1",
        "child",
        "2",
        "parent",
        "1",
        "True",
    ]


def test_a_forked_child_that_ends_in_the_usual_way_is_silent():
    """A child that ends without ``os._exit`` prints nothing on stderr and leaves the parent's connections open."""
    text = """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    assert loop.run_until_complete(one()) == 1
    child = os.fork()
    if child == 0:
        assert asyncio.run(one()) == 1
        print("child", flush=True)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    before = len(accepted)
    assert loop.run_until_complete(one()) == 1
    print("parent", len(accepted) == before, flush=True)
    loop.run_until_complete(client.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    """

    assert silent(script(text, *FORKING)).split() == ["child", "parent", "True"]


def test_a_fork_within_a_running_loop():
    """A child that is forked inside a coroutine may use the client in a loop of its own."""
    text = """
    async def main():
        await one()
        child = os.fork()
        if child == 0:
            asyncio._set_running_loop(None)
            try:
                print("child", asyncio.run(one()), flush=True)
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        before = len(accepted)
        print("parent", await one(), len(accepted) == before)
    asyncio.run(main())
    """

    assert silent(script(text, *FORKING)).split() == ["child", "1", "parent", "1", "True"]


def test_a_client_made_in_one_loop_and_used_in_another():
    """A client belongs to the loop of its first use, not to the one that it was made in."""
    text = """
    async def make():
        return ServetelClient("canary-token-5f1d7c0b9a3e", base_url=URL, rate=None)
    async def use(made):
        async with made:
            return len((await made.fetch_page()).records)
    made = asyncio.run(make())
    print(asyncio.run(use(made)), asyncio.run(use(made)))
    """

    assert silent(script(text)).split() == ["1", "1"]


def test_a_client_that_is_never_used():
    """An unused client prints nothing at its end."""
    assert silent(script("print('end')")).strip() == "end"


@pytest.mark.parametrize("name", ["SERVETEL_TOKEN_FILE", "SERVETEL_CONFIG", "SERVETEL_PROFILE"])
def test_a_client_that_is_told_everything_asks_the_environment_nothing(name, monkeypatch):
    """With a token and an address given, a bad setting in the environment is no error."""
    monkeypatch.setenv(name, "/nonexistent/secret")

    assert ServetelClient(TOKEN, base_url="https://api.example.invalid")


@pytest.mark.parametrize("brand", list(Brand))
def test_every_brand_has_an_address_with_tls(brand):
    """Each preset is https, and is found by its name in any spelling."""
    for name in (brand, brand.name, brand.name.lower().replace("_", "-")):
        client = ServetelClient(TOKEN, brand=name, zone=IST)
        assert client._transport.base_url == brand.value
        assert brand.value.startswith("https://")


async def test_a_retry_of_a_policy_of_one_is_no_retry(serve, connect):
    """``Retry(attempts=1)`` sends once."""
    server = await serve(reply(b"", 503))
    error = await failure_of(connect(server, retry=Retry(attempts=1)).fetch_page())

    assert (server.asked, error.attempts) == (1, 1)


async def test_a_body_that_broke_before_anybody_waited_for_it_is_not_waited_for():
    """A reader that starts after the connection broke does not wait: aiohttp wakes only earlier readers."""
    loop = asyncio.get_running_loop()
    content = aiohttp.StreamReader(BaseProtocol(loop), 65_536, loop=loop)
    content.set_exception(aiohttp.ClientPayloadError())
    async with asyncio.timeout(5):
        await _arrive(content, 10)
