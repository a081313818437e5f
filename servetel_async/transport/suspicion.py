"""Whether the token may be the reason for a 403 or 404 from an address that works.

Some gateways answer 403 when a token expires early, and a firewall may answer 403 to everything. So the second such
reply in a row to a token that had worked causes one renewal. A lasting block must not cost a login per request: a token
that has not worked yet is not suspected, and no token is suspected twice without a good reply in between.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from servetel_async.errors import ServetelError
from servetel_async.protocol.verdict import Unacceptable

if TYPE_CHECKING:
    from collections.abc import Container

    from servetel_async.protocol.tokens import Secret
    from servetel_async.protocol.verdict import Verdict
    from servetel_async.transport.credentials import TokenSource

#: After this many such replies in a row the token is suspected. The first is usually a fault of the gateway itself.
ENOUGH = 2


class Suspicion:
    """Count the replies that the token may have caused.

    Args:
        proved: the tokens of good replies.
    """

    def __init__(self, proved: Container[Secret]) -> None:
        self._proved = proved
        self._token: Secret | None = None
        self._times = 0
        self._is_spent = False

    async def token(self, tokens: TokenSource) -> Secret:
        """Return the token to send: a new one if this one is suspected and a new one can be obtained."""
        token = await tokens.token()
        if not self._is_due(token):
            return token
        # Every call with this token waits for the one renewal: otherwise its attempts would be used up first.
        with suppress(ServetelError, Unacceptable):  # a login behind the same firewall: the old token may still be good
            await tokens.renew(token, sure=False)
        self._is_spent = True
        return await tokens.token()

    def note(self, token: Secret, verdict: Verdict) -> None:
        """Note a failed reply."""
        if not verdict.perhaps_token:
            return
        if token != self._token:
            self._token, self._times, self._is_spent = token, 0, False
        self._times += 1

    def clear(self, token: Secret) -> None:
        """Note a good reply."""
        if token == self._token:
            self._token = None

    def _is_due(self, token: Secret) -> bool:
        return token == self._token and token in self._proved and self._times >= ENOUGH and not self._is_spent
