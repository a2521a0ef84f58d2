"""Quantized ONNX files by onnxruntime's own quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fingerprint.errors import MissingExtra
from fingerprint.transforms.onnx_files import load_onnx, onnx_input

BATCH = 32  # calibration images per run, where the file leaves it open


def quantize_static(source: Path, out: Path, inputs: NDArray[np.float32], **options: object) -> None:
    """QDQ with uint8 activations and int8 weights per output channel, ranges from `inputs` (N, ...).

    options: of onnxruntime's `quantize_static`, instead of these.
    """
    prepared = _prepared(source, out)
    from onnxruntime import quantization

    quantization.quantize_static(
        str(prepared),
        str(out),
        _Reader(prepared, inputs),
        **{
            "quant_format": quantization.QuantFormat.QDQ,
            "activation_type": quantization.QuantType.QUInt8,
            "weight_type": quantization.QuantType.QInt8,
            "per_channel": True,
            **options,
        },
    )


def quantize_dynamic(source: Path, out: Path) -> None:
    """Weights as uint8 in the file, activations quantized while it runs."""
    prepared = _prepared(source, out)
    from onnxruntime import quantization

    quantization.quantize_dynamic(str(prepared), str(out), weight_type=quantization.QuantType.QUInt8)


def _prepared(source: Path, out: Path) -> Path:
    """The source with shapes inferred and constants folded, beside `out`."""
    try:
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise MissingExtra("onnxruntime with onnx", "onnx") from error
    prepared = out.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    return prepared


class _Reader:
    """Batches under the name of the model's input, as onnxruntime asks for them."""

    def __init__(self, model: Path, inputs: NDArray[np.float32]) -> None:
        loaded = load_onnx(model)
        shape, dtype = onnx_input(loaded)
        weights = {tensor.name for tensor in loaded.graph.initializer}
        name = next(value.name for value in loaded.graph.input if value.name not in weights)
        self._batches = _batches(name, inputs.astype(dtype), shape[0] if shape else None)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """The next batch, or None at the end."""
        return next(self._batches, None)


def _batches(name: str, inputs: NDArray[np.generic], fixed: int | None) -> Iterator[dict[str, NDArray[np.generic]]]:
    size = fixed or min(BATCH, len(inputs))
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        if len(batch) == size or fixed is None:
            yield {name: batch}
        else:  # repeated images change no range
            yield {name: np.resize(batch, (size, *batch.shape[1:]))}
