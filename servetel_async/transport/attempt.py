"""One attempt on the wire: a request out, a whole reply or a named fault back.

All errors of aiohttp end here. They carry the token in their ``repr`` and the query in their text, so none is chained
to ours, not even as a context. aiohttp also silently sends a GET again after a reset. A middleware prevents that: it
turns the reset into a fault, so that requests on the wire equal the counted attempts.
In a session that reads ``.netrc`` the middleware also adds the token: aiohttp refuses two logins in one request.
"""

from __future__ import annotations

import asyncio
import errno
import io
import traceback
from json import dumps
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import aiohttp

from servetel_async.aio.fairness import HEAVY
from servetel_async.errors import CallbackError
from servetel_async.protocol.reply import Reply
from servetel_async.protocol.tokens import Secret, SecretBytes
from servetel_async.protocol.verdict import Fault
from servetel_async.transport.callbacks import callback_failed, must_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from yarl import URL

    from servetel_async.aio.fairness import LoopFairness

ERROR_BODY = 64 * 1024
_KEPT_HEADERS = ("content-type", "date", "retry-after", "www-authenticate")


class WireFault(Exception):  # noqa: N818 - a fact on its way to the verdict; never leaves the library
    """No whole reply came; carries the kind of fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class CleanRequest(aiohttp.ClientRequest):
    """A request that refuses a kept-alive connection with unrequested bytes on it.

    aiohttp would take these bytes for its reply, and every later reply for that of the request before.

    Attributes:
        reused: whether its connection had carried another request before.
        on_sent: called when it is sent.
    """

    reused = False
    on_sent: Callable[[], None] = staticmethod(lambda: None)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """See aiohttp."""
        protocol = conn.protocol
        # A trace could show this too, but then aiohttp rebuilds the URL and awaits some ten signals for each request.
        used = _used.setdefault(asyncio.get_running_loop(), WeakSet())
        self.reused = protocol in used
        if protocol is None or protocol.should_close:
            raise aiohttp.ServerDisconnectedError
        used.add(protocol)
        self.on_sent()
        return await super().send(conn)


#: Connections that have carried our requests, by loop.
_used: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[ResponseHandler]] = WeakKeyDictionary()


def connections_of(loop: asyncio.AbstractEventLoop) -> list[asyncio.Transport]:
    """List our connections that a loop still has."""
    transports = [protocol.transport for protocol in _used.get(loop, ())]
    return [transport for transport in transports if isinstance(transport, asyncio.Transport)]


class _Sending:
    """The middleware of one attempt. It keeps aiohttp from sending the request again, and notes the connection.

    Args:
        authorization: the header to add; None if the request has it.
        on_sent: called when it is sent.
        given: whether the session is the caller's.
    """

    __slots__ = ("_authorization", "_given", "_on_sent", "_request")

    def __init__(self, authorization: Secret | None, on_sent: Callable[[], None], *, given: bool) -> None:
        self._authorization = authorization
        self._on_sent = on_sent
        self._given = given
        self._request: CleanRequest | None = None

    @property
    def reused(self) -> bool:
        return self._request is not None and self._request.reused

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if isinstance(request, CleanRequest):  # the caller's session may use its own request class
            self._request = request
            request.on_sent = self._on_sent
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization
        try:
            return await handler(request)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            failure = _failure(error, given=self._given)
        raise failure


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: dict[str, str],
    token: Secret | None,
    *,
    given: bool,
    total: float | None,
    clock: aiohttp.ClientTimeout,
    turns: LoopFairness,
    largest: int,
    on_sent: Callable[[], None],
    json: dict[str, str] | None = None,
) -> Reply:
    """Send one request once and read its whole reply, up to ``largest`` bytes; join a heavy one in several iterations.

    All of it may take ``total`` seconds; ``clock`` limits connecting and each silence. ``given``: the session is the
    caller's.

    Raises:
        WireFault: if no whole reply came.
        CallbackError: if a trace hook, or another part of the caller's session, raised.
    """
    authorization = None if token is None else Secret(f"Bearer {token}")
    if authorization is not None and not session.trust_env:
        headers, authorization = {**headers, "Authorization": authorization}, None
    sending = _Sending(authorization, on_sent, given=given)
    task = asyncio.current_task()
    data = None
    if json is not None:  # the caller's session may have its own JSON encoder
        headers, data = {**headers, "Content-Type": "application/json"}, SecretBytes(dumps(json).encode())
    try:
        async with (
            asyncio.timeout(total),
            session.request(
                method,
                url,
                headers=headers,
                data=data,
                timeout=clock,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                middlewares=(sending,),
            ) as response,
        ):
            return await _read(response, turns, largest)
    except (WireFault, CallbackError) as error:
        failure = error
    except BaseException as error:
        if must_pass(error, task):
            raise
        failure = _failure(error, given=given)
    if isinstance(failure, WireFault) and failure.fault is Fault.RESET and sending.reused:
        raise WireFault(Fault.STALE)
    raise failure.with_traceback(None)  # the frames below hold the reply and its body


async def _read(response: aiohttp.ClientResponse, turns: LoopFairness, largest: int) -> Reply:
    headers = {name: ", ".join(response.headers.getall(name)) for name in _KEPT_HEADERS if name in response.headers}
    whole = response.status == 200  # noqa: PLR2004
    length = response.content_length
    if whole and (length or 0) > largest:
        raise WireFault(Fault.TOO_LARGE)
    size = 0 if "content-encoding" in response.headers or not whole else length or 0  # the final size
    if size:
        await _arrive(response.content, size)
        body = await response.read() if size <= HEAVY else await _join(response.content, size, turns)
        return Reply(response.status, body, headers)
    # BytesIO returns its bytes without a copy: a body is never in memory twice.
    held = io.BytesIO()
    async for chunk in response.content.iter_any():
        size = held.tell() + held.write(chunk)
        if whole and size > largest:
            raise WireFault(Fault.TOO_LARGE)
        if not whole and size > ERROR_BODY:
            break  # an error page need not be read to its end
    return Reply(response.status, held.getvalue(), headers)


async def _arrive(content: aiohttp.StreamReader, length: int) -> None:
    """Wait until a body is there, whole or broken: waking for each piece costs as much as reading it."""
    content.set_read_chunk_size(length)  # so that it may come without a pause
    if content.exception() is None:  # else no wake-up would come
        await content.wait_eof()


async def _join(content: aiohttp.StreamReader, size: int, turns: LoopFairness) -> bytes:
    """Join the received pieces, one per loop iteration: touching a megabyte of new memory takes a millisecond."""
    held, joined = io.BytesIO(bytes(size)), 0
    async for chunk, _ in content.iter_chunks():
        if held.tell() + held.write(chunk) - joined > HEAVY:
            await turns.take()
            joined = held.tell()
    return held.getvalue()


def _failure(error: BaseException, *, given: bool) -> WireFault | CallbackError:
    """Attribute a failure to the network or to the caller's code."""
    link: BaseException | None = error
    while link is not None:  # aiohttp wraps a hook's exception in a connection error
        if any(frame.f_globals.get("__name__") == "aiosignal" for frame, _ in traceback.walk_tb(link.__traceback__)):
            return callback_failed("a trace hook", link)
        link = link.__cause__
    if given and not isinstance(error, (aiohttp.ClientError, OSError)):  # TimeoutError is an OSError
        return callback_failed("the given session", error)
    return WireFault(classify(error))


def classify(error: BaseException) -> Fault:  # noqa: PLR0911 - a table
    """Name the fault. Order matters: a certificate error is also a connection error, but must not be retried as one."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Fault.NO_FILES
    if isinstance(error, aiohttp.ClientSSLError):
        return Fault.TLS
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Fault.UNRESOLVED
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Fault.CONNECT_TIMEOUT
    if isinstance(error, TimeoutError):
        return Fault.TIMEOUT
    if isinstance(error, aiohttp.ClientConnectorError):
        return Fault.REFUSED
    if isinstance(error, aiohttp.ClientPayloadError):
        return Fault.CUT
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # The error may hold the head of a cut reply. Then bytes came, so the connection was not stale.
        return Fault.RESET if isinstance(error.message, str) else Fault.CUT
    if isinstance(error, (OSError, asyncio.CancelledError)):  # cancelled with a shared look-up
        return Fault.RESET
    return Fault.GARBLED
