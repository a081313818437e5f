"""The caller's code inside a request: its errors become a ``CallbackError``, never an end, a cancellation or a retry."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import gzip
import json
import logging

import aiohttp
import pytest

from servetel_async import (
    CallbackError,
    ConfigurationError,
    DeadlineExceededError,
    RateLimitError,
    ServetelClient,
)
from servetel_async.transport.callbacks import Listener, must_pass
from servetel_async.transport.session import BoundSession
from tests.transport.leaks import TOKEN, assert_clean, failure_of
from tests.transport.wire_server import PATH, reply

SECRET = "canary-of-a-vault-7c1e"
MAY = ("2024-05-01", "2024-05-31")
RAISED = [
    KeyError(SECRET),
    OSError(5, SECRET),
    TimeoutError(SECRET),
    StopIteration(SECRET),
    StopAsyncIteration(SECRET),
    GeneratorExit(SECRET),
    asyncio.CancelledError(SECRET),
    aiohttp.ServerDisconnectedError(SECRET),
    RateLimitError(SECRET, retry_after=1),
]
each_error = pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)


class Awaitable:
    """An object that raises when it is awaited."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        raise self._error


def provider_of(kind: str, error: BaseException):
    """A token provider that raises: when it is called, in its coroutine, or when its result is awaited."""
    if kind == "plain":

        def plain() -> str:
            raise error

        return plain
    if kind == "awaitable":
        return lambda: Awaitable(error)

    async def coroutine() -> str:
        await asyncio.sleep(0)
        raise error

    return coroutine


# Token providers -----------------------------------------------------------------------------------------------------------


@each_error
@pytest.mark.parametrize("kind", ["plain", "coroutine", "awaitable"])
async def test_what_a_provider_raises_becomes_one_error_of_ours(kind, error, serve, connect):
    """The error names the class and the provider, never the message; nothing is sent or retried."""
    server, calls = await serve(), []
    asked = provider_of(kind, error)

    def provider():
        calls.append(1)
        return asked()

    failure = await failure_of(connect(server, provider).fetch_page())

    # Python itself turns this one into a RuntimeError where a coroutine or a generator raises it.
    name = "RuntimeError" if isinstance(error, StopIteration) and kind != "plain" else type(error).__name__
    assert type(failure) is CallbackError
    assert failure.what == f"the token provider raised {name}"
    assert not failure.retryable
    assert (server.asked, len(calls), failure.stopped_by) == (0, 1, "final")
    assert_clean(failure, SECRET)


@each_error
async def test_a_provider_that_fails_in_the_middle_ends_a_stream_with_an_error(error, emulate, connect, small):
    """A stream whose provider fails raises that error; it is not finished, closed or cancelled."""
    api = await emulate(small, token_requests=3, expiry="401")
    tokens = iter([TOKEN])

    def provider():
        for token in tokens:
            return token
        raise error

    stream = connect(api, provider, page_size=10).calls(*MAY)
    got = []

    async def read() -> None:
        async for call in stream:
            got.append(call.id)

    failure = await failure_of(read())

    assert type(failure) is CallbackError
    assert got == api.truth()[: len(got)]
    assert len(got) < 300
    assert "failed" in repr(stream)
    assert failure.checkpoint is not None


async def test_an_iterator_of_tokens_that_ends_does_not_end_the_stream(emulate, connect, small):
    """A provider's ``StopAsyncIteration`` is an error, not the end of the stream."""
    api = await emulate(small, token_requests=3, expiry="401")

    async def tokens():
        yield TOKEN

    them = tokens()
    stream = connect(api, lambda: anext(them), page_size=10).calls(*MAY)

    failure = await failure_of(stream.collect())

    assert failure.what == "the token provider raised StopAsyncIteration"


@pytest.mark.parametrize("way", ["a cancelled future", "its own task"])
async def test_a_provider_that_cancels_itself_cancels_no_one_else(way, serve, connect):
    """The call fails with an error, its task is not cancelled, and the next call asks the provider again."""
    server, failing = await serve(), iter([True])

    async def provider() -> str:
        if next(failing, False):
            if way == "its own task":
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        return "good-token-123"

    client = connect(server, provider)
    failures = await asyncio.gather(*(failure_of(client.fetch_page()) for _ in range(3)))

    assert {type(failure) for failure in failures} == {CallbackError}
    assert len({id(failure) for failure in failures}) == 3
    assert "closed" not in str(failures[0])
    assert len((await client.fetch_page()).records) == 1


