"""Tiny models in every format, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fingerprint.model import InputSpec

SHAPE = (3, 12, 12)
SPEC = InputSpec("NCHW", SHAPE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), classes=5)
SECRET = 0.7310585975646973  # fills example inputs, so that a leak can be found as bytes


def inputs(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def tiny(seed: int = 0):
    """conv, norm, depthwise, pointwise, transposed conv, linear."""
    import torch

    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, groups=8),
        torch.nn.Conv2d(8, 16, 1),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 6, 2),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(6, 5),
    )
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.uniform_(-0.3, 0.3)
                part.running_var.uniform_(0.5, 2.0)
        module[-1].weight *= 4
    return module.eval()


def answers(module, x: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def save_pt2(module, path: Path) -> Path:
    import torch

    example = torch.full((4, *SHAPE), SECRET)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("b", min=1)},))
    torch.export.save(program, path)
    return path


def save_torchscript(module, path: Path, *, frozen: bool = False) -> Path:
    import torch

    traced = torch.jit.trace(module, (torch.full((2, *SHAPE), SECRET),))
    if frozen:
        traced = torch.jit.freeze(traced)
    torch.jit.save(traced, path, _extra_files={"note.txt": b"kept"})
    return path


def save_onnx(path: Path, *, half: bool = False) -> Path:
    """Conv (initializer) and MatMul (Constant node): optionally stored as float16 behind casts."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(1)
    stored = np.float16 if half else np.float32
    kernel = rng.standard_normal((4, 3, 3, 3)).astype(stored)
    matrix = rng.standard_normal((4, 5)).astype(stored)
    bias = rng.standard_normal((1, 4, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Constant", [], ["matrix"], value=numpy_helper.from_array(matrix))]
    names = {"kernel": "kernel", "matrix": "matrix"}
    if half:
        nodes += [helper.make_node("Cast", [n], [f"{n}32"], to=TensorProto.FLOAT) for n in names]
        names = {n: f"{n}32" for n in names}
    nodes += [
        helper.make_node("Conv", ["x", names["kernel"]], ["conv"]),
        helper.make_node("Add", ["conv", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", names["matrix"]], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    return path


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_pt2(path: Path, x: np.ndarray) -> np.ndarray:
    import torch

    return answers(torch.export.load(path).module(), x)


def run_torchscript(path: Path, x: np.ndarray) -> np.ndarray:
    import torch

    return answers(torch.jit.load(path), x)


def run_state(path: Path, x: np.ndarray) -> np.ndarray:
    from fingerprint.transforms.weights.torch_files import load_state_dict

    module = tiny(seed=99)
    module.load_state_dict(load_state_dict(path))
    return answers(module, x)


def run_tflite(path: Path, x: np.ndarray) -> np.ndarray:
    """One image at a time; integer tensors are quantized and dequantized."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    out = []
    for image in x:
        interpreter.set_tensor(taken["index"], _quantized(image[None], taken))
        interpreter.invoke()
        answer = interpreter.get_tensor(given["index"]).astype(np.float32)
        scale, zero = given["quantization"]
        out.append((answer - zero) * scale if scale else answer)
    return np.concatenate(out)


def _quantized(x: np.ndarray, detail: dict) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return x
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(detail["dtype"])
