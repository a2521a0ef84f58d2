"""Constant tensors of a TensorFlow Lite file, through the schema that LiteRT ships."""

from __future__ import annotations

from pathlib import Path

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
    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    found: dict[str, NDArray[np.generic]] = {}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for t in range(graph.TensorsLength()):
            tensor = graph.Tensors(t)
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            kind = _NUMBERS.get(tensor.Type())
            if kind is None or not isinstance(data, np.ndarray):
                continue
            shape = tuple(int(tensor.Shape(d)) for d in range(tensor.ShapeLength()))
            if data.size == int(np.prod(shape)) * np.dtype(kind).itemsize:
                name = (tensor.Name() or b"").decode("utf-8", "replace")
                found[f"{g}/{name or t}"] = data.view(kind).reshape(shape)
    return found
