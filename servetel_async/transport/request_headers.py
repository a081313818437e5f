"""The headers of each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servetel_async.version import __version__

if TYPE_CHECKING:
    from servetel_async.protocol.tokens import Secret


def request_headers(token: Secret | None) -> dict[str, str]:
    """Give them for each request, so that a session of the caller's own sends the same."""
    headers = {
        "Accept": "application/json",
        "Cache-Control": "no-cache",
        "User-Agent": f"servetel-async/{__version__}",
    }
    return headers if token is None else {**headers, "Authorization": type(token)(f"Bearer {token}")}
