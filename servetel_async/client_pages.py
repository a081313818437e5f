"""How one client fetches a page: the path of the request, the transport, and the reading of the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.protocol.decoding import PageBody, PageReader

if TYPE_CHECKING:
    from servetel_async.page_source import PageRequest
    from servetel_async.protocol.path import PagePaths
    from servetel_async.transport.call import Fetched
    from servetel_async.transport.endpoint import Transport


class ClientPages:
    """The pages of one client.

    Args:
        transport: sends the requests.
        paths: writes their paths.
    """

    def __init__(self, transport: Transport, paths: PagePaths) -> None:
        self._transport = transport
        self._paths = paths
        self._reader = PageReader()

    async def fetch(self, page: PageRequest) -> Fetched[PageBody]:
        """Fetch a page, and read it if it is to be returned proved.

        Raises:
            ServetelError: if there is no good reply; see ``Transport.get``.
        """
        return await self._transport.get(
            self._paths.path(page.query, page.window, page.number, page.page_size),
            self._reader.read if page.proved else self._reader.take,
            page=page.number,
            deadline_at=page.deadline_at,
            patient=page.patient,
            flow=page.flow,
            attempts=page.attempts,
            slow_attempts=page.slow_attempts,
            refused=page.refused,
        )
