"""Cost against size: the number of records, the page size, the number of connections."""

from __future__ import annotations

import math
from functools import partial

from benchmarks import contenders
from benchmarks.measure import interleave
from benchmarks.page_server import serving
from benchmarks.section import Chart, Section, table

PAGES = (20, 100, 1000, 5000)
CONNECTIONS = (1, 2, 4, 8, 16, 32)


def slope(points: list[tuple[float, float]]) -> float:
    """The exponent of the best fitting power law."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle_x, middle_y = (sum(each) / len(logs) for each in zip(*logs, strict=True))
    steep = sum((x - middle_x) * (y - middle_y) for x, y in logs)
    return steep / sum((x - middle_x) ** 2 for x, _ in logs)


def run(*, quick: bool) -> Section:
    sizes = (1_000, 10_000) if quick else (10_000, 100_000, 1_000_000)
    by_page: dict[str, list[tuple[float, float]]] = {f"pages of {size}": [] for size in PAGES}
    rows = []
    for calls in sizes:
        with serving(calls) as url:
            for size in PAGES:
                stream = partial(contenders.stream, f"{url}/plain", size, calls)
                found = interleave({"stream": stream}, 1 if calls > sizes[0] else 3)["stream"]
                by_page[f"pages of {size}"].append((calls, found.units * found.cpu_us / 1e6))
    for name, points in by_page.items():
        rows.append([name, *(f"{seconds:.2f}" for _, seconds in points), f"{slope(points):.2f}"])
    lines = ["Seconds of CPU for a stream; the slope is the exponent: 1 is linear.", ""]
    lines += table(["", *(f"{calls:,} records" for calls in sizes), "slope"], rows)
    labelled = {f"{name}, slope {slope(points):.2f}": points for name, points in by_page.items()}
    charts = [Chart("records", "Seconds of CPU against records", "records", "s", labelled)]
    calls, size = (1_000, 20) if quick else (6_400, 20)
    points = []
    with serving(calls) as url:
        for pace in CONNECTIONS:
            stream = partial(contenders.stream, f"{url}/slow-100-0", size, calls, max_concurrency=pace)
            found = interleave({"stream": stream}, 1)["stream"]
            points.append((float(pace), found.per_second))
    lines += [f"Records a second by connections, 100 ms a page of {size}; slope {slope(points):.2f}:", ""]
    lines += table([str(pace) for pace in CONNECTIONS], [[f"{per_second:,.0f}" for _, per_second in points]])
    label = f"100 ms a page, slope {slope(points):.2f}"
    charts.append(Chart("connections", "Records a second against connections", "connections", "1/s", {label: points}))
    return Section("Cost against size", lines, plots=charts)
