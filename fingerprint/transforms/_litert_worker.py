"""Runs alone in an environment that has litert-torch and ai-edge-quantizer. Imports nothing of this package.

python _litert_worker.py convert IN.pt2 OUT.tflite
python _litert_worker.py fp16 | dynamic IN.tflite OUT.tflite
python _litert_worker.py static IN.tflite OUT.tflite INPUTS.npy
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def convert(source: str, out: str) -> None:
    """An exported program with one input, at batch 1 unless it fixes another. The layout stays NCHW."""
    import litert_torch
    import torch

    program = torch.export.load(source)
    name = program.graph_signature.user_inputs[0]
    value = next(node.meta["val"] for node in program.graph.nodes if node.name == name)
    shape = [size if isinstance(size, int) else 1 for size in value.shape]
    example = torch.zeros(shape, dtype=value.dtype)
    litert_torch.convert(program.module(), (example,)).export(out)


def fp16(source: str, out: str) -> None:
    """Weights stored as float16."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    weights = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    work = quantizer.Quantizer(source)
    work.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=config,
        algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
    )
    work.quantize().export_model(out)


def dynamic(source: str, out: str) -> None:
    """Weights stored as int8, activations quantized while it runs."""
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(source)
    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    work.quantize().export_model(out)


def static(source: str, out: str, inputs: str) -> None:
    """Weights and activations int8, ranges from the inputs (N, ...), real-valued."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    signed = with_signature(source, out + ".signed.tflite")
    signature, names = next(iter(Interpreter(signed).get_signature_list().items()))
    detail = Interpreter(signed).get_input_details()[0]
    batch = int(detail["shape"][0])
    data = np.load(inputs).astype(detail["dtype"])
    rows = [np.resize(data[i : i + batch], (batch, *data.shape[1:])) for i in range(0, len(data), batch)]
    work = quantizer.Quantizer(signed)
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    work.quantize(ranges(signed, {signature: [{names["inputs"][0]: row} for row in rows]})).export_model(out)


def ranges(source: str, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Smallest and largest value of each tensor. The quantizer's own moving average of them clips what is rare."""
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    threads, update = os.cpu_count() or 1, qsv_utils.min_max_update
    work = calibrator.Calibrator(Path(source).read_bytes(), num_threads=threads, qsv_update_func=update)
    work.calibrate(samples, manager)
    found: dict[str, Any] = work.get_model_qsvs()
    return found


def with_signature(source: str, signed: str) -> str:
    """Files of older converters name no signature, and the calibrator needs one."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(Path(source).read_bytes(), 0))
    if model.signatureDefs:
        return source
    graph = model.subgraphs[0]
    signature: Any = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_named(schema, f"input_{i}", tensor) for i, tensor in enumerate(graph.inputs)]
    signature.outputs = [_named(schema, f"output_{i}", tensor) for i, tensor in enumerate(graph.outputs)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    Path(signed).write_bytes(bytes(builder.Output()))
    return signed


def _named(schema: Any, name: str, tensor: int) -> Any:  # noqa: ANN401
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(tensor)
    return entry


STEPS: dict[str, Callable[..., None]] = {"convert": convert, "fp16": fp16, "dynamic": dynamic, "static": static}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
