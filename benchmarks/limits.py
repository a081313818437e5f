"""How much of the limit is used if the network or the account's rate is the limit, not the CPU."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request

import aiohttp

from benchmarks.contenders import HEADERS, QUERY, TOKEN
from benchmarks.page_server import MONTH, TAKEN_FROM, TAKEN_UNTIL, serving
from benchmarks.section import Budget, Section, at_most, table
from servetel_async import CallQuery, RateLimit, Retry, ServetelClient

PAGES = 500
RATES = (0.5, 2.0, 5.0, 20.0, 50.0, 200.0)
SECONDS = 12.0
SIZE = 20


async def _stream(url: str, records: int, **settings: object) -> float:
    begun = time.perf_counter()
    async with ServetelClient(TOKEN, base_url=url, **settings) as client:  # type: ignore[arg-type]
        async for _ in client.calls(query=CallQuery.month(MONTH), max_records=records):
            pass
    return time.perf_counter() - begun


async def _callers(url: str, rate: float, seconds: float) -> None:
    """Bursts: thirty callers at once, again and again."""
    query = CallQuery.month(MONTH)
    async with ServetelClient(TOKEN, base_url=url, rate=rate, page_size=SIZE) as client:
        for _ in range(max(1, round(rate * seconds / 30))):
            await asyncio.gather(*(client.fetch_page(query, page=number) for number in range(1, 31)))


def _seen(url: str, name: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/count-{name}/") as reply:
        return json.loads(reply.read())


def latency(url: str, kind: str, concurrency: int) -> float:
    """Wall time over the shortest possible, if each page takes 100 ms, or 100 ms on average."""
    took = asyncio.run(_stream(f"{url}/{kind}", PAGES * SIZE, rate=None, page_size=SIZE, max_concurrency=concurrency))
    return took / (-(-PAGES // concurrency) * 0.1)


async def _floor(url: str, concurrency: int) -> float:
    numbers = iter(range(1, PAGES + 1))
    begun = time.perf_counter()
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def fetch() -> None:
            for number in numbers:
                query = QUERY | {"limit": str(SIZE), "page": str(number)}
                async with session.get(f"{url}/v1/call/records", params=query) as reply:
                    await reply.read()

        await asyncio.gather(*(fetch() for _ in range(concurrency)))
    return time.perf_counter() - begun


def floor(url: str, kind: str, concurrency: int) -> float:
    """The same for aiohttp alone, which discards the pages and knows their number beforehand."""
    return asyncio.run(_floor(f"{url}/{kind}", concurrency)) / (-(-PAGES // concurrency) * 0.1)


def rates(url: str, seconds: float) -> list[tuple[str, float, dict[str, float]]]:
    """Use each rate for a while, all of them at once on different accounts."""

    async def one(rate: float) -> None:
        records = max(3, round(rate * seconds)) * SIZE
        await _stream(f"{url}/rate-{rate}-r{rate}", records, rate=rate, page_size=SIZE, max_concurrency=8)

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, RATES), *(_callers(f"{url}/rate-{r}-b{r}", r, seconds) for r in (5.0, 20.0)))

    asyncio.run(all_of_them())
    found = [(f"one stream at {rate:g}/s", rate, _seen(url, f"r{rate}")) for rate in RATES]
    return found + [(f"bursts of 30 callers at {rate:g}/s", rate, _seen(url, f"b{rate}")) for rate in (5.0, 20.0)]


def shared(url: str) -> tuple[float, dict[str, float]]:
    """Another program takes 12 of 20 requests a second for a while; returns the used share of the rest."""
    work = _stream(
        f"{url}/taken-20-12-shared",
        round(20 * SECONDS) * SIZE,
        rate=RateLimit(20.0),
        page_size=SIZE,
        max_concurrency=8,
        retry=Retry(attempts=30),
    )
    asyncio.run(work)
    seen = _seen(url, "shared")
    taken = max(0.0, min(seen["seconds"], TAKEN_UNTIL) - TAKEN_FROM) * 12.0
    return seen["served"] / (20.0 * seen["seconds"] - taken), seen


def run(*, quick: bool) -> Section:
    rows, budgets = [], []
    with serving(200 * SIZE * 20) as url:
        kinds = {"100 ms": "slow-100-0"} | ({} if quick else {"70 ms and an exponential of 30 ms": "slow-70-30"})
        for name, kind in kinds.items():
            found = {pace: latency(url, kind, pace) for pace in ((16, 32) if quick else (4, 8, 16, 32))}
            rows.append([name, *(f"{found[pace]:.3f}" if pace in found else "" for pace in (4, 8, 16, 32))])
            for pace, measured in found.items():
                bound = 1.12 if kind == "slow-70-30" else 1.08 if pace == 32 else 1.05
                what = f"{PAGES} pages at {name}, concurrency {pace}: time over the shortest possible"
                budgets.append(at_most(what, bound, measured, noise=0.1 if quick else 0.0))
            if not quick:
                rows.append(
                    [f"{name}: aiohttp, thrown away", *(f"{floor(url, kind, pace):.3f}" for pace in (4, 8, 16, 32))]
                )
        lines = ["Time over the shortest possible, by how many requests are in flight:", ""]
        lines += table(["a page takes", "4", "8", "16", "32"], rows)
        rows = []
        for name, rate, seen in rates(url, 6.0 if quick else SECONDS):
            used = (seen["served"] - 1) / seen["seconds"] / rate
            rows.append([name, f"{used:.1%}", f"{seen['refused']:.0f}"])
            met = used >= 0.98 and not seen["refused"]
            tolerated = used >= 0.95 and seen["refused"] <= 1
            measured = f"{used:.1%}; {seen['refused']:.0f}"
            budgets.append(Budget(f"{name}: used; 429s", "≥ 98 %; 0", measured, met, tolerated))
        if not quick:
            used, seen = shared(url)
            rows.append(["20/s, 12 of which somebody else takes for 3 s", f"{used:.1%}", f"{seen['refused']:.0f}"])
        lines += ["How much of an account's rate is used:", ""]
        lines += table(["", "used", "429s"], rows)
    return Section("Latency and rate", lines, budgets)
