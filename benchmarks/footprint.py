"""Memory and start-up: bytes per record, and milliseconds of an import.

``python -m benchmarks.footprint KIND BODIES`` is one process that holds the records of a file as one kind of object.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.page_server import MONTH, serving
from benchmarks.section import Budget, Section, table
from servetel_async.emulator import Dataset

KINDS = ("CallRecord", "dataclass with slots", "dict", "pydantic")
MB = 2**20


def hold(kind: str, bodies: list[bytes]) -> list[Any]:
    """Make objects of them."""
    if kind == "CallRecord":
        from servetel_async.protocol.records import CallRecord  # noqa: PLC0415 - each process loads only its own

        decode = msgspec.json.Decoder(CallRecord, strict=False).decode
        return [decode(body) for body in bodies]
    if kind == "dict":
        return [json.loads(body) for body in bodies]
    if kind == "pydantic":
        from benchmarks.contenders import pydantic_page  # noqa: PLC0415 - as above

        read = pydantic_page().model_validate_json
        return [read(b'{"results":[' + body + b"]}").results[0] for body in bodies]
    names = [field.encode_name for field in msgspec.structs.fields(_record())]
    made = dataclasses.make_dataclass("Call", [name for name in names if name.isidentifier()], slots=True)
    fields = [field.name for field in dataclasses.fields(made)]
    return [made(*(each.get(name) for name in fields)) for each in map(json.loads, bodies)]


def _record() -> Any:
    from servetel_async.protocol.records import CallRecord  # noqa: PLC0415 - as above

    return CallRecord


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


def held(kind: str, file: str) -> int:
    """Bytes per record."""
    bodies = Path(file).read_bytes().splitlines()
    hold(kind, bodies[:100])
    before = _resident()
    kept = hold(kind, bodies)
    return (_resident() - before) // len(kept)


def bytes_per_record(calls: int, kinds: tuple[str, ...]) -> list[list[str]]:
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bodies"
        file.write_bytes(b"\n".join(call.body for call in Dataset.month(MONTH, calls=calls).calls))
        for kind in kinds:
            command = [sys.executable, "-m", "benchmarks.footprint", kind, str(file)]
            found = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append([kind, f"{found / 1000:.1f}"])
    return rows


def _milliseconds(command: list[str], times: int) -> float:
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(found)


FIRST = """
import asyncio, sys
from servetel_async import CallQuery, ServetelClient
async def main():
    async with ServetelClient("a-token-that-is-long-enough-for-one", base_url=sys.argv[1], rate=None) as client:
        async for _ in client.calls(query=CallQuery.month("2024-05")):
            break
asyncio.run(main())
"""


def start_up(times: int) -> list[list[str]]:
    script = str(Path(sys.executable).parent / "servetel")
    with serving(1_000) as url:
        commands = {
            "Python alone": [sys.executable, "-c", "pass"],
            "`import aiohttp, msgspec`": [sys.executable, "-c", "import aiohttp, msgspec"],
            "`import servetel_async`": [sys.executable, "-c", "import servetel_async"],
            "`servetel --help`": [script, "--help"],
            "first record of a stream": [sys.executable, "-c", FIRST, f"{url}/plain"],
        }
        return [[name, f"{_milliseconds(command, times):.0f}"] for name, command in commands.items()]


def loads_only_the_core() -> list[Budget]:
    """The loading of ``import servetel_async`` and ``servetel --help``."""
    code = "import sys, servetel_async; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    shown = "import sys; sys.argv = ['servetel', '--help']\nfrom servetel_async.cli import main\ntry: main()\n"
    shown += "except SystemExit: pass\nprint(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    help_text = subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True).stdout
    extras = sorted(loaded & {"click", "rich", "pyarrow", "duckdb", "asyncpg", "sqlite3"})
    client = sorted({"servetel_async.client", "aiohttp"} & set(help_text.split()))
    return [
        _loads("`import servetel_async`", "core only", extras),
        _loads("`servetel --help`", "no client", client),
    ]


def _loads(what: str, bound: str, needless: list[str]) -> Budget:
    return Budget(what, bound, ", ".join(needless) or bound, not needless, not needless)


def run(*, quick: bool) -> Section:
    lines = ["Memory per record that is held, in KB:", ""]
    kinds = KINDS[:1] if quick else KINDS
    lines += table(["", "KB"], bytes_per_record(5_000 if quick else 50_000, kinds))
    lines += ["Milliseconds from the start of the process to its end:", ""]
    lines += table(["", "ms"], start_up(3 if quick else 15))
    return Section("Memory and start-up", lines, loads_only_the_core())


if __name__ == "__main__":
    print(held(sys.argv[1], sys.argv[2]))
