"""A plugin of pytest that runs every test on uvloop: ``python -m pytest -p tests.on_uvloop``."""

from __future__ import annotations

import uvloop


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop}
