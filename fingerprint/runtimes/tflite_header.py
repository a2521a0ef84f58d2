"""The inputs of a TensorFlow Lite file's main graph, read from the flatbuffer (schema.fbs)."""

from __future__ import annotations

import struct

from fingerprint.runtimes.declared import NO_NUMBERS, Declared, End

_MOST = 1024  # inputs, and dimensions of one
_SUBGRAPHS = 2  # slot of Model
_TENSORS, _INPUTS = 0, 1  # of SubGraph
_SHAPE, _TYPE, _NAME = 0, 1, 3  # of Tensor
_KINDS = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: NO_NUMBERS, 6: "bool", 7: "int16",
    8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip


def read(data: memoryview) -> Declared:
    """What the main graph says of its inputs.

    Raises:
        ValueError: damaged or unusual.
    """
    buffer = _Flatbuffer(data)
    root = buffer.offset(0)
    graphs = buffer.vector(root, _SUBGRAPHS)
    if not graphs[1]:
        raise ValueError("no graph")
    graph = buffer.offset(graphs[0])
    tensors, tensor_count = buffer.vector(graph, _TENSORS)
    start, count = buffer.vector(graph, _INPUTS)
    indices = [buffer.number("<i", start + 4 * i) for i in range(_few(count))]
    if not indices or len(set(indices)) != len(indices) or not all(0 <= index < tensor_count for index in indices):
        raise ValueError("unusual inputs")
    return Declared(tuple(_end(buffer, buffer.offset(tensors + 4 * index)) for index in indices))


def _end(buffer: _Flatbuffer, tensor: int) -> End:
    start, count = buffer.vector(tensor, _SHAPE)
    sizes = [buffer.number("<i", start + 4 * i) for i in range(_few(count))]
    at = buffer.slot(tensor, _TYPE)
    name, length = buffer.vector(tensor, _NAME)
    shape = tuple(size if size > 0 else None for size in sizes)
    return End(
        buffer.text(name, min(length, 4096)),
        _KINDS.get(buffer.number("<b", at) if at else 0),
        shape or None,
    )


def _few(count: int) -> int:
    if count > _MOST:
        raise ValueError("too many")
    return count


class _Flatbuffer:
    """Bounded reads; what points outside the file is a ValueError."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def number(self, form: str, at: int) -> int:
        """One number at a position."""
        try:
            if at < 0:
                raise ValueError("outside the file")
            value: int = struct.unpack_from(form, self._data, at)[0]
        except struct.error as error:
            raise ValueError("outside the file") from error
        return value

    def offset(self, at: int) -> int:
        """Where the offset at a position points."""
        return at + self.number("<I", at)

    def slot(self, table: int, index: int) -> int:
        """Position of a table's field, 0 where it is left out."""
        places = table - self.number("<i", table)
        if 4 + 2 * index + 2 > self.number("<H", places):
            return 0
        relative = self.number("<H", places + 4 + 2 * index)
        return table + relative if relative else 0

    def vector(self, table: int, index: int) -> tuple[int, int]:
        """Position of the first element of a table's vector, and how many there are; (0, 0) where it is left out."""
        at = self.slot(table, index)
        if not at:
            return 0, 0
        start = self.offset(at)
        return start + 4, self.number("<I", start)

    def text(self, at: int, length: int) -> str:
        """Some bytes as text."""
        if at + length > len(self._data):
            raise ValueError("outside the file")
        return bytes(self._data[at : at + length]).decode("utf-8", "surrogateescape")
