"""`GET /v1/call/records`: from a query to the envelope, honest or not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal, TypeAlias

import msgspec

from servetel_async.emulator.calls import Call
from servetel_async.emulator.churn import Churn
from servetel_async.emulator.clock import WallClock
from servetel_async.emulator.faults import Fault
from servetel_async.emulator.filters import BadParameterError, Bounds, Filter, Pairs, decimal
from servetel_async.emulator.reply import Reply
from servetel_async.emulator.table import Table

__all__ = ["CountMode", "LimitEcho", "PageRequest", "RecordsRoute", "SizeMode"]

#: The meaning of `count`: all matches, the rows of this page (as the reference text claims), or missing.
CountMode: TypeAlias = Literal["total", "page", "missing"]
#: The `limit` that is echoed when a cap applies.
LimitEcho: TypeAlias = Literal["asked", "served"]
#: The meaning of `size`: the rows of this page, or the limit; published samples show both.
SizeMode: TypeAlias = Literal["rows", "limit"]

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A parsed query; `limit` is the limit to serve, `asked` the requested one."""

    wanted: Filter
    number: int
    limit: int
    asked: int

    @property
    def offset(self) -> int:
        """Number of rows that the backend skips."""
        return (self.number - 1) * self.limit


@dataclass(frozen=True, slots=True)
class _Page:
    number: int
    limit: int
    count: int
    rows: Sequence[Call] | None


class RecordsRoute:
    """Serve pages of a table; the settings are those of `Emulator`."""

    def __init__(
        self,
        table: Table,
        churn: Churn,
        clock: WallClock,
        *,
        default_limit: int,
        limit_cap: int | None,
        echo_limit: LimitEcho,
        count_mode: CountMode,
        size_mode: SizeMode,
        knows_call_id: bool,
        max_range_days: float | None,
        bounds: Bounds,
        ties: Random | None,
    ) -> None:
        self._table = table
        self._churn = churn
        self._clock = clock
        self._default_limit = default_limit
        self._limit_cap = limit_cap
        self._echo_limit = echo_limit
        self._count_mode = count_mode
        self._size_mode = size_mode
        self._knows_call_id = knows_call_id
        self._max_range_days = max_range_days
        self._bounds: Bounds = bounds
        self._ties = ties
        self._served = 0

    def filter(self, query: Pairs) -> Filter:
        """Read the filters of a query, without page and limit."""
        return Filter.parse(query, self._clock, knows_call_id=self._knows_call_id, bounds=self._bounds)

    def read(self, query: Pairs) -> PageRequest | Reply:
        """Read a query, or refuse it with 422."""
        pairs = list(query)
        scalars = dict(pairs)
        try:
            wanted = self.filter(pairs)
            self._check_range(wanted)
            asked = _positive(scalars, "limit", self._default_limit)
            number = _positive(scalars, "page", 1)
        except BadParameterError as error:
            return Reply.failure(422, {error.parameter: [str(error)]})
        limit = asked if self._limit_cap is None else min(asked, self._limit_cap)
        return PageRequest(wanted, number, limit, asked)

    def serve(self, request: PageRequest, fault: Fault | None = None) -> tuple[Reply, bool]:
        """Answer a page; return also whether a fault changed it."""
        self._served += 1
        found = self._table.matching(request.wanted)
        if self._churn.before(self._served, found):
            found = self._table.matching(request.wanted)
        rows = self._table.page(found, request.offset, request.limit, self._ties)
        echoed = request.asked if self._echo_limit == "asked" else request.limit
        honest = page = _Page(request.number, echoed, len(found), rows)
        if fault is not None:
            page = self._distort(honest, fault, found, request)
        return Reply(200, self._encode(page)), page != honest

    def _encode(self, page: _Page) -> bytes:
        """Join the bytes that were encoded when the calls were made."""
        rows = page.rows or ()
        counts = {"total": {"count": page.count}, "page": {"count": len(rows)}, "missing": {}}
        size = page.limit if self._size_mode == "limit" else len(rows)
        head = counts[self._count_mode] | {"limit": page.limit, "size": size, "page": page.number}
        opening = msgspec.json.encode(head).removesuffix(b"}")
        if page.rows is None:
            return opening + b',"results":null}'
        return b"".join((opening, b',"results":[', b",".join([call.body for call in rows]), b"]}"))

    def _distort(self, page: _Page, fault: Fault, found: Sequence[Call], request: PageRequest) -> _Page:
        """Return the page as the fault changes it; a fault of another kind leaves it as it is."""
        number, count, rows = page.number, page.count, page.rows or ()
        match fault.kind:
            case "empty_page":
                rows = ()
            case "short_page":
                rows = rows[: int(len(rows) * fault.fraction)]
            case "wrong_page":
                number = max(number + fault.shift, 1)
                rows = self._table.page(found, (number - 1) * request.limit, request.limit)
            case "repeat_page":
                rows = self._table.page(found, 0, request.limit)
            case "results_null":
                return replace(page, rows=None)
            case "wrong_count":
                count = max(count + fault.shift, 0)
            case _:
                pass
        return replace(page, number=number, count=count, rows=rows)

    def _check_range(self, wanted: Filter) -> None:
        if self._max_range_days is None or wanted.since is None or wanted.until is None:
            return
        if wanted.until - wanted.since > self._max_range_days * _DAY:
            raise BadParameterError("to_date", f"The range may not be longer than {self._max_range_days:g} days.")


def _positive(scalars: dict[str, str], name: str, default: int) -> int:
    text = scalars.get(name, "")
    if not text:
        return default
    number = decimal(text)
    if not number:
        raise BadParameterError(name, f"The {name} must be at least 1.")
    return number
