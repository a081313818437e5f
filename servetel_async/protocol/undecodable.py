"""What a JSON decoder raises, and whether the bytes are UTF-8: releases of msgspec report bad UTF-8 differently.

Some raise ``UnicodeDecodeError``, others ``DecodeError``. So the class never says what failed: callers catch
``UNDECODABLE`` and look at the bytes.
"""

from __future__ import annotations

import msgspec

#: What a decoder raises for bytes that it cannot decode. Too deep a nesting is a ``RecursionError``: callers add it.
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
