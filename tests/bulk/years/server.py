"""The truth and its server: each account's calls with all their changes, as of the history's clock.

A call is listed from one moment to another, and its status and charge change from time to time. The server returns the
calls that are listed at its clock. One server on loopback serves all histories of a process, each account by its token.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from tests.bulk.years.history import DAY, HOUR, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The account's wall clock is ahead of UTC.
IST = 19800
NEVER = 10**12
#: Serial numbers of one account.
SERIALS = 100_000
#: Requests of one run, more than any run needs: a run with more is refused, and the history says "without end".
MOST_REQUESTS = 2000


@functools.lru_cache(maxsize=200_000)
def stamp(second: int) -> str:
    """``YYYY-MM-DD HH:MM:SS`` of a second of the wall clock."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S}"


@functools.lru_cache(maxsize=50_000)
def second(text: str) -> int:
    """The inverse of ``stamp``."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


class Version(NamedTuple):
    """The fields of a call that change, from a moment on."""

    since: int
    status: str
    charges: float


@dataclass(eq=False)
class Call:
    """One call.

    Attributes:
        serial: the model's own number of it; ``call_id`` and ``uuid`` contain it.
        filed: the moment that ranges compare.
        listed, gone: the server lists it from ``listed`` on, up to but not at ``gone``.
    """

    serial: int
    id: str | None
    start: int
    end: int
    listed: int
    gone: int
    filed: int
    versions: list[Version]

    def lists_at(self, clock: int) -> bool:
        return self.listed <= clock < self.gone

    def version(self, clock: int) -> Version:
        return next(
            version for version in reversed(self.versions) if version.since <= clock or version is self.versions[0]
        )

    def versions_between(self, first: int, last: int) -> set[tuple[str, float]]:
        """The versions it may have had in that time."""
        during = [version for version in self.versions if first < version.since <= last]
        return {(version.status, version.charges) for version in [self.version(first), *during]}

    @property
    def number(self) -> str:
        return f"+9198{self.serial:08}"

    def body(self, clock: int, url: str) -> str:
        date, time = stamp(self.start).split(" ")
        version = self.version(clock)
        record = {} if self.id is None else {"id": self.id}
        record |= {
            "call_id": f"1746000000.{self.serial}",
            "uuid": f"u-{self.serial}",
            "direction": "inbound",
            "status": version.status,
            "date": date,
            "time": time,
            "end_stamp": stamp(self.end),
            "call_duration": self.end - self.start,
            "charges": version.charges,
            "client_number": self.number,
            "agent_name": f"Agent {self.serial}",
            "recording_url": url,
        }
        return json.dumps(record)


@dataclass(eq=False)
class Account:
    """One account: its calls, its token, and the name that its user gives it."""

    index: int
    identity: str
    name: str | None = None
    token: str = ""
    tokens: int = 0
    calls: list[Call] = field(default_factory=list)

    def renew(self, seed: int) -> None:
        """Get a new token. Only a subject shows that it belongs to the same account."""
        self.tokens += 1
        self.name = f"account-{self.index}" if self.identity == "named" else None
        if self.identity != "subject":
            self.token = f"opaque-{seed:08}-{self.index:04}-{self.tokens:06}"
            return
        claims = {"sub": f"{seed}-{self.index}", "iat": 1_700_000_000 + self.tokens}
        parts = [{"alg": "HS256", "typ": "JWT"}, claims, {"signature": self.tokens}]
        texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
        self.token = ".".join(texts)

    def between(self, first: int, last: int) -> Iterator[Call]:
        return (call for call in self.calls if first <= call.filed <= last)


def make_calls(accounts: list[Account], traits: Traits, begun: int, now: int, number: int, dice: Random) -> None:
    """Let each account make calls between two moments, and decide all their later changes."""
    for account in accounts:
        starts = sorted(dice.randint(begun + 1, now) for _ in range(number))
        for index, start in enumerate(starts):
            if index and dice.random() < 0.15:  # a twin in one second, or in the next
                starts[index] = starts[index - 1] + dice.choice([0, 0, 1])
            elif dice.random() < 0.1:  # at midnight, or in the last second of a day
                starts[index] = min(now, max(begun + 1, start - start % DAY - dice.choice([0, 1])))
        for start in starts:
            account.calls.append(_call(account, accounts, traits, min(start, now), dice))


def _call(account: Account, accounts: list[Account], traits: Traits, start: int, dice: Random) -> Call:
    serial = (account.index + 1) * SERIALS + len(account.calls)
    end = start + dice.choice([0, 5, 60, 60, 600, 2 * HOUR])
    listed = end + dice.choice([0, 1, 5, 30])
    if dice.random() < traits.late:
        listed = end + dice.choice([HOUR, 3 * HOUR, 20 * HOUR, 3 * DAY, 6 * DAY])
    gone = listed + dice.randint(60, 20 * DAY) if dice.random() < traits.deleted else NEVER
    versions = [Version(listed, "answered", 1.5)]
    if dice.random() < 0.15:
        versions.append(
            Version(listed + dice.choice([60, HOUR, DAY, 3 * DAY]), dice.choice(["missed", "answered"]), 2.25)
        )
    key: str | None = f"{listed - IST:08x}{serial:016x}"  # as the API makes them: the moment of insertion first
    others = [call for other in accounts if other is not account for call in other.calls if call.id]
    if dice.random() < traits.without_id:
        key = None
    elif account.calls and dice.random() < traits.reused:
        key = dice.choice(account.calls).id
    elif others and dice.random() < traits.shared:
        free = {call.id for call in others} - {call.id for call in account.calls}
        key = dice.choice(sorted(free)) if free else key
    filed = {"start": start, "end": end, "inserted": listed}[traits.filed_by]
    return Call(serial, key, start, end, listed, gone, filed, versions)


@dataclass
class Run:
    """The events during one run of the product, by the number of the request."""

    on_request: Callable[[int], None] = lambda _number: None
    refuse_from: int = NEVER
    clock_at: int = NEVER
    clock_stays: bool = False
    clock_by: int = 0
    tick: int = 0
    requests: int = 0

    @property
    def was_refused(self) -> bool:
        return self.requests >= self.refuse_from

    @property
    def was_endless(self) -> bool:
        return self.requests > MOST_REQUESTS

    def wrong_by(self) -> int:
        """The error of this reply's ``Date`` in seconds."""
        is_wrong = self.requests >= self.clock_at if self.clock_stays else self.requests == self.clock_at
        return self.clock_by if is_wrong else 0


