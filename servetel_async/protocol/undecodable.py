"""Errors of JSON decoders, and whether bytes are UTF-8. Versions of msgspec report bad UTF-8 differently.

Some raise ``UnicodeDecodeError``, others ``DecodeError``. So the class does not show what failed: callers catch
``UNDECODABLE`` and check the bytes.
"""

from __future__ import annotations

import msgspec

#: Errors of a decoder for bytes that it cannot decode. Deep nesting raises ``RecursionError``, which callers add.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError)


def is_utf8(raw: msgspec.Raw | bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def repair_utf8(raw: msgspec.Raw | bytes) -> bytes:
    """Replace each invalid sequence by U+FFFD."""
    return bytes(raw).decode("utf-8", "replace").encode()
