"""The telephony API on loopback: seeded data, every habit of the real API as a setting, every fault on request."""

from servetel_async.emulator.clock import IST
from servetel_async.emulator.dataset import Dataset
from servetel_async.emulator.faults import Fault, FaultKind
from servetel_async.emulator.server import Emulator, ServedRequest

__all__ = [
    "IST",
    "Dataset",
    "Emulator",
    "Fault",
    "FaultKind",
    "ServedRequest",
]
