"""The account of a client: found once, with the token in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from servetel_async.protocol.account import identify

if TYPE_CHECKING:
    from servetel_async.protocol.account import Account
    from servetel_async.transport.endpoint import Transport
    from servetel_async.transport.single_flight import SingleFlight


class Identity:
    """The account of one client.

    Args:
        transport: gives the token in use.
        flights: lets concurrent callers share the work.
        name: the account's name.
    """

    def __init__(self, transport: Transport, flights: SingleFlight, name: str | None) -> None:
        self._transport = transport
        self._flights = flights
        self._name = name
        self._account: Account | None = None

    async def account(self) -> Account:
        """Return the account. The first caller starts the work; it continues for the others if a caller is cancelled.

        Raises:
            ServetelError: if no token can be obtained, or the client is closed before the account is known.
        """
        if self._account is None:
            self._account = await self._flights.fly("account", lambda _: self._identify(), None)
        return self._account

    async def _identify(self) -> Account:
        token = await self._transport.token()
        # In a thread: the hash is slow by design.
        return await asyncio.to_thread(
            identify, self._transport.base_url, token, self._transport.tokens.email, self._name
        )
