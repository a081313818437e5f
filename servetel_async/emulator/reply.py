"""An answer before it is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

__all__ = ["Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, body and headers; the body is whole, even if a fault cuts it later."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json"

    @classmethod
    def json(cls, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Self:
        return cls(status, msgspec.json.encode(content), headers or {})

    @classmethod
    def failure(cls, status: int, message: Any, **more: Any) -> Self:
        """Answer `{"success": false, "message": ...}`, the API's usual refusal."""
        return cls.json(status, {"success": False, "message": message, **more})
