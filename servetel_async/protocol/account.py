"""Stub."""

from __future__ import annotations

from typing import NamedTuple


class Account(NamedTuple):
    origin: str
    fingerprint: str
    known_by: str
    name: str | None = None

    @property
    def label(self) -> str:
        return self.name or self.fingerprint
