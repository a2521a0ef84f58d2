"""Floating-point and 8-bit constants of an ONNX file, read from the wire format: without the `onnx` package, which
takes longer to import than most models to open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import UnreadableModel
from fingerprint.runtimes.protobuf import Field, message, varints

_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_OUTPUT, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR = 2, 5, 5
_DIMS, _KIND, _FLOATS, _INTEGERS, _NAME, _RAW, _DOUBLES, _LOCATION = 1, 2, 4, 5, 8, 9, 10, 14  # of TensorProto
_KINDS = {1: "<f4", 2: "u1", 3: "i1", 10: "<f2", 11: "<f8"}


def read(path: Path) -> dict[str, NDArray[np.generic]]:
    """Initializers and tensors of constant nodes, by name. Those kept in other files are left out.

    Raises:
        UnreadableModel: damaged.
    """
    found: dict[str, NDArray[np.generic]] = {}
    try:
        for number, graph in message(memoryview(path.read_bytes())):
            if number == _MODEL_GRAPH and isinstance(graph, memoryview):
                _read_graph(graph, found)
    except (ValueError, OverflowError) as error:
        raise UnreadableModel(f"its weights can't be read: {error}") from error
    return found


def _read_graph(graph: memoryview, found: dict[str, NDArray[np.generic]]) -> None:
    for number, value in message(graph):
        if not isinstance(value, memoryview):
            continue
        if number == _GRAPH_INITIALIZER:
            _add(value, "", found)
        elif number == _GRAPH_NODE:
            _read_node(value, found)


def _read_node(node: memoryview, found: dict[str, NDArray[np.generic]]) -> None:
    output = ""
    for number, value in message(node):
        if not isinstance(value, memoryview):
            continue
        if number == _NODE_OUTPUT:
            output = bytes(value).decode("utf-8", "replace")
        elif number == _NODE_ATTRIBUTE:
            for inner, tensor in message(value):
                if inner == _ATTRIBUTE_TENSOR and isinstance(tensor, memoryview):
                    _add(tensor, output, found)


def _add(tensor: memoryview, name: str, found: dict[str, NDArray[np.generic]]) -> None:
    """Add one tensor, if it holds floating-point or 8-bit numbers in the file itself."""
    fields: dict[int, list[Field]] = {}
    for number, value in message(tensor):
        fields.setdefault(number, []).append(value)
    kind = _KINDS.get(_number(fields.get(_KIND, [0])[-1]))
    if kind is None or any(_number(v) for v in fields.get(_LOCATION, [])):
        return
    values = _values(fields, kind)
    shape = _sizes(fields.get(_DIMS, []))
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError("a tensor has not as many values as its shape says")
    own = fields.get(_NAME, [b""])[-1]
    text = bytes(own).decode("utf-8", "replace") if isinstance(own, memoryview) else ""
    found[text or name or f"tensor{len(found)}"] = values.reshape(shape)


def _values(fields: dict[int, list[Field]], kind: str) -> NDArray[np.generic]:
    if _RAW in fields:
        raw = fields[_RAW][-1]
        return np.frombuffer(raw if isinstance(raw, memoryview) else b"", kind)
    if kind == "<f2":  # half floats are stored as integers
        return np.array(_sizes(fields.get(_INTEGERS, [])), np.uint16).view(np.float16)
    if kind in ("u1", "i1"):  # stored as integers of any width; negative ones as 64-bit complements
        return np.array([n & 0xFF for n in _sizes(fields.get(_INTEGERS, []))], np.uint8).view(kind)
    parts = fields.get(_FLOATS if kind == "<f4" else _DOUBLES, [])
    return np.frombuffer(b"".join(bytes(p) for p in parts if isinstance(p, memoryview)), kind)


def _number(value: Field) -> int:
    return value if isinstance(value, int) else 0


def _sizes(values: list[Field]) -> tuple[int, ...]:
    """Repeated integers, packed or not."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
        else:
            found.extend(varints(value))
    return tuple(found)