async def test_closing_the_client_still_cancels_a_provider(serve, connect):
    """Closing the client cancels the provider."""
    server, seen = await serve(), []

    async def provider() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return TOKEN

    client = connect(server, provider)
    asking = asyncio.ensure_future(failure_of(client.fetch_page()))
    for _ in range(5):
        await asyncio.sleep(0)
    await client.aclose()

    assert "closed" in str(await asking)
    assert seen == ["cancelled"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_the_end_of_the_process_passes(error):
    """``SystemExit``, ``KeyboardInterrupt`` and ``MemoryError`` pass unchanged."""

    async def provider() -> str:
        raise error

    async def main() -> None:
        async with ServetelClient(provider, base_url="http://127.0.0.1:1", rate=None) as client:
            await client.fetch_page()

    with pytest.raises(error):
        asyncio.run(main())


async def test_a_coroutine_that_is_closed_from_outside_is_not_a_failure_of_its_code():
    """``GeneratorExit`` is a failure only while the provider's task runs: the garbage collector closes coroutines too."""
    task = asyncio.current_task()
    assert not must_pass(GeneratorExit(), task)
    assert await asyncio.to_thread(must_pass, GeneratorExit(), task)
    assert must_pass(asyncio.CancelledError(), None)


async def test_a_provider_that_never_answers_is_bound_by_the_deadline(serve, connect):
    """The deadline ends the call, and the error names the token provider, not an overload."""
    server = await serve()

    async def provider() -> str:
        await asyncio.Event().wait()
        return TOKEN

    failure = await failure_of(connect(server, provider).fetch_page(deadline=0.05))

    assert type(failure) is DeadlineExceededError
    assert "token provider" in failure.why
    assert server.asked == 0


@pytest.mark.parametrize("given", [None, 7, b"token-as-bytes", ["token"], ""])
async def test_a_provider_that_gives_no_token_is_said_so(given, serve, connect):
    """The error names the type of the returned value, which is not sent."""
    server = await serve()

    failure = await failure_of(connect(server, lambda: given).fetch_page())

    assert type(failure) is ConfigurationError
    assert "token provider gave" in failure.what
    assert server.asked == 0
    assert_clean(failure)


async def test_a_token_of_a_class_of_its_own_is_sent_by_its_value(serve, connect):
    """A text class with its own ``__str__`` is sent by its real value."""

    class Shy(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise KeyError(SECRET)

    server = await serve()
    await connect(server, lambda: Shy("shy-token-123")).fetch_page()

    assert server.requests[0].header("Authorization") == "Bearer shy-token-123"


@dataclasses.dataclass
class Vault:
    """A class with ``__eq__`` and therefore no ``__hash__``."""

    path: str

    def __call__(self) -> str:
        return "vault-token-123"

    def read(self) -> str:
        return "vault-token-456"


class Broken(Vault):
    """Raises when it is hashed or compared."""

    def __hash__(self) -> int:
        raise KeyError(SECRET)

    def __eq__(self, other: object) -> bool:
        raise KeyError(SECRET)


@pytest.mark.parametrize("vault", [Vault("a"), Broken("a"), Vault("a").read], ids=["no hash", "broken", "method"])
async def test_a_provider_needs_no_hash(vault, serve, connect):
    """Two clients with one provider are one account."""
    server = await serve()
    first, second = connect(server, vault), connect(server, vault)
    await first.fetch_page()

    assert first._transport.pace is second._transport.pace
    assert server.requests[0].header("Authorization").startswith("Bearer vault-token")


def test_providers_that_are_equal_are_not_one():
    """Equal providers may be two accounts, so each has its own pace; a method of one object is one provider."""
    one, twin = Vault("a"), Vault("a")
    pace = {
        name: ServetelClient(provider, base_url="http://127.0.0.1:1")._transport
        for name, provider in {"one": one, "twin": twin, "read": one.read, "again": one.read}.items()
    }

    assert pace["one"].pace is not pace["twin"].pace
    assert pace["one"].pace is not pace["read"].pace
    assert pace["read"].pace is pace["again"].pace


# Trace hooks and given sessions --------------------------------------------------------------------------------------------


HOOKS = ["on_request_start", "on_connection_create_start", "on_request_headers_sent", "on_request_end"]


def trace_of(hook: str, error: BaseException) -> aiohttp.TraceConfig:
    async def fail(*_: object) -> None:
        raise error

    trace = aiohttp.TraceConfig()
    getattr(trace, hook).append(fail)
    return trace


@each_error
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("whose", ["ours", "given"])
async def test_what_a_trace_hook_raises_becomes_one_error_of_ours(whose, hook, error, serve, connect):
    """The error is final after one attempt, in our own and in a given session, even if it looks like a network fault."""
    server, trace = await serve(), trace_of(hook, error)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        options = {"session": session} if whose == "given" else {"trace_configs": [trace]}
        client = connect(server, **options)
        failure = await failure_of(client.fetch_page())
        await client.aclose()

    # Python itself turns this one into a RuntimeError where a coroutine raises it.
    name = "RuntimeError" if isinstance(error, StopIteration) else type(error).__name__
    assert type(failure) is CallbackError
    assert failure.what == f"a trace hook raised {name}"
    assert failure.attempts == 1
    assert server.asked <= 1
    assert_clean(failure, SECRET)


async def test_a_hook_that_fails_while_a_login_is_sent_is_named(serve, connect):
    """The error of a hook is named, although aiohttp wraps it in a connection error."""
    server = await serve({"/v1/auth/login": reply(b"{}", 200)})
    trace = trace_of("on_request_chunk_sent", OSError(5, SECRET))

    failure = await failure_of(connect(server, email="a@example.com", password="pw", trace_configs=[trace]).count())

    assert failure.what == "a trace hook raised OSError"
    assert_clean(failure, SECRET)


async def test_a_failing_hook_is_told_to_on_event(serve, connect):
    """An attempt that a hook ended is one event, like any other attempt."""
    server, events = await serve(), []
    await failure_of(
        connect(
            server, on_event=events.append, trace_configs=[trace_of("on_request_end", KeyError(SECRET))]
        ).fetch_page()
    )

    assert [(event.kind, event.error) for event in events] == [("request", "CallbackError")]


class Jar(aiohttp.DummyCookieJar):
    """A cookie jar that fails."""

    def filter_cookies(self, request_url):
        raise KeyError(SECRET)


class Connector(aiohttp.TCPConnector):
    """A connector that fails."""

    async def connect(self, *_: object, **__: object):
        raise asyncio.CancelledError(SECRET)


class Resolver(aiohttp.abc.AbstractResolver):
    """A resolver that fails."""

    async def resolve(self, *_: object, **__: object):
        raise ValueError(SECRET)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: aiohttp.ClientSession(cookie_jar=Jar()), "KeyError"),
        (lambda: aiohttp.ClientSession(connector=Connector()), "CancelledError"),
        (lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver())), "ValueError"),
    ],
    ids=["cookie jar", "connector", "resolver"],
)
async def test_what_a_part_of_a_given_session_raises_becomes_one_error_of_ours(make, name, serve, connect):
    """The error names the given session."""
    server = await serve()
    async with make() as session:
        client = connect(server.url.replace("127.0.0.1", "localhost"), session=session)
        failure = await failure_of(client.fetch_page())

    assert (type(failure), failure.what) == (CallbackError, f"the given session raised {name}")
    assert server.asked == 0
    assert_clean(failure, SECRET)


