"""The memory of a process that pulls: bounded with a hostile server, flat over a long pull."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from statistics import quantiles

import pytest

from tests.torture.report import TORTURE, measured
from tests.transport.conftest import loop_log, serve, stack
from tests.transport.wire_server import MEGABYTE, Act, Fin, Flood, Hang, Send, call, http, page, reply

__all__ = ["loop_log", "serve", "stack"]

pytestmark = pytest.mark.timeout(3600 if TORTURE else 60)

#: The most bytes for a hostile reply.
MOST = 48 << 20
#: Bytes for each 100,000 calls of a long pull; calls before the measurement, all calls, and calls of a page.
SLOPE = 1_000_000
SINCE, CALLS = (300_000, 1_000_000) if TORTURE else (20_000, 60_000)
SIZE = 100
#: The whole size looks at what is resident. For the quick one that is too coarse: what the allocator keeps beside what it
#: gave out moves by more than so few calls may cost. It looks at what is in use, which differs by the windows under way.
LOOK, MOVED = ("resident", 0) if TORTURE else ("in_use", 3_000_000)
ROOT = Path(__file__).parent.parent.parent


def packed(begin, bits, megabytes=500):
    """A text that is long when it is unpacked: repeated blocks of a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + (packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes


def endless(*begin, chunk, times=100_000):
    """A body that continues until the client disconnects."""
    return (*(Send(each) for each in begin), Flood(chunk, times), Fin())


def row(**fields):
    return call(1, date="2024-05-06", time="10:00:00", **fields)


def filled(body, chunk, size=15 << 20):
    """A page just below the cap: one record whose ``notes`` repeat this."""
    before, after = page(row(notes=["?"]), count=1).split(b'"?"')
    return before + chunk.join([body] * (size // (len(body) + len(chunk)))) + after


GZIP, DEFLATE = ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
STRING = b'{"count": 1, "results": [{"id": "'


#: The server's replies, by name; made on demand.
HOSTILE = {
    "gzip bomb of 500 MB": lambda: (Send(http(packed(STRING, 31), 200, GZIP)),),
    "deflate bomb of 500 MB": lambda: (Send(http(packed(STRING, 15), 200, DEFLATE)),),
    "gzip bomb as an error": lambda: (Send(http(packed(b"", 31), 500, GZIP)),),
    "gzip bomb of a refused token": lambda: (Send(http(packed(b"", 31), 401, GZIP)),),
    "endless headers": lambda: endless(HEAD, chunk=b"X-Endless: 1\r\n" * 5_000),
    "an endless header": lambda: endless(HEAD + b"X-Endless: ", chunk=b"x" * 65_536),
    "an endless status line": lambda: endless(b"HTTP/1.1 200 ", chunk=b"x" * 65_536),
    "endless interim replies": lambda: endless(chunk=b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1_000),
    "endless body": lambda: endless(HEAD + b"\r\n", chunk=MEGABYTE),
    "endless body in chunks": lambda: endless(CHUNKED, chunk=b"100000\r\n" + MEGABYTE + b"\r\n"),
    "endless body in tiny chunks": lambda: endless(CHUNKED, chunk=b"1\r\n \r\n" * 10_000),
    "endless error page": lambda: endless(b"HTTP/1.1 503 X\r\n\r\n", chunk=MEGABYTE),
    "endless chunk extension": lambda: endless(CHUNKED + b"5;", chunk=b"x" * 65_536),
    "endless chunk extensions": lambda: endless(CHUNKED, chunk=(b"1;" + b"x=y;" * 1_000 + b"\r\n \r\n") * 10),
    "endless chunk size": lambda: endless(CHUNKED, chunk=b"0" * 65_536),
    "endless trailers": lambda: endless(CHUNKED + b"0\r\n", chunk=b"X-Trailer: 1\r\n" * 5_000),
    "a length of 500 MB": lambda: (Send(http(STRING, length=500 << 20)), Flood(MEGABYTE, 500), Hang()),
    "a text of 500 MB": lambda: endless(HEAD + b"\r\n" + STRING, chunk=b"x" * (1 << 20)),
    "a text of 15 MB": lambda: (Send(http(page(row(notes="x" * (15 << 20)), count=1))),),
    "15 MB of brackets": lambda: (Send(http(b"[" * (15 << 20))),),
    "15 MB of nested objects": lambda: (Send(http(b'{"results":' * (1 << 20))),),
    "15 MB of brackets in a field": lambda: (Send(http(page(row(notes="?")).replace(b'"?"', b"[" * (15 << 20)))),),
    "15 MB of digits": lambda: (Send(http(page(row(notes="?")).replace(b'"?"', b"7" * (15 << 20)))),),
    "15 MB of blanks": lambda: (Send(http(b" " * (15 << 20) + page(row(), count=1))),),
    "15 MB that are not JSON": lambda: (Send(http(b"{'" + b"x" * (15 << 20))),),
    "15 MB with a lone surrogate": lambda: (Send(http(page(row(notes="x" * (15 << 20) + "\ud800"), count=1))),),
    "15 MB of bad UTF-8": lambda: (Send(http(page(row(notes="?")).replace(b"?", b"\xff" * (15 << 20)))),),
    "15 MB in UTF-16": lambda: (Send(http(page(row(notes="x" * (7 << 20))).decode().encode("utf-16"))),),
    "rows of nothing": lambda: (Send(http(b'{"results": [' + b"{}," * (5 << 20) + b"{}]}")),),
    "rows of zeros": lambda: (Send(http(b'{"results": [' + b"0," * (7 << 20) + b"0]}")),),
    "a field of empty lists": lambda: (Send(http(filled(b"[]", b","))),),
    "a field of fractions": lambda: (Send(http(filled(b"0.1", b","))),),
    "a field of empty objects": lambda: (Send(http(filled(b"{}", b","))),),
    "ten million keys": lambda: (Send(http(filled(b'{"":0}', b","))),),
}


async def grown(serve, name, how, directory):
    """The growth in bytes of a process that got this reply, and the result."""
    act = Act(name, HOSTILE[name]())
    server = await serve(
        lambda request: (
            act if request.path.startswith("/hostile") and ("page", "1") in request.query else honest(request)
        )
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture.pulling_process", "hostile", server.url, how, str(directory)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert server.fired[name], "the reply was not asked for"
    told = json.loads(out)
    return told["grown"], told["outcome"]


def honest(request):
    """A list of one call."""
    number = int(dict(request.query)["page"])
    return reply(page(*[row()][: 2 - number], count=1, number=number))


#: Some of each kind for the ordinary suite; the others belong to the whole size.
SOME = (
    ("gzip bomb of 500 MB", "csv"),
    ("gzip bomb as an error", "count"),
    ("endless headers", "stream"),
    ("endless body in chunks", "db"),
    ("endless chunk extension", "page"),
    ("a text of 500 MB", "csv"),
    ("a text of 15 MB", "csv"),
    ("15 MB of brackets in a field", "stream"),
    ("15 MB of bad UTF-8", "db"),
    ("rows of nothing", "csv"),
    ("ten million keys", "stream"),
)
WAYS = ("stream", "page", "count", "csv", "ndjson", "db", "parquet")
MET = [(name, how) for name in HOSTILE for how in WAYS] if TORTURE else SOME
#: The results, all of which must have occurred.
OUTCOMES = {"BodyTooLargeError", "MalformedResponseError", "ServerError", "RequestTimeoutError", "read"}


async def test_a_hostile_reply_takes_little_memory(serve, tmp_path):
    """Any hostile reply to any kind of call takes at most 48 MB more."""
    worst, outcomes, problems = (0, "", ""), set(), []
    for name, how in MET:
        taken, outcome = await grown(serve, name, how, tmp_path)
        outcomes.add(outcome)
        worst = max(worst, (taken, name, how))
        if taken > MOST:
            problems.append(f"{name}, {how}: {taken / 2**20:.0f} MB")
    measured("P7", f"{len(MET)} hostile replies: {worst[0] / 2**20:.0f} MB at most ({worst[1]}, {worst[2]})")
    assert problems == []
    assert outcomes >= OUTCOMES


# A long pull ---------------------------------------------------------------------------------------------------------------

SERVER = """
import asyncio, sys
from servetel_async.emulator import Dataset, Emulator
async def main():
    async with Emulator(Dataset.month("2024-05", calls=int(sys.argv[1]))) as api:
        print(api.base_url, api.token, flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def emulator():
    """An emulator of this many calls, in a process of its own that ends with its input."""
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", SERVER, str(CALLS)], **options) as process:
        yield process.stdout.readline().split()
        process.stdin.close()
        process.stdout.close()


#: SQLite fills its cache of 64 MB first, which takes more calls than the quick size has.
KINDS = ("ndjson", "csv", "db") if TORTURE else ("ndjson", "csv")


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_pull_does_not_grow(emulator, tmp_path, kind):
    """After its beginning a long pull grows by less than 1 MB for each 100,000 calls."""
    command = ("long", *emulator, str(tmp_path / f"calls.{kind}"), str(SINCE), str(SIZE), LOOK)
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.pulling_process", *command],
        cwd=ROOT,
        env=os.environ | ({} if TORTURE else {"PYTHONMALLOC": "malloc"}),
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["complete"], told["records"]) == (True, CALLS)
    samples = told["samples"]
    half = len(samples) // 2
    assert half > 10
    # Compare the lowest values of both halves: kept objects raise them, windows under way come and go above.
    begin, end = (quantiles([size for _, size in part], n=4)[0] for part in (samples[:half], samples[half:]))
    calls = (samples[-1][0] - samples[0][0]) / 2
    slope = (end - begin) / calls * 100_000
    measured(
        "P7",
        f"{kind}, {SINCE:,} to {CALLS:,} calls: {slope / 1e6:+.2f} MB for each 100,000 calls above {end / 2**20:.0f} MB "
        f"{LOOK.replace('_', ' ')}, {told['peak'] / 2**20:.0f} MB at most",
    )
    assert end - begin < SLOPE * calls / 100_000 + MOVED
