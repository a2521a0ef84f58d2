"""Strict decoding: one byte sequence per value, so that a changed byte is always seen."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from fingerprint.canonical import canonical
from fingerprint.errors import Tampered

if TYPE_CHECKING:
    from pydantic import JsonValue


def parse_canonical(data: bytes, what: str) -> JsonValue:
    """The JSON value of `data`, which must be its own canonical encoding.

    That refuses duplicate keys, white space, other escapes and other spellings of numbers, all at once.

    Raises:
        Tampered: not JSON, or not canonical. `what` names the thing in the message.
    """
    try:
        value: JsonValue = json.loads(data.decode("utf-8"))
        again = canonical(value)
    except (ValueError, RecursionError) as error:
        raise Tampered(f"{what} can't be read: {error}") from error
    if again != data:
        raise Tampered(f"{what} is not in its canonical encoding")
    return value


def fields(value: JsonValue, names: frozenset[str], what: str) -> dict[str, JsonValue]:
    """`value` as an object with exactly the fields `names`.

    Raises:
        Tampered: something else.
    """
    if not isinstance(value, dict) or value.keys() != names:
        raise Tampered(f"{what} does not have the fields {', '.join(sorted(names))}")
    return value


def text(value: JsonValue, what: str) -> str:
    """`value` as a string.

    Raises:
        Tampered: something else.
    """
    if not isinstance(value, str):
        raise Tampered(f"{what} is not a string")
    return value


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(value: JsonValue, what: str) -> bytes:
    """Bytes of a base64 string, which must be the one that `encode_base64` writes.

    Raises:
        Tampered: not a string, not base64, or another spelling of the same bytes.
    """
    given = text(value, what)
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Tampered(f"{what} is not base64") from error
    if encode_base64(data) != given:
        raise Tampered(f"{what} is not in its canonical base64 encoding")
    return data
