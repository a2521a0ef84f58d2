"""The one JSON encoding of everything that is signed, in a module that imports nothing that takes long."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["canonical"]


def canonical(value: JsonValue) -> bytes:
    """The one JSON encoding that this tool writes and accepts: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
