"""Weights of a TFLite file: the bytes of constant float tensors are replaced where they lie in the flatbuffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fingerprint.errors import MissingExtra, TransformError
from fingerprint.transforms.files import first_line
from fingerprint.transforms.weights.interface import is_weight
from fingerprint.transforms.weights.safetensors import Region, RegionWeights

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

_DATA = 4  # vtable slot of Buffer.data in schema.fbs
_RIGHT = {"DEPTHWISE_CONV_2D": 3, "CONV_3D": 4, "BATCH_MATMUL": -1}  # axis where it is not 0, of the second input


class TfliteWeights(RegionWeights):
    """A .tflite file. Convolutions are stored OHWI (axis 0), depthwise ones 1HWC (axis 3)."""

    def __init__(self, path: Path) -> None:
        model = load_tflite(path)
        try:
            found = list(_constants(model))
            axes = _axes(model, {key: name for name, key, _ in found})
        except Exception as error:
            raise TransformError(f"{path} is cut or damaged: {first_line(error)}") from error
        super().__init__(path, {name: region for name, _, region in found}, axes)


def load_tflite(path: Path) -> schema.Model:
    """The root table of a TFLite file.

    Raises:
        TransformError: no TFLite file. MissingExtra: its schema is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", "litert") from error
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise TransformError(f"{path} is no TFLite file")
    return schema.Model.GetRootAs(data, 0)


def input_dtype(path: Path) -> str:
    """dtype of the first input: float32, float16, uint8 or int8."""
    model = load_tflite(path)
    graph = model.Subgraphs(0)
    return {0: "float32", 1: "float16", 3: "uint8", 9: "int8"}.get(graph.Tensors(graph.Inputs(0)).Type(), "float32")


def _constants(model: schema.Model) -> Iterator[tuple[str, tuple[int, int], Region]]:
    """(unique name, (subgraph, tensor), place) of float weights; of tensors that share a buffer, the first."""
    from ai_edge_litert import schema_py_generated as schema

    kinds: dict[int, np.dtype[np.generic]] = {
        schema.TensorType.FLOAT32: np.dtype("<f4"),
        schema.TensorType.FLOAT16: np.dtype("<f2"),
    }
    seen: set[int] = set()
    names: set[str] = set()
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        for t in range(graph.TensorsLength()):
            tensor = graph.Tensors(t)
            shape = tuple(int(size) for size in np.atleast_1d(tensor.ShapeAsNumpy()))
            if tensor.Type() not in kinds or not is_weight(shape) or tensor.Buffer() in seen:
                continue
            offset = _offset(model.Buffers(tensor.Buffer()))
            if offset is None:
                continue
            seen.add(tensor.Buffer())
            name = (tensor.Name() or b"").decode(errors="replace")
            name = name if name and name not in names else f"{name}#{g}.{t}"
            names.add(name)
            yield name, (g, t), Region(offset, kinds[tensor.Type()], shape)


def _offset(buffer: schema.Buffer) -> int | None:
    """Where the bytes of a buffer lie in the file; None if it has none (no constant)."""
    if buffer.Offset() > 1:  # large models keep the bytes behind the flatbuffer
        return int(buffer.Offset())
    slot = buffer._tab.Offset(_DATA)
    return int(buffer._tab.Vector(slot)) if slot and buffer.DataLength() else None


def _axes(model: schema.Model, names: dict[tuple[int, int], str]) -> dict[str, int]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    axis_of = {getattr(BuiltinOperator, name): axis for name, axis in _RIGHT.items()}
    axes: dict[str, int] = {}
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        casts: dict[int, int] = {}
        for o in range(graph.OperatorsLength()):
            operator = graph.Operators(o)
            code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
            if code == BuiltinOperator.DEQUANTIZE:
                casts[operator.Outputs(0)] = operator.Inputs(0)
            if code in axis_of and operator.InputsLength() > 1:
                tensor = casts.get(operator.Inputs(1), operator.Inputs(1))
                if (g, tensor) in names:
                    axes[names[g, tensor]] = axis_of[code]
    return axes
