"""Faults as data: their kind and their request. `records` and `delivery` apply them to an answer."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from random import Random
from typing import Final, Literal, TypeAlias, get_args

from servetel_async.emulator.reply import Reply

__all__ = ["PAGE_FAULTS", "Fault", "FaultKind", "FaultPlan", "too_many_requests"]

FaultKind: TypeAlias = Literal[
    # The answer is replaced.
    "status",
    "html_200",
    "success_false_200",
    "retry_after",
    # The answer is a page with false content.
    "empty_page",
    "short_page",
    "wrong_page",
    "repeat_page",
    "results_null",
    "wrong_count",
    # The answer is correct, but does not arrive.
    "truncated_json",
    "cut_body",
    "reset",
    "close",
    "stall",
    "stall_body",
    "slow",
    "huge_body",
]

PAGE_FAULTS: Final = frozenset(
    {"empty_page", "short_page", "wrong_page", "repeat_page", "results_null", "wrong_count"},
)


@dataclass(frozen=True)
class Fault:
    """One fault.

    It strikes a request to its `path` that meets every given selector, at most `times` times. If several faults are
    due at one request, the first one strikes.

    Selectors:
        `page`: the page that the request asks for, as a number.
        `nth`: the number of the request among those to its path, from 1.
        `every`: that number is divisible by this one.
        `probability`: the chance, drawn from the emulator's seed, at each request that meets the others.

    Kinds:
        `status`: answer `status` with `body` and `headers`.
        `html_200`: a maintenance page with status 200.
        `success_false_200`: status 200, `{"success": false, "message": message}`.
        `retry_after`: 429 as documented, with the header `Retry-After: retry_after` unless that is None.
        `empty_page`: no results, though there are some.
        `short_page`: only `fraction` of the results.
        `wrong_page`: the page `shift` further on, saying so.
        `repeat_page`: the first page, saying it is the one asked for.
        `results_null`: `"results": null`.
        `wrong_count`: a count that is off by `shift`.
        `truncated_json`: `fraction` of the body, announced as such.
        `cut_body`: `fraction` of the body announced, then the end of the connection.
        `reset`: a TCP reset instead of an answer.
        `close`: the end of the connection instead of an answer.
        `stall`: nothing for `seconds`, then the end of the connection.
        `stall_body`: head and `fraction` of the body, nothing for `seconds`, then the end of the connection.
        `slow`: the whole body, evenly over `seconds`.
        `huge_body`: a JSON body of `size` bytes, its length not announced.
    """

    kind: FaultKind
    _: KW_ONLY
    path: str = "/v1/call/records"
    page: int | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    times: int | None = None
    status: int = 503
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    message: str = "Something went wrong"
    retry_after: float | str | None = 1
    fraction: float = 0.5
    shift: int = 1
    seconds: float = 3_600.0
    size: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"no such fault: {self.kind!r}")
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction is between 0 and 1, not {self.fraction}")
        if 0 in {self.page, self.nth, self.every, self.times}:
            raise ValueError("page, nth, every and times count from 1: this fault would never strike")

    def instead_of(self, reply: Reply) -> Reply:
        """Return the answer in place of an honest reply; only some kinds answer differently."""
        match self.kind:
            case "status":
                return Reply(self.status, self.body, self.headers, "text/html")
            case "html_200":
                return Reply(200, b"<!doctype html><title>Down for maintenance</title>", content_type="text/html")
            case "success_false_200":
                return Reply.failure(200, self.message)
            case "retry_after":
                return too_many_requests(self.retry_after)
            case "truncated_json":
                return Reply(reply.status, self.part_of(reply.body), reply.headers, reply.content_type)
            case _:
                return reply

    def part_of(self, body: bytes) -> bytes:
        """Return the part of a body to send: never all of it, unless there is nothing to leave out."""
        return body[: min(int(len(body) * self.fraction), max(len(body) - 1, 0))]


def too_many_requests(retry_after: float | str | None) -> Reply:
    """Answer 429 as documented: only there `success` is text."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Reply.json(429, {"success": "false", "message": "Too many requests."}, headers)


class FaultPlan:
    """Decide, from a seed, which request meets which fault, and count the faults that took effect."""

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self.fired: Counter[str] = Counter()
        self._faults = list(faults)
        self._strikes: Counter[int] = Counter()
        self._arrivals: Counter[str] = Counter()
        self._random = Random(f"faults {seed}")

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def arrive(self, path: str) -> int:
        """Count a request of a path and return its number, from 1."""
        self._arrivals[path] += 1
        return self._arrivals[path]

    def choose(self, path: str, number: int, page: int | None) -> Fault | None:
        """Return the fault, if any, that is due at a request; it counts only if `strike` follows."""
        return next((fault for fault in self._faults if self._is_due(fault, path, number, page)), None)

    def strike(self, fault: Fault) -> None:
        """Count a fault that took effect."""
        self._strikes[id(fault)] += 1
        self.fired[fault.kind] += 1

    def _is_due(self, fault: Fault, path: str, number: int, page: int | None) -> bool:
        return (
            fault.path == path
            and (fault.times is None or self._strikes[id(fault)] < fault.times)
            and fault.page in {None, page}
            and fault.nth in {None, number}
            and (fault.every is None or number % fault.every == 0)
            and (fault.probability is None or self._random.random() < fault.probability)
        )
