"""What identifies a database of this tool, and the digest that every row carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

APPLICATION_ID = 0x444E4650  # "DNFP" in the file's header: nobody else's database is ever migrated
MIGRATION_SET = "dnn-fingerprint"
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
VERSION = 5  # PRAGMA user_version: the number of migrations that this code knows


def compact_json(value: object) -> str:
    """Sorted, without spaces, ASCII: the same text for the same value, whatever characters a hostile path holds.

    Raises:
        TypeError: not JSON.
        ValueError: not JSON, or a number that is not finite.
    """
    return _encode(value)


def row_digest(table: str, values: Mapping[str, object]) -> str:
    """SHA-256 (hex) over all columns of a row but the digest itself and blobs."""
    return hashlib.sha256(compact_json([table, dict(values)]).encode()).hexdigest()


def unicode_only(text: str) -> str:
    """JSON text of ASCII in which lone surrogates, which a hostile path can hold, are spelled out: \\udcff.

    Signed statements are UTF-8, which has no encoding for them.
    """
    if "\\ud" not in text:
        return text
    value = json.loads(text)
    return compact_json(_spelled(value))


def _spelled(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if isinstance(value, dict):
        return {str(_spelled(key)): _spelled(item) for key, item in value.items()}
    return value
