"""The protobuf wire format: the top-level fields of a file, enough to tell ONNX from Core ML from neither, and the
fields of a message in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

from fingerprint.frozen import dataclass

Field: TypeAlias = int | memoryview  # a varint, or bytes (fixed-size numbers too)

_ONNX_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}  # of onnx.ModelProto
_ONNX_VARINTS = {1, 5}  # ir_version, model_version
_MOST = 100_000  # top-level fields looked at
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class TopLevel:
    """Field numbers with their wire type, in order, and whether the last one runs past the end of the file."""

    fields: tuple[tuple[int, int], ...]
    first_value: int  # of the first field, where it is a varint
    cut: bool


def top_level(file: BinaryIO, size: int, head: bytes = b"") -> TopLevel | None:
    """The top-level fields of a file, or None where it is no protobuf message. `head`: its first bytes, where known.

    Only numbers and lengths are read, so that no hostile file can cost more than its field count.
    """
    fields: list[tuple[int, int]] = []
    first = at = 0
    while at < size and len(fields) < _MOST:
        chunk = head[at : at + 20]  # a key and a length have at most 10 bytes each
        if len(chunk) < 20:
            file.seek(at)
            chunk = file.read(20)
        key, used = _varint(chunk, 0)
        number, wire = key >> 3, key & 7
        if used == 0 or number == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            return None
        value, end = _varint(chunk, used) if wire in (_VARINT, _BYTES) else (0, used)
        if wire in (_VARINT, _BYTES) and end == used:
            return None
        first = value if not fields else first
        fields.append((number, wire))
        at += end + {_VARINT: 0, _FIXED64: 8, _BYTES: value, _FIXED32: 4}[wire]
    return TopLevel(tuple(fields), first, at > size) if fields else None


def is_onnx(found: TopLevel) -> bool:
    """Whether these are the fields of an ONNX model (one that is cut in its graph is still one)."""
    for number, wire in found.fields:
        if number not in _ONNX_FIELDS or wire != (_VARINT if number in _ONNX_VARINTS else _BYTES):
            return False
    has_version = found.fields[0] == (1, _VARINT) and 1 <= found.first_value <= 99
    has_graph = (7, _BYTES) in found.fields
    return has_graph and (has_version or (8, _BYTES) in found.fields)


def is_coreml(found: TopLevel) -> bool:
    """Whether these are the fields of a Core ML model: a version, a description, and one of its model kinds."""
    numbers = {number for number, _ in found.fields}
    return found.fields[0] == (1, _VARINT) and 2 in numbers and any(200 <= number <= 3000 for number in numbers)


def message(data: memoryview) -> Iterator[tuple[int, Field]]:
    """Field numbers and values of a message, in order.

    Raises:
        ValueError: damaged.
    """
    at = 0
    while at < len(data):
        key, used = _varint(data, at)
        wire = key & 7
        value, end = _varint(data, used) if wire in (_VARINT, _BYTES) else (0, used)
        if (
            used == at
            or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32)
            or (wire in (_VARINT, _BYTES) and end == used)
        ):
            raise ValueError("no protobuf message")
        at = end + {_VARINT: 0, _FIXED64: 8, _BYTES: value, _FIXED32: 4}[wire]
        if at > len(data):
            raise ValueError("a protobuf message is cut")
        yield key >> 3, value if wire == _VARINT else data[end:at]


def varints(data: memoryview) -> Iterator[int]:
    """Packed varints. Raises ValueError where they are cut."""
    at = 0
    while at < len(data):
        value, end = _varint(data, at)
        if end == at:
            raise ValueError("a packed number is cut")
        yield value
        at = end


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """(value, position after it); the position is `at` itself where there is none."""
    value = 0
    for count, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, at + count + 1
    return 0, at
