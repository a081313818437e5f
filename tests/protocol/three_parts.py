"""What each error shown to a person must say: what happened, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servetel_async import ServetelError


def assert_says_what_and_what_to_do(error: ServetelError | None, why: str | None = None) -> None:
    """Each part is a text of several words; the reason contains ``why``."""
    assert error is not None
    for part in (error.what, error.fix):
        assert isinstance(part, str)
        assert len(part.split()) > 1, part
    if why is not None:
        assert why in (error.why or "")
