"""The headers of each request."""

from __future__ import annotations

from servetel_async.version import __version__

#: Set on each request, so that a given session sends the same headers.
HEADERS = {
    "Accept": "application/json",
    "Cache-Control": "no-cache",
    "User-Agent": f"servetel-async/{__version__}",
}
