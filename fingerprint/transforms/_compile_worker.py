"""Runs alone in an environment that has the converter. Imports nothing of this package.

python _compile_worker.py TARGET IN OUT [fp16 | INPUTS.npy]

IN is a torch.export program, an ONNX model (openvino, mnn) or an OpenVINO network (nncf).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HALF = "fp16"  # weights stored as float16
LARGEST = 32  # batch that an ExecuTorch program takes at most: its memory is planned for that
LARGEST_PACKAGE = 256  # batch that an AOTInductor package takes at most


def openvino(source: str, out: str, *options: str) -> None:
    """NAME.xml with NAME.bin."""
    package = _openvino()
    package.save_model(package.Core().read_model(source), out, compress_to_fp16=HALF in options)


def nncf(source: str, out: str, inputs: str) -> None:
    """Weights and activations as int8, ranges from the inputs (N, ...)."""
    import numpy as np

    package = _openvino()
    import nncf as quantizer

    rows = np.load(inputs)
    network = package.Core().read_model(source)
    batch = network.inputs[0].partial_shape[0]
    size = batch.get_length() if batch.is_static else 1
    data = [np.resize(rows[i : i + size], (size, *rows.shape[1:])) for i in range(0, len(rows), size)]
    made = quantizer.quantize(network, quantizer.Dataset(data), subset_size=len(data))
    package.save_model(made, out, compress_to_fp16=False)


def ncnn(source: str, out: str, *options: str) -> None:
    """NAME.param with NAME.bin, by way of TorchScript."""
    import pnnx
    import torch

    program = torch.export.load(source)
    stem = str(Path(out).with_suffix(""))
    paths = {"ncnnparam": out, "ncnnbin": f"{stem}.bin"}
    module, example = _module(program), (torch.zeros(_shape(program)),)
    _pool_strides(module)
    torch.jit.trace(module, example, check_trace=False).save(f"{stem}.ts.pt")  # type: ignore[no-untyped-call]
    pnnx.convert(f"{stem}.ts.pt", example, fp16=HALF in options, **paths)


def mnn(source: str, out: str, *options: str) -> None:
    """One file, weights inside."""
    from importlib import import_module

    import_module("MNN")  # loads the libraries that its tools need
    arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", out, "--bizCode", "MNN"]
    import_module("_tools").mnnconvert([*arguments, *(["--fp16"] if HALF in options else [])])


def executorch(source: str, out: str, *options: str) -> None:
    """XNNPACK, weights inside; with inputs, weights and activations as int8."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(source)
    program = _quantized(program, options[0]) if options else _bounded(program)
    made = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    Path(out).write_bytes(made.buffer)


def _quantized(program: Any, inputs: str) -> Any:  # noqa: ANN401
    """The program with int8 weights per channel and int8 activations, at its own batch."""
    import numpy as np
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    given = _bounded(program)
    prepared = prepare_pt2e(_module(given), quantizer)
    shape = _shape(given)
    for batch in torch.from_numpy(np.load(inputs)).split(shape[0]):  # type: ignore[no-untyped-call]
        if len(batch) == shape[0]:
            prepared(batch)
    made = convert_pt2e(prepared)
    if _is_open(given):
        return _open_to(LARGEST, made, shape)
    return torch.export.export(made, (torch.zeros(shape),))


def _bounded(program: Any, largest: int = LARGEST) -> Any:  # noqa: ANN401
    """The program with a bound to its open batch; one whose batch is fixed as it is."""
    return _open_to(largest, _module(program), _shape(program)) if _is_open(program) else program


def _open_to(largest: int, module: Any, shape: Sequence[int]) -> Any:  # noqa: ANN401
    """The example is as large as the bound: a smaller one makes the exporter lower the bound."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=largest)
    return torch.export.export(module, (torch.zeros(largest, *shape[1:]),), dynamic_shapes=({0: batch},))


def tvm(source: str, out: str, *options: str) -> None:
    """A shared library for this processor, at batch 1; not tuned."""
    del options
    import torch
    import tvm as package
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    module = from_exported_program(_single(torch.export.load(source)))
    module = relax.get_pipeline("zero")(module)
    package.compile(module, package.target.Target("llvm")).export_library(out)


def aotinductor(source: str, out: str, *options: str) -> None:
    """A package with a shared library, by the C++ compiler of this machine."""
    del options
    import torch
    import torch._inductor

    settings = {"aot_inductor.check_lowerbound": False}  # it would refuse batches of one image
    program = torch.export.load(source)
    program = _bounded(program, LARGEST_PACKAGE)
    program.example_inputs = program.example_inputs or ((torch.zeros(_shape(program)),), {})  # it insists on some
    torch._inductor.aoti_compile_and_package(program, package_path=out, inductor_configs=settings)


def coreml(source: str, out: str, *options: str) -> None:
    """A neural network in one .mlmodel, or an ML program in an .mlpackage folder."""
    import coremltools
    import torch

    program = _single(torch.export.load(source)).run_decompositions({})
    if out.endswith(".mlmodel"):
        coremltools.convert(program, convert_to="neuralnetwork").save(out)
        return
    precision = coremltools.precision.FLOAT16 if HALF in options else coremltools.precision.FLOAT32
    coremltools.convert(program, convert_to="mlprogram", compute_precision=precision).save(out)


def _openvino() -> Any:  # noqa: ANN401
    """The package, without the one that reports its use over the network."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino as package

    return package


def _value(program: Any) -> Any:  # noqa: ANN401
    name = program.graph_signature.user_inputs[0]
    return next(node.meta["val"] for node in program.graph.nodes if node.name == name)


def _is_open(program: Any) -> bool:  # noqa: ANN401
    return not isinstance(_value(program).shape[0], int)


def _shape(program: Any) -> Sequence[int]:  # noqa: ANN401
    """Shape of the one input, at batch 1 where it is open."""
    return [size if isinstance(size, int) else 1 for size in _value(program).shape]


def _single(program: Any) -> Any:  # noqa: ANN401
    """The program at batch 1, unless it fixes another."""
    import torch

    return torch.export.export(_module(program), (torch.zeros(_shape(program)),)) if _is_open(program) else program


def _module(program: Any) -> Any:  # noqa: ANN401
    """The module without the check of its input, which can't be traced."""
    module = program.module(check_guards=False)
    module._forward_pre_hooks.clear()
    return module


def _pool_strides(module: Any) -> None:  # noqa: ANN401
    """Write slices like x[:, :, ::2] as poolings of one pixel: ncnn knows no slices with a step."""
    import torch

    for node in module.graph.nodes:
        if node.op != "call_function" or node.target is not torch.ops.aten.slice.Tensor or len(node.args) < 5:
            continue
        given, axis, start, _, step = node.args
        value = given.meta.get("val")
        whole = start in (0, None) and (node.args[3] is None or node.args[3] >= value.shape[axis])
        if step > 1 and whole and value.ndim == 4 and axis in (2, 3):
            node.target = torch.ops.aten.max_pool2d.default
            node.args = (given, [1, 1], [step, 1] if axis == 2 else [1, step])
    module.recompile()


TARGETS: dict[str, Callable[..., None]] = {
    made.__name__: made for made in (openvino, nncf, ncnn, mnn, executorch, tvm, aotinductor, coreml)
}

if __name__ == "__main__":
    TARGETS[sys.argv[1]](*sys.argv[2:])
