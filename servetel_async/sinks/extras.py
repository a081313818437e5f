"""Libraries that only some destinations need."""

from __future__ import annotations

from servetel_async.errors import ConfigurationError


def missing(package: str, extra: str) -> ConfigurationError:
    """Return the error for a library that is not installed, with the way to install it."""
    return ConfigurationError(
        f"this destination needs {package}, which is not installed",
        fix=f"pip install 'servetel-async[{extra}]'",
    )
