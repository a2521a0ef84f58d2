"""A tiny TFLite file, written through its schema: no converter is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

NHWC = (6, 6, 3)


def weights(seed: int = 3) -> dict[str, np.ndarray]:
    """conv (O, H, W, I), depthwise (1, H, W, C), dense (O, I), and two biases."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": (4, 3, 3, 3), "conv_bias": (4,), "depthwise": (1, 3, 3, 4), "dense": (5, 16), "bias": (5,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def save_tflite(path: Path, *, half: bool = False) -> Path:
    """conv + relu, depthwise, fully connected. `half`: the matrices are float16 behind DEQUANTIZE."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    op = schema.BuiltinOperator
    writer = _Writer(schema, half)
    x = writer.tensor("x", (1, *NHWC))
    conv, depthwise, dense = (writer.matrix(n) for n in ("conv", "depthwise", "dense"))
    conv_bias, bias = (writer.tensor(n, weights()[n].shape, weights()[n]) for n in ("conv_bias", "bias"))
    no_bias = writer.tensor("zeros", (4,), np.zeros(4, np.float32))
    first, second = writer.tensor("first", (1, 4, 4, 4)), writer.tensor("second", (1, 2, 2, 4))
    y = writer.tensor("y", (1, 5))
    writer.operator(op.CONV_2D, [x, conv, conv_bias], first, "Conv2DOptions", _strided)
    writer.operator(op.DEPTHWISE_CONV_2D, [first, depthwise, no_bias], second, "DepthwiseConv2DOptions", _depthwise)
    writer.operator(op.FULLY_CONNECTED, [second, dense, bias], y, "FullyConnectedOptions", lambda options: None)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(writer.model(x, y).Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def torch_answers(values: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The same function in torch. x: (N, H, W, C)."""
    import torch
    from torch.nn.functional import conv2d

    w = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
    out = conv2d(torch.from_numpy(x).permute(0, 3, 1, 2), w["conv"].permute(0, 3, 1, 2), w["conv_bias"]).relu()
    out = conv2d(out, w["depthwise"].permute(3, 0, 1, 2), groups=4)
    return (out.permute(0, 2, 3, 1).reshape(len(x), -1) @ w["dense"].T + w["bias"]).numpy()


def _strided(options) -> None:
    options.padding, options.strideH, options.strideW = 1, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = 1  # relu


def _depthwise(options) -> None:
    options.padding, options.strideH, options.strideW, options.depthMultiplier = 1, 1, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1


class _Writer:
    def __init__(self, schema, half: bool) -> None:
        self.schema, self.half = schema, half
        self.buffers, self.tensors, self.operators, self.codes = [schema.BufferT()], [], [], []

    def tensor(self, name: str, shape: tuple[int, ...], value: np.ndarray | None = None) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = 1 if value is not None and value.dtype == np.float16 else 0
        if value is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            self.buffers.append(buffer)
            made.buffer = len(self.buffers) - 1
        self.tensors.append(made)
        return len(self.tensors) - 1

    def matrix(self, name: str) -> int:
        value = weights()[name]
        if not self.half:
            return self.tensor(name, value.shape, value)
        stored, cast = self.tensor(name, value.shape, value.astype(np.float16)), self.tensor(f"{name}32", value.shape)
        self.operator(self.schema.BuiltinOperator.DEQUANTIZE, [stored], cast, None, None)
        return cast

    def operator(self, code: int, taken: list[int], given: int, kind: str | None, configure) -> None:
        entry = self.schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = {6: 3}.get(code, 1)
        self.codes.append(entry)
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes) - 1, taken, [given]
        if kind is not None:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(self.schema, f"{kind}T")()
            configure(made.builtinOptions)
        self.operators.append(made)

    def model(self, x: int, y: int):
        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [x], [y]
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        return model
