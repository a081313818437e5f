"""The context of a figure: the machine, the versions, the date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime

PACKAGES = ("aiohttp", "msgspec", "pyarrow", "duckdb", "asyncpg")


def header() -> str:
    """One line for the top of a table."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {', '.join(versions)}"
    )
