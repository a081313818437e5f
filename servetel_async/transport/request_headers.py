"""The headers of each request."""

from __future__ import annotations

from servetel_async.version import __version__

#: Given for each request, so that a session of the caller's own sends the same.
HEADERS = {
    "Accept": "application/json",
    "Cache-Control": "no-cache",
    "User-Agent": f"servetel-async/{__version__}",
}
