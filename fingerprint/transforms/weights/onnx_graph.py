"""Weights of an ONNX file: initializers, and Constant nodes that hold tensors, in the main graph and below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fingerprint.transforms.interface import Weights
from fingerprint.transforms.onnx_files import load_onnx, save_onnx
from fingerprint.transforms.weights.interface import WeightFile, in_own_type, is_weight

if TYPE_CHECKING:
    import onnx

_PASSED = frozenset({"Cast", "CastLike", "Identity", "DequantizeLinear"})  # operations between a weight and its use


class OnnxWeights(WeightFile):
    """An ONNX file. Weights that are stored as float16 behind a Cast stay float16."""

    def __init__(self, path: Path) -> None:
        self._model = load_onnx(path)
        self._tensors = {name: tensor for name, tensor in _tensors(self._model) if _is_float_weight(tensor)}
        self._stored = {name: _values(tensor) for name, tensor in self._tensors.items()}
        self.weights = {name: value.astype(np.float32) for name, value in self._stored.items()}
        axes = dict(_axes(list(self._model.graph.node)))
        self.axes = {name: axis for name, axis in axes.items() if name in self.weights}

    def _write(self, out: Path, weights: Weights) -> None:
        import onnx

        for name, value in {**self.weights, **weights}.items():
            new = in_own_type(self._stored[name], value)
            self._tensors[name].CopyFrom(onnx.numpy_helper.from_array(new, self._tensors[name].name))
        save_onnx(self._model, out)


def _values(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    from onnx import numpy_helper

    values: NDArray[np.generic] = numpy_helper.to_array(tensor)
    return values


def _is_float_weight(tensor: onnx.TensorProto) -> bool:
    floats = (tensor.FLOAT, tensor.FLOAT16, tensor.BFLOAT16, tensor.DOUBLE)
    return tensor.data_type in floats and is_weight(tensor.dims)


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from _graph_tensors(model.graph, "")
    for function in model.functions:
        yield from _node_tensors(function.node, f"{function.name}/")


def _graph_tensors(graph: onnx.GraphProto, prefix: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield prefix + tensor.name, tensor
    yield from _node_tensors(graph.node, prefix)


def _node_tensors(nodes: list[onnx.NodeProto], prefix: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    for index, node in enumerate(nodes):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield prefix + node.output[0], attribute.t
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g, f"{prefix}{node.name or index}.{attribute.name}/")


def _axes(nodes: list[onnx.NodeProto]) -> Iterator[tuple[str, int]]:
    """Output-channel axes that differ from 0, of the constants of the main graph."""
    producers = {output: node for node in nodes for output in node.output}
    for node in nodes:
        axis = _axis_of(node)
        if axis is None or len(node.input) < 2:
            continue
        name = node.input[1]
        while (producer := producers.get(name)) is not None and producer.op_type in (*_PASSED, "Transpose"):
            if producer.op_type == "Transpose":
                order = next((list(a.ints) for a in producer.attribute if a.name == "perm"), [1, 0])
                axis = order[axis]
            name = producer.input[0]
        yield name, axis


def _axis_of(node: onnx.NodeProto) -> int | None:
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)
