"""The path of a page: a query's parameters, percent-encoded once for all its pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from servetel_async.protocol.tokens import Secret

if TYPE_CHECKING:
    from datetime import tzinfo

    from servetel_async.protocol.query import ArrayStyle, CallQuery
    from servetel_async.protocol.windows import Window


class PagePaths:
    """Make the paths of pages. They are secrets: they hold phone numbers, and tracebacks print locals."""

    def __init__(self, zone: tzinfo, array_style: ArrayStyle) -> None:
        self._zone = zone
        self._array_style: ArrayStyle = array_style
        self._last: tuple[CallQuery, Window, Secret] | None = None

    def path(self, query: CallQuery, window: Window, number: int, page_size: int) -> Secret:
        """Return the path of one page, with its query string."""
        last = self._last  # read once: another thread may change it meanwhile
        if last is None or last[0] is not query or last[1] is not window:
            params = query.params(self._zone, array_style=self._array_style, window=window)
            encoded = urlencode(params, quote_via=quote, safe="")
            last = self._last = query, window, Secret(f"/v1/call/records?{encoded}{'&' if encoded else ''}")
        return Secret(f"{last[2]}page={number}&limit={page_size}")