@pytest.mark.parametrize("error", [KeyError(SECRET), asyncio.CancelledError(SECRET)], ids=["error", "cancelled"])
async def test_what_aiohttp_raises_unexpectedly_in_our_own_session_is_a_fault_of_the_wire(
    error, serve, connect, monkeypatch
):
    """Aiohttp's own exceptions are retried, such as a shared look-up that another request cancelled."""
    server, failing = await serve(), iter([True])
    connect_for_real = aiohttp.TCPConnector.connect

    async def connect_or_fail(self, *args: object, **kwargs: object):
        if next(failing, False):
            raise error
        return await connect_for_real(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_or_fail)

    assert len((await connect(server).fetch_page()).records) == 1


async def test_a_given_session_of_another_loop_is_refused(serve, connect):
    """A session works only in the loop that it was made in."""
    server = await serve()

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    loop = asyncio.new_event_loop()
    session = await asyncio.to_thread(loop.run_until_complete, make())
    failure = await failure_of(connect(server, session=session).fetch_page())
    await asyncio.to_thread(loop.run_until_complete, session.close())
    loop.close()

    assert type(failure) is ConfigurationError
    assert "loop" in failure.what
    assert server.asked == 0


@pytest.mark.parametrize(
    "options",
    [
        {"trust_env": True},
        {"auto_decompress": False},
        {"raise_for_status": True},
        {"base_url": "https://elsewhere.example/"},
        {"json_serialize": lambda _: "{"},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_how_a_given_session_is_set_changes_no_request(options, monkeypatch, tmp_path, emulate, connect, small):
    """Settings of a given session do not replace the token or change how a login and a packed page are sent and read."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    api = await emulate(small, email="a@example.com", password="password-1")
    async with aiohttp.ClientSession(**options) as session:
        for given in ({}, {"email": "a@example.com", "password": "password-1"}):
            client = connect(api, session=session, **given)
            assert await client.count(*MAY) == 300
            await client.aclose()


async def test_a_packed_page_is_unpacked_in_any_session(serve, connect):
    """``auto_decompress=False`` of the session applies only to the caller's own requests."""
    body = gzip.compress(json.dumps({"results": [{"id": "1"}], "count": 1}).encode())
    server = await serve(reply(body, 200, ("Content-Encoding", "gzip")))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        page = await connect(server, session=session).fetch_page()

    assert [call.id for call in page.records] == ["1"]
    assert server.requests[0].path == PATH


async def test_a_netrc_beside_a_sessions_own_header_is_refused_before_anything_is_sent(
    monkeypatch, tmp_path, serve, connect
):
    """Aiohttp refuses two logins in one request; its error becomes a ``CallbackError``."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server = await serve()
    async with aiohttp.ClientSession(trust_env=True, headers={"Authorization": "Basic x"}) as session:
        failure = await failure_of(connect(server, session=session).fetch_page())

    assert failure.what == "the given session raised ValueError"
    assert server.asked == 0


# Listeners -----------------------------------------------------------------------------------------------------------------


class AsyncCall:
    async def __call__(self, _event: object) -> None:
        pass


async def hear(_event: object) -> None:
    pass


async def hear_all(_event: object):
    yield


ASYNC = {
    "function": hear,
    "partial": functools.partial(functools.partial(hear)),
    "object": AsyncCall(),
    "method": AsyncCall().__call__,
    "partial of an object": functools.partial(AsyncCall()),
    "generator": hear_all,
}
each_async = pytest.mark.parametrize("function", ASYNC.values(), ids=ASYNC)


@each_async
def test_an_async_on_event_is_refused(function):
    """The client's constructor refuses it, because it would not be awaited."""
    with pytest.raises(ConfigurationError, match="on_event is an async function"):
        ServetelClient(TOKEN, base_url="http://127.0.0.1:1", on_event=function)


@each_async
async def test_an_async_on_progress_is_refused(function, serve, connect, tmp_path):
    """It is refused before anything is sent or written."""
    server = await serve()

    failure = await failure_of(connect(server).pull(tmp_path / "a.ndjson", *MAY, on_progress=function))

    assert type(failure) is ConfigurationError
    assert "on_progress is an async function" in str(failure)
    assert (server.asked, list(tmp_path.iterdir())) == (0, [])


async def test_what_a_listener_returns_is_discarded_and_said_once(caplog):
    """A returned coroutine is closed, a returned task is cancelled, and one warning is logged."""
    future = asyncio.get_running_loop().create_future()
    returned = iter([hear(1), hear(2), future, Awaitable(KeyError()), None, 7])
    listener = Listener("on_event", lambda _: next(returned))
    with caplog.at_level(logging.WARNING, "servetel_async"):
        for _ in range(6):
            listener.tell(None)
    gc.collect()

    assert future.cancelled()
    assert [record.getMessage() for record in caplog.records] == [
        "on_event returned an awaitable; nothing awaits it, so it was discarded"
    ]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_what_on_event_raises_disturbs_nothing(error, serve, connect, caplog):
    """The class is logged and the request continues, even if it looks like a cancellation."""
    server = await serve()

    def fail(_event: object) -> None:
        raise error

    assert len((await connect(server, on_event=fail).fetch_page()).records) == 1
    assert f"on_event raised {type(error).__name__}" in caplog.text
    assert SECRET not in caplog.text


async def test_on_event_may_end_the_process(serve, connect):
    """``SystemExit`` of a listener passes."""

    def leave(_event: object) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        connect(await serve(), on_event=leave)._transport._tell(None, None, 0.0, 0, None)


@pytest.mark.parametrize(
    "error",
    [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError],
    ids=lambda error: error.__name__,
)
async def test_what_on_progress_raises_is_no_end_of_the_pull(error, emulate, connect, small, tmp_path):
    """An error of ``on_progress`` does not end or cancel the pull silently, even if it looks like that."""
    api = await emulate(small)

    def fail(_progress: object) -> None:
        raise error(SECRET)

    failure = await failure_of(connect(api).pull(tmp_path / "a.ndjson", *MAY, on_progress=fail))

    assert failure.what == f"on_progress raised {error.__name__}"
    assert not (tmp_path / "a.ndjson").exists()
    assert_clean(failure, SECRET)


def test_a_session_that_hides_its_loop_is_taken(monkeypatch):
    """A session whose loop cannot be read is accepted, because a later aiohttp may rename the attribute."""

    class Session:
        closed = False

    async def make() -> BoundSession:
        return BoundSession(None, 1, Session(), (), ())

    assert isinstance(asyncio.run(make()).session, Session)
