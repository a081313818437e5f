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


def resolve(known, this):
    for each in known:
        if (each.origin, each.fingerprint) == (this.origin, this.fingerprint):
            return each
    return this
