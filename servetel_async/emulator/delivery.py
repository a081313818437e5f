"""Puts a reply on the wire, or does to the connection what a fault says."""

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

_CHUNK: Final = 64 * 1024
_DRIPS: Final = 20
_HUGE_HEAD: Final = b'{"count":1,"limit":20,"size":1,"page":1,"results":[],"padding":"'
_HUGE_TAIL: Final = b'"}'


async def deliver(request: web.BaseRequest, reply: Reply, fault: Fault | None = None) -> web.StreamResponse:
    """Answer a request; return when the answer, or as much of it as the fault allows, is written."""
    response: web.StreamResponse
    match None if fault is None else fault.kind:
        case "cut_body" | "stall_body" | "slow" | "huge_body":
            response = web.StreamResponse(status=reply.status, headers=reply.headers)
            response.content_type = reply.content_type
        case _:
            response = web.Response(
                body=reply.body, status=reply.status, headers=reply.headers, content_type=reply.content_type
            )
    # The client may go away, and a fault may close the connection: aiohttp then drops the response by itself.
    with contextlib.suppress(ConnectionError):
        if fault is None:
            await response.prepare(request)
            await response.write_eof()
        else:
            await _misbehave(request, response, reply.body, fault)
    return response


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
                await response.write(body[begin : begin + length])
                await asyncio.sleep(fault.seconds / _DRIPS)
        case "huge_body":
            await response.prepare(request)
            await response.write(_HUGE_HEAD)
            for sent in range(0, fault.size, _CHUNK):
                await response.write(b" " * min(_CHUNK, fault.size - sent))
            await response.write(_HUGE_TAIL)
        case _:
            # The others are done by now: they changed what the reply says.
            pass


def _close(request: web.BaseRequest) -> None:
    """End the connection with FIN, behind what was written."""
    if request.transport is not None:
        request.transport.close()


def _abort(request: web.BaseRequest) -> None:
    """End the connection with RST: what a close does to a socket that may not linger."""
    if request.transport is None:
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
