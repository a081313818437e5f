"""Send a reply, or disturb the connection as a fault demands."""

import asyncio
import contextlib
import socket
import struct
from typing import Final

from aiohttp import web

from servetel_async.emulator.faults import Fault
from servetel_async.emulator.reply import Reply

__all__ = ["NO_ANSWER", "deliver"]

#: Faults that send not even a status line.
NO_ANSWER: Final = frozenset({"reset", "close", "stall"})

#: Faults of the connection; the others have already changed the reply.
_WIRE_FAULTS: Final = NO_ANSWER | {"cut_body", "stall_body", "slow", "huge_body"}

_CHUNK: Final = 64 * 1024
_DRIPS: Final = 20
_HUGE_HEAD: Final = b'{"count":1,"limit":20,"size":1,"page":1,"results":[],"padding":"'
_HUGE_TAIL: Final = b'"}'


async def deliver(request: web.BaseRequest, reply: Reply, fault: Fault | None = None) -> web.StreamResponse:
    """Answer a request; return when the answer, or as much of it as the fault allows, is written."""
    response: web.StreamResponse
    if fault is None or fault.kind not in _WIRE_FAULTS:
        response = web.Response(body=reply.body, status=reply.status, headers=reply.headers)
        sending = _send(request, response)
    else:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        sending = _misbehave(request, response, reply.body, fault)
    response.headers.setdefault("Content-Type", reply.content_type)
    # The client may disconnect, and a fault may close the connection: aiohttp then drops the response by itself.
    with contextlib.suppress(ConnectionError):
        await sending
    return response


async def _send(request: web.BaseRequest, response: web.StreamResponse) -> None:
    await response.prepare(request)
    await response.write_eof()


async def _misbehave(request: web.BaseRequest, response: web.StreamResponse, body: bytes, fault: Fault) -> None:
    match fault.kind:
        case "reset":
            _abort(request)
        case "close":
            _close(request)
        case "stall":
            await asyncio.sleep(fault.seconds)
            _close(request)
        case "cut_body" | "stall_body":
            response.content_length = len(body)
            await response.prepare(request)
            await response.write(fault.part_of(body))
            if fault.kind == "stall_body":
                await asyncio.sleep(fault.seconds)
            _close(request)
        case "slow":
            response.content_length = len(body)
            await response.prepare(request)
            length = -(-len(body) // _DRIPS) or 1
            for begin in range(0, len(body), length):
                await asyncio.sleep(fault.seconds / _DRIPS)
                await response.write(body[begin : begin + length])
        case _:  # huge_body
            await response.prepare(request)
            await response.write(_HUGE_HEAD)
            for sent in range(0, fault.size, _CHUNK):
                await response.write(b" " * min(_CHUNK, fault.size - sent))
            await response.write(_HUGE_TAIL)


def _close(request: web.BaseRequest) -> None:
    """End the connection with FIN, behind the bytes already written."""
    request.protocol.force_close()


def _abort(request: web.BaseRequest) -> None:
    """End the connection with RST, by closing a socket that may not linger."""
    connection: socket.socket = request.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.protocol.force_close()
