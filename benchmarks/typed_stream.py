"""The typed stream against its alternatives: the same server, the same pages, interleaved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import contenders
from benchmarks.measure import interleave, ratio
from benchmarks.page_server import serving
from benchmarks.section import Section, at_least, at_most, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Timing

#: By name; the bounds of the design are ratios of CPU per record.
PEERS: dict[str, Callable[[str, int, int], int]] = {
    "curl, thrown away": contenders.curl,
    "aiohttp, thrown away": contenders.discard,
    "aiohttp + msgspec Struct, by hand": contenders.bare,
    "aiohttp + orjson": contenders.aiohttp_orjson,
    "aiohttp + json": contenders.aiohttp_json,
    "requests + json": contenders.requests_json,
    "httpx + json": contenders.httpx_json,
    "aiohttp + pydantic": contenders.aiohttp_pydantic,
    "httpx + pydantic": contenders.httpx_pydantic,
    "dlt rest_api, iterated": contenders.dlt_rest_api,
    "dlt rest_api, extracted": contenders.dlt_extract,
    "the stream's requests alone, thrown away": contenders.requests_alone,
    "decoding alone, in one pass": contenders.decoding_in_one_pass,
    "decoding alone, as the stream does it": contenders.decoding_in_slices,
}
STREAM, BARE = "**typed stream**", "aiohttp + msgspec Struct, by hand"
FASTER_THAN = {"httpx + pydantic": 8.0, "aiohttp + json": 2.5, "requests + json": 5.0, "dlt rest_api, extracted": 20.0}
#: By page size: the budget, and the bound for CI.
BESIDE_BARE = {100: (1.25, 1.6), 1000: (0.8, 1.3), 5000: (0.8, 1.4)}
SLOW = {
    *("requests + json", "httpx + json", "aiohttp + pydantic", "httpx + pydantic"),
    *("dlt rest_api, iterated", "dlt rest_api, extracted"),
}


def measure(url: str, size: int, calls: int, rounds: int, names: list[str], **settings: object) -> dict[str, Timing]:
    """The stream and these peers, at one page size."""
    runs: dict[str, Callable[[], int]] = {STREAM: partial(contenders.stream, url, size, calls, **settings)}
    runs |= {name: partial(PEERS[name], url, size, calls) for name in names}
    return interleave(runs, rounds)


def run(*, quick: bool) -> Section:
    calls, rounds = (50_000, 5) if quick else (50_000, 7)
    lines = [
        (
            "CPU of the client in µs per record; in brackets how far the rounds lie apart. Everyone reads the same "
            f"month of {calls:,} calls; the slow ones a fifth of it."
        ),
        "",
    ]
    found: dict[int, dict[str, Timing]] = {}
    budgets = []
    with serving(calls) as url, serving(calls // 5) as small:
        for size in (100, 1000, 5000) if quick else (20, 100, 1000, 5000):
            names = [BARE] if quick else [name for name in PEERS if name not in SLOW]
            found[size] = measure(f"{url}/plain", size, calls, rounds, names)
            if size in BESIDE_BARE:
                bound, held_to = BESIDE_BARE[size]
                mine, theirs = found[size][STREAM], found[size][BARE]
                noise = 2 * (mine.spread + theirs.spread) if quick else 0.0
                what = f"typed stream, pages of {size}, CPU against a bare loop"
                budgets.append(at_most(what, bound, ratio(mine, theirs), noise=noise, held_to=held_to))
        slow: dict[int, dict[str, Timing]] = {}
        for size in () if quick else (100, 1000):
            slow[size] = measure(f"{small}/plain", size, calls // 5, 3, sorted(SLOW))
        for name, bound in {} if quick else FASTER_THAN.items():
            by_size = []
            for size in (100, 1000):
                pool = slow[size] if name in SLOW else found[size]
                by_size.append(pool[name].cpu_us / found[size][STREAM].cpu_us)
            budgets.append(at_least(f"typed stream, times as fast as {name} (pages of 100; 1000)", bound, min(by_size)))
        learn = interleave(
            {
                "known": partial(contenders.stream, f"{url}/plain", 100, calls),
                "unknown": partial(contenders.stream, f"{url}/learn", 100, calls),
            },
            rounds,
        )
        noise = 2 * (learn["known"].spread + learn["unknown"].spread) if quick else 0.0
        what = "typed stream, one unknown key in every record"
        budgets.append(at_most(what, 1.3, ratio(learn["unknown"], learn["known"]), noise=noise))
        packed: dict[int, dict[str, Timing]] = {}
        for size in () if quick else (100, 1000):
            packed[size] = measure(f"{url}/gzip", size, calls, 3, [BARE, "aiohttp + json"])
    lines += _tables(found, slow, packed)
    return Section("The typed stream", lines, budgets)


def _tables(
    found: dict[int, dict[str, Timing]], slow: dict[int, dict[str, Timing]], packed: dict[int, dict[str, Timing]]
) -> list[str]:
    names = [STREAM, *(name for name in PEERS if any(name in each for each in (*found.values(), *slow.values())))]
    rows = []
    for name in names:
        cells = []
        for size, timings in found.items():
            timing = timings.get(name) or slow.get(size, {}).get(name)
            cells.append("" if timing is None else f"{timing.cpu_us:.2f} (±{timing.spread:.0%})")
        rows.append([name, *cells])
    lines = table(["µs per record", *(f"pages of {size}" for size in found)], rows)
    if packed:
        rows = [
            [name, *(f"{each[name].cpu_us:.2f} (±{each[name].spread:.0%})" for each in packed.values())]
            for name in next(iter(packed.values()))
        ]
        lines += ["The same with gzip from the server:", ""]
        lines += table(["µs per record", *(f"pages of {size}" for size in packed)], rows)
    return lines
