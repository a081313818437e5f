"""Runs pulls, each in a process of its own, so that it can be killed.

Such a process is a fork that has all imports already: it is ready at once, and strace sees nothing but the pull.

For each line on standard input, a JSON object, one child is forked: ``base_url``, ``token``, ``destination``,
``client`` and ``pull`` (arguments of both), ``limit`` (the most bytes of a file, or null) and ``libraries`` to import first. The answer is its number; it begins at the
next line, whatever its text. When it has ended, the answer is its exit status and its output.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import resource
import sys
import traceback
from typing import Any

from servetel_async import Retry, ServetelClient, ServetelError

OUR_OWN = ("servetel_async.bulk.pull", "servetel_async.sinks.formats.csv", "servetel_async.sinks.databases.sqlite")


async def pull(job: dict[str, Any]) -> dict[str, Any]:
    retry = Retry(attempts=2, base=0.001)
    client = ServetelClient(job["token"], base_url=job["base_url"], rate=None, retry=retry, **job["client"])
    try:
        async with client:
            receipt = await client.pull(job["destination"], **job["pull"])
    except ServetelError as error:
        return {"error": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}
    return {"complete": receipt.complete, "records": receipt.records, "sha256": receipt.sha256, "bytes": receipt.bytes}


def be_child(job: dict[str, Any], begin: int, answer: int) -> None:
    if job["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    os.read(begin, 1)
    try:
        said = asyncio.run(pull(job))
        code = 2 if "error" in said else 0
    except BaseException:
        said, code = {"traceback": traceback.format_exc()}, 1
    os.write(answer, json.dumps(said).encode())
    os._exit(code)


def answer_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def serve() -> None:
    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        for library in (*OUR_OWN, *job["libraries"]):
            importlib.import_module(library)
        (hold, begin), (answer, say) = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(begin)
            os.close(answer)
            be_child(job, hold, say)
        os.close(say)
        os.close(hold)
        answer_line(str(child))
        sys.stdin.readline()
        os.close(begin)
        with os.fdopen(answer, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        answer_line(json.dumps({"code": os.waitstatus_to_exitcode(status), "said": said.decode()}))


if __name__ == "__main__":
    serve()
