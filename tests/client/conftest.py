"""The client's tests use the fixtures of the transport's tests."""

from tests.transport.conftest import (
    _modules_out_of_sight,
    connect,
    emulate,
    loop_log,
    month,
    serve,
    small,
    stack,
)

__all__ = [
    "_modules_out_of_sight",
    "connect",
    "emulate",
    "loop_log",
    "month",
    "serve",
    "small",
    "stack",
]
