"""The alternatives: each reads all records of the month, page after page, and returns their number.

The asyncio ones keep four requests in flight, as the stream does; the others have one connection, kept alive. Only
the stream retries, orders the calls, removes duplicates or proves that nothing is missing.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections import deque
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from benchmarks.page_server import MONTH
from servetel_async import CallQuery, ServetelClient
from servetel_async.emulator import Dataset
from servetel_async.page_source import PageRequest
from servetel_async.protocol.decoding import PageReader
from servetel_async.protocol.records import CallRecord
from servetel_async.protocol.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

CONCURRENCY = 4
QUERY = {"from_date": "2024-05-01 00:00:00", "to_date": "2024-05-31 23:59:59"}
TOKEN = "a-token-that-is-long-enough-for-one"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "identity"}
PACKED = HEADERS | {"Accept-Encoding": "gzip"}


def stream(url: str, size: int, calls: int, **settings: Any) -> int:  # noqa: ARG001 - it finds the end by itself
    """The typed stream."""

    async def run() -> int:
        records = 0
        async with ServetelClient(TOKEN, base_url=url, rate=None, page_size=size, **settings) as client:
            async for _ in client.calls(query=CallQuery.month(MONTH)):
                records += 1
        return records

    return asyncio.run(run())


def requests_alone(url: str, size: int, calls: int) -> int:
    """The typed stream's requests, with all their safety, and its pages dropped undecoded."""

    async def run() -> int:
        query = CallQuery.month(MONTH)
        async with ServetelClient(TOKEN, base_url=url, rate=None, page_size=size) as client:
            window, last = query.window(client.zone), -(-calls // size)
            ahead, numbers = deque[Any](), iter(range(1, last + 1))
            while True:
                for number in islice(numbers, client.window_of_pages - len(ahead)):
                    page = PageRequest(query, window, number, size, None, patient=True, proved=False)
                    ahead.append(client.start_page(page))
                if not ahead:
                    break
                await asyncio.wait({ahead[0]})
                ahead.popleft().result()
        return calls

    return asyncio.run(run())


@cache
def _bodies(size: int, calls: int) -> list[bytes]:
    bodies = [call.body for call in Dataset.month(MONTH, calls=calls).calls]
    starts = range(0, calls, size)
    return [b'{"count":%d,"results":[%s]}' % (calls, b",".join(bodies[start : start + size])) for start in starts]


def decoding_in_one_pass(_url: str, size: int, calls: int) -> int:
    """Decoding alone, without any network: a page in one pass, as a loop by hand does it."""
    decode = _struct_decoder()
    return sum(sum(1 for _ in decode(body).results) for body in _bodies(size, calls))


def decoding_in_slices(_url: str, size: int, calls: int) -> int:
    """Decoding alone, without any network: a page is split, and decoded slice by slice, as the stream does it."""
    reader, records = PageReader(), 0
    for body in _bodies(size, calls):
        page = reader.take(Reply(200, body), 0.0)
        page.open()
        pieces = page.slices()
        while (piece := next(pieces, None)) is not None:
            for _ in piece:
                records += 1
            del piece, _  # before the next one is made, as the stream does
    return records


def by_aiohttp(url: str, size: int, calls: int, read: Callable[[bytes], int], pace: int = CONCURRENCY) -> int:
    """Aiohttp, each page given to ``read``, which returns its number of calls."""

    async def run() -> int:
        slots, records = asyncio.Semaphore(pace), 0
        headers = PACKED if "/gzip" in url else HEADERS

        async def fetch(session: aiohttp.ClientSession, number: int) -> None:
            nonlocal records
            query = QUERY | {"limit": str(size), "page": str(number)}
            async with slots, session.get(f"{url}/v1/call/records", params=query) as reply:
                body = await reply.read()
            records += read(body)  # not around the await, because other tasks add meanwhile

        async with aiohttp.ClientSession(headers=headers) as session:
            pages = range(1, -(-calls // size) + 1)
            for first in range(0, len(pages), 32):
                await asyncio.gather(*(fetch(session, number) for number in pages[first : first + 32]))
        return records

    return asyncio.run(run())


@cache
def _struct_decoder() -> Callable[[bytes], Any]:
    page = msgspec.defstruct("Page", [("results", tuple[CallRecord, ...])], gc=False)
    return msgspec.json.Decoder(page, strict=False).decode


def bare(url: str, size: int, calls: int) -> int:
    """Aiohttp and the same Struct, by hand."""
    decode = _struct_decoder()

    def read(body: bytes) -> int:
        records = 0
        for _ in decode(body).results:
            records += 1
        return records

    return by_aiohttp(url, size, calls, read)


def discard(url: str, size: int, calls: int) -> int:
    """Aiohttp, reading and discarding."""
    pages = by_aiohttp(url, size, calls, bool)
    assert pages == -(-calls // size)
    return calls


def aiohttp_json(url: str, size: int, calls: int) -> int:
    """Aiohttp and the standard library's json."""
    return by_aiohttp(url, size, calls, lambda body: len(json.loads(body)["results"]))


def aiohttp_orjson(url: str, size: int, calls: int) -> int:
    """Aiohttp and orjson."""
    import orjson  # noqa: PLC0415 - only who measures it needs it

    return by_aiohttp(url, size, calls, lambda body: len(orjson.loads(body)["results"]))


@cache
def pydantic_page() -> Any:
    """The same fields, validated by pydantic."""
    from pydantic import BaseModel, ConfigDict, create_model  # noqa: PLC0415 - as above

    class Base(BaseModel):
        model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    class Step(Base):
        id: str | None = None
        type: str | None = None
        name: str | None = None
        num: str | None = None
        time: str | None = None
        dialst: str | None = None

    own = {"id": (str, ...), "call_flow": (list[Step] | None, None)}
    skipped = {*own, "extra", "zone"}
    named = msgspec.structs.fields(CallRecord)
    numbers = {"call_duration", "answered_seconds", "minutes_consumed"}
    fields: dict[str, Any] = {
        field.encode_name: (int | None if field.name in numbers else Any, None)
        for field in named
        if field.name not in skipped
    }
    record = create_model("Record", __base__=Base, **(fields | own))
    return create_model("Page", __base__=Base, results=(list[record], ...))


def _pydantic(body: bytes) -> int:
    return len(pydantic_page().model_validate_json(body).results)


def aiohttp_pydantic(url: str, size: int, calls: int) -> int:
    """Aiohttp and pydantic."""
    return by_aiohttp(url, size, calls, _pydantic)


def _by_httpx(url: str, size: int, calls: int, read: Callable[[bytes], int]) -> int:
    import httpx  # noqa: PLC0415 - as above

    async def run() -> int:
        records = 0
        limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        async with httpx.AsyncClient(headers=HEADERS, limits=limits, timeout=None, trust_env=False) as client:

            async def fetch(number: int) -> None:
                nonlocal records
                query = QUERY | {"limit": str(size), "page": str(number)}
                reply = await client.get(f"{url}/v1/call/records", params=query)
                records += read(reply.content)

            pages = range(1, -(-calls // size) + 1)
            for first in range(0, len(pages), CONCURRENCY):
                await asyncio.gather(*(fetch(number) for number in pages[first : first + CONCURRENCY]))
        return records

    return asyncio.run(run())


def httpx_json(url: str, size: int, calls: int) -> int:
    """Httpx and the standard library's json."""
    return _by_httpx(url, size, calls, lambda body: len(json.loads(body)["results"]))


def httpx_pydantic(url: str, size: int, calls: int) -> int:
    """Httpx and pydantic."""
    return _by_httpx(url, size, calls, _pydantic)


def requests_json(url: str, size: int, calls: int) -> int:
    """Requests and the standard library's json, one page after the other."""
    import requests  # noqa: PLC0415 - as above

    records = 0
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(HEADERS)
        for number in range(1, -(-calls // size) + 1):
            query = QUERY | {"limit": str(size), "page": str(number)}
            records += len(session.get(f"{url}/v1/call/records", params=query).json()["results"])
    return records


def curl(url: str, size: int, calls: int) -> int:
    """A C program that discards all of it: the floor."""
    pages = -(-calls // size)
    query = f"from_date=2024-05-01&to_date=2024-05-31&limit={size}&page=[1-{pages}]"
    command = ["curl", "-s", "-H", f"Authorization: Bearer {TOKEN}", f"{url}/v1/call/records?{query}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return calls


def _dlt_source(url: str, size: int) -> Any:
    from dlt.sources.rest_api import rest_api_source  # noqa: PLC0415 - as above

    return rest_api_source(
        {
            "client": {
                "base_url": f"{url}/v1/",
                "auth": {"type": "bearer", "token": TOKEN},
                "paginator": {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": None},
            },
            "resources": [
                {
                    "name": "calls",
                    "endpoint": {
                        "path": "call/records",
                        "params": QUERY | {"limit": size},
                        "data_selector": "results",
                    },
                }
            ],
        }
    )


def _quiet_dlt(directory: str) -> None:
    os.environ |= {
        "RUNTIME__LOG_LEVEL": "CRITICAL",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DLT_DATA_DIR": directory,
        "DLT_PROJECT_DIR": directory,
        "EXTRACT__WORKERS": str(CONCURRENCY),
    }


def dlt_rest_api(url: str, size: int, calls: int) -> int:  # noqa: ARG001 - it finds the end by itself
    """Dlt's rest_api source, its records counted as they come: neither normalised nor loaded."""
    with tempfile.TemporaryDirectory() as directory:
        _quiet_dlt(directory)
        return sum(1 for _ in _dlt_source(url, size))


def dlt_extract(url: str, size: int, calls: int) -> int:
    """The extract step of dlt: its records, read and stored for the next steps."""
    import dlt  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        _quiet_dlt(directory)
        destination = dlt.destinations.filesystem(f"file://{directory}/out")
        pipeline = dlt.pipeline("bench", destination=destination, dataset_name="d", pipelines_dir=f"{directory}/p")
        pipeline.extract(_dlt_source(url, size))
        return calls


def dlt_pull(url: str, size: int, ending: str, calls: int) -> int:
    """Dlt from the API into a file, stock settings but for JSON in place of child tables."""
    import dlt  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        _quiet_dlt(directory)
        if ending == ".duckdb":
            destination: Any = dlt.destinations.duckdb(f"{directory}/calls.duckdb")
        else:
            os.environ["NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION"] = "true"
            destination = dlt.destinations.filesystem(f"file://{directory}/out")
        pipeline = dlt.pipeline("bench", destination=destination, dataset_name="d", pipelines_dir=f"{directory}/p")
        form: Any = {".ndjson": "jsonl", ".parquet": "parquet", ".csv": "csv"}.get(ending)
        pipeline.run(_dlt_source(url, size), loader_file_format=form)
        trace = pipeline.last_trace.last_normalize_info
        assert trace is not None
        assert trace.row_counts["calls"] >= calls  # into several CSV files it counts some rows again and again
        return calls


def pull(url: str, size: int, ending: str, **settings: Any) -> int:
    """The certified pull into a file, with its receipt."""

    async def run() -> int:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            dest = ending if "://" in ending else f"{directory}/calls{ending}"  # a Path would lose a trailing slash
            async with ServetelClient(TOKEN, base_url=url, rate=None, page_size=size) as client:
                receipt = await client.pull(dest, query=CallQuery.month(MONTH), **settings)
            assert receipt.complete, receipt
            return receipt.records

    return asyncio.run(run())
