"""Constant tensors of a TensorFlow Lite file, through the schema that LiteRT ships."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_NUMBERS = {  # of schema.TensorType
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    7: "int16",
    9: "int8",
    10: "float64",
}


def read(path: Path) -> dict[str, NDArray[np.generic]]:
    """Tensors that have data in the file, by `subgraph/name`; sub-byte and exotic types are left out.

    Args:
        path: a TensorFlow Lite file that a runtime has opened before.

    Returns:
        Name -> array in the file's shape; empty where `flatbuffers` is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        return {}
    content = path.read_bytes()
    model = schema.Model.GetRootAsModel(content, 0)
    found: dict[str, NDArray[np.generic]] = {}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for t in range(graph.TensorsLength()):
            tensor = graph.Tensors(t)
            data = _data(model.Buffers(tensor.Buffer()), content)
            kind = _NUMBERS.get(tensor.Type())
            if kind is None or data is None:
                continue
            shape = tuple(int(tensor.Shape(d)) for d in range(tensor.ShapeLength()))
            if data.size == int(np.prod(shape)) * np.dtype(kind).itemsize:
                name = (tensor.Name() or b"").decode("utf-8", "replace")
                found[f"{g}/{name or t}"] = data.view(kind).reshape(shape)
    return found


class _Buffer(Protocol):
    """A buffer of the schema, as far as it is used here."""

    def DataAsNumpy(self) -> object:
        """The bytes inside it; 0 where there are none."""

    def Offset(self) -> int:
        """Where the bytes begin in the file, if they lie behind the flatbuffer."""

    def Size(self) -> int:
        """How many these are."""


def _data(buffer: _Buffer, content: bytes) -> NDArray[np.uint8] | None:
    """A buffer's bytes: in the flatbuffer, or behind it, where converters put those of large and quantized files."""
    inside = buffer.DataAsNumpy()
    if isinstance(inside, np.ndarray):
        return inside
    start, size = buffer.Offset(), buffer.Size()
    if start <= 1 or size <= 1 or start + size > len(content):  # 0 and 1 stand for "nowhere"
        return None
    return np.frombuffer(content, np.uint8, size, start)
