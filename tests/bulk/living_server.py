"""A server whose clock a test sets: it lists the calls begun by then, and sends that time in ``Date``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from servetel_async import IST, Retry, ServetelClient
from tests.bulk.small_server import HONEST, Answer, SmallServer, inclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bulk.small_server import Asked, Call

REFUSED = Answer(status=401, body=b'{"success": false, "message": "Token has expired"}')


class LivingServer(SmallServer):
    """See the module.

    Attributes:
        now: the clock, on the account's wall clock.
        refuses_from: the first request whose token it refuses; None for never.
    """

    def __init__(self, calls: list[Call], now: str, habit: Callable[[Asked], Answer] | None = None) -> None:
        super().__init__(calls, self._answer, inside=self._is_listed)
        self.refuses_from: int | None = None
        self.wrong_dates: list[str] = []
        self._then = habit or (lambda _asked: HONEST)
        self.now = now

    def _is_listed(self, start: str, first: str, last: str) -> bool:
        return inclusive(start, first, last) and start <= self.now

    def _answer(self, asked: Asked) -> Answer:
        self._date = _http_date(self.wrong_dates.pop(0) if self.wrong_dates else self.now)
        if self.refuses_from is not None and asked.nth >= self.refuses_from:
            return REFUSED
        return self._then(asked)

    def refuse_after(self, requests: int) -> None:
        """Answer so many more requests, then refuse the token."""
        self.refuses_from = len(self.asked) + 1 + requests

    def client(self, token: str = "token-123456", **options: Any) -> ServetelClient:
        """A client that never waits."""
        given = {"rate": None, "page_size": 5, "retry": Retry(attempts=1, base=0.001), **options}
        return ServetelClient(token, base_url=self.base_url, **given)


def every(minutes: int, first: str, last: str) -> Iterator[Call]:
    """One call every so many minutes, newest first."""
    start, moment = datetime.fromisoformat(first), datetime.fromisoformat(last)
    while moment >= start:
        yield moment.isoformat(sep=" "), f"call-{moment:%Y%m%d%H%M%S}"
        moment -= timedelta(minutes=minutes)


def _http_date(wall: str) -> str:
    moment = datetime.fromisoformat(wall).replace(tzinfo=IST).astimezone(UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