class Api:
    """The server of one history.

    Attributes:
        now: the second of the wall clock.
    """

    def __init__(self, accounts: list[Account], traits: Traits, now: int, dice: Random) -> None:
        self.accounts = accounts
        self.traits = traits
        self.cap = traits.cap
        self.now = now
        self.run = Run()
        self.dice = dice
        self._before: list[Call] = []  # of the request before

    def answer(self, target: str, token: str) -> tuple[int, int, str]:
        """The status, the clock for ``Date``, and the body."""
        run = self.run
        run.requests += 1
        run.on_request(run.requests)
        self.now += run.tick
        date = self.now - IST + run.wrong_by()
        account = next((each for each in self.accounts if each.token == token), None)
        if account is None or run.was_refused or run.was_endless:
            return 401, date, '{"success": false, "message": "Unauthenticated"}'
        return 200, date, self._page(account, dict(parse_qsl(urlsplit(target).query)))

    def _page(self, account: Account, query: dict[str, str]) -> str:
        traits = self.traits
        first = second(query["from_date"]) if "from_date" in query else 0
        last = second(query["to_date"]) if "to_date" in query else NEVER
        first += traits.bounds == "start_exclusive" and first > 0
        last -= traits.bounds == "end_exclusive" and last < NEVER
        listed = [call for call in account.calls if call.lists_at(self.now)]
        found = [call for call in listed if first <= call.filed <= last]
        if traits.shuffled:
            self.dice.shuffle(found)
            found.sort(key=lambda call: -call.filed)
        else:
            found.sort(key=lambda call: (-call.filed, -call.serial))
        limit, number = int(query.get("limit", "20")), int(query.get("page", "1"))
        size = min(limit, self.cap or limit)
        before, self._before = self._before, found
        is_lie = bool(traits.lies) and self.dice.random() < traits.lies
        if is_lie and traits.elsewhere:
            found = before
        elif is_lie:
            number = max(1, number + self.dice.choice([1, 1, -1]))
        rows = found[(number - 1) * size :][:size]
        bodies = [call.body(self.now, self._url(call)) for call in rows]
        count = len(listed if traits.count_ignores_dates else found)
        is_left_out = traits.uncounted or (traits.zero_left_out and not count)
        counted = "" if is_left_out else f'"count": {count}, '
        return f'{{{counted}"limit": {limit}, "size": {len(rows)}, "page": {number}, "results": [{", ".join(bodies)}]}}'

    def _url(self, call: Call) -> str:
        key = self.dice.randrange(10**9) if self.traits.rotating else 7
        return f"https://recordings.example.com/r?call={call.serial}&token={key}"


class Loopback(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, and only the parts that the client needs."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._buffer = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            tokens = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("authorization:")]
            status, date, text = self._door.api.answer(lines[0].split(" ")[1], tokens[0].removeprefix("Bearer "))
            body = text.encode()
            shown = f"{datetime.fromtimestamp(date, UTC):%a, %d %b %Y %H:%M:%S GMT}"
            reply = f"HTTP/1.1 {status} X\r\nDate: {shown}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(reply.encode() + body)


class Door:
    """The listening socket; ``api`` is the server that answers now."""

    api: Api

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Loopback(self), "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
